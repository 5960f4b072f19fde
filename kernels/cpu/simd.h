/* What the *_simd.c files provide: each is compiled once per instruction set and exports one table
 * per set. */
#ifndef RINGREEL_SIMD_H
#define RINGREEL_SIMD_H

#include "kernels/ops.h"

/* One row of n channels each. A sum runs in the lanes of two registers, which are folded in a fixed
 * order: the same bits at every call, but not for every register width. */
struct rows_simd {
    /* y = norm(x) * (1 + scale) + shift; scale, shift may be NULL */
    void (*norm)(float *y, const float *x, int64_t n, enum norm kind, float eps, const float *scale,
                 const float *shift);
    /* y = norm(x) * weight + bias; bias may be NULL */
    void (*norm_weight)(float *y, const float *x, int64_t n, enum norm kind, float eps,
                        const float *weight, const float *bias);
    void (*rotate)(float *x, const struct rope *rope, const int32_t *coord);
    void (*gate)(float *x, const float *y, int64_t n, const float *gate); /* gate may be NULL */
    void (*gelu_gate)(float *y, const float *a, const float *b, int64_t n);
    void (*gelu)(float *x, int64_t n);
    void (*silu)(float *y, const float *x, int64_t n);
    void (*lincomb)(float *out, float a, const float *x, float b, const float *y,
                    int64_t n); /* y may be NULL */
    void (*to_bytes)(uint8_t *bytes, const float *y, int64_t n);
    void (*to_words)(uint16_t *words, const float *y, int64_t n);
    void (*to_bf16)(uint16_t *y, const float *x, int64_t n); /* to nearest, ties to even */
};
extern const struct rows_simd rows_generic, rows_avx2, rows_avx512, rows_avx512_bf16;

/* A tile of C gains a sum of products (gemm_inline.h). A: element (i, k) of tap t is a[t][i * a_row
 * + k], or a[t][k * tile_rows + i] when packed. B: panels of 16 columns [k][16]; tap t begins at b
 * + t * b_tap, the next panel is b_panel further. */
struct tile_ab {
    const float *const *a;
    int64_t taps, a_row, k;
    const float *b;
    int64_t b_tap, b_panel;
};

struct gemm_simd {
    int tile_rows, tile_panels; /* the largest tile */
    int a_words;                /* floats of a packed row of `a` per k */
    /* c [rows][16 * panels], c_row floats apart, = (init or, when that is NULL, c) + a b; init [16
     * * panels] */
    void (*tile)(int rows, int panels, bool packed, const struct tile_ab *g, float *c,
                 int64_t c_row, const float *init);
};
extern const struct gemm_simd gemm_generic, gemm_avx2, gemm_avx512, gemm_avx512_bf16;

/* The same of bf16 operands: every float of b holds a pair of them, the even input in its low half,
 * and k counts pairs. So does a, or its pairs are taken apart: a_words is 2, and element k of row i
 * is a[0][2 * k * tile_rows + i], the odd input, and a[0][(2 * k + 1) * tile_rows + i]. `packed` is
 * true, `taps` 1. */
extern const struct gemm_simd gemm_bf16_generic, gemm_bf16_avx2, gemm_bf16_avx512,
    gemm_bf16_avx512_bf16;

/* The transforms of Winograd's minimal filtering (winograd.c) for n channels, a multiple of 16, or
 * 16. The 16 values of a tile lie `step` floats apart. */
struct winograd_simd {
    /* of a tile's 4x4 inputs */
    void (*input)(float *to, int64_t step, const float *const from[16], int64_t n);
    /* of 3x3 weights, which lie `tap` floats apart */
    void (*weights)(float *to, int64_t step, const float *from, int64_t tap, int64_t n);
    /* a tile's 2x2 outputs, to[i] NULL: not wanted; plus add[i] unless that is NULL */
    void (*output)(float *const to[4], const float *const add[4], const float *from, int64_t step);
};
extern const struct winograd_simd winograd_generic, winograd_avx2, winograd_avx512,
    winograd_avx512_bf16;

/* Query rows of one head, continued with packed keys and values (layout: attention.c). */
struct attention_task {
    float *o, *m, *l; /* running output [rows][d padded], maximum and sum [rows] */
    const float *q;   /* [rows][d], q_row floats apart */
    int64_t q_row, rows, d;
    float scale; /* log2(e) included: scores are exponents of 2 */
    const float
        *kv; /* this head's part of the first granule; the next granule's is kv_step further */
    int64_t kv_step, keys, granule;
    const float
        *bias;      /* NULL, or added to the score of (row i, key j): bias[j - i], times log2(e) */
    float *scratch; /* attention_scratch_floats */
};

struct attention_simd {
    void (*attend)(const struct attention_task *task);
};
extern const struct attention_simd attention_generic, attention_avx2, attention_avx512,
    attention_avx512_bf16;

enum {
    QUERY_CHUNK = 96,
    QUERY_GROUP = 24
}; /* rows a task; rows whose scores are in the first cache together */
static inline int64_t attention_scratch_floats(int64_t head_dim, int64_t granule)
{
    return QUERY_CHUNK * head_dim + QUERY_GROUP * granule;
}

#endif
