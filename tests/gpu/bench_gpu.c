/* bench_gpu [--small] WHAT ...: times what users of a GPU get, through kernels/ops.h and the
 * model's own code. launch/gpu-check.sh runs it, section by section, and makes the table.
 *
 *     bench_gpu device                     what --backend cuda would open; exit code 3 without one
 *     bench_gpu ceilings|attention|linear|conv|rows
 *     bench_gpu step CHECKPOINT NAME F H W   one step without guidance of F x H x W latents
 *     bench_gpu vae CHECKPOINT NAME F H W    decoding them, the frames staying on the device
 *
 * A line for each, separated by tabs: timing, name, seconds (median), TFLOP and GB of one run.
 * --small is for devices that are emulated: the same work in sizes that end. */
#include "base/error.h"
#include "base/log.h"
#include "model/vae.h"
#include "parallel/shard.h"
#include "tests/support/timing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 5, LONG_RUNS = 3, NO_DEVICE = 3 };
static const double batch_s = 0.02; /* short ops are timed so long together: waiting takes 0.1 ms */

static bool small;

static void print_timing(const char *name, double seconds, double flop, double bytes)
{
    printf("timing\t%s\t%.9f\t%.12f\t%.9f\n", name, seconds, 1e-12 * flop, 1e-9 * bytes);
    fflush(stdout);
}

/* ---- single ops ------------------------------------------------------------------------------ */

struct row {
    const char *what, *name;
    timed_open *open;
    int64_t size[5], small_size[5];
};

#define LINEAR(what, rows, in, out, epilogue)                                                      \
    {                                                                                              \
        what, "linear " #rows " x " #in " -> " #out, timed_linear,                                 \
            {rows, out, in, 128, EPILOGUE_##epilogue},                                             \
        {                                                                                          \
            48, 64, 32, 16, EPILOGUE_##epilogue                                                    \
        }                                                                                          \
    }
#define ATTENTION(n, d)                                                                            \
    {                                                                                              \
        "attention", "attention " #n " tokens, 32 heads of " #d, timed_attention, {n, 32, d, 0},   \
        {                                                                                          \
            100, 2, d, 0                                                                           \
        }                                                                                          \
    }
#define CONV(c, t, h, w)                                                                           \
    {                                                                                              \
        "conv", "conv3d " #c " channels, " #t "x" #h "x" #w, timed_conv, {c, t, h, w, 3},          \
        {                                                                                          \
            32, 2, 4, 6, 3                                                                         \
        }                                                                                          \
    }

/* Tokens: 768x512x121 has 6144. Convolutions: those of the decoder of 768x512, four latent frames
 * at a time, at each of its widths. */
static const struct row table[] = {
    {"ceilings", "copy within the device, 1 GiB", timed_copy, {1 << 30}, {1 << 16}},
    LINEAR("ceilings", 8192, 8192, 8192, NONE),
    LINEAR("linear", 6144, 2048, 2048, NONE),
    LINEAR("linear", 6144, 2048, 8192, GELU_TANH),
    LINEAR("linear", 6144, 8192, 2048, NONE),
    LINEAR("linear", 6144, 4096, 4096, NONE),
    LINEAR("linear", 6144, 4096, 16384, GELU_TANH),
    LINEAR("linear", 6144, 16384, 4096, NONE),
    ATTENTION(6144, 64),
    ATTENTION(6144, 128),
    ATTENTION(16384, 64),
    ATTENTION(16384, 128),
    ATTENTION(32768, 64),
    ATTENTION(32768, 128),
    ATTENTION(65536, 64),
    ATTENTION(65536, 128),
    CONV(1024, 4, 16, 24),
    CONV(512, 8, 32, 48),
    CONV(256, 16, 64, 96),
    CONV(128, 32, 128, 192),
    {"rows", "rms norm, modulated, 6144 x 2048", timed_norm, {6144, 2048}, {16, 64}},
    {"rows", "silu 6144 x 8192", timed_silu, {6144, 8192}, {16, 64}},
};

/* Runs of so many calls that each takes a while. */
static double seconds_of(struct timed *t)
{
    double once = timed_seconds(t, 1, 1, NULL, NULL);
    int calls = small || once > batch_s ? 1 : (int)(batch_s / once) + 1;
    return timed_seconds(t, small ? 1 : RUNS, calls, NULL, NULL);
}

static void time_rows(struct device *dev, const char *what)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct row *row = &table[i];
        int64_t size[5];
        struct timed t;
        if (strcmp(row->what, what) != 0) continue;
        memcpy(size, small ? row->small_size : row->size, sizeof size);
        if (row->open == timed_attention) size[3] = shard_granule(size[0]);
        row->open(&t, dev, size);
        print_timing(row->name, seconds_of(&t), t.flop, t.bytes);
        timed_close(&t);
    }
}

/* ---- models ---------------------------------------------------------------------------------- */

