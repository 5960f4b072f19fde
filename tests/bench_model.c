#include "tests/bench_model.h"

#include "base/error.h"
#include "tests/support/synth.h"
#include "tests/support/timing.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 5 };

/* One step without guidance is one forward. */
static void time_model(const char *label, const char *checkpoint, int threads,
                       enum precision precision, struct latent_grid grid)
{
    struct device *dev = device_open_cpu(threads, NULL, precision);
    struct step_model m;
    if (step_model_open(&m, dev, checkpoint, grid) != STATUS_OK) {
        fprintf(stderr, "bench: %s\n", error_message());
        exit(1);
    }
    double seconds = step_model_seconds(&m, RUNS);
    printf("%-52s %10.3f %10.1f\n", label, seconds, 1e-9 * m.flop / seconds);
    fflush(stdout);
    step_model_close(&m);
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
    time_model("models/tiny, 256x160x33, 200 tokens", tiny, threads, PRECISION_F32, small);
    time_model("models/tiny, 768x512x33, 1920 tokens", tiny, threads, PRECISION_F32, large);
    time_model("2 blocks of 2B width, 768x512x17, 1152 tokens", two_blocks, threads, PRECISION_F32,
               real);
    time_model("the same in bf16", two_blocks, threads, PRECISION_BF16, real);
    free(two_blocks);
    temp_dir_remove(dir);
}
