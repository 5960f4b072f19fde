/* Values in memory of one type or another, in registers as fp32: how they are read and written, V
 * neighbours at a time; grids; kernels that are a function of a place in an array. */
#ifndef RINGREEL_CUDA_VALUES_H
#define RINGREEL_CUDA_VALUES_H

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

#include <type_traits>

#define DEVICE_INLINE static __device__ __forceinline__

using bf16 = __nv_bfloat16;
struct e4m3 {
    uint8_t bits;
};

/* How many values of two types a thread moves at a time: 16 bytes of the wider one. */
template <class A, class B = A> constexpr int VECTOR = sizeof(A) == 4 || sizeof(B) == 4 ? 4 : 8;

/* ---- one value ------------------------------------------------------------------------------- */

DEVICE_INLINE float value_of(float x) { return x; }
DEVICE_INLINE float value_of(bf16 x) { return __bfloat162float(x); }
DEVICE_INLINE float value_of(__half x) { return __half2float(x); }
/* The exponent's and mantissa's bits in fp32's places, 120 added to the exponent. A subnormal is
 * read as 1.m * 2^-6, from which 2^-6 is taken away. */
DEVICE_INLINE float value_of(e4m3 x)
{
    uint32_t magnitude = x.bits & 0x7Fu, sign = (x.bits & 0x80u) << 24;
    bool subnormal = magnitude < 8;
    float value = __uint_as_float((magnitude << 20) + ((subnormal ? 121u : 120u) << 23)) -
                  (subnormal ? 0x1p-6f : 0.0f);
    return __uint_as_float((magnitude == 0x7F ? 0x7FC00000u : __float_as_uint(value)) | sign);
}

DEVICE_INLINE void set_value(float &to, float x) { to = x; }
DEVICE_INLINE void set_value(bf16 &to, float x) { to = __float2bfloat16_rn(x); }

/* ---- V neighbours ---------------------------------------------------------------------------- */

/* As one or several accesses of up to 16 bytes. */
template <class T, int V> struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Neighbours {
    static constexpr int BYTES = sizeof(T) * V;
    using Small = std::conditional_t<BYTES == 2, uint16_t, uint32_t>;
    using Word = std::conditional_t<BYTES % 16 == 0, uint4,
                                    std::conditional_t<BYTES % 8 == 0, uint2, Small>>;
    static constexpr int WORDS = BYTES / sizeof(Word);
    T value[V];
};

/* `left` values from p on, zeros behind them; aligned: p is a multiple of the access. */
template <int V, class T>
DEVICE_INLINE void load_values(float (&to)[V], const T *p, int64_t left, bool aligned)
{
    using Group = Neighbours<T, V>;
    if (aligned && left >= V) {
        Group group;
        auto *words = reinterpret_cast<typename Group::Word *>(&group);
#pragma unroll
        for (int i = 0; i < Group::WORDS; i++)
            words[i] = reinterpret_cast<const typename Group::Word *>(p)[i];
#pragma unroll
        for (int i = 0; i < V; i++) to[i] = value_of(group.value[i]);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) to[i] = i < left ? value_of(p[i]) : 0.0f;
    }
}

template <int V, class T>
DEVICE_INLINE void store_values(T *p, const float (&from)[V], int64_t left, bool aligned)
{
    using Group = Neighbours<T, V>;
    if (aligned && left >= V) {
        Group group;
#pragma unroll
        for (int i = 0; i < V; i++) set_value(group.value[i], from[i]);
        auto *words = reinterpret_cast<const typename Group::Word *>(&group);
#pragma unroll
        for (int i = 0; i < Group::WORDS; i++)
            reinterpret_cast<typename Group::Word *>(p)[i] = words[i];
    } else {
#pragma unroll
        for (int i = 0; i < V; i++)
            if (i < left) set_value(p[i], from[i]);
    }
}

/* ---- functions of one value ------------------------------------------------------------------ */

/* Bounded, so that an infinite x meets no 0 * infinity; NaN is read as the lower bound. */
DEVICE_INLINE float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-fminf(fmaxf(x, -87.0f), 87.0f)));
}
DEVICE_INLINE float silu(float x) { return x * sigmoid(x); }
/* 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
DEVICE_INLINE float gelu(float x)
{
    return x * sigmoid(x * (1.59576912f + 0.0713548163f * (x * x)));
}

/* a / b for 0 <= a, 0 < b: in 32 bits where they are enough. */
DEVICE_INLINE int64_t quotient(int64_t a, int64_t b)
{
    if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
    return a / b;
}

/* ---- launching ------------------------------------------------------------------------------- */

inline bool aligned_16(const void *p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

inline dim3 blocks_for(int64_t work)
{
    return dim3(static_cast<unsigned>(work < launch_blocks_most ? work : launch_blocks_most));
}

/* f(float()) or f(bf16()) */
template <class F> int with_type(enum dtype type, F f)
{
    if (type == DTYPE_F32) return f(float());
    if (type == DTYPE_BF16) return f(bf16());
    return cudaErrorInvalidValue;
}
template <class F> int with_types(enum dtype a, enum dtype b, F f)
{
    return with_type(
        a, [&](auto first) { return with_type(b, [&](auto second) { return f(first, second); }); });
}

/* Calls f(row, column, left) for every F::STEP-th of `columns` columns of every row; left: columns
 * from there to the row's end. Everything else is in f's members. */
constexpr int EACH_THREADS = 256;

template <class F>
__global__ void __launch_bounds__(EACH_THREADS) each_kernel(F f, int64_t rows, int64_t columns)
{
    constexpr int64_t SEGMENT = EACH_THREADS * F::STEP;
    int64_t segments = (columns + SEGMENT - 1) / SEGMENT;
    for (int64_t b = blockIdx.x; b < rows * segments; b += gridDim.x) {
        int64_t row = rows == 1 ? 0 : quotient(b, segments);
        int64_t column = (b - row * segments) * SEGMENT + threadIdx.x * F::STEP;
        if (column < columns) f(row, column, columns - column);
    }
}

template <class F> int launch_each(cudaStream_t stream, const F &f, int64_t rows, int64_t columns)
{
    constexpr int64_t SEGMENT = EACH_THREADS * F::STEP;
    if (rows <= 0 || columns <= 0) return cudaSuccess;
    return launch_kernel(blocks_for(rows * ((columns + SEGMENT - 1) / SEGMENT)), dim3(EACH_THREADS),
                         0, stream, each_kernel<F>, f, rows, columns);
}

#endif
