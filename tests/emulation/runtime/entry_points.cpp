/* Driver functions that the runtime hands out by name: cuTensorMapEncodeTiled is the core's. */
#include "tests/emulation/runtime/state.h"

#include <cuda.h>
#include <cstring>

namespace emulation::runtime
{

/* TMA came with compute capability 9.0. */
static CUresult encode_nothing(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                               const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                               const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                               CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

} // namespace emulation::runtime

using namespace emulation::runtime;

extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function,
                                                        unsigned version, unsigned long long flags,
                                                        cudaDriverEntryPointQueryResult *result)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!symbol || !function || flags > cudaEnablePerThreadDefaultStream)
        return fail(cudaErrorInvalidValue);
    bool known = !strcmp(symbol, "cuTensorMapEncodeTiled");
    bool found = known && version >= 12000; /* the function came with CUDA 12.0 */
    auto *encode = compute_capability() < 90 ? encode_nothing : cuTensorMapEncodeTiled;
    *function = found ? (void *)encode : nullptr;
    if (result)
        *result = found   ? cudaDriverEntryPointSuccess
                  : known ? cudaDriverEntryPointVersionNotSufficent
                          : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
