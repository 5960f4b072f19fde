#include "tests/support/vae_decode.h"

#include "base/error.h"
#include "tests/support/vae_clip.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

char *directory, *small_path;
struct device *dev;

int vae_set_up(void **state)
{
    (void)state;
    directory = temp_dir_make();
    small_path = xasprintf("%s/small.safetensors", directory);
    dev = device_open_cpu(2, NULL, PRECISION_F32);
    return dev ? 0 : -1;
}

int vae_tear_down(void **state)
{
    (void)state;
    device_close(dev);
    free(small_path);
    temp_dir_remove(directory);
    return 0;
}

struct vae *open_vae(struct checkpoint **c, const char *path, struct device *on, bool resident)
{
    struct vae *v = NULL;
    int status = checkpoint_open(c, path);
    if (status == STATUS_OK) status = vae_open(&v, on, *c);
    if (status != STATUS_OK) fail_msg("%s", error_message());
    if (resident) vae_make_resident(v);
    return v;
}

int64_t video_floats(const struct vae *v, int64_t f, int64_t h, int64_t w)
{
    int64_t frames = vae_time_factor(v) * (f - 1) + 1, space = vae_space_factor(v);
    return frames * (space * h) * (space * w) * 3;
}

void count_report(void *arg, int64_t done, int64_t total)
{
    struct reports *r = arg;
    assert_true(done > r->last && done <= total && (r->count == 0 || total == r->total));
    r->count++;
    r->last = done;
    r->total = total;
}

/* A decode in memory of exactly the planned size. */
void decode_into(float *video, struct vae *v, const float *z, const int64_t size[3], float timestep,
                 struct rng *noise, const struct vae_progress *progress)
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
float *decode(struct vae *v, const float *z, int64_t f, int64_t h, int64_t w, uint64_t seed)
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

float *random_latents(int64_t n, uint64_t seed)
{
    struct rng r;
    float *z = xmalloc((size_t)n * sizeof *z);
    rng_seed(&r, seed);
    rng_randn(&r, z, (size_t)n);
    return z;
}

void reference_case_open(struct reference_case *x, const char *name, const char *directory)
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

void reference_case_close(struct reference_case *x)
{
    safetensors_close(x->file);
    unlink(x->checkpoint_path);
    free(x->checkpoint_path);
    free(x->z);
}

/* The stored values are every stride-th of [3,F,H,W]; `video` is [F,H,W,3]. */
double reference_case_error(const struct reference_case *x, const float *video, int64_t pixels)
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
