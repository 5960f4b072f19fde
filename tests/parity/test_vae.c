/* The VAE decoder against stored outputs of the reference for the block lists of all three
 * generations, and against what its structure says about small decoders built here: sizes,
 * residuals, reach, threads, damaged checkpoints. */
#include "base/error.h"
#include "model/vae.h"
#include "tests/support/synth.h"
#include "tests/support/vae_decode.h"
#include "tests/support/vae_small.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- stored outputs of the reference --------------------------------------------------------- */

static void check_parity(const char *name, bool conditioned)
{
    struct reference_case x;
    struct checkpoint *c;
    reference_case_open(&x, name, directory);
    struct vae *v = open_vae(&c, x.checkpoint_path, dev, true);
    assert_int_equal(vae_latent_channels(v), x.channels);
    assert_int_equal(vae_time_factor(v), 8);
    assert_int_equal(vae_space_factor(v), 32);
    assert_int_equal(vae_wants_timestep(v), conditioned);
    assert_true(vae_packed_bytes(v, false) > 0);
    assert_true(vae_packed_bytes(v, true) > vae_packed_bytes(v, false));

    vae_unnormalize(v, x.z, x.f * x.h * x.w);
    float *video = decode(v, x.z, x.f, x.h, x.w, x.seed);
    /* Two fp32 evaluations of 43 to 57 convolutions in different summation orders differ by 1e-6 to
     * 3e-6; the smallest mistake of structure known (a sinusoid divisor of 127) by 5e-2. */
    double rms = reference_case_error(&x, video, video_floats(v, x.f, x.h, x.w) / 3);
    if (!(rms <= 1e-5)) fail_msg("%s: relative RMS %g", name, rms);
    print_message("%s: relative RMS %.2g\n", name, rms);
    free(video);
    vae_close(v);
    checkpoint_close(c);
    reference_case_close(&x);
}

static void test_parity_090(void **state)
{
    (void)state;
    check_parity("vae_090", false);
}
static void test_parity_091(void **state)
{
    (void)state;
    check_parity("vae_091", true);
}
static void test_parity_095(void **state)
{
    (void)state;
    check_parity("vae_095", true);
}

/* One thread or two, weights kept or reordered for every use: the same bytes. One and two latents
 * on the way: 1 and 9 frames. */
static void test_threads_and_residency_give_the_same_bytes(void **state)
{
    (void)state;
    struct reference_case x;
    struct checkpoint *c;
    struct device *one = device_open_cpu(1, NULL, PRECISION_F32);
    reference_case_open(&x, "vae_091", directory);
    for (int64_t f = 1; f <= 2; f++) {
        struct vae *a = open_vae(&c, x.checkpoint_path, dev, true);
        float *first = decode(a, x.z, f, 1, 2, 3);
        int64_t n = video_floats(a, f, 1, 2);
        assert_int_equal(n, (f == 1 ? 1 : 9) * 32 * 64 * 3);
        for (int64_t i = 0; i < n; i++) assert_true(isfinite(first[i]));
        vae_close(a);
        checkpoint_close(c);

        struct vae *b = open_vae(&c, x.checkpoint_path, one, false);
        float *second = decode(b, x.z, f, 1, 2, 3);
        assert_memory_equal(first, second, (size_t)n * sizeof *first);
        vae_close(b);
        checkpoint_close(c);
        free(first);
        free(second);
    }
    device_close(one);
    reference_case_close(&x);
}

/* ---- small decoders -------------------------------------------------------------------------- */

static void set_zero(struct net *n, const char *name)
{
    struct tensor *t = net_find(n, name);
    memset((void *)t->data, 0, t->bytes);
}

/* NAME becomes a convolution that hands its input on. */
static void set_identity(struct net *n, const char *base)
{
    char name[128];
    snprintf(name, sizeof name, "vae.decoder.%s.bias", base);
    set_zero(n, name);
    snprintf(name, sizeof name, "vae.decoder.%s.weight", base);
    set_zero(n, name);
    struct tensor *t = net_find(n, name);
    for (int64_t c = 0; c < t->shape[0]; c++)
        ((float *)t->data)[(c * t->shape[1] + c) * 27 + 13] = 1.0f;
}

