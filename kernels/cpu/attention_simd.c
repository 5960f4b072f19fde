/* Flash attention (Dao et al. 2022) for a chunk of query rows and any number of granules of keys.
 *
 * Per group of 24 rows and granule: scores, row maxima, exponentials, then the output's old part is
 * scaled while the values are added. Every score and every output element is a chain of
 * multiply-adds of its own, and a row's maximum and sum run over the granule's keys in a fixed
 * order: the bits of a row do not depend on the rows it shares a group with. */
#include "kernels/cpu/gemm_inline.h"

enum { GROUP_TILES = QUERY_GROUP / TILE_ROWS };

/* Rows of a group, cut into tiles of nearly equal height. */
struct group {
    int first, rows, tiles; /* first row within the chunk */
};
static struct group group_at(const struct attention_task *t, int first)
{
    int rows = t->rows - first < QUERY_GROUP ? (int)t->rows - first : QUERY_GROUP;
    return (struct group){first, rows, (rows + TILE_ROWS - 1) / TILE_ROWS};
}
static int tile_at(const struct group *g, int tile) { return tile * g->rows / g->tiles; }

/* ---- queries: [group][tile][d][TILE_ROWS], scaled -------------------------------------------- */

static float *packed_queries(const struct attention_task *t, const struct group *g, int tile)
{
    return t->scratch + ((int64_t)g->first + tile * TILE_ROWS) * t->d;
}

static void pack_queries(const struct attention_task *t)
{
    for (int first = 0; first < t->rows; first += QUERY_GROUP) {
        struct group g = group_at(t, first);
        for (int tile = 0; tile < g.tiles; tile++) {
            float *to = packed_queries(t, &g, tile);
            for (int i = tile_at(&g, tile); i < tile_at(&g, tile + 1); i++)
                for (int64_t c = 0; c < t->d; c++)
                    to[c * TILE_ROWS + i - tile_at(&g, tile)] =
                        t->q[(first + i) * t->q_row + c] * t->scale;
        }
    }
}

/* ---- scores = q k^T -------------------------------------------------------------------------- */

SIMD_INLINE void score_tile(const int rows, const int vectors, const struct tile_ab *g, float *s,
                            int64_t s_row)
{
    vf acc[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) acc[i][v] = (vf){0};
    tile_sum(acc, rows, vectors, true, g);
    tile_store(acc, rows, vectors, s, s_row);
}

/* ---- o = o * alpha + p v --------------------------------------------------------------------- */

SIMD_INLINE void value_tile(const int rows, const int vectors, const struct tile_ab *g, float *o,
                            int64_t o_row, const float *alpha)
{
    vf acc[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            acc[i][v] = alpha[i] * vf_load(o + i * o_row + v * SIMD_WIDTH);
    tile_sum(acc, rows, vectors, false, g);
    tile_store(acc, rows, vectors, o, o_row);
}

#define DEFINE(rows)                                                                               \
    static void score_one_##rows(const struct tile_ab *g, float *s, int64_t s_row)                 \
    {                                                                                              \
        score_tile(rows, PANEL / SIMD_WIDTH, g, s, s_row);                                         \
    }                                                                                              \
    static void score_##rows(const struct tile_ab *g, float *s, int64_t s_row)                     \
    {                                                                                              \
        score_tile(rows, TILE_VECTORS, g, s, s_row);                                               \
    }                                                                                              \
    static void value_one_##rows(const struct tile_ab *g, float *o, int64_t o_row,                 \
                                 const float *alpha)                                               \
    {                                                                                              \
        value_tile(rows, PANEL / SIMD_WIDTH, g, o, o_row, alpha);                                  \
    }                                                                                              \
    static void value_##rows(const struct tile_ab *g, float *o, int64_t o_row, const float *alpha) \
    {                                                                                              \
        value_tile(rows, TILE_VECTORS, g, o, o_row, alpha);                                        \
    }
TILE_CASES(DEFINE)

#define SCORE(rows) score_##rows,
#define SCORE_ONE(rows) score_one_##rows,
#define VALUE(rows) value_##rows,
#define VALUE_ONE(rows) value_one_##rows,
static void (*const score_table[2][TILE_ROWS])(const struct tile_ab *, float *, int64_t) = {
    {TILE_CASES(SCORE_ONE)}, {TILE_CASES(SCORE)}};
static void (*const value_table[2][TILE_ROWS])(const struct tile_ab *, float *, int64_t,
                                               const float *) = {{TILE_CASES(VALUE_ONE)},
                                                                 {TILE_CASES(VALUE)}};

