/* Rotary position embedding of the transformer (spec transformer 2.5): three small tables of
 * cosines and sines, one per axis (time, y, x), and every token's row in each of them.
 *
 * The roundings are those of the reference, so that phases of up to 1e5 rad agree to the bit. */
#ifndef RINGREEL_ROPE_H
#define RINGREEL_ROPE_H

#include "base/arena.h"
#include "kernels/ops.h"

struct rope_settings {
    double theta;      /* 10000 */
    double max_pos[3]; /* seconds, pixels, pixels at which a phase's fraction reaches 1 */
    bool causal;       /* causal_temporal_positioning: latent frame 0 is one picture, not eight */
};

struct rope_grid {
    int64_t f, h, w; /* latent frames, rows, columns in token order */
    double frame_rate;
    int time_factor, space_factor; /* 8, 32 */
};

/* om_j = theta^(j / (n-1)) * pi/2 in the reference's fp32 steps. */
float rope_frequency(double theta, int64_t j, int64_t n);
/* Time of latent frame fi in seconds. */
float rope_time(int64_t fi, int time_factor, bool causal, double frame_rate);
/* row [n][2] = cosine, sine of om_j * (2 * position/max_pos - 1). */
void rope_row(float *row, int64_t n, const float *frequencies, float position, float max_pos);

/* Takes the tables and coordinates of `tokens` tokens from `a` (called twice, see arena.h). */
void rope_lay_out(struct rope *r, struct arena *a, int64_t width, const struct rope_grid *g,
                  int64_t tokens);
/* Fills them, which lie in the memory of `dev`, for tokens [first, first + tokens) of the grid. */
void rope_fill(struct rope *r, struct device *dev, const struct rope_settings *s,
               const struct rope_grid *g, int64_t first, int64_t tokens);

#endif