enum { ZERO_F = 3, ZERO_H = 2, ZERO_W = 3, ZERO_C = 24, ZERO_OUT = 12, ZERO_PATCH = 2 };

/* One position of z's depth to space, tiled to all channels, behind the final norm and SiLU. */
static void tiled_residual(float out[ZERO_OUT], const float *z, int64_t t, int64_t y, int64_t x)
{
    const float *from = z + (((t + 1) / 2 * ZERO_H + y / 2) * ZERO_W + x / 2) * ZERO_C;
    float mean_square = 0;
    for (int o = 0; o < ZERO_OUT; o++) {
        out[o] = from[8 * (o % (ZERO_C / 8)) + (t + 1) % 2 * 4 + y % 2 * 2 + x % 2];
        mean_square += out[o] * out[o] / ZERO_OUT;
    }
    for (int o = 0; o < ZERO_OUT; o++) {
        float a = out[o] / sqrtf(mean_square + 1e-8f);
        out[o] = a / (1.0f + expf(-a));
    }
}

/* The value of channel o, which unpatchify puts into the square of pixels of its position. */
static float patch_value(const float *video, int64_t t, int64_t y, int64_t x, int64_t o)
{
    int64_t colour = o / (ZERO_PATCH * ZERO_PATCH);
    int64_t column = x * ZERO_PATCH + o / ZERO_PATCH % ZERO_PATCH; /* width is the slower offset */
    int64_t row = (t * 2 * ZERO_H + y) * ZERO_PATCH + o % ZERO_PATCH;
    return video[(row * 2 * ZERO_W * ZERO_PATCH + column) * 3 + colour];
}

/* With a convolution of zeros an upsampling block hands on its input: depth to space, the same
 * channels 8/m times, without the first frame. conv_in and conv_out around it change nothing. */
static void test_zero_upsampling_is_the_tiled_residual(void **state)
{
    (void)state;
    struct net n = {0};
    rng_seed(&n.rng, 12);
    net_add_conv(&n, "conv_in.conv", ZERO_C, ZERO_C);
    net_add_conv(&n, "up_blocks.0.conv.conv", 4 * ZERO_C, ZERO_C);
    net_add_conv(&n, "conv_out.conv", ZERO_OUT, ZERO_OUT);
    set_identity(&n, "conv_in.conv");
    set_identity(&n, "conv_out.conv");
    set_zero(&n, "vae.decoder.up_blocks.0.conv.conv.weight");
    set_zero(&n, "vae.decoder.up_blocks.0.conv.conv.bias");
    net_write(&n, small_path);
    struct checkpoint *c;
    struct vae *v = open_vae(&c, small_path, dev, true);
    float *z = random_latents(ZERO_F * ZERO_H * ZERO_W * ZERO_C, 13);
    float *video = decode(v, z, ZERO_F, ZERO_H, ZERO_W, 0);

    int64_t positions = (2 * ZERO_F - 1) * (2 * ZERO_H) * (2 * ZERO_W);
    for (int64_t i = 0; i < positions; i++) {
        int64_t t = i / (4 * ZERO_H * ZERO_W), y = i / (2 * ZERO_W) % (2 * ZERO_H);
        int64_t x = i % (2 * ZERO_W);
        float expected[ZERO_OUT];
        tiled_residual(expected, z, t, y, x);
        for (int o = 0; o < ZERO_OUT; o++) /* only the rounding of norm and SiLU may differ */
            assert_true(fabsf(patch_value(video, t, y, x, o) - expected[o]) <= 1e-5f);
    }
    free(z);
    free(video);
    vae_close(v);
    checkpoint_close(c);
    net_free(&n);
}