static int time_step(struct device *dev, const char *checkpoint, const char *name,
                     const int64_t *latents)
{
    struct latent_grid grid = {latents[0], latents[1], latents[2], 25, 8, 32};
    struct step_model m;
    TRY(step_model_open(&m, dev, checkpoint, grid));
    print_timing(name, step_model_seconds(&m, small ? 1 : LONG_RUNS), m.flop, 0);
    step_model_close(&m);
    return STATUS_OK;
}

static void count_frames(void *argument, const float *frames, int64_t n)
{
    (void)frames;
    *(int64_t *)argument += n;
}

/* As decode.c cuts it: about 512 positions at a time, in at most four frames. */
static double decode_seconds(struct device *dev, struct vae_stream *stream, const float *z,
                             const int64_t *latents, int64_t chunk)
{
    int64_t frames = 0, position = latents[1] * latents[2] * 128;
    struct rng noise;
    rng_seed(&noise, 1);
    double start_s = clock_s();
    vae_stream_begin(stream, latents[0], 0.05f, &noise, (struct vae_sink){count_frames, &frames},
                     NULL);
    for (int64_t i = 0; i < latents[0]; i += chunk) {
        int64_t n = latents[0] - i < chunk ? latents[0] - i : chunk;
        vae_stream_push(stream, z + i * position, n, i + n == latents[0]);
    }
    device_finish(dev);
    CHECK(frames == 8 * latents[0] - 7, "%lld frames", (long long)frames);
    return clock_s() - start_s;
}

static int time_vae(struct device *dev, const char *path, const char *name, const int64_t *latents)
{
    struct checkpoint *c;
    struct vae *v;
    struct vae_stream *stream;
    struct arena arena;
    struct comm *self = comm_open_self();
    int64_t chunk = 512 / (latents[1] * latents[2]);
    chunk = chunk < 1 ? 1 : chunk > 4 ? 4 : chunk;
    TRY(checkpoint_open(&c, path));
    TRY(vae_open(&v, dev, c));
    vae_make_resident(v);
    struct vae_task task = {
        .h = latents[1], .w = latents[2], .chunk = chunk, .group = self, .axis = VAE_ROWS};
    TRY(vae_stream_open(&stream, v, &task));
    arena_init_on(&arena, "VAE", device_memory(dev));
    vae_stream_lay_out(stream, &arena);
    arena_commit(&arena);
    vae_stream_lay_out(stream, &arena);

    int64_t n = latents[0] * latents[1] * latents[2] * vae_latent_channels(v);
    float *z = xmalloc((size_t)n * sizeof *z);
    struct rng r;
    rng_seed(&r, 7);
    rng_randn(&r, z, (size_t)n);
    double seconds[LONG_RUNS];
    int runs = small ? 1 : LONG_RUNS;
    if (!small) decode_seconds(dev, stream, z, latents, chunk); /* warms up */
    for (int i = 0; i < runs; i++) seconds[i] = decode_seconds(dev, stream, z, latents, chunk);
    print_timing(name, median(seconds, runs),
                 2 * vae_decode_work(v, latents[0], latents[1], latents[2],
                                     (struct vae_span){0, 8 * latents[0] - 7}),
                 0);
    free(z);
    vae_stream_close(stream);
    arena_free(&arena);
    vae_close(v);
    checkpoint_close(c);
    comm_close(self);
    return STATUS_OK;
}

/* ---- which ----------------------------------------------------------------------------------- */

static int time_what(struct device *dev, int count, char **words)
{
    bool step = strcmp(words[0], "step") == 0, vae = strcmp(words[0], "vae") == 0;
    if (!step && !vae) {
        time_rows(dev, words[0]);
        return STATUS_OK;
    }
    if (count != 6) return error_set(STATUS_INPUT, "%s: CHECKPOINT NAME F H W", words[0]);
    int64_t latents[3];
    for (int i = 0; i < 3; i++) latents[i] = atol(words[3 + i]);
    return (step ? time_step : time_vae)(dev, words[1], words[2], latents);
}

int main(int argc, char **argv)
{
    const char *why;
    log_init(0, LOG_ERROR);
    small = argc > 1 && strcmp(argv[1], "--small") == 0;
    int words = argc - 1 - small;
    if (words < 1) {
        fprintf(stderr, "usage: bench_gpu [--small] WHAT ...\n");
        return 2;
    }
    if (device_cuda_count(&why) < 1) {
        fprintf(stderr, "no CUDA device: %s\n", why);
        return NO_DEVICE;
    }
    struct device *dev = device_open_cuda(0, 1, PRECISION_BF16);
    if (strcmp(argv[argc - words], "device") == 0) printf("device\t%s\n", device_isa(dev));
    int status = time_what(dev, words, argv + argc - words);
    if (status != STATUS_OK) fprintf(stderr, "%s\n", error_message());
    device_close(dev);
    return status == STATUS_OK ? 0 : 1;
}
