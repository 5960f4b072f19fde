/* The one inner loop of all matrix products: a tile of C, kept in registers, gains sum_k a[i][k]
 * b[k][j]. Every element of C is a chain of multiply-adds of its own, in the order of k: so its
 * bits depend neither on the tile's height nor on which other rows and columns share the tile.
 *
 * B comes in panels of 16 columns, [k][16]. A register holds SIMD_WIDTH floats: a tile is one panel
 * wide, or two where a register holds a whole panel (two vectors a row are what keeps the
 * multipliers busy). */
#ifndef RINGREEL_GEMM_INLINE_H
#define RINGREEL_GEMM_INLINE_H

#include "kernels/backend.h"
#include "kernels/cpu/simd_inline.h"

enum { TILE_VECTORS = TILE_PANELS * PANEL / SIMD_WIDTH };

SIMD_INLINE const float *tile_vector(const float *b, int64_t b_panel, int v)
{
    return b + v * SIMD_WIDTH / PANEL * b_panel + v * SIMD_WIDTH % PANEL;
}

/* acc = init, the same for every row, or what c holds when init is NULL */
SIMD_INLINE void tile_load(vf acc[TILE_ROWS][TILE_VECTORS], const int rows, const int vectors,
                           const float *c, int64_t c_row, const float *init)
{
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            acc[i][v] = vf_load((init ? init : c + i * c_row) + v * SIMD_WIDTH);
}

SIMD_INLINE void tile_store(vf acc[TILE_ROWS][TILE_VECTORS], const int rows, const int vectors,
                            float *c, int64_t c_row)
{
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vf_store(c + i * c_row + v * SIMD_WIDTH, acc[i][v]);
}

/* `rows`, `vectors` and `packed` are constants at every use, so that acc lives in registers. */
SIMD_INLINE void tile_sum(vf acc[TILE_ROWS][TILE_VECTORS], const int rows, const int vectors,
                          const bool packed, const struct tile_ab *g)
{
    const int64_t a_row = packed ? 1 : g->a_row, a_step = packed ? TILE_ROWS : 1, k_end = g->k;
    const int64_t b_panel = g->b_panel;
    for (int64_t t = 0; t < g->taps; t++) {
        const float *restrict a = g->a[t], *restrict b = g->b + t * g->b_tap;
#pragma GCC unroll 1 /* unrolled, the accumulators spill */
        for (int64_t k = 0; k < k_end; k++, a += a_step, b += PANEL) {
            vf bk[TILE_VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) bk[v] = vf_load(tile_vector(b, b_panel, v));
#pragma GCC unroll 12
            for (int i = 0; i < rows; i++) {
                float x = a[i * a_row];
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) acc[i][v] += x * bk[v];
            }
        }
    }
}

/* Functions of constant height: TILE_CASES(use) expands to use(1) ... use(TILE_ROWS). */
#if defined(__AVX512F__)
#define TILE_CASES(use)                                                                            \
    use(1) use(2) use(3) use(4) use(5) use(6) use(7) use(8) use(9) use(10) use(11) use(12)
#elif defined(__AVX2__)
#define TILE_CASES(use) use(1) use(2) use(3) use(4) use(5) use(6)
#else
#define TILE_CASES(use) use(1) use(2)
#endif

typedef void tile_function(const struct tile_ab *g, float *c, int64_t c_row, const float *init);

#endif
