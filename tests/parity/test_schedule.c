/* Noise schedules against the reference scheduler, and what a shot makes of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/schedule.h"

static const struct scheduler_config linear_quadratic = {.sampler = SCHEDULER_LINEAR_QUADRATIC,
                                                         .target_shift_terminal = -1.0};
static const struct scheduler_config sd3 = {
    .sampler = SCHEDULER_UNIFORM, .shifting = SHIFTING_SD3, .target_shift_terminal = 0.1};
static const int64_t tokens = 1024;

static void assert_sigmas(const struct schedule *s, const double *expected, int count,
                          double tolerance)
{
    assert_int_equal(s->count, count);
    for (int i = 0; i < count; i++)
        if (!(fabs(s->sigma[i] - expected[i]) <= tolerance))
            fail_msg("sigma[%d] is %.9g, expected %.9g", i, s->sigma[i], expected[i]);
}

/* Fails unless `call` was refused with a message that has every one of the given words. */
#define assert_refused(call, ...)                                                                  \
    do {                                                                                           \
        const char *words_[] = {__VA_ARGS__};                                                      \
        error_clear();                                                                             \
        assert_int_equal(call, STATUS_INPUT);                                                      \
        for (size_t w_ = 0; w_ < sizeof words_ / sizeof *words_; w_++)                             \
            if (!strstr(error_message(), words_[w_]))                                              \
                fail_msg("\"%s\" lacks \"%s\"", error_message(), words_[w_]);                      \
        error_clear();                                                                             \
    } while (0)

/* ---- the reference's numbers ----------------------------------------------------------------- */

static struct scheduler_config config_of(json_t *row)
{
    const char *sampler = json_string_value(json_object_get(row, "sampler"));
    const char *shifting = json_string_value(json_object_get(row, "shifting"));
    json_t *terminal = json_object_get(row, "target_shift_terminal");
    return (struct scheduler_config){
        .sampler = !strcmp(sampler, "Uniform")    ? SCHEDULER_UNIFORM
                   : !strcmp(sampler, "Constant") ? SCHEDULER_CONSTANT
                                                  : SCHEDULER_LINEAR_QUADRATIC,
        .shifting = !shifting                  ? SHIFTING_NONE
                    : !strcmp(shifting, "SD3") ? SHIFTING_SD3
                                               : SHIFTING_SIMPLE_DIFFUSION,
        .shift = json_number_value(json_object_get(row, "shift")),
        .target_shift_terminal = json_is_null(terminal) ? -1.0 : json_number_value(terminal),
        .base_resolution = 1024,
    };
}

/* 1e-6: we compute in double and round once, the reference rounds to float32 after every operation.
 * Its stretch to a terminal T divides 1 - t, wrong by about 2^-24 beside t = 1, by (1 - t_last) /
 * (1 - T): with few steps and many tokens t_last is close to 1 and that error grows (2 steps at
 * 13376 tokens: its first level is 0.9999884, ours is exactly 1). Twice this bound is allowed. */
static double tolerance_of(const struct scheduler_config *config, int n, int64_t size)
{
    if (config->shifting != SHIFTING_SD3 || config->target_shift_terminal < 0) return 1e-6;
    struct scheduler_config unstretched = *config;
    struct schedule s;
    unstretched.target_shift_terminal = -1.0;
    schedule_make(&s, &unstretched, n, size);
    return fmax(1e-6, 0x1p-23 * (1.0 - config->target_shift_terminal) / (1.0 - s.sigma[n - 1]));
}

