/* The Video-VAE decoder of all three generations (spec vae-and-scheduler 1-3), fp32, channels last,
 * on one rank. The block list is read from the tensors, so small test models and every release go
 * the same way. */
#ifndef RINGREEL_VAE_H
#define RINGREEL_VAE_H

#include "base/arena.h"
#include "base/rng.h"
#include "base/tensor.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"

#include <stdbool.h>

struct vae;

int vae_open(struct vae **out, struct device *dev, const struct checkpoint *c);
/* Reorders all weights now and keeps them; without it each is reordered at every use. */
void vae_make_resident(struct vae *v);
void vae_close(struct vae *v);
int64_t vae_latent_channels(const struct vae *v);
int vae_time_factor(const struct vae *v);  /* 8 */
int vae_space_factor(const struct vae *v); /* 32 */
bool vae_wants_timestep(const struct vae *v);
/* What reordered weights take: all of them if resident, else the largest, one at a time. */
int64_t vae_packed_bytes(const struct vae *v, bool resident);

/* Normalised latents -> un-normalised: z = z * std + mean, per channel; z [tokens, C] token-major,
 * in place. */
void vae_unnormalize(const struct vae *v, float *z, int64_t tokens);

struct vae_progress {
    void (*report)(void *arg, int64_t done, int64_t total);
    void *arg;
};

/* The memory of a decode, which its caller owns:
 *
 *     struct vae_regions r = {0};
 *     vae_plan(v, &r, f, h, w);   // for every clip to come: r grows
 *     vae_lay_out(&r, &arena);    // twice, see arena.h
 */
enum { VAE_REGIONS = 4 };
struct vae_regions {
    int64_t floats[VAE_REGIONS];
    float *base[VAE_REGIONS];
};
/* False for sizes no machine could hold. Local. */
bool vae_plan(const struct vae *v, struct vae_regions *r, int64_t f, int64_t h, int64_t w);
void vae_lay_out(struct vae_regions *r, struct arena *a);

/* z [f,h,w,C] un-normalised (channels last = token-major) -> video [F,H,W,3] fp32, nominally
 * [-1,1]; F = 8(f-1)+1, H = 32h, W = 32w. r: planned for this size or a larger one. timestep:
 * decode_timestep, ignored by 0.9.0. noise: source of the injected noise maps (0.9.1), drawn in the
 * reference's order; may be NULL for others. `report` counts multiply-adds. Nothing is allocated
 * but what a weight that is not resident takes while it is used. */
void vae_decode(struct vae *v, const struct vae_regions *r, float *video, const float *z, int64_t f,
                int64_t h, int64_t w, float timestep, struct rng *noise,
                const struct vae_progress *progress);

#endif
