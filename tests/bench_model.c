#include "tests/bench_model.h"

#include "base/error.h"
#include "base/log.h"
#include "model/transformer.h"
#include "parallel/comm.h"
#include "tests/support/synth.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 5 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Operations of a forward, a multiply-add counted as two: products per token, attention,
 * cross-attention. */
static double forward_gflop(double width, double blocks, double tokens, double text)
{
    double products = blocks * 28 * width * width + 512 * width;
    return 1e-9 * tokens * (products + 4 * blocks * width * tokens + 4 * blocks * width * text);
}

/* One step without guidance is one forward. */
static void time_model(const char *label, const char *checkpoint, double width, int threads,
                       enum precision precision, struct latent_grid grid)
{
    enum { TEXT = 64 };
    struct device *dev = device_open_cpu(threads, NULL, precision);
    struct comm *self = comm_open_self();
    struct checkpoint *c;
    struct transformer *t;
    int64_t tokens = grid.f * grid.h * grid.w;
    struct transformer_settings settings = {.max_tokens = tokens,
                                            .max_text_tokens = TEXT,
                                            .text_slots = 1,
                                            .max_times = 1,
                                            .resident = true};
    if (checkpoint_open(&c, checkpoint) != STATUS_OK ||
        transformer_open(&t, dev, c, self, &settings) != STATUS_OK) {
        fprintf(stderr, "bench: %s\n", error_message());
        exit(1);
    }
    int64_t channels = transformer_channels(t), caption = transformer_caption_width(t);
    float *x = xcalloc((size_t)(tokens * channels), sizeof *x),
          *v = xcalloc((size_t)(tokens * channels), sizeof *v);
    float *text = xcalloc((size_t)(TEXT * caption), sizeof *text), level = 0.7f;
    for (int64_t i = 0; i < tokens * channels; i++) x[i] = (float)(i * 7919 % 2003) * 1e-3f - 1;
    for (int64_t i = 0; i < TEXT * caption; i++)
        text[i] = (float)(i * 104729 % 1009) * 1e-3f - 0.5f;
    transformer_set_text(t, 0, text, TEXT);
    transformer_set_grid(t, &grid);
    struct timesteps times = {.count = 1, .values = &level};
    double seconds[RUNS];
    transformer_forward(t, mat_f32(v, tokens, channels), mat_f32(x, tokens, channels), &times, 0,
                        NULL);
    for (int run = 0; run < RUNS; run++) {
        double start_s = clock_s();
        transformer_forward(t, mat_f32(v, tokens, channels), mat_f32(x, tokens, channels), &times,
                            0, NULL);
        seconds[run] = clock_s() - start_s;
    }
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    double gflop = forward_gflop(width, transformer_blocks(t), (double)tokens, TEXT);
    printf("%-52s %10.3f %10.1f\n", label, seconds[RUNS / 2], gflop / seconds[RUNS / 2]);
    fflush(stdout);
    free(x), free(v), free(text);
    transformer_close(t);
    checkpoint_close(c);
    comm_close(self);
    device_close(dev);
}

/* The one-block manifest of the parity test, its block twice. */
static void write_two_blocks(const char *path)
{
    static const char first[] = "model.diffusion_model.transformer_blocks.0.";
    json_t *manifest = json_load_file("tests/parity/data/block_2b.manifest.json", 0, NULL);
    json_t *tensors = json_object_get(manifest, "tensors"), *tensor;
    size_t i, count = json_array_size(tensors);
    json_object_clear(
        json_object_get(manifest, "metadata")); /* it says one block; shapes tell the rest */
    json_array_foreach (tensors, i, tensor) {
        const char *name = json_string_value(json_object_get(tensor, "name"));
        if (i >= count || strncmp(name, first, strlen(first)) != 0) continue;
        json_t *copy = json_deep_copy(tensor);
        json_object_set_new(
            copy, "name",
            json_sprintf("model.diffusion_model.transformer_blocks.1.%s", name + strlen(first)));
        json_array_append_new(tensors, copy);
    }
    char *file = xasprintf("%s.json", path);
    CHECK(json_dump_file(manifest, file, 0) == 0 && synth_checkpoint(file, path) == STATUS_OK,
          "%s: %s", path, error_message());
    free(file);
    json_decref(manifest);
}

void bench_models(int threads)
{
    char *dir = temp_dir_make(), *two_blocks = xasprintf("%s/two-blocks.safetensors", dir);
    write_two_blocks(two_blocks);
    printf("\nseconds per denoise step (one forward, no guidance), %d thread%s\n", threads,
           threads == 1 ? "" : "s");
    printf("%-52s %10s %10s\n", "", "s/step", "GFLOP/s");
    static const char tiny[] = "models/tiny/ltxv-tiny.safetensors";
    const struct latent_grid small = {5, 5, 8, 25, 8, 32}, large = {5, 16, 24, 25, 8, 32},
                             real = {3, 16, 24, 25, 8, 32};
    time_model("models/tiny, 256x160x33, 200 tokens", tiny, 128, threads, PRECISION_F32, small);
    time_model("models/tiny, 768x512x33, 1920 tokens", tiny, 128, threads, PRECISION_F32, large);
    time_model("2 blocks of 2B width, 768x512x17, 1152 tokens", two_blocks, 2048, threads,
               PRECISION_F32, real);
    time_model("the same in bf16", two_blocks, 2048, threads, PRECISION_BF16, real);
    free(two_blocks);
    temp_dir_remove(dir);
}
