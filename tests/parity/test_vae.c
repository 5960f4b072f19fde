/* The VAE decoder against stored outputs of the reference for the block lists of all three
 * generations, and against what its structure says about small decoders built here: sizes,
 * residuals, reach, threads, damaged checkpoints. */
#include "base/error.h"
#include "model/vae.h"
#include "tests/support/synth.h"
#include "tests/support/vae_clip.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char *directory, *small_path;
static struct device *dev;

static int set_up(void **state)
{
    (void)state;
    directory = temp_dir_make();
    small_path = xasprintf("%s/small.safetensors", directory);
    dev = device_open_cpu(2, NULL, PRECISION_F32);
    return dev ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    device_close(dev);
    free(small_path);
    temp_dir_remove(directory);
    return 0;
}

/* ---- decoding -------------------------------------------------------------------------------- */

static struct vae *open_vae(struct checkpoint **c, const char *path, struct device *on,
                            bool resident)
{
    struct vae *v = NULL;
    int status = checkpoint_open(c, path);
    if (status == STATUS_OK) status = vae_open(&v, on, *c);
    if (status != STATUS_OK) fail_msg("%s", error_message());
    if (resident) vae_make_resident(v);
    return v;
}

static int64_t video_floats(const struct vae *v, int64_t f, int64_t h, int64_t w)
{
    int64_t frames = vae_time_factor(v) * (f - 1) + 1, space = vae_space_factor(v);
    return frames * (space * h) * (space * w) * 3;
}

struct reports {
    int64_t count, last, total;
};

static void count_report(void *arg, int64_t done, int64_t total)
{
    struct reports *r = arg;
    assert_true(done > r->last && done <= total && (r->count == 0 || total == r->total));
    r->count++;
    r->last = done;
    r->total = total;
}

/* A decode in memory of exactly the planned size. */
static void decode_into(float *video, struct vae *v, const float *z, const int64_t size[3],
                        float timestep, struct rng *noise, const struct vae_progress *progress)
{
    struct comm *self = comm_open_self();
    struct arena memory;
    struct vae_task task = {.h = size[1], .w = size[2], .chunk = size[0], .group = self};
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    vae_clip_decode(s, video, z, size[0], size[0], timestep, noise, progress);
    vae_stream_close(s);
    arena_free(&memory);
    comm_close(self);
}

/* Decodes into memory of exactly the size the factors promise, filled with NaN before. The caller
 * frees. */
static float *decode(struct vae *v, const float *z, int64_t f, int64_t h, int64_t w, uint64_t seed)
{
    struct rng noise;
    struct reports reports = {0};
    struct vae_progress progress = {count_report, &reports};
    int64_t n = video_floats(v, f, h, w);
    float *video = xmalloc((size_t)n * sizeof *video);
    for (int64_t i = 0; i < n; i++) video[i] = NAN;
    rng_seed(&noise, seed);
    decode_into(video, v, z, (int64_t[]){f, h, w}, 0.05f, &noise, &progress);
    assert_true(reports.count > 0 && reports.last == reports.total);
    return video;
}

static float *random_latents(int64_t n, uint64_t seed)
{
    struct rng r;
    float *z = xmalloc((size_t)n * sizeof *z);
    rng_seed(&r, seed);
    rng_randn(&r, z, (size_t)n);
    return z;
}

/* ---- stored outputs of the reference --------------------------------------------------------- */

struct reference_case {
    struct safetensors *file;
    char *checkpoint_path;
    int64_t channels, f, h, w;
    float *z; /* normalised, token-major */
    uint64_t seed;
    int64_t stride;
};

static void case_open(struct reference_case *x, const char *name)
{
    *x = (struct reference_case){0};
    char *manifest = xasprintf("tests/parity/data/%s.manifest.json", name);
    char *stored = xasprintf("tests/parity/data/%s.safetensors", name);
    x->checkpoint_path = xasprintf("%s/%s.safetensors", directory, name);
    if (synth_checkpoint(manifest, x->checkpoint_path) || safetensors_open(&x->file, stored))
        fail_msg("%s", error_message());
    free(manifest);
    free(stored);
    x->seed = strtoull(safetensors_metadata(x->file, "decode_seed"), NULL, 10);
    x->stride = strtoll(safetensors_metadata(x->file, "video.stride"), NULL, 10);

    const struct tensor *latents = fixture(x->file, "latents"); /* [C,f,h,w] */
    x->channels = latents->shape[0];
    x->f = latents->shape[1];
    x->h = latents->shape[2];
    x->w = latents->shape[3];
    int64_t tokens = x->f * x->h * x->w;
    float *planes = tensor_floats(latents);
    x->z = xmalloc(latents->bytes);
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t c = 0; c < x->channels; c++)
            x->z[i * x->channels + c] = planes[c * tokens + i];
    free(planes);
}

