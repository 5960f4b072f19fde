/* The VAE encoder against stored outputs of the reference: all three generations, other kinds of
 * log-variance, the tiny model; and against what it must be: causal, the same bytes on any number
 * of threads, refused by name where a checkpoint has no encoder or a wrong one. */
#include "base/error.h"
#include "model/checkpoint_names.h"
#include "model/vae.h"
#include "model/vae_net.h"
#include "tests/support/synth.h"
#include "tests/support/vae_clip.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *directory;
static struct device *dev;
static struct safetensors *stored;

static int set_up(void **state)
{
    (void)state;
    directory = temp_dir_make();
    dev = device_open_cpu(2, NULL, PRECISION_F32);
    return safetensors_open(&stored, "tests/parity/data/vae_encode.safetensors");
}

static int tear_down(void **state)
{
    (void)state;
    safetensors_close(stored);
    device_close(dev);
    temp_dir_remove(directory);
    return 0;
}

/* ---- encoding -------------------------------------------------------------------------------- */

/* An open VAE and its checkpoint. */
struct model {
    struct checkpoint *c;
    struct vae *v;
};

static struct model open_file(const char *path, struct device *on, bool resident)
{
    struct model m = {0};
    int status = checkpoint_open(&m.c, path);
    if (status == STATUS_OK) status = vae_open(&m.v, on, m.c);
    if (status == STATUS_OK) status = vae_open_encoder(m.v, m.c);
    if (status != STATUS_OK) fail_msg("%s", error_message());
    if (resident) vae_encoder_make_resident(m.v);
    return m;
}

/* The checkpoint of a manifest, made when it is first asked for. The caller frees. */
static char *synthetic(const char *name)
{
    char *manifest = xasprintf("tests/parity/data/%s.manifest.json", name);
    char *path = xasprintf("%s/%s.safetensors", directory, name);
    if (access(path, R_OK) != 0 && synth_checkpoint(manifest, path))
        fail_msg("%s", error_message());
    free(manifest);
    return path;
}

/* `name`: of a manifest, or "tiny". */
static struct model open_model(const char *name, struct device *on, bool resident)
{
    if (strcmp(name, "tiny") == 0)
        return open_file("models/tiny/ltxv-tiny.safetensors", on, resident);
    char *path = synthetic(name);
    struct model m = open_file(path, on, resident);
    free(path);
    return m;
}

static void close_model(struct model *m)
{
    vae_close(m->v);
    checkpoint_close(m->c);
}

struct clip_size {
    int64_t f, h, w;
};

static int64_t tokens_of(struct clip_size s) { return s.f * s.h * s.w; }
static int64_t pixels_of(const struct vae *v, struct clip_size s)
{
    int64_t space = vae_space_factor(v);
    return (vae_time_factor(v) * (s.f - 1) + 1) * space * s.h * space * s.w;
}