static void test_reference(void **state)
{
    (void)state;
    json_error_t error;
    json_t *rows = json_load_file("tests/parity/data/schedules.json", 0, &error), *row;
    size_t i, checked = 0;
    assert_non_null(rows);
    json_array_foreach (rows, i, row) {
        struct scheduler_config config = config_of(row);
        struct schedule s;
        json_t *sigmas = json_object_get(row, "sigmas");
        int n = (int)json_integer_value(json_object_get(row, "n"));
        int64_t size = json_integer_value(json_object_get(row, "tokens"));
        schedule_make(&s, &config, n, size);
        double tolerance = tolerance_of(&config, n, size);
        assert_int_equal(s.count, n);
        assert_int_equal(json_array_size(sigmas), n);
        for (int j = 0; j < n; j++) {
            json_t *expected = json_array_get(sigmas, (size_t)j);
            double value = json_number_value(expected);
            /* One step with a terminal: the reference divides 0 by 0 and gives NaN (null here) or,
             * when rounding left something to divide, the terminal. One step starts from pure
             * noise, so ours is 1. */
            if (n == 1 && config.target_shift_terminal > 0) value = 1.0, tolerance = 0.0;
            if (!(fabs(s.sigma[j] - value) <= tolerance)) {
                char *text = json_dumps(row, JSON_COMPACT);
                fail_msg("sigma[%d] is %.9g, expected %.9g in %s", j, s.sigma[j], value, text);
            }
            checked++;
        }
    }
    assert_true(checked > 1000);
    json_decref(rows);
}

static void test_linear_quadratic_exact(void **state)
{
    (void)state;
    struct schedule s;
    const double eight[] = {1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875};
    schedule_make(&s, &linear_quadratic, 8, tokens);
    assert_int_equal(s.count, 8);
    for (int i = 0; i < 8; i++) assert_true(s.sigma[i] == (float)eight[i]);
    schedule_make(&s, &linear_quadratic, 4, tokens);
    assert_sigmas(&s, (const double[]){1.0, 0.9875, 0.975, 0.725}, 4, 6e-8);
    schedule_make(&s, &linear_quadratic, 1, tokens);
    assert_sigmas(&s, (const double[]){1.0}, 1, 0.0);
    schedule_make(&s, &linear_quadratic, 30, tokens);
    const int at[] = {1, 14, 15, 16, 29};
    const double thirty[] = {0.998333, 0.976667, 0.975, 0.969111, 0.124111};
    for (int i = 0; i < 5; i++) assert_true(fabs(s.sigma[at[i]] - thirty[i]) < 6e-7);
}

static void test_sd3_ends(void **state)
{
    (void)state;
    struct schedule s;
    schedule_make(&s, &sd3, 4, 1024);
    assert_sigmas(&s, (const double[]){1.0, 0.808646, 0.532669, 0.1}, 4, 6e-7);
    schedule_make(&s, &sd3, 4, 4096);
    assert_sigmas(&s, (const double[]){1.0, 0.867083, 0.631569, 0.1}, 4, 6e-7);
    const int64_t sizes[] = {1, 1024, 4096, 13376, 200000, 3000000};
    for (int i = 0; i < 6; i++)
        for (int n = 2; n <= 50; n++) {
            schedule_make(&s, &sd3, n, sizes[i]);
            assert_true(s.sigma[0] == 1.0f && s.sigma[n - 1] == 0.1f);
            for (int j = 1; j < n; j++) assert_true(s.sigma[j] < s.sigma[j - 1]);
        }
    schedule_make(&s, &sd3, 1, 4096);
    assert_sigmas(&s, (const double[]){1.0}, 1, 0.0);
    struct scheduler_config tiny = sd3;
    tiny.target_shift_terminal = 1e-12;
    schedule_make(&s, &tiny, 5, 4096);
    assert_true(s.sigma[4] == 1e-12f);
}

static void test_steps_are_clamped(void **state)
{
    (void)state;
    struct schedule s;
    schedule_make(&s, &linear_quadratic, 5000, tokens);
    assert_int_equal(s.count, 1000);
}

/* ---- what a shot runs ------------------------------------------------------------------------ */

static struct shot_options shot_of(int steps, int head, int tail)
{
    return (struct shot_options){.num_inference_steps = steps,
                                 .skip_initial_inference_steps = head,
                                 .skip_final_inference_steps = tail};
}

