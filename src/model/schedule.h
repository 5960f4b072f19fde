/* Rectified-flow schedules: which noise levels a shot visits (spec vae-and-scheduler 6,
 * pipeline 1.4). Source: official ltx_video/schedulers/rf.py. */
#ifndef RINGREEL_SCHEDULE_H
#define RINGREEL_SCHEDULE_H

#include "config/options.h"
#include "model/checkpoint.h"

#include <stdint.h>

enum { MAX_STEPS = 1000 };

/* sigma[count], descending in (0,1]; after the last the level is 0. */
struct schedule {
    int count;
    float sigma[MAX_STEPS];
};

/* The raw n-step schedule of one scheduler config for a clip of `tokens` tokens. n = 1 with a
 * terminal gives [1]. The first value of the SD3 shift is exactly 1 and the last exactly the
 * terminal (the reference's fp32 rounding noise is not reproduced; docs/NUMERICS.md). */
void schedule_make(struct schedule *s, const struct scheduler_config *config, int steps,
                   int64_t tokens);

/* What a shot runs: explicit timesteps, or n steps with skipped ends; checks
 * allowed_inference_steps. STATUS_INPUT, also for a checkpoint's scheduler whose levels do not
 * descend. */
int schedule_for_shot(struct schedule *s, const struct scheduler_config *checkpoint,
                      const struct shot_options *shot, int64_t tokens);

/* Largest member of s (or 0) below t - 1e-6. */
float schedule_next(const struct schedule *s, float t);

/* Index into guidance lists at level t: the first j with levels[j] <= t, else the last
 * (pipeline 1.5). */
int schedule_guidance_index(const struct float_list *levels, float t);
/* Value of a scalar-or-list setting at level t. */
double schedule_value(const struct float_list *values, const struct float_list *levels, float t);

#endif
