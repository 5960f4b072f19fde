/* What running a decoder and running an encoder have in common: regions, progress, resblocks. Every
 * block takes its input and gives its output as a clip; nothing but the 3x3x3 convolutions looks at
 * another position. */
#include "model/vae_net.h"

#include "base/error.h"

/* 4 PiB: far beyond any machine, and sums of a few still fit an address. Latent extents are bounded
 * by it too: times the factors of the VAE, at most 256 for each, they fit 64 bits. */
static const int64_t MAX_REGION_FLOATS = (int64_t)1 << 50;

/* ---- regions --------------------------------------------------------------------------------- */

struct clip walk_take(struct walk *d, enum vae_role role, int64_t t, int64_t h, int64_t w,
                      int64_t c, int pad)
{
    int region = d->region[role];
    int64_t n = w + 2 * pad;
    if (__builtin_mul_overflow(n, c, &n) || __builtin_mul_overflow(n, h, &n) ||
        __builtin_mul_overflow(n, t, &n) || n > MAX_REGION_FLOATS)
        d->too_large = true;
    else if (n > d->r.floats[region])
        d->r.floats[region] = n;
    return (struct clip){d->r.base[region], t, h, w, c, pad};
}

struct clip walk_take_like(struct walk *d, enum vae_role role, const struct clip *x, int64_t c,
                           int pad)
{
    return walk_take(d, role, x->t, x->h, x->w, c, pad);
}

void walk_swap(struct walk *d, enum vae_role a, enum vae_role b)
{
    int region = d->region[a];
    d->region[a] = d->region[b];
    d->region[b] = region;
}

/* ---- operations ------------------------------------------------------------------------------ */

void walk_copy_padded(struct walk *d, const struct clip *y, const struct clip *x)
{
    if (!d->planning) op_copy_pad(d->v->dev, y, x);
}

void walk_activate(struct walk *d, const struct clip *y, const struct clip *x, const float *rows)
{
    if (!d->planning) op_pixel_norm_silu(d->v->dev, y, x, rows ? rows + x->c : NULL, rows);
}

static int64_t conv_work(const struct clip *y, const struct conv *conv)
{
    return y->t * y->h * y->w * conv->in * conv->out * conv->kernel * conv->kernel * conv->kernel;
}

static void plan_work(struct walk *d, const struct clip *y, const struct conv *conv)
{
    int64_t per_value = conv->in * conv->kernel * conv->kernel * conv->kernel, work;
    if (d->too_large) return; /* y's extents multiplied overflow */
    if (__builtin_mul_overflow(y->t * y->h * y->w * conv->out, per_value, &work) ||
        __builtin_add_overflow(d->work_total, work, &d->work_total))
        d->too_large = true;
}

void walk_convolve(struct walk *d, const struct clip *y, const struct clip *x, struct conv *conv,
                   const struct clip *add)
{
    struct device *dev = d->v->dev;
    if (d->planning) {
        plan_work(d, y, conv);
        return;
    }
    if (!d->coder->resident) op_conv_pack(dev, conv);
    op_conv3d(dev, y, x, conv, d->coder->conv_time, add);
    if (!d->coder->resident) op_conv_unpack(dev, conv);
    d->work_done += conv_work(y, conv);
    if (d->progress) d->progress->report(d->progress->arg, d->work_done, d->work_total);
}

/* y += map * scale; every use draws its own map, all frames share it (spec vae 1.9). */
static void inject_noise(struct walk *d, const struct clip *y, const float *scale)
{
    struct clip map = walk_take(d, ROLE_MAP, 1, y->h, y->w, 1, 0);
    if (d->planning) return;
    rng_randn(d->noise, map.p, (size_t)(map.h * map.w));
    op_add_noise_map(d->v->dev, y, map.p, scale);
}

/* ---- resblocks ------------------------------------------------------------------------------- */

/* The second convolution ends in x: x = shortcut + conv2(activated). */
static void add_second_conv(struct walk *d, struct vae_resblock *r, const struct clip *activated,
                            const struct clip *x)
{
    if (!r->noise_scale2) {
        walk_convolve(d, x, activated, &r->conv2, x);
        return;
    }
    struct clip y = walk_take_like(d, ROLE_Y, x, r->out, 0);
    walk_convolve(d, &y, activated, &r->conv2, NULL);
    inject_noise(d, &y, r->noise_scale2);
    if (!d->planning) op_lincomb(d->v->dev, x->p, 1.0f, x->p, 1.0f, y.p, clip_count(x));
}

/* x [t,h,w,in] -> [t,h,w,out] in the same region: spec vae 1.5. */
static struct clip resblock(struct walk *d, struct vae_resblock *r, struct clip x)
{
    const float *rows = r->modulation; /* [4][in], in == out where conditioned */
    struct clip activated = walk_take_like(d, ROLE_ACTIVATED, &x, r->in, 1);
    struct clip y = walk_take_like(d, ROLE_Y, &x, r->out, 0);
    walk_activate(d, &activated, &x, rows);
    walk_convolve(d, &y, &activated, &r->conv1, NULL);
    if (r->noise_scale1) inject_noise(d, &y, r->noise_scale1);

    if (r->in != r->out) {
        /* The activated copy has been read: norm3(x) takes its place, then x makes way. */
        struct clip normed = walk_take_like(d, ROLE_ACTIVATED, &x, r->in, 0);
        if (!d->planning)
            op_channel_layer_norm(d->v->dev, &normed, &x, 1e-6f, r->norm3_weight, r->norm3_bias);
        x = walk_take_like(d, ROLE_X, &x, r->out, 0);
        walk_convolve(d, &x, &normed, &r->shortcut, NULL);
    }
    activated = walk_take_like(d, ROLE_ACTIVATED, &x, r->out, 1);
    walk_activate(d, &activated, &y, rows ? rows + 2 * r->in : NULL);
    add_second_conv(d, r, &activated, &x);
    return x;
}

struct clip walk_resblocks(struct walk *d, struct vae_block *b, struct clip x)
{
    for (int j = 0; j < b->count; j++) x = resblock(d, &b->res[j], x);
    return x;
}

/* ---- the whole walk -------------------------------------------------------------------------- */

bool walk_plan(struct walk *d, walk_way *way, int64_t f, int64_t h, int64_t w)
{
    d->too_large = f > MAX_REGION_FLOATS || h > MAX_REGION_FLOATS || w > MAX_REGION_FLOATS;
    d->planning = true;
    for (int i = 0; i < ROLE_COUNT; i++) d->region[i] = i;
    if (!d->too_large) way(d, NULL, f, h, w);
    d->planning = false;
    return !d->too_large;
}

struct clip walk_run(struct walk *d, walk_way *way, const char *caller, const struct vae_regions *r,
                     const float *input, int64_t f, int64_t h, int64_t w)
{
    CHECK(f > 0 && h > 0 && w > 0 && walk_plan(d, way, f, h, w), "%s: %lldx%lldx%lld latents",
          caller, (long long)f, (long long)h, (long long)w);
    for (int i = 0; i < VAE_REGIONS; i++)
        CHECK(d->r.floats[i] <= r->floats[i], "%s: region %d needs %lld floats, has %lld", caller,
              i, (long long)d->r.floats[i], (long long)r->floats[i]);
    d->r = *r;
    for (int i = 0; i < ROLE_COUNT; i++) d->region[i] = i;
    return way(d, input, f, h, w);
}
