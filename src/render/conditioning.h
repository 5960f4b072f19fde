/* A shot that begins from an image (pipeline spec 2.3, case A; official prepare_conditioning): the
 * codec rank makes normalised latents of it, the denoise ranks mix them into latent frame 0 and
 * hold its tokens at a noise level of their own.
 *
 * `strength` is the mask m: at 1 the tokens stay as they are (but for noise that lets them move),
 * at less they begin as partly noise, wait until the steps have come down to that level, and take
 * part from there on. */
#ifndef RINGREEL_RENDER_CONDITIONING_H
#define RINGREEL_RENDER_CONDITIONING_H

#include "render/engine.h"

/* Latents of the shot's image: those of one frame, h w; 0 without one. */
int64_t conditioning_tokens(const struct shot *s);
int64_t conditioning_most_tokens(const struct engine *e); /* of any shot that is rendered */

/* ---- codec ranks; Local ---------------------------------------------------------------------- */

/* Opens the encoder and reads the images of all shots that this rank decodes, so that what is wrong
 * with one is said before the first step. */
int conditioning_open(struct engine *e);
struct vae_task conditioning_task(const struct engine *e, const struct shot *s);
/* condition [conditioning_tokens, C] <- normalised latents, drawn from the seed's global stream. */
int conditioning_encode(struct engine *e, const struct shot *s, float *condition);

/* ---- the random streams ---------------------------------------------------------------------- */

/* The reference's global generator at the first step: the draw of the encoder lies behind it. */
struct rng conditioning_global_stream(const struct engine *e, const struct shot *s);

/* ---- denoise ranks; Local -------------------------------------------------------------------- */

/* The conditioned rows of a shard, which are its first: latent frame 0 leads the sequence. */
struct conditioned {
    bool any; /* the shot has an image, whatever rows of it are here */
    struct mat
        start; /* [rows, C]: what they were before the first step; into the denoiser's memory */
    float free_below;   /* 1 - m: the level from which they are denoised */
    double noise;       /* image_cond_noise_scale, when m is 1: else 0 */
    bool draws;         /* every step draws noise, used or not */
    int32_t *row_index; /* [S_loc], of the device: 0 for these rows, 1 for all others */
    float levels[2];    /* of the present step */
};

/* Mixes condition, which lies on the host, into x [S_loc, C], which holds the initial noise. */
struct conditioned conditioning_begin(struct engine *e, const struct shot *s,
                                      const struct shard_plan *plan, struct mat x,
                                      const float *condition);
/* The rows of x anew for level t: as they were, with noise [S_loc, C] (device) that fades with t.
 */
void conditioning_refresh(const struct conditioned *c, struct engine *e, struct mat x, float t,
                          const float *noise);
/* The levels of a step at t. */
struct timesteps conditioning_levels(struct conditioned *c, float t);
/* Do the rows take part in a step at t? */
bool conditioning_is_free(const struct conditioned *c, float t);

#endif