static void test_skipped_ends(void **state)
{
    (void)state;
    struct schedule s;
    struct shot_options first = shot_of(30, 0, 3), second = shot_of(30, 17, 0);
    assert_int_equal(schedule_for_shot(&s, &linear_quadratic, &first, tokens), STATUS_OK);
    assert_int_equal(s.count, 27);
    assert_true(s.sigma[0] == 1.0f && fabsf(s.sigma[26] - 0.445778f) < 1e-6f);
    /* the last kept level goes straight to 0 */
    assert_true(schedule_next(&s, s.sigma[26]) == 0.0f);
    assert_int_equal(schedule_for_shot(&s, &linear_quadratic, &second, tokens), STATUS_OK);
    assert_int_equal(s.count, 13);
    assert_true(fabsf(s.sigma[0] - 0.954778f) < 1e-6f);

    struct shot_options all = shot_of(8, 3, 5), negative = shot_of(8, -1, 0),
                        none = shot_of(0, 0, 0), huge = shot_of(8, INT32_MAX, INT32_MAX);
    assert_refused(schedule_for_shot(&s, &linear_quadratic, &all, tokens),
                   "skip_initial_inference_steps 3", "(8)");
    assert_refused(schedule_for_shot(&s, &linear_quadratic, &negative, tokens),
                   "skip_initial_inference_steps -1");
    assert_refused(schedule_for_shot(&s, &linear_quadratic, &huge, tokens),
                   "skip_final_inference_steps");
    assert_refused(schedule_for_shot(&s, &linear_quadratic, &none, tokens),
                   "num_inference_steps: 0", "at least 1");
}

static void test_sampler_overrides_shift(void **state)
{
    (void)state;
    struct schedule s;
    struct shot_options shot = shot_of(4, 0, 0);
    assert_int_equal(schedule_for_shot(&s, &sd3, &shot, 4096), STATUS_OK);
    assert_sigmas(&s, (const double[]){1.0, 0.867083, 0.631569, 0.1}, 4, 1e-6);
    shot.sampler = SAMPLER_UNIFORM;
    assert_int_equal(schedule_for_shot(&s, &sd3, &shot, 4096), STATUS_OK);
    assert_sigmas(&s, (const double[]){1.0, 0.75, 0.5, 0.25}, 4, 0.0);
    shot.sampler = SAMPLER_LINEAR_QUADRATIC;
    assert_int_equal(schedule_for_shot(&s, &sd3, &shot, 4096), STATUS_OK);
    assert_sigmas(&s, (const double[]){1.0, 0.9875, 0.975, 0.725}, 4, 6e-8);
}

static void test_explicit_timesteps(void **state)
{
    (void)state;
    struct schedule s;
    struct shot_options shot = shot_of(30, 17, 50); /* ignored: the list is all there is */
    shot.timesteps = (struct float_list){.count = 3, .v = {0.9094, 0.725, 0.4219}};
    assert_int_equal(schedule_for_shot(&s, &sd3, &shot, 4096), STATUS_OK);
    assert_sigmas(&s, (const double[]){0.9094f, 0.725f, 0.4219f}, 3, 0.0);

    shot.timesteps = (struct float_list){.count = 3, .v = {0.5, 0.9, 0.2}};
    assert_refused(schedule_for_shot(&s, &sd3, &shot, tokens), "timesteps", "value 2", "0.9",
                   "descend");
    shot.timesteps = (struct float_list){.count = 2, .v = {1.0, 1.0}};
    assert_refused(schedule_for_shot(&s, &sd3, &shot, tokens), "timesteps", "value 2");
    const double bad[] = {0.0, -0.5, 1.5, NAN, INFINITY};
    for (int i = 0; i < 5; i++) {
        shot.timesteps = (struct float_list){.count = 1, .v = {bad[i]}};
        assert_refused(schedule_for_shot(&s, &sd3, &shot, tokens), "timesteps", "value 1",
                       "up to 1");
    }
}

