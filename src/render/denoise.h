/* The denoise loop: text in, latents out, shot after shot. Every function is Collective over the
 * denoise group. */
#ifndef RINGREEL_DENOISE_H
#define RINGREEL_DENOISE_H

#include "render/engine.h"

/* From noise to latents. latents [S_loc, C] <- the final, normalised latents of this rank's shard. STATUS_STOPPED
 * when a codec rank failed. */
int denoise_shot(struct engine *e, struct shot *s, const struct shot_input *input, float *latents);

/* What a denoise rank does in a world of two or more. */
int denoise_loop(struct engine *e);

#endif
