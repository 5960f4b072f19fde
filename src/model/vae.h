/* The Video-VAE of all three generations (spec vae-and-scheduler 1-3), fp32, channels last, on one
 * rank. The block lists are read from the tensors, so small test models and every release go the
 * same way. The decoder is always there; the encoder is opened by whoever needs it. */
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
/* Also the encoder, before anything below that encodes. STATUS_INPUT if the checkpoint has none; it
 * can still decode then. Again: nothing happens. */
int vae_open_encoder(struct vae *v, const struct checkpoint *c);
/* Reorders all weights of the decoder now and keeps them; without it each is reordered at every use. */
void vae_make_resident(struct vae *v);
void vae_close(struct vae *v);
int64_t vae_latent_channels(const struct vae *v);
int vae_time_factor(const struct vae *v);  /* 8 */
int vae_space_factor(const struct vae *v); /* 32 */
bool vae_wants_timestep(const struct vae *v);
/* What reordered weights take: all of them if resident, else the largest, one at a time. */
int64_t vae_packed_bytes(const struct vae *v, bool resident);
/* The same of the encoder. */
void vae_encoder_make_resident(struct vae *v);
int64_t vae_encoder_packed_bytes(const struct vae *v, bool resident);

/* Normalised latents -> un-normalised: z = z * std + mean, per channel; z [tokens, C] token-major,
 * in place. */
void vae_unnormalize(const struct vae *v, float *z, int64_t tokens);
/* The inverse: z = (z - mean) / std. */
void vae_normalize(const struct vae *v, float *z, int64_t tokens);

struct vae_progress {
    void (*report)(void *arg, int64_t done, int64_t total);
    void *arg;
};

/* The memory of a decode or an encode, which its caller owns:
 *
 *     struct vae_regions r = {0};
 *     vae_plan(v, &r, f, h, w);   // for every clip to come: r grows; to encode: vae_encode_plan
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

/* As vae_plan, for the encoder; f, h, w are latents here too. */
bool vae_encode_plan(const struct vae *v, struct vae_regions *r, int64_t f, int64_t h, int64_t w);

/* video [F,H,W,3] fp32, nominally [-1,1], sizes as above (an image is a clip of one frame) -> what
 * the encoder believes of every latent, a normal distribution: mean and log_variance [f,h,w,C],
 * token-major, un-normalised; log_variance is within [-30,20] (spec vae 1.11) and may be NULL. */
void vae_encode(struct vae *v, const struct vae_regions *r, float *mean, float *log_variance,
                const float *video, int64_t f, int64_t h, int64_t w,
                const struct vae_progress *progress);

/* z = mean + exp(log_variance / 2) * normal numbers, all [tokens, C]; z may be mean or
 * log_variance. Draws torch.randn of [C, tokens] from r, which is the reference's order, into
 * `room` [tokens * C]. Who wants no chance takes the mean. */
void vae_sample(const struct vae *v, float *z, const float *mean, const float *log_variance,
                int64_t tokens, struct rng *r, float *room);

#endif
