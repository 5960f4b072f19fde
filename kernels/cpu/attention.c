/* Attention: packing of keys and values, and the loops over heads and chunks of queries.
 *
 * A packed granule of G keys is, head after head: K in panels of 16 keys [G/16][d][16], then V in
 * panels of 16 channels [d padded/16][G][16]. State: output [head][query][d padded], then maximum
 * and sum [head][query]. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <string.h>

int64_t cpu_kv_granule_floats(int64_t granule, int64_t heads, int64_t head_dim)
{
    return granule * heads * (head_dim + whole_panels(head_dim));
}

/* One head of one granule; keys and channels that are not there are zeros. */
static void pack_head(float *to, const float *k, const float *v, int64_t row, int64_t keys,
                      int64_t granule, int64_t d)
{
    int64_t width = whole_panels(d);
    memset(to, 0, sizeof(float) * (size_t)(granule * (d + width)));
    for (int64_t j = 0; j < keys; j++)
        for (int64_t c = 0; c < d; c++)
            to[(j / PANEL * d + c) * PANEL + j % PANEL] = k[j * row + c];
    to += granule * d;
    for (int64_t c = 0; c < d; c += PANEL)
        for (int64_t j = 0; j < keys; j++)
            memcpy(to + (c * granule) + j * PANEL, v + j * row + c,
                   sizeof(float) * (size_t)(d - c < PANEL ? d - c : PANEL));
}

void cpu_kv_pack(struct device *dev, float *packed, struct mat k, struct mat v, int64_t heads,
                 int64_t granule)
{
    int64_t d = k.cols / heads, size = cpu_kv_granule_floats(granule, heads, d) / heads;
    int64_t granules = (k.rows + granule - 1) / granule;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = 0; i < granules * heads; i++) {
        int64_t first = i / heads * granule, at = first * k.cols + i % heads * d;
        pack_head(packed + i * size, (const float *)k.p + at, (const float *)v.p + at, k.cols,
                  k.rows - first < granule ? k.rows - first : granule, granule, d);
    }
}

struct state {
    float *o, *m, *l;
};
static struct state state_at(float *state, int64_t queries, int64_t heads, int64_t head_dim,
                             int64_t head, int64_t row)
{
    int64_t n = queries * heads, width = whole_panels(head_dim), at = head * queries + row;
    return (struct state){state + at * width, state + n * width + at, state + n * (width + 1) + at};
}

/* -1e30 rather than -infinity: the difference of two of them is a number. */
void cpu_attention_begin(struct device *dev, float *state, int64_t queries, int64_t heads,
                         int64_t head_dim)
{
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = 0; i < queries * heads; i++) {
        struct state s = state_at(state, queries, heads, head_dim, i / queries, i % queries);
        memset(s.o, 0, sizeof(float) * (size_t)whole_panels(head_dim));
        *s.m = -1e30f;
        *s.l = 0.0f;
    }
}

/* `bias` NULL, or per head [2 * rows - 1] values for key - query = -(rows - 1) ... rows - 1. */
static void attend_all(struct device *dev, float *state, struct mat q, const float *packed,
                       int64_t keys, int64_t granule, int64_t heads, float scale, const float *bias)
{
    struct cpu *cpu = cpu_of(dev);
    int64_t d = q.cols / heads, size = cpu_kv_granule_floats(granule, heads, d);
    int64_t chunks = (q.rows + QUERY_CHUNK - 1) / QUERY_CHUNK, tasks = chunks * heads;
#pragma omp parallel num_threads(dev->threads)
    {
        float *scratch = cpu_scratch(&cpu->threads[omp_get_thread_num()],
                                     (size_t)attention_scratch_floats(d, granule));
        int64_t done = 0;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tasks; i++) {
            int64_t head = i / chunks, row = i % chunks * QUERY_CHUNK;
            struct state s = state_at(state, q.rows, heads, d, head, row);
            cpu->attention->attend(&(struct attention_task){
                .o = s.o,
                .m = s.m,
                .l = s.l,
                .q = (const float *)q.p + row * q.cols + head * d,
                .q_row = q.cols,
                .rows = q.rows - row < QUERY_CHUNK ? q.rows - row : QUERY_CHUNK,
                .d = d,
                .scale = scale * 1.44269504f,
                .kv = packed + head * (size / heads),
                .kv_step = size,
                .keys = keys,
                .granule = granule,
                .scratch = scratch,
                .bias = bias ? bias + head * (2 * q.rows - 1) + q.rows - 1 - row : NULL});
            if (omp_get_thread_num() == 0) cpu_task_done(dev, &done, tasks);
        }
    }
}

void cpu_attention_block(struct device *dev, float *state, struct mat q, const float *packed,
                         int64_t keys, int64_t granule, int64_t heads, float scale)
{
    attend_all(dev, state, q, packed, keys, granule, heads, scale, NULL);
}

void cpu_attention_finish(struct device *dev, struct mat o, const float *state, int64_t heads)
{
    int64_t d = o.cols / heads;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t row = 0; row < o.rows; row++)
        for (int64_t head = 0; head < heads; head++) {
            struct state s = state_at((float *)state, o.rows, heads, d, head, row);
            float *to = (float *)o.p + row * o.cols + head * d, factor = 1.0f / *s.l;
            for (int64_t c = 0; c < d; c++) to[c] = s.o[c] * factor;
        }
}

void cpu_attention_part(struct device *dev, struct mat o, float *state, struct mat q,
                        const float *packed, int64_t keys, int64_t granule, int64_t heads,
                        float scale, bool first, bool last)
{
    if (first) cpu_attention_begin(dev, state, q.rows, heads, q.cols / heads);
    cpu_attention_block(dev, state, q, packed, keys, granule, heads, scale);
    if (last) cpu_attention_finish(dev, o, state, heads);
}

/* ---- T5: one granule holds all keys; a bias depends on key - query --------------------------- */

static int64_t t5_bucket(int64_t distance)
{
    static const int beyond[] = {8, 12, 16, 23, 32, 46, 64, 91}; /* where buckets 8 ... 15 begin */
    int64_t a = distance < 0 ? -distance : distance, bucket = a < 8 ? a : 7;
    for (int i = 0; i < 8; i++) bucket += a >= beyond[i];
    return bucket + (distance > 0 ? 16 : 0);
}

void cpu_attention_t5(struct device *dev, struct mat o, struct mat q, struct mat k, struct mat v,
                      int64_t heads, const float *bias)
{
    int64_t d = q.cols / heads, granule = whole_panels(k.rows), span = 2 * q.rows - 1;
    int64_t packed_floats = cpu_kv_granule_floats(granule, heads, d);
    int64_t state_floats = whole_panels(op_attention_state_floats(q.rows, heads, d));
    float *packed =
        cpu_scratch(&cpu_of(dev)->shared, (size_t)(packed_floats + state_floats + span * heads));
    float *state = packed + packed_floats, *by_distance = state + state_floats;
    for (int64_t i = 0; i < span; i++)
        for (int64_t n = 0; n < heads; n++)
            by_distance[n * span + i] = bias[t5_bucket(i - (q.rows - 1)) * heads + n] * 1.44269504f;
    cpu_kv_pack(dev, packed, k, v, heads, granule);
    cpu_attention_begin(dev, state, q.rows, heads, d);
    attend_all(dev, state, q, packed, k.rows, granule, heads, 1.0f, by_distance);
    cpu_attention_finish(dev, o, state, heads);
}