static void test_allowed_steps(void **state)
{
    (void)state;
    struct schedule s;
    struct scheduler_config distilled = linear_quadratic;
    const double allowed[] = {1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219};
    distilled.allowed_count = 8;
    memcpy(distilled.allowed, allowed, sizeof allowed);

    /* 0.99375 and 0.98125 lie just below the tie in float32, 0.909375 and 0.421875 are no ties */
    struct shot_options shot = shot_of(8, 0, 0);
    assert_int_equal(schedule_for_shot(&s, &distilled, &shot, tokens), STATUS_OK);
    shot.timesteps = (struct float_list){.count = 4, .v = {1.0, 0.99375, 0.98125, 0.4219}};
    assert_int_equal(schedule_for_shot(&s, &distilled, &shot, tokens), STATUS_OK);
    shot.timesteps = (struct float_list){.count = 2, .v = {1.0, 0.9938}};
    assert_refused(schedule_for_shot(&s, &distilled, &shot, tokens), "timesteps: 0.9938",
                   "0.9937, 0.9875", "0.4219");
    shot = shot_of(30, 0, 0);
    assert_refused(schedule_for_shot(&s, &distilled, &shot, tokens), "num_inference_steps: 30",
                   "0.9983", "0.4219");

    distilled.allowed_count = MAX_ALLOWED_STEPS;
    for (int i = 0; i < MAX_ALLOWED_STEPS; i++) distilled.allowed[i] = 1e-7 * (i + 1);
    assert_refused(schedule_for_shot(&s, &distilled, &shot, tokens), "num_inference_steps");

    /* 0.03125 and 0.09375 are exact ties in float32: round() gives the even digit */
    distilled.allowed_count = 2;
    distilled.allowed[0] = 0.0938, distilled.allowed[1] = 0.0312;
    shot.timesteps = (struct float_list){.count = 2, .v = {0.09375, 0.03125}};
    assert_int_equal(schedule_for_shot(&s, &distilled, &shot, tokens), STATUS_OK);
}

/* What a checkpoint may hold, but nobody can render. */
static void test_levels_that_do_not_descend(void **state)
{
    (void)state;
    struct schedule s;
    struct shot_options shot = shot_of(4, 0, 0);
    struct scheduler_config constant = {.sampler = SCHEDULER_CONSTANT, .target_shift_terminal = -1};
    struct scheduler_config endless = sd3;
    endless.target_shift_terminal = -1;
    const double shifts[] = {800, -800};
    for (int i = 0; i < 2; i++) {
        constant.shift = shifts[i];
        assert_refused(schedule_for_shot(&s, &constant, &shot, tokens), "checkpoint's scheduler",
                       "4 steps for 1024 tokens", "do not descend");
        constant.shifting = SHIFTING_SD3, constant.target_shift_terminal = 0.1;
        assert_refused(schedule_for_shot(&s, &constant, &shot, tokens), "do not descend");
        constant.shifting = SHIFTING_NONE, constant.target_shift_terminal = -1;
    }
    constant.shift = 1.5;
    assert_int_equal(schedule_for_shot(&s, &constant, &shot, tokens), STATUS_OK);
    assert_refused(schedule_for_shot(&s, &endless, &shot, 67320), "4 steps for 67320 tokens",
                   "level 2 is 1", "sampler");
    assert_int_equal(schedule_for_shot(&s, &endless, &shot, 13376), STATUS_OK);
    shot.sampler = SAMPLER_LINEAR_QUADRATIC;
    assert_int_equal(schedule_for_shot(&s, &endless, &shot, 67320), STATUS_OK);
}

/* 0.9.0 and 0.9.1 at every size and number of steps that a user may ask for. */
static void test_released_shift_descends(void **state)
{
    (void)state;
    struct schedule s;
    const int64_t sizes[] = {1, 100, 1024, 13376, 67320, 500000, 3000000};
    const int steps[] = {1, 2, 8, 20, 40, 100, 1000};
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < 7; j++) {
            struct shot_options shot = shot_of(steps[j], 0, 0);
            assert_int_equal(schedule_for_shot(&s, &sd3, &shot, sizes[i]), STATUS_OK);
        }
}

