/* Classifier-free and spatio-temporal guidance over a sharded sequence (pipeline spec 1.5-1.7;
 * official pipeline_ltx_video.py). Sums over the whole sequence are made granule by granule and
 * added in granule order, so they do not depend on the ranks. */
#ifndef RINGREEL_GUIDANCE_H
#define RINGREEL_GUIDANCE_H

#include "config/options.h"
#include "base/arena.h"
#include "kernels/ops.h"
#include "parallel/comm.h"
#include "parallel/shard.h"

#include <stdbool.h>

/* What one step evaluates. */
struct guidance {
    double cfg, stg, rescale;
    bool use_cfg, use_stg, use_rescale, cfg_star;
    struct {
        enum stg_mode mode;
        int count;
        const int *blocks;
    } skip;
};
struct guidance guidance_at(const struct shot_options *o, float t);

/* Sums over a sharded sequence. Laid out once (arena.h) for at most `granules` granules on `ranks`
 * ranks. */
struct sequence_sums {
    struct device *dev;
    struct comm *group;
    const struct shard_plan *plan; /* of the sequence that is summed */
    double *parts;                 /* [granules], of the host as the others */
    int *counts, *offsets;         /* [ranks] */
};
void sequence_sums_lay_out(struct sequence_sums *s, struct arena *a, int64_t granules, int ranks);
/* Sum of x*y (y NULL: of x) over all tokens and channels; the same double on every rank. Collective
 * over the group. */
double sequence_dot(struct sequence_sums *s, struct mat x, const float *y);

/* Reads block indices of all levels that are used; STATUS_INPUT when one is not below `blocks`.
 * Local. */
int guidance_check(const struct shot_options *o, const float *sigma, int steps, int blocks);

/* p <- guided velocity from negative u, positive p, perturbed q (each [S_loc, C]; u only with CFG,
 * q only with STG; both are overwritten). Collective over the group. */
void guidance_combine(const struct guidance *g, struct sequence_sums *sums, struct mat u,
                      struct mat p, struct mat q, struct mat scratch);

#endif