/* ---- reach: which output sees which latent --------------------------------------------------- */

struct mask {
    bool *at;
    int64_t t, h, w;
};

/* What a 3x3x3 convolution makes of marked positions. */
static void mask_convolve(struct mask *m, bool causal)
{
    bool *to = xcalloc((size_t)(m->t * m->h * m->w), sizeof *to);
    for (int64_t i = 0; i < m->t * m->h * m->w; i++)
        for (int tap = 0; tap < 27; tap++) {
            int64_t t = i / (m->h * m->w) + tap / 9 - (causal ? 2 : 1);
            int64_t y = i / m->w % m->h + tap / 3 % 3 - 1, x = i % m->w + tap % 3 - 1;
            t = t < 0 ? 0 : t >= m->t ? m->t - 1 : t;
            if (y >= 0 && y < m->h && x >= 0 && x < m->w) to[i] |= m->at[(t * m->h + y) * m->w + x];
        }
    free(m->at);
    m->at = to;
}

static void mask_upsample(struct mask *m)
{
    struct mask to = {NULL, 2 * m->t - 1, 2 * m->h, 2 * m->w};
    to.at = xcalloc((size_t)(to.t * to.h * to.w), sizeof *to.at);
    for (int64_t i = 0; i < to.t * to.h * to.w; i++) {
        int64_t t = i / (to.h * to.w), y = i / to.w % to.h, x = i % to.w;
        to.at[i] = m->at[((t + 1) / 2 * m->h + y / 2) * m->w + x / 2];
    }
    free(m->at);
    *m = to;
}

/* A NaN in one latent must appear in exactly the pixels the convolutions carry it to: not one more,
 * not one less. */
static void check_reach(bool causal)
{
    enum { F = 12, H = 12, W = 10, C = 4, MARKED = (5 * H + 5) * W + 1 };
    struct net n;
    struct checkpoint *c;
    net_small(&n, false);
    n.causal = causal;
    net_write(&n, small_path);
    struct vae *v = open_vae(&c, small_path, dev, true);
    float *z = random_latents(F * H * W * C, 14);
    z[MARKED * C + 2] = NAN;
    float *video = decode(v, z, F, H, W, 0);

    struct mask m = {xcalloc(F * H * W, sizeof(bool)), F, H, W};
    m.at[MARKED] = true;
    mask_convolve(&m, causal); /* conv_in */
    mask_convolve(&m, causal); /* up conv */
    mask_upsample(&m);
    for (int i = 0; i < 3; i++) mask_convolve(&m, causal); /* conv1, conv2, conv_out */
    int64_t marked = 0, positions = m.t * m.h * m.w;
    for (int64_t i = 0; i < positions * 4 * 3; i++) {
        int64_t frame = i / (m.h * m.w * 12), y = i / (m.w * 6) % (2 * m.h) / 2;
        int64_t x = i / 3 % (2 * m.w) / 2;
        bool expected = m.at[(frame * m.h + y) * m.w + x];
        if (isnan(video[i]) != expected)
            fail_msg("pixel %lld of frame %lld: NaN %d, expected %d", (long long)(i / 3),
                     (long long)frame, isnan(video[i]), expected);
        marked += expected;
    }
    assert_true(marked > 0 && marked < positions * 12);
    free(m.at);
    free(z);
    free(video);
    vae_close(v);
    checkpoint_close(c);
    net_free(&n);
}

static void test_reach_symmetric(void **state)
{
    (void)state;
    check_reach(false);
}

static void test_reach_causal(void **state)
{
    (void)state;
    check_reach(true);
}

/* ---- statistics, timestep -------------------------------------------------------------------- */

