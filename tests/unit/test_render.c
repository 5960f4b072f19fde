/* Geometry, guidance arithmetic and noise of a shot, against worked values of the official
 * pipeline. */

#include "render/decode.h"
#include "render/guidance.h"
#include "render/noise.h"
#include "render/shot.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct float_list scalar(double v)
{
    return (struct float_list){.count = 1, .is_scalar = true, .v = {v}};
}

static struct shot_options options(int width, int height, int frames)
{
    return (struct shot_options){.width = width,
                                 .height = height,
                                 .num_frames = frames,
                                 .num_inference_steps = 4,
                                 .guidance_scale = scalar(3),
                                 .stg_scale = scalar(0),
                                 .rescaling_scale = scalar(1)};
}

static const struct scheduler_config linear_quadratic = {.sampler = SCHEDULER_LINEAR_QUADRATIC,
                                                         .target_shift_terminal = -1};

static struct shot prepared(const struct shot_options *o)
{
    struct shot s;
    assert_int_equal(shot_prepare(&s, 0, o, &linear_quadratic, 8, 32), 0);
    return s;
}

static void frames_are_padded_to_whole_latents(void **state)
{
    (void)state;
    static const int pairs[][2] = {{1, 1},     {2, 9},     {8, 9},     {9, 9},     {10, 17},
                                   {120, 121}, {121, 121}, {122, 129}, {257, 257}, {258, 265}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct shot_options o = options(64, 64, pairs[i][0]);
        struct shot s = prepared(&o);
        assert_int_equal(s.frames, pairs[i][1]);
        assert_int_equal(s.f, (pairs[i][1] - 1) / 8 + 1);
    }
}

