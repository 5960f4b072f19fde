/* Inside *_simd.c only: exported names carry the instruction set; registers as GCC vectors; exp2
 * and what follows. */
#ifndef RINGREEL_SIMD_INLINE_H
#define RINGREEL_SIMD_INLINE_H

#include "kernels/cpu/simd.h"

#include <immintrin.h>
#include <string.h>

/* Vectors are only passed between functions that are inlined: no call ever depends on their ABI. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define SIMD_PASTE2(name, isa) name##_##isa
#define SIMD_PASTE(name, isa) SIMD_PASTE2(name, isa)
#define SIMD_NAME(name) SIMD_PASTE(name, RR_ISA)

#define SIMD_INLINE static inline __attribute__((always_inline))

/* SIMD_WIDTH floats a register; a register tile of a product has TILE_ROWS rows and TILE_PANELS
 * panels of 16 columns (gemm_inline.h). */
#if defined(__AVX512F__)
enum { SIMD_WIDTH = 16, TILE_ROWS = 12, TILE_PANELS = 2 };
#define SIMD_MAX _mm512_max_ps
#define SIMD_MIN _mm512_min_ps
#elif defined(__AVX2__)
enum { SIMD_WIDTH = 8, TILE_ROWS = 6, TILE_PANELS = 1 };
#define SIMD_MAX _mm256_max_ps
#define SIMD_MIN _mm256_min_ps
#else
enum { SIMD_WIDTH = 4, TILE_ROWS = 2, TILE_PANELS = 1 };
#define SIMD_MAX _mm_max_ps
#define SIMD_MIN _mm_min_ps
#endif

typedef float vf __attribute__((vector_size(4 * SIMD_WIDTH)));
typedef int32_t vi __attribute__((vector_size(4 * SIMD_WIDTH)));
typedef uint32_t vu __attribute__((vector_size(4 * SIMD_WIDTH)));
typedef float vf_memory
    __attribute__((vector_size(4 * SIMD_WIDTH), aligned(4), may_alias)); /* float arrays as vf */

SIMD_INLINE vf vf_load(const float *p) { return *(const vf_memory *)p; }
SIMD_INLINE void vf_store(float *p, vf x) { *(vf_memory *)p = x; }
SIMD_INLINE vf vf_all(float x) { return x - (vf){0}; }

/* Fewer than SIMD_WIDTH floats; the rest of the register is zero. */
SIMD_INLINE vf vf_load_part(const float *p, int64_t n)
{
    vf x = {0};
    memcpy(&x, p, sizeof(float) * (size_t)n);
    return x;
}
SIMD_INLINE void vf_store_part(float *p, vf x, int64_t n)
{
    memcpy(p, &x, sizeof(float) * (size_t)n);
}

/* The lanes' sum and maximum: halves of the register are folded together until one lane is left. */
#if defined(__AVX512F__)
#define VF_FOLD_TO_128(x, op)                                                                      \
    op(op(_mm512_castps512_ps128(x), _mm512_extractf32x4_ps(x, 2)),                                \
       op(_mm512_extractf32x4_ps(x, 1), _mm512_extractf32x4_ps(x, 3)))
#elif defined(__AVX2__)
#define VF_FOLD_TO_128(x, op) op(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1))
#else
#define VF_FOLD_TO_128(x, op) (x)
#endif
#define VF_FOLD(x, op)                                                                             \
    ({                                                                                             \
        __m128 four = VF_FOLD_TO_128(x, op);                                                       \
        four = op(four, _mm_movehl_ps(four, four));                                                \
        _mm_cvtss_f32(op(four, _mm_shuffle_ps(four, four, 1)));                                    \
    })
SIMD_INLINE float vf_sum(vf x) { return VF_FOLD(x, _mm_add_ps); }
SIMD_INLINE float vf_largest(vf x) { return VF_FOLD(x, _mm_max_ps); }

/* 2^x for |x| <= 126, within 2e-7 (minimax polynomial of degree 5 with p(0) = 1); beyond it stays
 * at the bound, so -inf gives 2^-126, never NaN. Adding 1.5 * 2^23 leaves round(x) in the low bits,
 * which are then added to the exponent. */
SIMD_INLINE vf vf_exp2(vf x)
{
    const vf magic = vf_all(12582912.0f);
    x = SIMD_MAX(x, vf_all(-126.0f));
    x = SIMD_MIN(x, vf_all(126.0f));
    vf whole = x + magic, f = x - (whole - magic);
    vf p = 1.32764725e-3f * f + 9.67554096e-3f;
    p = p * f + 5.55071309e-2f;
    p = p * f + 2.40221202e-1f;
    p = p * f + 6.93146944e-1f;
    p = p * f + 1.0f;
    return (vf)((vu)p + ((vu)whole << 23));
}

/* 1 / (1 + e^-x). log2(e) in two parts keeps the fraction of a large exponent accurate. */
SIMD_INLINE vf vf_sigmoid(vf x)
{
    x = SIMD_MIN(SIMD_MAX(x, vf_all(-87.0f)), vf_all(87.0f));
    vf high = -1.44269502f * x, low = (-1.44269502f * x - high) - 1.92596303e-8f * x;
    vf e = vf_exp2(high);
    return 1.0f / (1.0f + (e + e * (low * 0.693147182f)));
}

SIMD_INLINE vf vf_silu(vf x) { return x * vf_sigmoid(x); }

/* 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
SIMD_INLINE vf vf_gelu(vf x) { return x * vf_sigmoid(x * (1.59576912f + 0.0713548163f * (x * x))); }

#endif
