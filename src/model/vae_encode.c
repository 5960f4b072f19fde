/* Runs the encoder on one rank: the whole clip, level after level. All of its convolutions are
 * causal: a latent frame knows nothing of the pixels after its own. */
#include "model/vae.h"

#include "base/error.h"
#include "model/vae_net.h"

#include <math.h>
#include <string.h>

/* x [t,h,w,C] -> [(t+1)/2,h/2,w/2,C']: compress_all of spec vae 1.6. */
static struct clip convolve_strided(struct walk *d, struct vae_block *b, struct clip x)
{
    int st = b->stride_t, ss = b->stride_s;
    struct clip padded = walk_take_like(d, ROLE_ACTIVATED, &x, b->in, 1);
    walk_copy_padded(d, &padded, &x);
    x = walk_take(d, ROLE_X, (x.t + st - 1) / st, x.h / ss, x.w / ss, b->out, 0);
    walk_convolve(d, &x, &padded, &b->conv, NULL);
    return x;
}

/* x [t,h,w,C] -> [(t+1)/2,h/2,w/2,mC], or without the halves of a stride 1: spec vae 1.6. There the
 * convolution reads a clip whose frame 0 was doubled before. Being causal, it would give the same
 * frame twice at its front, so it reads x, and its output is doubled with the residual. */
static struct clip downsample(struct walk *d, struct vae_block *b, struct clip x)
{
    int st = b->stride_t, ss = b->stride_s;
    struct clip padded = walk_take_like(d, ROLE_ACTIVATED, &x, b->in, 1);
    struct clip y = walk_take_like(d, ROLE_Y, &x, b->conv.out, 0);
    walk_copy_padded(d, &padded, &x);
    walk_convolve(d, &y, &padded, &b->conv, NULL);

    walk_swap(d, ROLE_X, ROLE_ACTIVATED);
    struct clip out = walk_take(d, ROLE_X, (x.t + st - 1) / st, x.h / ss, x.w / ss, b->out, 0);
    if (!d->planning) op_space_to_depth(d->v->dev, &out, &y, b->residual ? &x : NULL, st, ss);
    return out;
}

/* video [F,H,W,3] -> [f,h,w,conv_out.out] */
static struct clip encode(struct walk *d, const float *video, int64_t f, int64_t h, int64_t w)
{
    struct vae_coder *coder = d->coder;
    int64_t frames = d->v->time_factor * (f - 1) + 1, fine = d->v->space_factor / d->v->patch;
    struct clip patches =
        walk_take(d, ROLE_ACTIVATED, frames, fine * h, fine * w, coder->conv_in.in, 1);
    struct clip x = walk_take_like(d, ROLE_X, &patches, coder->conv_in.out, 0);
    if (!d->planning) op_patchify(d->v->dev, &patches, video, d->v->patch);
    walk_convolve(d, &x, &patches, &coder->conv_in, NULL);
    for (int k = 0; k < coder->block_count; k++) {
        struct vae_block *b = &coder->blocks[k];
        if (b->kind == VAE_BLOCK_STRIDED) x = convolve_strided(d, b, x);
        if (b->kind == VAE_BLOCK_SHUFFLE) x = downsample(d, b, x);
        x = walk_resblocks(d, b, x);
    }
    struct clip activated = walk_take_like(d, ROLE_ACTIVATED, &x, x.c, 1);
    walk_activate(d, &activated, &x, NULL);
    struct clip y = walk_take_like(d, ROLE_Y, &x, coder->conv_out.out, 0);
    walk_convolve(d, &y, &activated, &coder->conv_out, NULL);
    return y;
}

/* ---- the posterior --------------------------------------------------------------------------- */

static const float LEAST_LOG_VARIANCE = -30.0f, MOST_LOG_VARIANCE = 20.0f;

/* Logarithm of the variance of channel c of a position, of which `more` are what conv_out says
 * beyond the means: one for each channel, or one for all. NaN stays. */
static float log_variance_of(const struct vae *v, const float *more, int64_t c)
{
    if (v->constant_variance) return LEAST_LOG_VARIANCE;
    float x = v->encoder.conv_out.out == 2 * v->latent_channels ? more[c] : more[0];
    if (x < LEAST_LOG_VARIANCE) return LEAST_LOG_VARIANCE;
    return x > MOST_LOG_VARIANCE ? MOST_LOG_VARIANCE : x;
}

void vae_sample(const struct vae *v, float *z, const float *mean, const float *log_variance,
                int64_t tokens, struct rng *r, float *room)
{
    int64_t channels = v->latent_channels;
    rng_randn(r, room, (size_t)(tokens * channels)); /* [C, tokens] */
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = i * channels + c;
            z[at] = mean[at] + expf(0.5f * log_variance[at]) * room[c * tokens + i];
        }
}

/* ---- the calls ------------------------------------------------------------------------------- */

bool vae_encode_plan(const struct vae *v, struct vae_regions *r, int64_t f, int64_t h, int64_t w)
{
    struct vae *read = (struct vae *)v; /* only read while planning */
    struct walk d = {.v = read, .coder = &read->encoder, .r = *r};
    CHECK(v->has_encoder && f > 0 && h > 0 && w > 0, "vae_encode_plan: encoder %d, %lldx%lldx%lld",
          v->has_encoder, (long long)f, (long long)h, (long long)w);
    if (!walk_plan(&d, encode, f, h, w)) return false;
    *r = d.r;
    return true;
}

void vae_encode(struct vae *v, const struct vae_regions *r, float *mean, float *log_variance,
                const float *video, int64_t f, int64_t h, int64_t w,
                const struct vae_progress *progress)
{
    struct walk d = {.v = v, .coder = &v->encoder, .progress = progress};
    CHECK(v->has_encoder, "vae_encode: no encoder is open");
    struct clip y = walk_run(&d, encode, "vae_encode", r, video, f, h, w);
    int64_t channels = v->latent_channels;
    const float *from = y.p;
    for (int64_t i = 0; i < f * h * w; i++, from += y.c) {
        memcpy(mean + i * channels, from, (size_t)channels * sizeof *mean);
        for (int64_t c = 0; log_variance && c < channels; c++)
            log_variance[i * channels + c] = log_variance_of(v, from + channels, c);
    }
}