static void pictures_are_shared_along_the_cheaper_axis(void **state)
{
    (void)state;
    static const struct {
        int64_t h, w;
        int ranks;
        enum vae_axis axis;
    } cases[] = {
        {16, 24, 1, VAE_ROWS},    {16, 24, 4, VAE_ROWS},    /* alike */
        {16, 24, 3, VAE_COLUMNS}, {16, 24, 5, VAE_COLUMNS}, /* 144 and 128 latents, 96 and 80 */
        {24, 16, 5, VAE_ROWS},    {1, 7, 3, VAE_COLUMNS},   {7, 1, 3, VAE_ROWS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(decode_axis(cases[i].h, cases[i].w, cases[i].ranks), cases[i].axis);
}

static void pictures_are_padded_and_cropped_in_the_middle(void **state)
{
    (void)state;
    struct shot_options o = options(700, 500, 9);
    struct shot s = prepared(&o);
    assert_int_equal(s.height, 512);
    assert_int_equal(s.width, 704);
    assert_int_equal(s.top, 6);
    assert_int_equal(s.left, 2);
    assert_int_equal(s.tokens, 2 * 16 * 22);
    o = options(512, 511, 9);
    s = prepared(&o);
    assert_int_equal(s.top, 0);
    o = options(704, 512, 9);
    s = prepared(&o);
    assert_int_equal(s.top + s.left, 0);
}

static void negative_prompt_is_used_only_with_guidance(void **state)
{
    (void)state;
    struct shot_options o = options(64, 64, 9);
    assert_true(prepared(&o).uses_negative);
    o.guidance_scale = scalar(1);
    assert_false(prepared(&o).uses_negative);
}

/* u = (1,2,0,1), p = (2,1,1,0), q = (1,1,1,1), g = 3, s = 1, r = 0.7, cfg-star. */
static void combine(struct guidance g, float out[4])
{
    float u[] = {1, 2, 0, 1}, q[] = {1, 1, 1, 1}, scratch[4];
    float p[] = {2, 1, 1, 0};
    struct device *dev = device_open_cpu(1, NULL, PRECISION_F32);
    struct comm *group = comm_open_self();
    struct shard_plan plan = shard_plan_make(4, 1);
    double parts[1];
    int counts[1], offsets[1];
    struct sequence_sums sums = {dev, group, &plan, parts, counts, offsets};
    guidance_combine(&g, &sums, mat_f32(u, 4, 1), mat_f32(p, 4, 1), mat_f32(q, 4, 1),
                     mat_f32(scratch, 4, 1));
    memcpy(out, p, sizeof p);
    comm_close(group);
    device_close(dev);
}

static void check(const float *got, const float *want)
{
    for (int i = 0; i < 4; i++) assert_true(fabsf(got[i] - want[i]) < 1e-5f);
}

static void guidance_matches_the_worked_example(void **state)
{
    (void)state;
    struct guidance g = {.cfg = 3,
                         .stg = 1,
                         .rescale = 0.7,
                         .use_cfg = true,
                         .use_stg = true,
                         .use_rescale = true,
                         .cfg_star = true};
    float got[4];
    combine(g, got);
    check(got, (float[]){2.64078f, 0.15534f, 1.39806f, -1.08738f});
    g.use_rescale = false;
    combine(g, got);
    check(got, (float[]){5.66667f, 0.33333f, 3, -2.33333f});
    g.use_stg = false;
    combine(g, got);
    check(got, (float[]){4.66667f, 0.33333f, 3, -1.33333f});
    g.use_cfg = false;
    combine(g, got);
    check(got, (float[]){2, 1, 1, 0});
}

/* Rescaling belongs to STG: with CFG alone, or at 1, nothing is rescaled. */
static void rescale_is_off_without_stg_and_at_one(void **state)
{
    (void)state;
    struct shot_options o = options(64, 64, 9);
    o.rescaling_scale = scalar(0.7);
    assert_false(guidance_at(&o, 1).use_rescale);
    o.stg_scale = scalar(1);
    assert_true(guidance_at(&o, 1).use_rescale);
    o.rescaling_scale = scalar(1);
    assert_false(guidance_at(&o, 1).use_rescale);
}

static void skip_blocks_are_checked_only_when_used(void **state)
{
    (void)state;
    static const float sigma[] = {1, 0.5f};
    struct shot_options o = options(64, 64, 9);
    o.skip_block_list = (struct block_lists){.count = 1, .lists = {{.count = 1, .v = {42}}}};
    assert_int_equal(guidance_check(&o, sigma, 2, 28), 0);
    o.stg_scale = scalar(1);
    assert_int_not_equal(guidance_check(&o, sigma, 2, 28), 0);
}

/* A rank that draws only its rows gets the rows of the whole draw, in both orders. */
static void a_shard_of_noise_is_a_part_of_the_whole(void **state)
{
    (void)state;
    enum { TOKENS = 150, CHANNELS = 32, FIRST = 48, ROWS = 64 };
    float *whole = malloc(TOKENS * CHANNELS * sizeof *whole), part[ROWS * CHANNELS];
    struct device *dev = device_open_cpu(1, NULL, PRECISION_F32);
    for (int order = RNG_TORCH; order <= RNG_DIFFUSERS; order++) {
        struct rng a, b;
        rng_seed(&a, 5);
        rng_seed(&b, 5);
        noise_draw(dev, &a, (enum rng_kind)order, TOKENS, CHANNELS, 0, TOKENS, whole);
        noise_draw(dev, &b, (enum rng_kind)order, TOKENS, CHANNELS, FIRST, ROWS, part);
        assert_memory_equal(part, whole + FIRST * CHANNELS, sizeof part);
        assert_int_equal(rng_u32(&a), rng_u32(&b));
        rng_seed(&b, 5);
        rng_seed(&a, 5);
        noise_draw(dev, &a, (enum rng_kind)order, TOKENS, CHANNELS, FIRST, ROWS, part);
        noise_skip(&b, TOKENS, CHANNELS);
        assert_int_equal(rng_u32(&a), rng_u32(&b));
    }
    device_close(dev);
    struct rng r;
    float *straight = malloc(TOKENS * CHANNELS * sizeof *straight);
    rng_seed(&r, 5);
    rng_randn(&r, straight, TOKENS * CHANNELS);
    for (int s = 0; s < TOKENS; s++) /* `whole` still holds the channel-major order */
        for (int c = 0; c < CHANNELS; c++)
            assert_true(whole[s * CHANNELS + c] == straight[c * TOKENS + s]);
    free(straight);
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_padded_to_whole_latents),
        cmocka_unit_test(pictures_are_padded_and_cropped_in_the_middle),
        cmocka_unit_test(pictures_are_shared_along_the_cheaper_axis),
        cmocka_unit_test(negative_prompt_is_used_only_with_guidance),
        cmocka_unit_test(guidance_matches_the_worked_example),
        cmocka_unit_test(rescale_is_off_without_stg_and_at_one),
        cmocka_unit_test(skip_blocks_are_checked_only_when_used),
        cmocka_unit_test(a_shard_of_noise_is_a_part_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
