/* cuBLASLt's calls: handles, descriptors, and a matrix product put on a stream. */
#include "tests/emulation/runtime/cublaslt_internal.h"

#include <cstring>
#include <set>

struct cublasLtContext {
    int device;
};

namespace emulation::runtime
{

static const Field product_fields[] = {
    FIELD(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, Product, compute),
    FIELD(CUBLASLT_MATMUL_DESC_SCALE_TYPE, Product, scale),
    FIELD(CUBLASLT_MATMUL_DESC_POINTER_MODE, Product, pointer_mode),
    FIELD(CUBLASLT_MATMUL_DESC_TRANSA, Product, transpose_a),
    FIELD(CUBLASLT_MATMUL_DESC_TRANSB, Product, transpose_b),
    FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE, Product, epilogue),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_POINTER, Product, bias),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, Product, bias_stride),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, Product, bias_type),
    FIELD(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, Product, a_scale),
    FIELD(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, Product, b_scale),
    FIELD(CUBLASLT_MATMUL_DESC_C_SCALE_POINTER, Product, c_scale),
    FIELD(CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, Product, d_scale),
    FIELD(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, Product, a_scale_mode),
    FIELD(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, Product, b_scale_mode),
    FIELD(CUBLASLT_MATMUL_DESC_C_SCALE_MODE, Product, c_scale_mode),
    FIELD(CUBLASLT_MATMUL_DESC_D_SCALE_MODE, Product, d_scale_mode),
    FIELD(CUBLASLT_MATMUL_DESC_FAST_ACCUM, Product, fast_accumulation),
};

static const Field layout_fields[] = {
    FIELD(CUBLASLT_MATRIX_LAYOUT_TYPE, Layout, type),
    FIELD(CUBLASLT_MATRIX_LAYOUT_ORDER, Layout, order),
    FIELD(CUBLASLT_MATRIX_LAYOUT_ROWS, Layout, rows),
    FIELD(CUBLASLT_MATRIX_LAYOUT_COLS, Layout, cols),
    FIELD(CUBLASLT_MATRIX_LAYOUT_LD, Layout, ld),
    FIELD(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, Layout, batch),
    FIELD(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, Layout, stride),
};

static const Field preference_fields[] = {
    FIELD(CUBLASLT_MATMUL_PREF_SEARCH_MODE, Preference, search_mode),
    FIELD(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, Preference, workspace_bytes),
    FIELD(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, Preference, reductions),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, Preference, alignment[0]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, Preference, alignment[1]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, Preference, alignment[2]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, Preference, alignment[3]),
    FIELD(CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT, Preference, waves),
    FIELD(CUBLASLT_MATMUL_PREF_IMPL_MASK, Preference, implementations),
};

static const Field *find(const Field *fields, size_t count, int attribute)
{
    for (size_t i = 0; i < count; i++)
        if (fields[i].attribute == attribute) return &fields[i];
    say("cublasLt: attribute %d is not emulated", attribute);
    return nullptr;
}