static void case_close(struct reference_case *x)
{
    safetensors_close(x->file);
    unlink(x->checkpoint_path);
    free(x->checkpoint_path);
    free(x->z);
}

/* The stored values are every stride-th of [3,F,H,W]; `video` is [F,H,W,3]. */
static double video_error(const struct reference_case *x, const float *video, int64_t pixels)
{
    const struct tensor *sample = fixture(x->file, "video.sample");
    int64_t n = tensor_count(sample);
    assert_true(n == (3 * pixels + x->stride - 1) / x->stride);
    float *expected = tensor_floats(sample), *have = xmalloc(sample->bytes);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i * x->stride;
        have[i] = video[at % pixels * 3 + at / pixels];
    }
    double rms = relative_rms(have, expected, (size_t)n);
    free(expected);
    free(have);
    return rms;
}

static void check_parity(const char *name, bool conditioned)
{
    struct reference_case x;
    struct checkpoint *c;
    case_open(&x, name);
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
    double rms = video_error(&x, video, video_floats(v, x.f, x.h, x.w) / 3);
    if (!(rms <= 1e-5)) fail_msg("%s: relative RMS %g", name, rms);
    print_message("%s: relative RMS %.2g\n", name, rms);
    free(video);
    vae_close(v);
    checkpoint_close(c);
    case_close(&x);
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
    case_open(&x, "vae_091");
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
    case_close(&x);
}

/* ---- small decoders built here --------------------------------------------------------------- */

enum { MAX_TENSORS = 48 };

struct net {
    struct tensor tensors[MAX_TENSORS];
    int count;
    bool causal;
    struct rng rng;
};

/* A tensor with random values, as the first `rank` of `shape` say. Returns the values. */
static float *net_add(struct net *n, const char *name, int rank, const int64_t *shape)
{
    assert_true(n->count < MAX_TENSORS);
    struct tensor *t = &n->tensors[n->count++];
    *t = (struct tensor){.name = xstrdup(name), .dtype = DTYPE_F32, .rank = rank};
    if (rank) memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
    size_t count = (size_t)tensor_count(t);
    float *values = xmalloc(count * sizeof *values);
    rng_randn(&n->rng, values, count);
    t->data = values;
    t->bytes = count * sizeof *values;
    return values;
}

static void net_add_conv(struct net *n, const char *base, int64_t out, int64_t in)
{
    char name[128];
    snprintf(name, sizeof name, "vae.decoder.%s.weight", base);
    net_add(n, name, 5, (int64_t[]){out, in, 3, 3, 3});
    snprintf(name, sizeof name, "vae.decoder.%s.bias", base);
    net_add(n, name, 1, &out);
}

static void net_add_embedder(struct net *n, const char *base, int64_t width)
{
    char name[128];
    for (int i = 1; i <= 2; i++) {
        snprintf(name, sizeof name, "vae.decoder.%s.timestep_embedder.linear_%d.weight", base, i);
        net_add(n, name, 2, (int64_t[]){width, i == 1 ? 256 : width});
        snprintf(name, sizeof name, "vae.decoder.%s.timestep_embedder.linear_%d.bias", base, i);
        net_add(n, name, 1, &width);
    }
}

static struct tensor *net_find(struct net *n, const char *name)
{
    for (int i = 0; i < n->count; i++)
        if (strcmp(n->tensors[i].name, name) == 0) return &n->tensors[i];
    fail_msg("no %s", name);
    return NULL;
}

static void net_drop(struct net *n, const char *name)
{
    struct tensor *t = net_find(n, name);
    free((void *)t->name);
    free((void *)t->data);
    *t = n->tensors[--n->count];
}

static void net_free(struct net *n)
{
    while (n->count) net_drop(n, n->tensors[0].name);
}

static void net_write(const struct net *n)
{
    char config[128];
    const char *const metadata[] = {"config", config, NULL};
    snprintf(config, sizeof config,
             "{\"transformer\": {}, \"vae\": {\"causal_decoder\": %s}, \"scheduler\": {}}",
             n->causal ? "true" : "false");
    unlink(small_path);
    assert_int_equal(safetensors_write(small_path, n->tensors, n->count, metadata), STATUS_OK);
}