static void test_statistics_default_to_zero_and_one(void **state)
{
    (void)state;
    struct net n;
    struct checkpoint *c;
    net_small(&n, false);
    for (int with = 0; with < 2; with++) {
        int64_t channels = 4;
        const float *mean = NULL, *std = NULL;
        if (with) {
            mean = net_add(&n, "vae.per_channel_statistics.mean-of-means", 1, &channels);
            std = net_add(&n, "vae.per_channel_statistics.std-of-means", 1, &channels);
        }
        net_write(&n, small_path);
        struct vae *v = open_vae(&c, small_path, dev, false);
        float z[12];
        for (int i = 0; i < 12; i++) z[i] = (float)(i - 5);
        vae_unnormalize(v, z, 3);
        for (int i = 0; i < 12; i++) {
            float expected = (float)(i - 5);
            if (with) expected = expected * std[i % 4] + mean[i % 4];
            assert_true(z[i] == expected);
        }
        vae_close(v);
        checkpoint_close(c);
    }
    net_free(&n);
}

static void test_timestep_matters(void **state)
{
    (void)state;
    struct net n;
    struct checkpoint *c;
    struct rng noise;
    net_small(&n, true);
    net_write(&n, small_path);
    struct vae *v = open_vae(&c, small_path, dev, true);
    assert_true(vae_wants_timestep(v));
    float *z = random_latents(2 * 2 * 2 * 4, 15);
    float *a = decode(v, z, 2, 2, 2, 0), *b = decode(v, z, 2, 2, 2, 0);
    size_t bytes = (size_t)video_floats(v, 2, 2, 2) * sizeof *a;
    assert_memory_equal(a, b, bytes); /* a decode leaves nothing behind for the next */
    rng_seed(&noise, 0);
    decode_into(b, v, z, (int64_t[]){2, 2, 2}, 0.9f, &noise, NULL);
    assert_memory_not_equal(a, b, bytes);
    free(a);
    free(b);
    free(z);
    vae_close(v);
    checkpoint_close(c);
    net_free(&n);
}

/* ---- damaged checkpoints --------------------------------------------------------------------- */

enum damage { DROP, FIRST_EXTENT, INTEGERS, ADD };

static const struct bad_case {
    enum damage damage;
    int64_t extent; /* of FIRST_EXTENT and ADD */
    const char *tensor, *message;
} bad_cases[] = {
    {DROP, 0, "conv_in.conv.weight", "conv_in.conv.weight"},
    {DROP, 0, "conv_in.conv.bias", "conv_in.conv.bias"},
    {DROP, 0, "up_blocks.0.conv.conv.weight", "up_blocks.0"},
    {DROP, 0, "up_blocks.1.res_blocks.0.conv2.conv.bias",
     "up_blocks.1.res_blocks.0.conv2.conv.bias"},
    {DROP, 0, "up_blocks.1.res_blocks.0.scale_shift_table", "scale_shift_table"},
    {DROP, 0, "up_blocks.1.time_embedder.timestep_embedder.linear_2.weight", "linear_2.weight"},
    {DROP, 0, "timestep_scale_multiplier", "timestep_scale_multiplier"},
    {DROP, 0, "last_scale_shift_table", "last_scale_shift_table"},
    {DROP, 0, "conv_out.conv.weight", "conv_out.conv.weight"},
    {FIRST_EXTENT, 5, "conv_in.conv.bias", "conv_in.conv.bias"},
    {FIRST_EXTENT, 5, "up_blocks.1.res_blocks.0.conv1.conv.weight",
     "up_blocks.1.res_blocks.0.conv1.conv.weight"},
    {FIRST_EXTENT, 3, "up_blocks.1.res_blocks.0.scale_shift_table", "scale_shift_table"},
    {FIRST_EXTENT, 24, "up_blocks.0.conv.conv.weight", "up_blocks.0.conv.conv"},
    {FIRST_EXTENT, 0, "conv_in.conv.weight", "conv_in.conv.weight has shape [0,"},
    {FIRST_EXTENT, 10, "conv_out.conv.weight", "conv_out.conv"},
    {FIRST_EXTENT, 8, "last_time_embedder.timestep_embedder.linear_1.weight", "linear_1.weight"},
    {INTEGERS, 0, "up_blocks.1.res_blocks.0.conv2.conv.weight", "I32"},
    {ADD, 8, "up_blocks.1.res_blocks.2.conv1.conv.weight", "res_blocks.1.conv1"},
    {ADD, 8, "up_blocks.3.conv1.conv.weight", "up_blocks.2"},
    {ADD, 7, "up_blocks.1.res_blocks.0.per_channel_scale1", "per_channel_scale1"},
};