static float *floats(int64_t n)
{
    float *p = xmalloc((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = NAN;
    return p;
}

/* [planes, n] -> [n, planes] */
static float *interleaved(const float *from, int64_t planes, int64_t n)
{
    float *to = floats(planes * n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t p = 0; p < planes; p++) to[i * planes + p] = from[p * n + i];
    return to;
}

/* The input of the stored cases: 0.5 * randn [3,F,H,W], clamped. */
static float *random_video(const struct vae *v, struct clip_size s, uint64_t seed)
{
    struct rng r;
    int64_t n = pixels_of(v, s);
    float *planes = floats(3 * n);
    rng_seed(&r, seed);
    rng_randn(&r, planes, (size_t)(3 * n));
    for (int64_t i = 0; i < 3 * n; i++) planes[i] = fminf(1.0f, fmaxf(-1.0f, 0.5f * planes[i]));
    float *video = interleaved(planes, 3, n);
    free(planes);
    return video;
}

struct posterior {
    float *mean, *log_variance;
};

static void expect_progress(void *arg, int64_t done, int64_t total)
{
    int64_t *last = arg;
    assert_true(done > *last && done <= total);
    *last = done == total ? 0 : done;
}

/* In memory of exactly the planned size, `chunk` latents at a time. */
static struct posterior encode_in(struct vae *v, const float *video, struct clip_size s,
                                  int64_t chunk)
{
    struct comm *self = comm_open_self();
    struct arena memory;
    int64_t n = tokens_of(s) * vae_latent_channels(v), last = 1;
    struct vae_progress progress = {expect_progress, &last};
    struct posterior p = {floats(n), floats(n)};
    struct vae_task task = {.encodes = true, .h = s.h, .w = s.w, .chunk = chunk, .group = self};
    struct vae_stream *stream = vae_clip_open(v, &task, &memory);
    float *encoded = floats(tokens_of(s) * stream->coder->conv_out.out);
    vae_clip_encode(stream, encoded, video, s.f, chunk, &progress);
    assert_int_equal(last, 0); /* the last report was of all */
    vae_posterior(v, p.mean, p.log_variance, encoded, tokens_of(s));
    free(encoded);
    vae_stream_close(stream);
    arena_free(&memory);
    comm_close(self);
    return p;
}

static struct posterior encode(struct vae *v, const float *video, struct clip_size s)
{
    return encode_in(v, video, s, s.f);
}

static void free_posterior(struct posterior *p)
{
    free(p->mean);
    free(p->log_variance);
}

/* ---- stored outputs of the reference --------------------------------------------------------- */

/* A stored tensor [planes,f,h,w] as [tokens,C]; one plane serves all channels. */
static float *expected(const struct safetensors *file, const char *base, const char *part,
                       int64_t channels)
{
    char *name = xasprintf("%s%s", base, part);
    const struct tensor *t = fixture(file, name);
    int64_t planes = t->shape[0], n = tensor_count(t) / planes;
    assert_true(planes == channels || planes == 1);
    float *stored_planes = tensor_floats(t), *all = floats(channels * n);
    for (int64_t c = 0; c < channels; c++)
        memcpy(all + c * n, stored_planes + (planes == 1 ? 0 : c) * n, (size_t)n * sizeof *all);
    float *to = interleaved(all, channels, n);
    free(all);
    free(stored_planes);
    free(name);
    return to;
}

static double worst; /* relative RMS of the present model */

/* `want` is released. */
static void expect_close(const char *base, const char *part, const float *got, float *want,
                         int64_t n)
{
    double rms = relative_rms(got, want, (size_t)n);
    if (!(rms <= 1e-5)) fail_msg("%s%s: relative RMS %g", base, part, rms);
    if (rms > worst) worst = rms;
    free(want);
}

/* Means, and log-variances as the deviations they stand for: a logarithm may be near 0. */
static void expect_posterior(const struct safetensors *file, const char *base, struct posterior p,
                             int64_t channels, int64_t n)
{
    float *want = expected(file, base, ".logvar", channels);
    expect_close(base, ".mean", p.mean, expected(file, base, ".mean", channels), n);
    for (int64_t i = 0; i < n; i++) {
        p.log_variance[i] = expf(0.5f * p.log_variance[i]);
        want[i] = expf(0.5f * want[i]);
    }
    expect_close(base, ".logvar", p.log_variance, want, n);
}

/* Sampling: the very numbers the reference draws, and no more of them. */
static void check_draw(const struct vae *v, const char *base, const struct posterior *p,
                       int64_t tokens, uint64_t seed)
{
    int64_t channels = vae_latent_channels(v), n = tokens * channels;
    float *room = floats(n), *z = floats(n), after[16];
    struct rng r;
    rng_seed(&r, seed);
    memcpy(z, p->mean, (size_t)n * sizeof *z);
    vae_sample(v, z, z, p->log_variance, tokens, &r, room);
    vae_normalize(v, z, tokens);
    expect_close(base, ".latents", z, expected(stored, base, ".latents", channels), n);

    rng_randn(&r, after, 16);
    char *draw = xasprintf("%s.draw", base), *next = xasprintf("%s.after", base);
    assert_memory_equal(room, fixture(stored, draw)->data, (size_t)n * sizeof *room);
    assert_memory_equal(after, fixture(stored, next)->data, sizeof after);
    free(draw);
    free(next);
    free(room);
    free(z);
}

static void check_clip(const struct model *m, const char *name, struct clip_size s)
{
    struct vae *v = m->v;
    int64_t channels = vae_latent_channels(v), tokens = tokens_of(s), n = tokens * channels;
    char *base =
        xasprintf("%s.%lld.%lld.%lld", name, (long long)s.f, (long long)s.h, (long long)s.w);
    char *key = xasprintf("%s.seed", base);
    uint64_t seed = strtoull(safetensors_metadata(stored, key), NULL, 10);
    float *video = random_video(v, s, seed);
    struct posterior p = encode(v, video, s);
    check_draw(v, base, &p, tokens, seed);
    expect_posterior(stored, base, p, channels, n);
    vae_normalize(v, p.mean, tokens);
    expect_close(base, ".mean.normalized", p.mean,
                 expected(stored, base, ".mean.normalized", channels), n);
    free_posterior(&p);
    free(video);
    free(base);
    free(key);
}

/* Bytes as a picture has them: what the files of test_vae.c hold besides. */
static void check_bytes(const struct model *m, const char *name)
{
    struct safetensors *file;
    char *path = xasprintf("tests/parity/data/%s.safetensors", name);
    if (safetensors_open(&file, path)) fail_msg("%s", error_message());
    const struct tensor *pixels = fixture(file, "encode.pixels"); /* [3,F,H,W] */
    struct clip_size s = {2, 1, 2};
    int64_t n = tensor_count(pixels), channels = vae_latent_channels(m->v);
    assert_int_equal(n, 3 * pixels_of(m->v, s));
    float *planes = floats(n);
    for (int64_t k = 0; k < n; k++)
        planes[k] = (float)((const uint8_t *)pixels->data)[k] / 127.5f - 1.0f;
    float *video = interleaved(planes, 3, n / 3);
    struct posterior p = encode(m->v, video, s);
    expect_posterior(file, "encode", p, channels, tokens_of(s) * channels);
    free_posterior(&p);
    free(planes);
    free(video);
    free(path);
    safetensors_close(file);
}

static void check_parity(const char *name, bool bytes)
{
    struct model m = open_model(name, dev, true);
    assert_true(vae_encoder_packed_bytes(m.v, true) > vae_encoder_packed_bytes(m.v, false));
    assert_true(vae_encoder_packed_bytes(m.v, false) > 0);
    worst = 0;
    check_clip(&m, name, (struct clip_size){1, 1, 1});
    check_clip(&m, name, (struct clip_size){1, 3, 5});
    check_clip(&m, name, (struct clip_size){3, 3, 1});
    if (bytes) check_bytes(&m, name);
    print_message("%s: relative RMS at most %.2g\n", name, worst);
    close_model(&m);
}

static void test_parity_of_the_generations(void **state)
{
    (void)state;
    check_parity("vae_090", true);
    check_parity("vae_091", true);
    check_parity("vae_095", true);
}

static void test_parity_of_the_tiny_model(void **state)
{
    (void)state;
    check_parity("tiny", false);
    check_parity("vae_recipe", false);
}

static void test_parity_of_other_log_variances(void **state)
{
    (void)state;
    check_parity("vae_per_channel", false);
    check_parity("vae_constant", false);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* One thread or two, weights kept or reordered for every use; and the beginning of a clip, which
 * knows nothing of the rest. */
static void test_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"vae_constant", "vae_recipe"};
    struct device *one = device_open_cpu(1, NULL, PRECISION_F32);
    for (int i = 0; i < 2; i++) {
        struct model a = open_model(names[i], dev, true);
        float *video = random_video(a.v, (struct clip_size){3, 2, 1}, 5);
        struct posterior whole = encode(a.v, video, (struct clip_size){3, 2, 1});
        int64_t channels = vae_latent_channels(a.v);
        close_model(&a);
        struct model b = open_model(names[i], one, false);
        for (int64_t f = 1; f <= 3; f++) {
            struct posterior part = encode(b.v, video, (struct clip_size){f, 2, 1});
            size_t bytes = (size_t)(2 * f * channels) * sizeof(float);
            assert_memory_equal(part.mean, whole.mean, bytes);
            assert_memory_equal(part.log_variance, whole.log_variance, bytes);
            free_posterior(&part);
        }
        close_model(&b);
        free_posterior(&whole);
        free(video);
    }
    device_close(one);
}

/* A synthetic checkpoint as a diffusers folder. */
static void write_folder(const char *folder, const char *name, enum vae_generation generation)
{
    struct safetensors *from;
    char *official = synthetic(name);
    assert_int_equal(safetensors_open(&from, official), STATUS_OK);
    free(official);
    int count = safetensors_count(from);
    struct tensor *list = xcalloc((size_t)count, sizeof *list);
    for (int i = 0; i < count; i++) {
        char new_name[TENSOR_NAME_BYTES];
        list[i] = *safetensors_at(from, i);
        assert_true(names_vae_to_diffusers(new_name, list[i].name + strlen("vae."), generation));
        list[i].name = xstrdup(new_name);
    }
    char *inner = xasprintf("%s/vae", folder);
    char *path = xasprintf("%s/diffusion_pytorch_model.safetensors", inner);
    assert_int_equal(mkdir(folder, 0777), 0);
    assert_int_equal(mkdir(inner, 0777), 0);
    assert_int_equal(safetensors_write(path, list, count, NULL), STATUS_OK);
    for (int i = 0; i < count; i++) free((void *)list[i].name);
    free(list);
    free(inner);
    free(path);
    safetensors_close(from);
}

static void test_diffusers_folders_give_the_same_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"vae_090", "vae_091", "vae_095"};
    static const enum vae_generation generations[] = {VAE_0_9_0, VAE_0_9_1, VAE_0_9_5};
    const struct clip_size s = {1, 1, 1};
    for (int i = 0; i < 3; i++) {
        struct model a = open_model(names[i], dev, true);
        char *folder = xasprintf("%s/%s", directory, names[i]);
        write_folder(folder, names[i], generations[i]);
        struct model b = open_file(folder, dev, true);
        float *video = random_video(a.v, s, 8);
        struct posterior p = encode(a.v, video, s), q = encode(b.v, video, s);
        size_t bytes = (size_t)(tokens_of(s) * vae_latent_channels(a.v)) * sizeof(float);
        assert_memory_equal(p.mean, q.mean, bytes);
        assert_memory_equal(p.log_variance, q.log_variance, bytes);
        free_posterior(&p);
        free_posterior(&q);
        free(video);
        free(folder);
        close_model(&a);
        close_model(&b);
    }
}

