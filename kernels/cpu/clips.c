/* VAE ops that only touch a position and its channels: every picture row by one thread. */
#include "kernels/cpu/cpu.h"

#include <string.h>

static float *floats_at(const struct clip *v, int64_t t, int64_t y, int64_t x)
{
    return (float *)v->p + t * clip_frame(v) + y * clip_row(v) + (x + v->pad) * v->c;
}

static void clear_border(const struct clip *v, int64_t t, int64_t y)
{
    if (!v->pad) return;
    memset(floats_at(v, t, y, -1), 0, sizeof(float) * (size_t)v->c);
    memset(floats_at(v, t, y, v->w), 0, sizeof(float) * (size_t)v->c);
}

void cpu_pixel_norm_silu(struct device *dev, const struct clip *y, const struct clip *x,
                         const float *scale, const float *shift)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t r = 0; r < x->t * x->h; r++) {
        int64_t t = r / x->h, h = r % x->h;
        for (int64_t w = 0; w < x->w; w++) {
            float *to = floats_at(y, t, h, w);
            simd->norm(to, floats_at(x, t, h, w), x->c, NORM_RMS, 1e-8f, scale, shift);
            simd->silu(to, to, x->c);
        }
        clear_border(y, t, h);
    }
}

void cpu_channel_layer_norm(struct device *dev, const struct clip *y, const struct clip *x,
                            float eps, const float *weight, const float *bias)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t r = 0; r < x->t * x->h; r++) {
        int64_t t = r / x->h, h = r % x->h;
        for (int64_t w = 0; w < x->w; w++)
            simd->norm_weight(floats_at(y, t, h, w), floats_at(x, t, h, w), x->c, NORM_LAYER, eps,
                              weight, bias);
        clear_border(y, t, h);
    }
}

void cpu_copy_pad(struct device *dev, const struct clip *y, const struct clip *x)
{
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t r = 0; r < x->t * x->h; r++) {
        int64_t t = r / x->h, h = r % x->h;
        memcpy(floats_at(y, t, h, 0), floats_at(x, t, h, 0), sizeof(float) * (size_t)(x->w * x->c));
        clear_border(y, t, h);
    }
}

void cpu_add_noise_map(struct device *dev, const struct clip *y, const struct clip *x,
                       const float *map, const float *per_channel, const struct clip *add)
{
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t r = 0; r < y->t * y->h; r++) {
        int64_t t = r / y->h, h = r % y->h;
        for (int64_t w = 0; w < y->w; w++) {
            float *to = floats_at(y, t, h, w), noise = map[h * y->w + w];
            const float *from = floats_at(x, t, h, w), *more = add ? floats_at(add, t, h, w) : NULL;
            for (int64_t c = 0; c < y->c; c++) {
                float noisy = from[c] + noise * per_channel[c];
                to[c] = more ? noisy + more[c] : noisy;
            }
        }
    }
}

/* One fine pixel: channels of sub-position `sub`, every p-th of the coarse pixel. */
static void gather_channels(float *to, int64_t channels, const float *from, int64_t p, int64_t sub,
                            const float *residual, int64_t residual_channels)
{
    for (int64_t o = 0; o < channels; o++) to[o] = from[o * p + sub];
    if (!residual) return;
    int64_t distinct = residual_channels / p; /* then they repeat */
    for (int64_t first = 0; first < channels; first += distinct)
        for (int64_t o = 0; o < distinct && first + o < channels; o++)
            to[first + o] += residual[o * p + sub];
}