/* 4 latent channels, one upsampling block 16 -> 8 channels, one resblock, patch 2. */
static void net_small(struct net *n, bool conditioned)
{
    *n = (struct net){0};
    rng_seed(&n->rng, 11);
    net_add_conv(n, "conv_in.conv", 16, 4);
    net_add_conv(n, "up_blocks.0.conv.conv", 64, 16);
    net_add_conv(n, "up_blocks.1.res_blocks.0.conv1.conv", 8, 8);
    net_add_conv(n, "up_blocks.1.res_blocks.0.conv2.conv", 8, 8);
    net_add_conv(n, "conv_out.conv", 12, 8);
    if (!conditioned) return;
    net_add(n, "vae.decoder.timestep_scale_multiplier", 0, NULL);
    net_add(n, "vae.decoder.up_blocks.1.res_blocks.0.scale_shift_table", 2, (int64_t[]){4, 8});
    net_add(n, "vae.decoder.last_scale_shift_table", 2, (int64_t[]){2, 8});
    net_add_embedder(n, "up_blocks.1.time_embedder", 32);
    net_add_embedder(n, "last_time_embedder", 16);
}

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
    net_write(&n);
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
    net_write(&n);
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
        net_write(&n);
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
    net_write(&n);
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
        net_write(&n);
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
    net_write(&n);
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

/* Whatever comes at a time, and in a stream that another clip went through before. */
static void test_chunks_give_the_same_bytes(const char *name)
{
    struct reference_case x;
    struct checkpoint *c;
    case_open(&x, name);
    struct vae *v = open_vae(&c, x.checkpoint_path, dev, true);
    struct comm *self = comm_open_self();
    const int64_t f = 7, h = 1, w = 2, chunks[] = {1, 2, 5};
    int64_t n = video_floats(v, f, h, w);
    float *z = random_latents(f * h * w * x.channels, 5), *whole = decode(v, z, f, h, w, 9);
    for (int i = 0; i < 3; i++) {
        struct arena memory;
        struct vae_task task = {.h = h, .w = w, .chunk = chunks[i], .group = self};
        struct vae_stream *s = vae_clip_open(v, &task, &memory);
        for (int64_t frames = 1; frames <= f; frames += f - 1) {
            struct rng noise;
            struct reports reports = {0};
            struct vae_progress progress = {count_report, &reports};
            float *video = xcalloc((size_t)n, sizeof *video);
            float *want = frames == f ? whole : decode(v, z, frames, h, w, 9);
            rng_seed(&noise, 9);
            vae_clip_decode(s, video, z, frames, chunks[i], 0.05f, &noise, &progress);
            assert_int_equal(reports.last, reports.total);
            size_t bytes = (size_t)video_floats(v, frames, h, w) * sizeof *video;
            if (memcmp(video, want, bytes) != 0)
                fail_msg("%s: %d latents, %d at a time", name, (int)frames, (int)chunks[i]);
            free(video);
            if (frames != f) free(want);
        }
        vae_stream_close(s);
        arena_free(&memory);
    }
    free(whole);
    free(z);
    comm_close(self);
    vae_close(v);
    checkpoint_close(c);
    case_close(&x);
}

static void test_chunks_090(void **state)
{
    (void)state;
    test_chunks_give_the_same_bytes("vae_090");
}
static void test_chunks_091(void **state)
{
    (void)state;
    test_chunks_give_the_same_bytes("vae_091");
}
static void test_chunks_095(void **state)
{
    (void)state;
    test_chunks_give_the_same_bytes("vae_095");
}

static void count_frames(void *argument, const float *frames, int64_t n)
{
    (void)frames;
    *(int64_t *)argument += n;
}

/* Of the small net: two convolutions look ahead before frames are doubled, three behind. */
static void test_frames_leave_as_soon_as_they_are_known(void **state)
{
    (void)state;
    enum { F = 9 };
    struct net n;
    struct checkpoint *c;
    struct arena memory;
    struct comm *self = comm_open_self();
    net_small(&n, false);
    net_write(&n);
    struct vae *v = open_vae(&c, small_path, dev, true);
    struct vae_task task = {.h = 1, .w = 1, .chunk = 1, .group = self};
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    float *z = random_latents(F * 4, 15);
    int64_t frames = 0;
    vae_stream_begin(s, F, 0, NULL, (struct vae_sink){count_frames, &frames}, NULL);
    for (int64_t i = 1; i <= F; i++) {
        int64_t doubled = 2 * (i - 2) - 1, known = i == F ? 2 * F - 1 : doubled - 3;
        vae_stream_push(s, z + (i - 1) * 4, 1, i == F);
        assert_int_equal(frames, known > 0 ? known : 0);
    }
    free(z);
    vae_stream_close(s);
    arena_free(&memory);
    comm_close(self);
    vae_close(v);
    checkpoint_close(c);
    net_free(&n);
}

