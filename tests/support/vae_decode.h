/* Decodes of whole clips on the CPU, and the stored outputs of the reference, for tests in one
 * process. */
#ifndef RINGREEL_TESTS_VAE_DECODE_H
#define RINGREEL_TESTS_VAE_DECODE_H

#include "model/vae.h"
#include "tests/support/synth.h"

/* What a group of tests has: a folder, a file in it for a decoder built there, a CPU of two threads.
 * The two are the group's set-up and tear-down. */
extern char *directory, *small_path;
extern struct device *dev;
int vae_set_up(void **state);
int vae_tear_down(void **state);

/* Fails the test where it cannot be opened. The caller closes both. */
struct vae *open_vae(struct checkpoint **c, const char *path, struct device *on, bool resident);

/* Of the frames that f latents of [h,w] become. */
int64_t video_floats(const struct vae *v, int64_t f, int64_t h, int64_t w);

/* How often progress was reported, and what last; only ever forward. */
struct reports {
    int64_t count, last, total;
};
void count_report(void *reports, int64_t done, int64_t total);

/* z [f,h,w,C], size {f,h,w} -> video [F,H,W,3], in memory of exactly the planned size. */
void decode_into(float *video, struct vae *v, const float *z, const int64_t size[3], float timestep,
                 struct rng *noise, const struct vae_progress *progress);
/* The same into memory of exactly the size the factors promise, filled with NaN before. The caller
 * frees. */
float *decode(struct vae *v, const float *z, int64_t f, int64_t h, int64_t w, uint64_t seed);

/* n floats; the caller frees. */
float *random_latents(int64_t n, uint64_t seed);

/* A checkpoint of synthetic weights and what the reference decodes with it. */
struct reference_case {
    struct safetensors *file;
    char *checkpoint_path; /* written into `directory` */
    int64_t channels, f, h, w;
    float *z; /* normalised, token-major */
    uint64_t seed;
    int64_t stride;
};
void reference_case_open(struct reference_case *x, const char *name, const char *directory);
void reference_case_close(struct reference_case *x);
/* Relative RMS of video [F,H,W,3] at the stored values. */
double reference_case_error(const struct reference_case *x, const float *video, int64_t pixels);

#endif
