/* Initial and per-step noise. Every rank draws the whole stream of the seed and keeps the rows of
 * its shard, so noise is never communicated and does not depend on the number of ranks. */
#ifndef RINGREEL_NOISE_H
#define RINGREEL_NOISE_H

#include "base/rng.h"
#include "config/options.h"
#include "kernels/ops.h"

#include <stdint.h>

/* Draws tokens*channels normals; rows [first, first + rows) of the token-major matrix go to out
 * [rows, channels], device memory. order RNG_TORCH: the stream is token-major
 * (official); RNG_DIFFUSERS: channel-major. tokens*channels must be a multiple of 16, so that
 * drawing in pieces gives the same stream (base/rng.h). Local. */
void noise_draw(struct device *dev, struct rng *r, enum rng_kind order, int64_t tokens,
                int64_t channels, int64_t first, int64_t rows, float *out);
/* The stream behind such a draw. Local. */
void noise_skip(struct rng *r, int64_t tokens, int64_t channels);

#endif