/* ---- some frames of a clip ------------------------------------------------------------------- */

/* Every run of frames that begins or ends at one of these. */
static void check_spans(struct vae *v, int64_t f, int64_t chunk, const int64_t *ends, int count)
{
    const int64_t h = 1, w = 2, channels = vae_latent_channels(v);
    const int64_t frame = video_floats(v, 1, h, w);
    float *z = random_latents(f * h * w * channels, 6), *whole = decode(v, z, f, h, w, 9);
    float *part = xmalloc((size_t)video_floats(v, f, h, w) * sizeof *part);
    struct comm *self = comm_open_self();
    struct vae_task task = {.h = h, .w = w, .chunk = chunk, .group = self};
    struct arena memory;
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    for (int i = 0; i < count * count; i++) {
        struct vae_span span = {ends[i / count], ends[i % count]};
        struct rng noise;
        struct reports reports = {0};
        struct vae_progress progress = {count_report, &reports};
        if (span.first >= span.end) continue;
        rng_seed(&noise, 9);
        vae_clip_decode_span(s, part, z, f, chunk, 0.05f, &noise, span, &progress);
        assert_int_equal(reports.last, reports.total);
        assert_true(reports.last == (int64_t)vae_decode_work(v, f, h, w, span));
        size_t bytes = (size_t)((span.end - span.first) * frame) * sizeof *part;
        if (memcmp(part, whole + span.first * frame, bytes) != 0)
            fail_msg("frames %d to %d, %d latents at a time", (int)span.first, (int)span.end,
                     (int)chunk);
    }
    vae_stream_close(s);
    arena_free(&memory);
    comm_close(self);
    free(part);
    free(whole);
    free(z);
}

/* Where the clip ends on both sides of what a layer reads, on one, on none. */
static void check_spans_of(const char *name)
{
    static const int64_t ends[] = {0, 36, 37, 73};
    struct reference_case x;
    struct checkpoint *c;
    case_open(&x, name);
    struct vae *v = open_vae(&c, x.checkpoint_path, dev, true);
    check_spans(v, 10, 1, ends, 4);
    check_spans(v, 10, 7, ends, 4);
    vae_close(v);
    checkpoint_close(c);
    case_close(&x);
}

static void test_spans_090(void **state)
{
    (void)state;
    check_spans_of("vae_090");
}
static void test_spans_091(void **state)
{
    (void)state;
    check_spans_of("vae_091");
}
static void test_spans_095(void **state)
{
    (void)state;
    check_spans_of("vae_095");
}

/* Of the small net, which has two convolutions before it doubles frames and three behind: all runs
 * of frames; what is read for one of them, and what a second of a long clip costs. */
static void check_small_spans(bool causal, struct vae_span latents)
{
    int64_t ends[2 * 8];
    struct net n;
    struct checkpoint *c;
    struct comm *self = comm_open_self();
    struct arena memory;
    net_small(&n, false);
    n.causal = causal;
    net_write(&n);
    struct vae *v = open_vae(&c, small_path, dev, true);
    for (int i = 0; i < 16; i++) ends[i] = i;
    check_spans(v, 8, 1, ends, 16);
    check_spans(v, 8, 3, ends, 16);
    struct vae_task task = {.h = 1, .w = 1, .chunk = 4, .group = self};
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    vae_stream_begin(s, 100, 0, NULL, (struct vae_sink){0}, NULL);
    struct vae_span read = vae_stream_narrow(s, (struct vae_span){101, 102});
    assert_int_equal(read.first, latents.first);
    assert_int_equal(read.end, latents.end);
    vae_stream_close(s);
    arena_free(&memory);
    comm_close(self);
    vae_close(v);
    checkpoint_close(c);
    net_free(&n);
}

static void test_spans_symmetric(void **state)
{
    (void)state; /* frames 98 to 104, hence 49 to 52, and two more on both sides */
    check_small_spans(false, (struct vae_span){47, 55});
}

static void test_spans_causal(void **state)
{
    (void)state; /* frames 95 to 101, hence 48 to 51, and four before */
    check_small_spans(true, (struct vae_span){44, 52});
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
        cmocka_unit_test(test_chunks_090),
        cmocka_unit_test(test_chunks_091),
        cmocka_unit_test(test_chunks_095),
        cmocka_unit_test(test_frames_leave_as_soon_as_they_are_known),
        cmocka_unit_test(test_spans_090),
        cmocka_unit_test(test_spans_091),
        cmocka_unit_test(test_spans_095),
        cmocka_unit_test(test_spans_symmetric),
        cmocka_unit_test(test_spans_causal),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
