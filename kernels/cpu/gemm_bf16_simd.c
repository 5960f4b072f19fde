/* Products of a few rows with panels of packed weights, both rounded to bf16, summed in fp32: the
 * tile of gemm_simd.c with a pair of inputs where that has one.
 *
 * A product of two bf16 numbers is exact in fp32, so a step has one rounding whether it is one
 * instruction, a fused multiply-add or two operations: every instruction set gives the same bits,
 * but for numbers below 2^-126, which AVX512-BF16 takes as zero. Of a pair, the odd input is added
 * first, as that instruction does. */
#include "kernels/cpu/gemm_inline.h"

/* acc += the products of a step; `rows` and `vectors` are constants at every use. */
#if defined(__AVX512BF16__)
enum { A_WORDS = 1 };
SIMD_INLINE void pair_step(vf acc[TILE_ROWS][TILE_VECTORS], const int rows, const int vectors,
                           const float *a, const float *b, int64_t b_panel)
{
    vf bk[TILE_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) bk[v] = vf_load(tile_vector(b, b_panel, v));
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
        vf x = vf_all(a[i]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            acc[i][v] = _mm512_dpbf16_ps(acc[i][v], (__m512bh)x, (__m512bh)bk[v]);
    }
}
#else
enum { A_WORDS = 2 }; /* taking pairs of a apart in here costs a third of the speed */
SIMD_INLINE void pair_step(vf acc[TILE_ROWS][TILE_VECTORS], const int rows, const int vectors,
                           const float *a, const float *b, int64_t b_panel)
{
#pragma GCC unroll 2
    for (int even = 0; even < 2; even++, a += TILE_ROWS) {
        vf bk[TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            vu pair = (vu)vf_load(tile_vector(b, b_panel, v));
            bk[v] = (vf)(even ? pair << 16 : pair & 0xffff0000u);
        }
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            float x = a[i];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) acc[i][v] += x * bk[v];
        }
    }
}
#endif

SIMD_INLINE void product(const int rows, const int vectors, const struct tile_ab *g, float *c,
                         int64_t c_row, const float *init)
{
    vf acc[TILE_ROWS][TILE_VECTORS];
    const float *a = g->a[0], *b = g->b;
    tile_load(acc, rows, vectors, c, c_row, init);
#pragma GCC unroll 1
    for (int64_t k = 0; k < g->k; k++, a += A_WORDS * TILE_ROWS, b += PANEL)
        pair_step(acc, rows, vectors, a, b, g->b_panel);
    tile_store(acc, rows, vectors, c, c_row);
}

#define DEFINE(rows)                                                                               \
    static void wide_##rows(const struct tile_ab *g, float *c, int64_t c_row, const float *init)   \
    {                                                                                              \
        product(rows, TILE_VECTORS, g, c, c_row, init);                                            \
    }                                                                                              \
    static void one_##rows(const struct tile_ab *g, float *c, int64_t c_row, const float *init)    \
    {                                                                                              \
        product(rows, PANEL / SIMD_WIDTH, g, c, c_row, init);                                      \
    }
TILE_CASES(DEFINE)

#define WIDE(rows) wide_##rows,
#define ONE(rows) one_##rows,
static tile_function *const table[2][TILE_ROWS] = {{TILE_CASES(ONE)}, {TILE_CASES(WIDE)}};

/* Only ever packed, and with one tap. */
static void gemm_tile(int rows, int panels, bool packed, const struct tile_ab *g, float *c,
                      int64_t c_row, const float *init)
{
    (void)packed;
    table[panels == TILE_PANELS][rows - 1](g, c, c_row, init);
}

const struct gemm_simd SIMD_NAME(gemm_bf16) = {
    .tile_rows = TILE_ROWS,
    .tile_panels = TILE_PANELS,
    .a_words = A_WORDS,
    .tile = gemm_tile,
};