void cpu_depth_to_space(struct device *dev, const struct clip *y, const struct clip *x,
                        const struct clip *residual, int st, int ss, bool first)
{
    int64_t p = (int64_t)st * ss * ss, drop = first ? st - 1 : 0;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t r = 0; r < y->t * y->h; r++) {
        int64_t t = r / y->h, h = r % y->h, i1 = (t + drop) % st, i2 = h % ss;
        int64_t from_t = (t + drop) / st, from_h = h / ss;
        for (int64_t w = 0; w < y->w; w++) {
            int64_t sub = (i1 * ss + i2) * ss + w % ss, from_w = w / ss;
            gather_channels(floats_at(y, t, h, w), y->c, floats_at(x, from_t, from_h, from_w), p,
                            sub, residual ? floats_at(residual, from_t, from_h, from_w) : NULL,
                            residual ? residual->c : 0);
        }
        clear_border(y, t, h);
    }
}

/* One coarse position: channel c of fine pixel `sub` goes to c * p + sub. */
static void interleave_channels(float *to, const float *const *from, int64_t channels, int64_t p)
{
    for (int64_t c = 0; c < channels; c++)
        for (int64_t sub = 0; sub < p; sub++) to[c * p + sub] = from[sub][c];
}

/* `to` gains the means of every `group` consecutive ones of the interleaved channels. */
static void add_group_means(float *to, int64_t channels, const float *const *from, int64_t p,
                            int64_t group)
{
    int64_t c = 0, sub = 0;
    for (int64_t o = 0; o < channels; o++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < group; k++) {
            sum += from[sub][c];
            if (++sub == p) sub = 0, c++;
        }
        to[o] += sum / (float)group;
    }
}

/* The fine pixels of one coarse position, in the order of their numbers. */
static void fine_pixels(const float **fine, const struct clip *x, int64_t t, int64_t h, int64_t w,
                        int st, int ss, int drop)
{
    for (int i1 = 0; i1 < st; i1++) {
        int64_t from_t = st * t + i1 - drop;
        for (int i2 = 0; i2 < ss; i2++)
            for (int i3 = 0; i3 < ss; i3++)
                *fine++ = floats_at(x, from_t < 0 ? 0 : from_t, ss * h + i2, ss * w + i3);
    }
}

void cpu_space_to_depth(struct device *dev, const struct clip *y, const struct clip *x,
                        const struct clip *residual, int st, int ss, bool first)
{
    int64_t p = (int64_t)st * ss * ss;
    int drop = first ? st - 1 : 0;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t r = 0; r < y->t * y->h; r++) {
        int64_t t = r / y->h, h = r % y->h;
        const float *fine[2 * 2 * 2];
        for (int64_t w = 0; w < y->w; w++) {
            float *to = floats_at(y, t, h, w);
            fine_pixels(fine, x, t, h, w, st, ss, drop);
            interleave_channels(to, fine, x->c, p);
            if (!residual) continue;
            fine_pixels(fine, residual, t, h, w, st, ss, drop);
            add_group_means(to, y->c, fine, p, residual->c * p / y->c);
        }
        clear_border(y, t, h);
    }
}

void cpu_patchify(struct device *dev, const struct clip *y, const float *x, int patch)
{
    int64_t width = y->w * patch;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t r = 0; r < y->t * y->h; r++) {
        int64_t t = r / y->h, h = r % y->h;
        for (int64_t px = 0; px < width; px++) {
            float *to = floats_at(y, t, h, px / patch);
            for (int64_t q = 0; q < patch; q++)
                for (int64_t c = 0; c < 3; c++)
                    to[(c * patch + px % patch) * patch + q] =
                        x[((r * patch + q) * width + px) * 3 + c];
        }
        clear_border(y, t, h);
    }
}

void cpu_unpatchify(struct device *dev, float *y, const struct clip *x, int patch)
{
    int64_t width = x->w * patch;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t r = 0; r < x->t * x->h * patch; r++) { /* r: a pixel row of some frame */
        int64_t t = r / (x->h * patch), py = r % (x->h * patch), q = py % patch;
        for (int64_t px = 0; px < width; px++) {
            const float *from = floats_at(x, t, py / patch, px / patch);
            for (int64_t c = 0; c < 3; c++)
                y[(r * width + px) * 3 + c] = from[(c * patch + px % patch) * patch + q];
        }
    }
}