/* ---- during the loop ------------------------------------------------------------------------- */

static void test_next(void **state)
{
    (void)state;
    struct schedule s;
    schedule_make(&s, &linear_quadratic, 8, tokens);
    for (int i = 0; i < 8; i++)
        assert_true(schedule_next(&s, s.sigma[i]) == (i < 7 ? s.sigma[i + 1] : 0.0f));
    assert_true(schedule_next(&s, 0.95f) == s.sigma[5]); /* a level between two */
    assert_true(schedule_next(&s, 0.725f + 5e-7f) == s.sigma[7]);
    assert_true(schedule_next(&s, 0.725f + 2e-6f) == s.sigma[6]);
    assert_true(schedule_next(&s, 0.3f) == 0.0f && schedule_next(&s, 0.0f) == 0.0f);

    /* an update with velocity x multiplies by the product of 1 - dt */
    double factor = 1.0;
    for (int i = 0; i < 8; i++) factor *= 1.0 - (s.sigma[i] - schedule_next(&s, s.sigma[i]));
    assert_true(fabs(factor - 0.299431) < 1e-6);
}

static void test_guidance_of_13b_dev(void **state)
{
    (void)state;
    struct float_list levels = {.count = 7,
                                .v = {1.0, 0.996, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180}};
    struct float_list cfg = {.count = 7, .v = {1, 1, 6, 8, 6, 1, 1}},
                      stg = {.count = 7, .v = {0, 0, 4, 4, 4, 2, 1}};
    struct float_list rescale = {.count = 7, .v = {1, 1, 0.5, 0.5, 1, 1, 1}};
    const int index[27] = {0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4,
                           5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6};
    struct schedule s;
    struct shot_options shot = shot_of(30, 0, 3);
    assert_int_equal(schedule_for_shot(&s, &linear_quadratic, &shot, tokens), STATUS_OK);
    assert_int_equal(s.count, 27);
    int rows = 0;
    for (int i = 0; i < 27; i++) {
        assert_int_equal(schedule_guidance_index(&levels, s.sigma[i]), index[i]);
        assert_true(schedule_value(&rescale, &levels, s.sigma[i]) == rescale.v[index[i]]);
        rows += 1 + (schedule_value(&cfg, &levels, s.sigma[i]) > 1) +
                (schedule_value(&stg, &levels, s.sigma[i]) > 0);
    }
    assert_int_equal(rows, 62);
}

static void test_guidance_index(void **state)
{
    (void)state;
    struct float_list levels = {.count = 3, .v = {0.9, 0.7, 0.3}}, one = {.count = 1, .v = {1.0}};
    struct float_list ascending = {.count = 3, .v = {0.3, 0.7, 0.9}};
    struct float_list scalar = {.count = 1, .is_scalar = true, .v = {3.5}};
    assert_int_equal(schedule_guidance_index(&levels, 1.0f), 0);
    assert_int_equal(schedule_guidance_index(&levels, 0.7f), 1); /* equal in float32 */
    assert_int_equal(schedule_guidance_index(&levels, 0.69f), 2);
    assert_int_equal(schedule_guidance_index(&levels, 0.1f), 2); /* below all: the last */
    assert_int_equal(schedule_guidance_index(&one, 0.5f), 0);
    /* the first that fits, not the largest */
    assert_int_equal(schedule_guidance_index(&ascending, 0.95f), 0);
    assert_true(schedule_value(&scalar, &levels, 0.1f) == 3.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_linear_quadratic_exact),
        cmocka_unit_test(test_sd3_ends),
        cmocka_unit_test(test_steps_are_clamped),
        cmocka_unit_test(test_skipped_ends),
        cmocka_unit_test(test_sampler_overrides_shift),
        cmocka_unit_test(test_explicit_timesteps),
        cmocka_unit_test(test_allowed_steps),
        cmocka_unit_test(test_levels_that_do_not_descend),
        cmocka_unit_test(test_released_shift_descends),
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_guidance_of_13b_dev),
        cmocka_unit_test(test_guidance_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
