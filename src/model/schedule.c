#include "model/schedule.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double threshold_noise = 0.025; /* noise the linear half of LinearQuadratic removes */
static const float level_epsilon = 1e-6f;    /* levels closer than this are the same level */

/* ---- samplers: t[n], double, t[0] = 1 -------------------------------------------------------- */

/* n points from 1 down to 1/n. */
static void uniform(double *t, int n)
{
    for (int i = 0; i < n; i++) t[i] = (double)(n - i) / n;
}

/* Half of the steps remove 2.5 % of the noise at an even pace, the other half the rest along a
 * parabola that meets them with the same slope. The order of operations is the reference's, so that
 * the rounding is too. */
static void linear_quadratic(double *t, int n)
{
    if (n == 1) {
        t[0] = 1.0;
        return;
    }
    double linear_steps = n / 2, quadratic_steps = n - n / 2;
    double difference = linear_steps - threshold_noise * n;
    double a = difference / (linear_steps * (quadratic_steps * quadratic_steps));
    double b =
        threshold_noise / linear_steps - 2.0 * difference / (quadratic_steps * quadratic_steps);
    double c = a * (linear_steps * linear_steps);
    for (int i = 0; i < n; i++) {
        double x = i;
        t[i] = 1.0 - (i < n / 2 ? x * threshold_noise / linear_steps : a * (x * x) + b * x + c);
    }
}

/* t -> e^mu / (e^mu + 1/t - 1), written so that a large mu cannot overflow. */
static void time_shift(double *t, int n, double mu)
{
    for (int i = 0; i < n; i++) t[i] = 1.0 / (1.0 + exp(-mu) * (1.0 / t[i] - 1.0));
}

/* ---- shifts ---------------------------------------------------------------------------------- */

/* More tokens, more noise: mu grows along the line through (1024, 0.95) and (4096, 2.05),
 * unclamped. */
static double sd3_mu(int64_t tokens)
{
    double slope = (2.05 - 0.95) / (4096.0 - 1024.0);
    return 0.95 + slope * ((double)tokens - 1024.0);
}

/* The time shift, then 1 - t stretched so that the last level is `terminal`. Beyond some 100,000
 * tokens every shifted level rounds to 1, so the quotient (1 - t) / (1 - t_last) is taken before
 * the shift's e^-mu enters: w/w_last (1+u_last)/(1+u) with w = 1/t - 1 and u = e^-mu w. */
static void sd3_stretched(double *t, int n, double mu, double terminal)
{
    if (n == 1) return; /* 0/0: the only level is both the first and the last; the first wins */
    double w_last = 1.0 / t[n - 1] - 1.0;
    for (int i = 0; i < n; i++) {
        double w = 1.0 / t[i] - 1.0;
        double quotient = (w / w_last) * (1.0 + exp(-mu) * w_last) / (1.0 + exp(-mu) * w);
        t[i] = 1.0 - (1.0 - terminal) * quotient;
    }
    t[n - 1] = terminal;
}

/* Signal-to-noise ratio scaled with the number of tokens. */
static void simple_diffusion(double *t, int n, double ratio)
{
    for (int i = 0; i < n; i++) t[i] = ratio * t[i] / (ratio * t[i] + (1.0 - t[i]));
}

static void shift_levels(double *t, int n, const struct scheduler_config *config, int64_t tokens)
{
    switch (config->shifting) {
    case SHIFTING_NONE:
        return;
    case SHIFTING_SD3:
        if (config->target_shift_terminal < 0.0)
            time_shift(t, n, sd3_mu(tokens));
        else
            sd3_stretched(t, n, sd3_mu(tokens), config->target_shift_terminal);
        return;
    case SHIFTING_SIMPLE_DIFFUSION:
        CHECK(config->base_resolution > 0, "base_resolution %d", config->base_resolution);
        simple_diffusion(t, n, (double)tokens / config->base_resolution);
        return;
    }
}

void schedule_make(struct schedule *s, const struct scheduler_config *config, int steps,
                   int64_t tokens)
{
    CHECK(steps >= 1 && tokens >= 1, "schedule of %d steps for %lld tokens", steps,
          (long long)tokens);
    double t[MAX_STEPS];
    int n = steps < MAX_STEPS ? steps : MAX_STEPS;
    switch (config->sampler) {
    case SCHEDULER_UNIFORM:
        uniform(t, n);
        break;
    case SCHEDULER_LINEAR_QUADRATIC:
        linear_quadratic(t, n);
        break;
    case SCHEDULER_CONSTANT:
        uniform(t, n);
        time_shift(t, n, config->shift);
        break;
    }
    shift_levels(t, n, config, tokens);
    s->count = n;
    for (int i = 0; i < n; i++) s->sigma[i] = (float)t[i];
}

/* ---- what a shot runs ------------------------------------------------------------------------ */

static int explicit_levels(struct schedule *s, const struct float_list *list)
{
    if (list->count > MAX_STEPS)
        return error_set(STATUS_INPUT, "timesteps: %d values; at most %d are allowed", list->count,
                         MAX_STEPS);
    for (int i = 0; i < list->count; i++) {
        float t = (float)list->v[i];
        if (!(t > 0.0f && t <= 1.0f))
            return error_set(STATUS_INPUT,
                             "timesteps: value %d is %g; allowed are values above 0 and up to 1",
                             i + 1, list->v[i]);
        if (i > 0 && !(t < s->sigma[i - 1]))
            return error_set(STATUS_INPUT,
                             "timesteps: value %d (%g) is not below the one before "
                             "it (%g); the list must descend",
                             i + 1, list->v[i], list->v[i - 1]);
        s->sigma[i] = t;
    }
    s->count = list->count;
    return STATUS_OK;
}

