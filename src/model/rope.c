#include "model/rope.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>

enum { AXES = 3 };

/* pow, cos and sin are taken in double and rounded once: the nearest fp32 value, so the same bits
 * on every host, whichever variant of the mathematics library it picks. */
float rope_frequency(double theta, int64_t j, int64_t n)
{
    if (n == 1) return 3.14159274f / 2.0f;
    /* torch.linspace(0, 1, n): counts up from 0 in the first half and down from 1 in the second */
    float step = 1.0f / (float)(n - 1);
    float exponent = j < n / 2 ? step * (float)j : fmaf(-step, (float)(n - 1 - j), 1.0f);
    return (float)pow(theta, exponent) * 3.14159274f / 2.0f;
}

float rope_time(int64_t fi, int time_factor, bool causal, double frame_rate)
{
    int64_t frame = time_factor * fi;
    if (causal) frame = frame < time_factor ? 0 : frame + 1 - time_factor;
    return (float)frame * (float)(1.0 / frame_rate);
}

void rope_row(float *row, int64_t n, const float *frequencies, float position, float max_pos)
{
    float u = position / max_pos * 2.0f - 1.0f;
    for (int64_t j = 0; j < n; j++) {
        float phase = frequencies[j] * u;
        row[2 * j] = (float)cos(phase);
        row[2 * j + 1] = (float)sin(phase);
    }
}

void rope_lay_out(struct rope *r, struct arena *a, int64_t width, const struct rope_grid *g,
                  int64_t tokens)
{
    *r = (struct rope){.n = width / 6, .pad = (int)(width % 6), .positions = {g->f, g->h, g->w}};
    for (int axis = 0; axis < AXES; axis++)
        r->table[axis] = arena_floats(a, r->positions[axis] * r->n * 2);
    r->coord = arena_take(a, (size_t)tokens * AXES * sizeof(int32_t));
}

static float position_of(const struct rope_settings *s, const struct rope_grid *g, int axis,
                         int64_t i)
{
    if (axis == 0) return rope_time(i, g->time_factor, s->causal, g->frame_rate);
    return (float)(g->space_factor * i);
}

static void fill_tables(struct rope *r, struct device *dev, const struct rope_settings *s,
                        const struct rope_grid *g)
{
    size_t row_bytes = (size_t)r->n * 2 * sizeof(float);
    float *frequencies = xmalloc((size_t)r->n * sizeof *frequencies); /* [n] */
    float *row = xmalloc(row_bytes);                                  /* [n][2] */
    for (int64_t j = 0; j < r->n; j++) frequencies[j] = rope_frequency(s->theta, j, r->n);
    for (int axis = 0; axis < AXES; axis++)
        for (int64_t i = 0; i < r->positions[axis]; i++) {
            rope_row(row, r->n, frequencies, position_of(s, g, axis, i), (float)s->max_pos[axis]);
            op_upload(dev, (float *)r->table[axis] + i * r->n * 2, row, row_bytes);
        }
    free(frequencies);
    free(row);
}

enum { PIECE = 1024 }; /* tokens at a time */

void rope_fill(struct rope *r, struct device *dev, const struct rope_settings *s,
               const struct rope_grid *g, int64_t first, int64_t tokens)
{
    int32_t piece[PIECE][AXES];
    fill_tables(r, dev, s, g);
    for (int64_t at = 0; at < tokens; at += PIECE) {
        int64_t n = tokens - at < PIECE ? tokens - at : PIECE;
        for (int64_t i = 0; i < n; i++) {
            int64_t s_global = first + at + i;
            piece[i][0] = (int32_t)(s_global / (g->h * g->w));
            piece[i][1] = (int32_t)(s_global / g->w % g->h);
            piece[i][2] = (int32_t)(s_global % g->w);
        }
        op_upload(dev, (int32_t *)r->coord + at * AXES, piece, (size_t)n * sizeof *piece);
    }
}