/* Whatever comes at a time; the mean alone may be asked for. */
static void test_chunks_give_the_same_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"vae_090", "vae_091", "vae_095", "vae_recipe"};
    for (int i = 0; i < 4; i++) {
        struct model m = open_model(names[i], dev, true);
        struct clip_size s = {6, 2, 1};
        size_t bytes = sizeof(float) * (size_t)(tokens_of(s) * vae_latent_channels(m.v));
        float *video = random_video(m.v, s, 6);
        struct posterior whole = encode(m.v, video, s);
        for (int64_t chunk = 1; chunk <= 4; chunk++) {
            struct posterior p = encode_in(m.v, video, s, chunk);
            assert_memory_equal(p.mean, whole.mean, bytes);
            assert_memory_equal(p.log_variance, whole.log_variance, bytes);
            free_posterior(&p);
        }
        free_posterior(&whole);
        free(video);
        close_model(&m);
    }
}

static void test_clips_beyond_any_memory_are_refused(void **state)
{
    (void)state;
    struct model m = open_model("vae_095", dev, false);
    struct comm *self = comm_open_self();
    const int64_t many[] = {INT64_MAX, INT64_MAX / 8, (int64_t)1 << 50, (int64_t)1 << 31};
    for (size_t i = 0; i < sizeof many / sizeof *many; i++) {
        const struct vae_task tasks[] = {
            {.encodes = true, .h = 1 << 20, .w = 1 << 20, .chunk = many[i], .group = self},
            {.encodes = true, .h = many[i], .w = many[i], .chunk = 1, .group = self},
            {.encodes = true, .h = 1, .w = many[i] / 2 + (1LL << 42), .chunk = 1, .group = self}};
        for (int k = 0; k < 3; k++) {
            struct vae_stream *stream;
            assert_int_equal(vae_stream_open(&stream, m.v, &tasks[k]), STATUS_INPUT);
            error_clear();
        }
    }
    comm_close(self);
    close_model(&m);
}