static struct scheduler_config scheduler_for(enum sampler sampler,
                                             const struct scheduler_config *checkpoint)
{
    struct scheduler_config config = *checkpoint;
    if (sampler == SAMPLER_FROM_CHECKPOINT) return config;
    config.sampler = sampler == SAMPLER_UNIFORM ? SCHEDULER_UNIFORM : SCHEDULER_LINEAR_QUADRATIC;
    config.shifting = SHIFTING_NONE; /* as the reference: a named sampler drops the shift */
    config.target_shift_terminal = -1.0;
    return config;
}

/* The scheduler's numbers come from a file: shifts that round every level to 1, or to no number at
 * all, are allowed by its format. (Negated, so that NaN is caught.) */
static int check_levels(const struct schedule *s, int64_t tokens)
{
    for (int i = 0; i < s->count; i++) {
        float level = s->sigma[i], above = i > 0 ? s->sigma[i - 1] : INFINITY;
        if (!(level > 0.0f && level <= 1.0f && level < above))
            return error_set(STATUS_INPUT,
                             "checkpoint's scheduler: its %d steps for %lld tokens "
                             "do not descend from 1 towards 0 (level %d is %.9g); choose another "
                             "'sampler', or give 'timesteps'",
                             s->count, (long long)tokens, i + 1, (double)level);
    }
    return STATUS_OK;
}

static int counted_levels(struct schedule *s, const struct scheduler_config *checkpoint,
                          const struct shot_options *shot, int64_t tokens)
{
    int steps = shot->num_inference_steps;
    int64_t head = shot->skip_initial_inference_steps, tail = shot->skip_final_inference_steps;
    if (steps < 1)
        return error_set(STATUS_INPUT, "num_inference_steps: %d; at least 1 is allowed", steps);
    if (steps > MAX_STEPS) steps = MAX_STEPS;
    if (head < 0 || tail < 0 || head + tail >= steps)
        return error_set(STATUS_INPUT,
                         "skip_initial_inference_steps %lld and "
                         "skip_final_inference_steps %lld: both must be 0 or more and together "
                         "less than num_inference_steps (%d)",
                         (long long)head, (long long)tail, steps);
    struct scheduler_config config = scheduler_for(shot->sampler, checkpoint);
    if (config.shifting == SHIFTING_SD3 &&
        (config.target_shift_terminal == 0.0 || config.target_shift_terminal >= 1.0))
        return error_set(STATUS_INPUT,
                         "checkpoint's scheduler: target_shift_terminal %g; allowed "
                         "are values above 0 and below 1",
                         config.target_shift_terminal);
    schedule_make(s, &config, steps, tokens);
    TRY(check_levels(s, tokens));
    s->count = steps - (int)(head + tail);
    for (int i = 0; i < s->count; i++) s->sigma[i] = s->sigma[i + head];
    return STATUS_OK;
}

/* Four decimals of the float32 value, ties to even: what the reference's round() gives. printf
 * rounds the exact binary value, as Python does. */
static double rounded_level(float t)
{
    char text[32];
    snprintf(text, sizeof text, "%.4f", (double)t);
    return strtod(text, NULL);
}

static bool level_allowed(const struct scheduler_config *config, double level)
{
    for (int i = 0; i < config->allowed_count; i++)
        if (fabs(config->allowed[i] - level) < 1e-9) return true;
    return false;
}

static int check_allowed(const struct schedule *s, const struct scheduler_config *config,
                         const struct shot_options *shot)
{
    if (config->allowed_count == 0) return STATUS_OK;
    for (int i = 0; i < s->count; i++) {
        double level = rounded_level(s->sigma[i]);
        if (level_allowed(config, level)) continue;
        char allowed[MAX_ALLOWED_STEPS * 8] = ""; /* ", 0.1234" each */
        size_t used = 0;
        for (int j = 0; j < config->allowed_count && used < sizeof allowed; j++)
            used += (size_t)snprintf(allowed + used, sizeof allowed - used, "%s%.4g", j ? ", " : "",
                                     config->allowed[j]);
        if (shot->timesteps.count > 0)
            return error_set(STATUS_INPUT,
                             "timesteps: %.4f is not one of the levels the checkpoint allows: %s",
                             level, allowed);
        return error_set(STATUS_INPUT,
                         "num_inference_steps: %d steps visit level %.4f; the "
                         "checkpoint allows only %s",
                         shot->num_inference_steps, level, allowed);
    }
    return STATUS_OK;
}

int schedule_for_shot(struct schedule *s, const struct scheduler_config *checkpoint,
                      const struct shot_options *shot, int64_t tokens)
{
    if (shot->timesteps.count > 0)
        TRY(explicit_levels(s, &shot->timesteps));
    else
        TRY(counted_levels(s, checkpoint, shot, tokens));
    return check_allowed(s, checkpoint, shot);
}

/* ---- during the loop ------------------------------------------------------------------------- */

float schedule_next(const struct schedule *s, float t)
{
    float next = 0.0f;
    for (int i = 0; i < s->count; i++)
        if (s->sigma[i] < t - level_epsilon && s->sigma[i] > next) next = s->sigma[i];
    return next;
}

int schedule_guidance_index(const struct float_list *levels, float t)
{
    CHECK(levels->count > 0, "no guidance_timesteps");
    for (int i = 0; i < levels->count; i++)
        if ((float)levels->v[i] <= t) return i;
    return levels->count - 1;
}

double schedule_value(const struct float_list *values, const struct float_list *levels, float t)
{
    if (values->is_scalar) return values->v[0];
    int i = schedule_guidance_index(levels, t);
    CHECK(i < values->count, "guidance list of %d values for %d levels", values->count,
          levels->count);
    return values->v[i];
}
