/* Products of a few rows with panels of packed weights: what linear.c and conv.c are made of. */
#include "kernels/cpu/gemm_inline.h"

SIMD_INLINE void product(const int rows, const int vectors, const bool packed,
                         const struct tile_ab *g, float *c, int64_t c_row, const float *init)
{
    vf acc[TILE_ROWS][TILE_VECTORS];
    tile_load(acc, rows, vectors, c, c_row, init);
    tile_sum(acc, rows, vectors, packed, g);
    tile_store(acc, rows, vectors, c, c_row);
}

#define DEFINE(rows)                                                                               \
    static void packed_##rows(const struct tile_ab *g, float *c, int64_t c_row, const float *init) \
    {                                                                                              \
        product(rows, TILE_VECTORS, true, g, c, c_row, init);                                      \
    }                                                                                              \
    static void packed_one_##rows(const struct tile_ab *g, float *c, int64_t c_row,                \
                                  const float *init)                                               \
    {                                                                                              \
        product(rows, PANEL / SIMD_WIDTH, true, g, c, c_row, init);                                \
    }                                                                                              \
    static void strided_##rows(const struct tile_ab *g, float *c, int64_t c_row,                   \
                               const float *init)                                                  \
    {                                                                                              \
        product(rows, TILE_VECTORS, false, g, c, c_row, init);                                     \
    }                                                                                              \
    static void strided_one_##rows(const struct tile_ab *g, float *c, int64_t c_row,               \
                                   const float *init)                                              \
    {                                                                                              \
        product(rows, PANEL / SIMD_WIDTH, false, g, c, c_row, init);                               \
    }
TILE_CASES(DEFINE)

#define PACKED(rows) packed_##rows,
#define PACKED_ONE(rows) packed_one_##rows,
#define STRIDED(rows) strided_##rows,
#define STRIDED_ONE(rows) strided_one_##rows,
static tile_function *const table[2][2][TILE_ROWS] = {
    {{TILE_CASES(STRIDED_ONE)}, {TILE_CASES(STRIDED)}},
    {{TILE_CASES(PACKED_ONE)}, {TILE_CASES(PACKED)}},
};

static void gemm_tile(int rows, int panels, bool packed, const struct tile_ab *g, float *c,
                      int64_t c_row, const float *init)
{
    table[packed][panels == TILE_PANELS][rows - 1](g, c, c_row, init);
}

const struct gemm_simd SIMD_NAME(gemm) = {
    .tile_rows = TILE_ROWS,
    .tile_panels = TILE_PANELS,
    .a_words = 1,
    .tile = gemm_tile,
};