/* ---- checkpoints without an encoder, or with a wrong one ------------------------------------- */

enum { MAX_TENSORS = 64 };

/* Copies the synthetic checkpoint `name`, without the tensors whose name begins with `drop`; the
 * one called `change` has half its inputs; `config` and `bias` replace the metadata and the
 * encoder's last bias. Each may be NULL. */
static void rewrite(const char *to, const char *name, const char *drop, const char *change,
                    const char *config, const float *bias)
{
    struct safetensors *from;
    struct tensor list[MAX_TENSORS];
    int count = 0;
    char *whole = synthetic(name);
    assert_int_equal(safetensors_open(&from, whole), STATUS_OK);
    free(whole);
    for (int i = 0; i < safetensors_count(from); i++) {
        struct tensor t = *safetensors_at(from, i);
        if (drop && strncmp(t.name, drop, strlen(drop)) == 0) continue;
        if (change && strcmp(t.name, change) == 0) {
            t.shape[1] /= 2;
            t.bytes /= 2;
        }
        if (bias && strcmp(t.name, "vae.encoder.conv_out.conv.bias") == 0) t.data = bias;
        assert_true(count < MAX_TENSORS);
        list[count++] = t;
    }
    const char *const metadata[] = {"config",
                                    config ? config : safetensors_metadata(from, "config"), NULL};
    unlink(to);
    assert_int_equal(safetensors_write(to, list, count, metadata), STATUS_OK);
    safetensors_close(from);
}

