/* Reductions. Small floats are added in float and rounded once, at the end; NCCL rounds after every
 * addition and in an order of its own, so last bits differ from it. */
#include "tests/emulation/runtime/nccl_internal.h"

#include <cstring>
#include <type_traits>

namespace emulation::runtime
{

template <class T> static T load(const char *p)
{
    T value;
    memcpy(&value, p, sizeof value);
    return value;
}

template <class T> static auto widen(T value)
{
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
        return __bfloat162float(value);
    else if constexpr (std::is_same_v<T, __half>)
        return __half2float(value);
    else
        return value;
}

template <class T, class W> static T narrow(W value)
{
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
        return __float2bfloat16_rn(value);
    else if constexpr (std::is_same_v<T, __half>)
        return __float2half_rn(value);
    else
        return (T)value;
}

template <class W> static W combine(W a, W b, ncclRedOp_t reduction)
{
    switch (reduction) {
    case ncclProd:
        return (W)(a * b);
    case ncclMax:
        return b > a ? b : a;
    case ncclMin:
        return b < a ? b : a;
    default:
        return (W)(a + b);
    }
}

template <class T>
static void reduce_as(char *to, const char *data, int ranks, size_t count, ncclRedOp_t reduction)
{
    for (size_t i = 0; i < count; i++) {
        auto sum = widen(load<T>(data + i * sizeof(T)));
        for (int r = 1; r < ranks; r++) {
            const char *other = data + ((size_t)r * count + i) * sizeof(T);
            sum = combine(sum, widen(load<T>(other)), reduction);
        }
        if (reduction == ncclAvg) sum = (decltype(sum))(sum / (decltype(sum))ranks);
        T result = narrow<T>(sum);
        memcpy(to + i * sizeof(T), &result, sizeof result);
    }
}

bool reducible(ncclDataType_t type, ncclRedOp_t reduction)
{
    return type != ncclFloat8e4m3 && type != ncclFloat8e5m2 && reduction >= ncclSum &&
           reduction < ncclNumOps;
}

void reduce(void *to, const char *data, int ranks, size_t count, ncclDataType_t type,
            ncclRedOp_t reduction)
{
    char *out = (char *)to;
    switch (type) {
    case ncclInt8:
        return reduce_as<int8_t>(out, data, ranks, count, reduction);
    case ncclUint8:
        return reduce_as<uint8_t>(out, data, ranks, count, reduction);
    case ncclInt32:
        return reduce_as<int32_t>(out, data, ranks, count, reduction);
    case ncclUint32:
        return reduce_as<uint32_t>(out, data, ranks, count, reduction);
    case ncclInt64:
        return reduce_as<int64_t>(out, data, ranks, count, reduction);
    case ncclUint64:
        return reduce_as<uint64_t>(out, data, ranks, count, reduction);
    case ncclFloat16:
        return reduce_as<__half>(out, data, ranks, count, reduction);
    case ncclFloat32:
        return reduce_as<float>(out, data, ranks, count, reduction);
    case ncclFloat64:
        return reduce_as<double>(out, data, ranks, count, reduction);
    case ncclBfloat16:
        return reduce_as<__nv_bfloat16>(out, data, ranks, count, reduction);
    default:
        die("ncclAllReduce of %s is not emulated", name_of(type));
    }
}

} // namespace emulation::runtime