static void group_scores(const struct attention_task *t, const struct group *g, const float *k,
                         int64_t keys, float *s)
{
    int64_t panels = (keys + PANEL - 1) / PANEL, wide;
    for (int64_t p = 0; p < panels; p += wide) {
        wide = panels - p < TILE_PANELS ? 1 : TILE_PANELS;
        for (int tile = 0; tile < g->tiles; tile++) {
            const float *q = packed_queries(t, g, tile);
            struct tile_ab ab = {
                .a = &q, .taps = 1, .k = t->d, .b = k + p * PANEL * t->d, .b_panel = PANEL * t->d};
            int first = tile_at(g, tile), rows = tile_at(g, tile + 1) - first;
            score_table[wide == TILE_PANELS][rows - 1](&ab, s + first * t->granule + p * PANEL,
                                                       t->granule);
        }
    }
}

static void group_values(const struct attention_task *t, const struct group *g, const float *v,
                         int64_t keys, const float *p, const float *alpha)
{
    int64_t width = (t->d + PANEL - 1) / PANEL * PANEL, wide;
    for (int64_t c = 0; c < width; c += wide * PANEL) {
        wide = width - c < TILE_PANELS * PANEL ? 1 : TILE_PANELS;
        for (int tile = 0; tile < g->tiles; tile++) {
            int first = tile_at(g, tile), rows = tile_at(g, tile + 1) - first;
            const float *a = p + first * t->granule;
            struct tile_ab ab = {.a = &a,
                                 .taps = 1,
                                 .a_row = t->granule,
                                 .k = keys,
                                 .b = v + c * t->granule,
                                 .b_panel = PANEL * t->granule};
            value_table[wide == TILE_PANELS][rows - 1](&ab, t->o + (g->first + first) * width + c,
                                                       width, alpha + first);
        }
    }
}

/* ---- softmax, running ------------------------------------------------------------------------ */

/* Scores s [padded] of one row become weights; returns what the row's old output is scaled by. Keys
 * beyond `keys` fill the last panel: their weight is at most 2^-126 and meets values of zero. */
static float soften(float *s, int64_t keys, const float *bias, float *m, float *l)
{
    int64_t padded = (keys + PANEL - 1) / PANEL * PANEL;
    if (bias)
        for (int64_t j = 0; j < keys; j++) s[j] += bias[j];
    for (int64_t j = keys; j < padded; j++) s[j] = -1e30f;
    vf top[PANEL / SIMD_WIDTH];
    for (int v = 0; v < PANEL / SIMD_WIDTH; v++) top[v] = vf_all(*m);
    for (int64_t j = 0; j < padded; j += PANEL)
        for (int v = 0; v < PANEL / SIMD_WIDTH; v++)
            top[v] = SIMD_MAX(top[v], vf_load(s + j + v * SIMD_WIDTH));
    for (int v = 1; v < PANEL / SIMD_WIDTH; v++) top[0] = SIMD_MAX(top[0], top[v]);
    float largest = vf_largest(top[0]);
    vf sum = {0};
    for (int64_t j = 0; j < padded; j += SIMD_WIDTH) {
        vf p = vf_exp2(vf_load(s + j) - largest);
        vf_store(s + j, p);
        sum += p;
    }
    float alpha = vf_exp2(vf_all(*m - largest))[0];
    *m = largest;
    *l = *l * alpha + vf_sum(sum);
    return alpha;
}

static void attend_granule(const struct attention_task *t, int64_t first_key, int64_t keys)
{
    const float *k = t->kv + first_key / t->granule * t->kv_step, *v = k + t->granule * t->d;
    float *s = t->scratch + QUERY_CHUNK * t->d, alpha[QUERY_GROUP];
    for (int first = 0; first < t->rows; first += QUERY_GROUP) {
        struct group g = group_at(t, first);
        group_scores(t, &g, k, keys, s);
        for (int i = 0; i < g.rows; i++)
            alpha[i] =
                soften(s + i * t->granule, keys, t->bias ? t->bias + first_key - first - i : NULL,
                       t->m + first + i, t->l + first + i);
        group_values(t, &g, v, keys, s, alpha);
    }
}

static void attend(const struct attention_task *t)
{
    pack_queries(t);
    for (int64_t key = 0; key < t->keys; key += t->granule)
        attend_granule(t, key, t->keys - key < t->granule ? t->keys - key : t->granule);
}

const struct attention_simd SIMD_NAME(attention) = {.attend = attend};

_Static_assert(GROUP_TILES *TILE_ROWS == QUERY_GROUP && QUERY_CHUNK % QUERY_GROUP == 0,
               "groups are whole tiles");
