#include "render/guidance.h"

#include "base/error.h"
#include "model/schedule.h"

#include <math.h>

struct guidance guidance_at(const struct shot_options *o, float t)
{
    const struct float_list *levels = &o->guidance_timesteps;
    struct guidance g = {.cfg = schedule_value(&o->guidance_scale, levels, t),
                         .stg = schedule_value(&o->stg_scale, levels, t),
                         .rescale = schedule_value(&o->rescaling_scale, levels, t),
                         .cfg_star = o->cfg_star_rescale};
    g.use_cfg = g.cfg > 1.0;
    g.use_stg = g.stg > 0.0;
    g.use_rescale = g.use_stg && g.rescale != 1.0;
    g.skip.mode = o->stg_mode;
    if (g.use_stg && o->skip_block_list.count > 0) {
        int level = o->skip_block_list.per_level ? schedule_guidance_index(levels, t) : 0;
        g.skip.count = o->skip_block_list.lists[level].count;
        g.skip.blocks = o->skip_block_list.lists[level].v;
    }
    return g;
}

int guidance_check(const struct shot_options *o, const float *sigma, int steps, int blocks)
{
    for (int i = 0; i < steps; i++) {
        struct guidance g = guidance_at(o, sigma[i]);
        for (int b = 0; b < g.skip.count; b++)
            if (g.skip.blocks[b] < 0 || g.skip.blocks[b] >= blocks)
                return error_set(STATUS_INPUT,
                                 "skip_block_list: block %d, this model has blocks 0 to %d",
                                 g.skip.blocks[b], blocks - 1);
    }
    return STATUS_OK;
}

/* ---- sums over the sequence: each granule's part, gathered and added in granule order -------- */

void sequence_sums_lay_out(struct sequence_sums *s, struct arena *a, int64_t granules, int ranks)
{
    s->parts = arena_take(a, (size_t)granules * sizeof *s->parts);
    s->counts = arena_take(a, (size_t)ranks * sizeof *s->counts);
    s->offsets = arena_take(a, (size_t)ranks * sizeof *s->offsets);
}

double sequence_dot(struct sequence_sums *s, struct mat x, const float *y)
{
    int me = comm_rank(s->group);
    double total = 0;
    for (int r = 0; r < comm_size(s->group); r++) {
        s->counts[r] = (int)shard_granules(s->plan, r);
        s->offsets[r] = (int)shard_first_granule(s->plan, r);
    }
    op_dot_tiles(s->dev, s->parts + s->offsets[me], x.p, y, x.rows * x.cols,
                 s->plan->granule * x.cols);
    device_finish(s->dev);
    comm_all_gather_doubles(s->group, s->parts, s->counts, s->offsets);
    for (int64_t i = 0; i < s->plan->granules; i++) total += s->parts[i];
    return total;
}

/* Unbiased, over all tokens and channels. */
static double sequence_std(struct sequence_sums *s, struct mat x)
{
    double n = (double)s->plan->tokens * (double)x.cols;
    double sum = sequence_dot(s, x, NULL), squares = sequence_dot(s, x, x.p);
    return sqrt((squares - sum * sum / n) / (n - 1));
}

void guidance_combine(const struct guidance *g, struct sequence_sums *sums, struct mat u,
                      struct mat p, struct mat q, struct mat scratch)
{
    struct device *dev = sums->dev;
    int64_t n = p.rows * p.cols;
    double std_positive = g->use_rescale ? sequence_std(sums, p) : 1;
    if (g->use_stg)
        op_lincomb(dev, q.p, 1, p.p, -1, q.p,
                   n); /* q = p - q, while p is still the plain prediction */
    if (g->use_cfg && g->cfg_star) {
        double a = sequence_dot(sums, p, u.p) / (sequence_dot(sums, u, u.p) + 1e-8);
        op_lincomb(dev, u.p, (float)a, u.p, 0, NULL, n);
    }
    if (g->use_cfg) {
        op_lincomb(dev, scratch.p, 1, p.p, -1, u.p, n);
        op_lincomb(dev, p.p, 1, u.p, (float)g->cfg, scratch.p, n);
    }
    if (g->use_stg) op_lincomb(dev, p.p, 1, p.p, (float)g->stg, q.p, n);
    if (g->use_rescale) {
        double factor = std_positive / sequence_std(sums, p);
        op_lincomb(dev, p.p, (float)(g->rescale * factor + (1 - g->rescale)), p.p, 0, NULL, n);
    }
}