cublasStatus_t set_field(void *structure, const Field *fields, size_t count, int attribute,
                         const void *value, size_t bytes)
{
    const Field *field = find(fields, count, attribute);
    if (!field || !value || bytes != field->bytes) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy((char *)structure + field->offset, value, field->bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t get_field(const void *structure, const Field *fields, size_t count, int attribute,
                         void *value, size_t bytes, size_t *written)
{
    const Field *field = find(fields, count, attribute);
    if (!field || (bytes == 0 && !written) || (bytes > 0 && (!value || bytes < field->bytes)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (written) *written = field->bytes;
    if (bytes) memcpy(value, (const char *)structure + field->offset, field->bytes);
    return CUBLAS_STATUS_SUCCESS;
}

static float scale(const void *pointer) { return pointer ? *(const float *)pointer : 1; }

/* Does the last element of the last matrix lie in the same allocation as the first? */
static bool in_memory(const void *pointer, const Layout &l)
{
    bool columns = l.order == CUBLASLT_ORDER_COL;
    uint64_t lines = columns ? l.cols : l.rows, line = columns ? l.rows : l.cols;
    uint64_t elements =
        (uint64_t)(l.batch - 1) * (uint64_t)l.stride + (lines - 1) * (uint64_t)l.ld + line;
    return device_range(pointer, elements * element_bytes(l.type));
}

static cublasStatus_t check_memory(const Problem &p, const Operands &o, bool uses_c,
                                   size_t workspace_bytes)
{
    const char *outside = !in_memory(o.a, p.a)             ? "A"
                          : !in_memory(o.b, p.b)           ? "B"
                          : uses_c && !in_memory(o.c, p.c) ? "C"
                          : !in_memory(o.d, p.d)           ? "D"
                                                           : nullptr;
    bool bias = p.product.epilogue & CUBLASLT_EPILOGUE_BIAS;
    uint64_t biases = (uint64_t)(p.d.batch - 1) * (uint64_t)p.product.bias_stride + p.m;
    if (bias && !device_range(o.bias, biases * element_bytes(bias_type(p)))) outside = "the bias";
    if (workspace_bytes && !device_range(o.workspace, workspace_bytes)) outside = "the workspace";
    if (outside) {
        say("cublasLtMatmul: %s does not lie in device memory as far as its layout says", outside);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    size_t alignment = p.a.type == CUDA_R_8F_E4M3 ? 16 : element_bytes(p.a.type);
    bool aligned = (uintptr_t)o.a % alignment == 0 && (uintptr_t)o.b % alignment == 0 &&
                   (uintptr_t)o.d % element_bytes(p.d.type) == 0;
    return aligned ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* What is read when the product runs: scales and, in device pointer mode, alpha and beta. */
static void run(const Problem &p, const Algorithm &algorithm, Operands o, const void *alpha,
                const void *beta)
{
    DeviceAccess access;
    if (p.product.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE) {
        o.alpha = *(const float *)alpha;
        o.beta = *(const float *)beta;
    }
    o.a_scale = scale(p.product.a_scale);
    o.b_scale = scale(p.product.b_scale);
    o.c_scale = scale(p.product.c_scale);
    o.d_scale = p.d.type == CUDA_R_8F_E4M3 ? scale(p.product.d_scale) : 1;
    multiply(p, algorithm, o);
}

static std::set<cublasLtHandle_t> handles;

} // namespace emulation::runtime

using namespace emulation::runtime;

#define COUNT(array) (sizeof(array) / sizeof *(array))

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    Api api;
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    *handle = nullptr;
    if (api.error) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasLtContext{0};
    cudaGetDevice(&(*handle)->device);
    handles.insert(*handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    Api api;
    if (!handles.erase(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void) { return number_setting("CUBLASLT", CUBLAS_VERSION); }

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR:
        return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "unknown";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }

/* ---- descriptors ---- */

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t bytes,
                                               cublasComputeType_t compute, cudaDataType_t scale)
{
    if (!desc || bytes < sizeof(Product)) return CUBLAS_STATUS_INVALID_VALUE;
    Product p = {};
    p.magic = product_magic;
    p.compute = compute;
    p.scale = scale;
    p.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    p.bias_type = -1;
    memcpy(desc, &p, sizeof p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (!desc) return CUBLAS_STATUS_INVALID_VALUE;
    *desc = new cublasLtMatmulDescOpaque_t{};
    return cublasLtMatmulDescInit_internal(*desc, sizeof **desc, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    if (!desc) return CUBLAS_STATUS_INVALID_VALUE;
    return set_field(desc, product_fields, COUNT(product_fields), attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute, void *value,
                                              size_t bytes, size_t *written)
{
    if (!desc) return CUBLAS_STATUS_INVALID_VALUE;
    return get_field(desc, product_fields, COUNT(product_fields), attribute, value, bytes, written);
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t bytes,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld)
{
    if (!layout || bytes < sizeof(Layout)) return CUBLAS_STATUS_INVALID_VALUE;
    Layout l = {layout_magic, (uint32_t)type, CUBLASLT_ORDER_COL, 1, rows, cols, ld, 0};
    memcpy(layout, &l, sizeof l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
    *layout = new cublasLtMatrixLayoutOpaque_t{};
    return cublasLtMatrixLayoutInit_internal(*layout, sizeof **layout, type, rows, cols, ld);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
    return set_field(layout, layout_fields, COUNT(layout_fields), attribute, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                void *value, size_t bytes, size_t *written)
{
    if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
    return get_field(layout, layout_fields, COUNT(layout_fields), attribute, value, bytes, written);
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference,
                                                     size_t bytes)
{
    if (!preference || bytes < sizeof(Preference)) return CUBLAS_STATUS_INVALID_VALUE;
    Preference p = {};
    p.magic = preference_magic;
    p.reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
    for (uint32_t &alignment : p.alignment) alignment = 256;
    memcpy(preference, &p, sizeof p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    if (!preference) return CUBLAS_STATUS_INVALID_VALUE;
    *preference = new cublasLtMatmulPreferenceOpaque_t{};
    return cublasLtMatmulPreferenceInit_internal(*preference, sizeof **preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    if (!preference) return CUBLAS_STATUS_INVALID_VALUE;
    return set_field(preference, preference_fields, COUNT(preference_fields), attribute, value,
                     bytes);
}

cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written)
{
    if (!preference) return CUBLAS_STATUS_INVALID_VALUE;
    return get_field(preference, preference_fields, COUNT(preference_fields), attribute, value,
                     bytes, written);
}

/* ---- the product ---- */

/* Without an algorithm cuBLASLt asks its own heuristics, with the workspace as its limit. */
static bool pick(const Problem &p, const cublasLtMatmulAlgo_t *algo, size_t workspace_bytes,
                 Algorithm *algorithm)
{
    if (algo) {
        memcpy(algorithm, algo, sizeof *algorithm);
        return true;
    }
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulPreferenceInit_internal(&preference, sizeof preference);
    ((Preference *)&preference)->workspace_bytes = workspace_bytes;
    cublasLtMatmulHeuristicResult_t result;
    if (!choose_algorithms(p, *(const Preference *)&preference, 1, &result)) return false;
    memcpy(algorithm, &result.algo, sizeof *algorithm);
    return true;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    Api api;
    if (!handles.count(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (api.error) return CUBLAS_STATUS_EXECUTION_FAILED;
    if (!alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
    Problem p;
    cublasStatus_t status =
        make_problem((const Product *)product, (const Layout *)a_layout, (const Layout *)b_layout,
                     (const Layout *)c_layout, (const Layout *)d_layout, &p);
    if (status) return status;
    bool in_place = c == d;
    if (in_place && memcmp(&p.c, &p.d, sizeof p.c)) return CUBLAS_STATUS_INVALID_VALUE;

    Algorithm algorithm;
    size_t needed;
    if (!pick(p, algo, workspace_bytes, &algorithm)) return CUBLAS_STATUS_NOT_SUPPORTED;
    status = check_algorithm(p, algorithm, &needed);
    if (status || needed > workspace_bytes) return status ? status : CUBLAS_STATUS_INVALID_VALUE;

    Operands o = {(const char *)a,
                  (const char *)b,
                  (const char *)c,
                  (const char *)p.product.bias,
                  (char *)d,
                  (char *)workspace,
                  1,
                  0,
                  1,
                  1,
                  1,
                  1};
    bool host = p.product.pointer_mode == CUBLASLT_POINTER_MODE_HOST;
    if (host) {
        o.alpha = *(const float *)alpha;
        o.beta = *(const float *)beta;
    }
    bool uses_c = !host || o.beta != 0;
    if ((status = check_memory(p, o, uses_c, needed))) return status;
    auto work = [=] { run(p, algorithm, o, alpha, beta); };
    cudaError_t error = enqueue_operation(stream, "cublasLtMatmul", at_once(work));
    return error ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