static void damage(struct net *n, const struct bad_case *bad)
{
    char name[128];
    snprintf(name, sizeof name, "vae.decoder.%s", bad->tensor);
    struct tensor *t;
    switch (bad->damage) {
    case DROP:
        net_drop(n, name);
        break;
    case FIRST_EXTENT:
        t = net_find(n, name);
        t->bytes = t->bytes / (size_t)t->shape[0] * (size_t)bad->extent;
        t->data = xrealloc((void *)t->data, t->bytes);
        memset((void *)t->data, 0, t->bytes);
        t->shape[0] = bad->extent;
        if (strstr(name, "conv.weight")) { /* the bias fits: only the shape's meaning is wrong */
            strcpy(strstr(name, "weight"), "bias");
            net_drop(n, name);
            net_add(n, name, 1, &bad->extent);
        }
        break;
    case INTEGERS:
        net_find(n, name)->dtype = DTYPE_I32;
        break;
    case ADD:
        net_add(n, name, 3, (int64_t[]){bad->extent, 1, 1});
        break;
    }
}

static void test_damaged_checkpoints_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_cases / sizeof *bad_cases; i++) {
        struct net n;
        struct checkpoint *c;
        struct vae *v = NULL;
        net_small(&n, true);
        damage(&n, &bad_cases[i]);
        net_write(&n, small_path);
        error_clear();
        int opened = checkpoint_open(&c, small_path), status = opened;
        if (opened == STATUS_OK) status = vae_open(&v, dev, c);
        if (status != STATUS_INPUT || !strstr(error_message(), bad_cases[i].message) ||
            !strstr(error_message(), small_path) || strchr(error_message(), '\n'))
            fail_msg("%s: status %d, \"%s\"", bad_cases[i].tensor, status, error_message());
        assert_null(v);
        if (opened == STATUS_OK) checkpoint_close(c);
        net_free(&n);
    }
    error_clear();
}

static void test_clips_beyond_any_memory_are_refused(void **state)
{
    (void)state;
    struct net n;
    struct checkpoint *c;
    net_small(&n, false);
    net_write(&n, small_path);
    struct vae *v = open_vae(&c, small_path, dev, true);
    struct comm *self = comm_open_self();
    const int64_t sizes[][3] = {
        {(int64_t)1 << 62, 1, 1}, {1 << 30, 1 << 30, 1 << 30}, {400000, 40000, 40000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct vae_task task = {
            .h = sizes[i][1], .w = sizes[i][2], .chunk = sizes[i][0], .group = self};
        struct vae_stream *s;
        assert_int_equal(vae_stream_open(&s, v, &task), STATUS_INPUT);
        error_clear();
    }
    comm_close(self);
    vae_close(v);
    checkpoint_close(c);
    net_free(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_090),
        cmocka_unit_test(test_parity_091),
        cmocka_unit_test(test_parity_095),
        cmocka_unit_test(test_threads_and_residency_give_the_same_bytes),
        cmocka_unit_test(test_zero_upsampling_is_the_tiled_residual),
        cmocka_unit_test(test_reach_symmetric),
        cmocka_unit_test(test_reach_causal),
        cmocka_unit_test(test_statistics_default_to_zero_and_one),
        cmocka_unit_test(test_timestep_matters),
        cmocka_unit_test(test_damaged_checkpoints_are_refused_by_name),
        cmocka_unit_test(test_clips_beyond_any_memory_are_refused),
    };
    return cmocka_run_group_tests(tests, vae_set_up, vae_tear_down);
}