static const struct bad_case {
    const char *model, *drop, *change, *config, *message;
} bad_cases[] = {
    {"vae_constant", "vae.encoder", NULL, NULL,
     "tensor vae.encoder.conv_in.conv.weight is missing"},
    {"vae_constant", "vae.encoder.conv_out.conv.bias", NULL, NULL,
     "vae.encoder.conv_out.conv.bias is missing"},
    {"vae_constant", "vae.encoder.down_blocks.0.conv.bias", NULL, NULL,
     "vae.encoder.down_blocks.0.conv.bias is missing"},
    {"vae_constant", "vae.encoder.down_blocks.0", NULL, NULL,
     "no tensor of vae.encoder.down_blocks.0"},
    {"vae_constant", NULL, "vae.encoder.down_blocks.0.conv.weight", NULL,
     "vae.encoder.down_blocks.0.conv.weight has shape [12,2,"},
    {"vae_constant", NULL, "vae.encoder.conv_in.conv.weight", NULL,
     "conv_in.conv.weight has shape"},
    {"vae_per_channel", "vae.encoder.down_blocks.1", NULL, NULL,
     "no tensor of vae.encoder.down_blocks.1"},
    {"vae_per_channel", "vae.encoder.down_blocks.2.conv_shortcut", NULL, NULL,
     "down_blocks.2.conv_shortcut.weight is missing"},
    {"vae_per_channel", "vae.encoder.down_blocks.3", NULL, NULL,
     "reduce time by 2 and space by 4, the decoder's enlarge by 2 and 8"},
    {"vae_per_channel", NULL, "vae.encoder.down_blocks.2.conv1.conv.weight", NULL,
     "down_blocks.1.conv.conv.weight has shape"},
    {"vae_per_channel", NULL, "vae.encoder.conv_out.conv.weight", NULL,
     "reduce time by 4 and space by 4"}, /* taken for compress_time_res */
    {"vae_per_channel", NULL, NULL, "{\"vae\": {\"latent_log_var\": \"constant\"}}",
     "vae.encoder.conv_out.conv.weight has shape [8,24,3,3,3], expected 5 outputs"},
};

static void test_wrong_encoders_are_refused_and_still_decode(void **state)
{
    (void)state;
    char *path = xasprintf("%s/wrong.safetensors", directory);
    for (size_t i = 0; i < sizeof bad_cases / sizeof *bad_cases; i++) {
        const struct bad_case *bad = &bad_cases[i];
        struct model m = {0};
        rewrite(path, bad->model, bad->drop, bad->change, bad->config, NULL);
        error_clear();
        int status = checkpoint_open(&m.c, path);
        if (status == STATUS_OK) status = vae_open(&m.v, dev, m.c);
        if (status != STATUS_OK) fail_msg("case %zu: %s", i, error_message());
        for (int again = 0; again < 2; again++) {
            if (vae_open_encoder(m.v, m.c) != STATUS_INPUT) fail_msg("case %zu: opened", i);
            if (!strstr(error_message(), bad->message))
                fail_msg("case %zu: \"%s\", not \"%s\"", i, error_message(), bad->message);
        }
        struct comm *self = comm_open_self();
        struct vae_task task = {.h = 1, .w = 1, .chunk = 1, .group = self};
        struct vae_stream *decoder;
        assert_int_equal(vae_stream_open(&decoder, m.v, &task), STATUS_OK);
        vae_stream_close(decoder);
        comm_close(self);
        close_model(&m);
    }
    error_clear();
    free(path);
}

static void test_log_variance_is_bounded(void **state)
{
    (void)state;
    static const float bias[] = {1000, 0, 0, 0, 1000, -1000, NAN, 0};
    char *path = xasprintf("%s/bounded.safetensors", directory);
    rewrite(path, "vae_per_channel", NULL, NULL, NULL, bias);
    struct model m = open_file(path, dev, false);
    float *video = random_video(m.v, (struct clip_size){1, 1, 1}, 7);
    struct posterior p = encode(m.v, video, (struct clip_size){1, 1, 1});
    assert_true(p.mean[0] > 900);
    assert_true(p.log_variance[0] == 20 && p.log_variance[1] == -30 && isnan(p.log_variance[2]));
    assert_true(fabsf(p.log_variance[3]) < 20);
    free_posterior(&p);
    free(video);
    free(path);
    close_model(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_of_the_generations),
        cmocka_unit_test(test_parity_of_the_tiny_model),
        cmocka_unit_test(test_parity_of_other_log_variances),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_diffusers_folders_give_the_same_bytes),
        cmocka_unit_test(test_chunks_give_the_same_bytes),
        cmocka_unit_test(test_clips_beyond_any_memory_are_refused),
        cmocka_unit_test(test_log_variance_is_bounded),
        cmocka_unit_test(test_wrong_encoders_are_refused_and_still_decode),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
