/* The denoise loop: text in, latents out, shot after shot. Every function is Collective over the
 * denoise group. */
#ifndef RINGREEL_DENOISE_H
#define RINGREEL_DENOISE_H

#include "render/engine.h"

/* From noise to latents: e->denoiser.x [S_loc, C] <- the final, normalised ones of this rank's
 * shard. STATUS_STOPPED when a codec rank failed. */
int denoise_shot(struct engine *e, struct shot *s, const struct shot_input *input);

/* What a denoise rank does in a world of two or more. */
int denoise_loop(struct engine *e);

#endif
