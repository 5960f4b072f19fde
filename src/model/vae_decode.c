/* Runs the decoder on one rank: the whole clip, level after level.
 *
 * The walk below plans and computes. When it plans, it only notes how large each region must be and
 * how many multiply-adds there are; that is done for every shot before the first one starts. Every
 * block takes its input and gives its output as a clip; nothing but the 3x3x3 convolutions looks at
 * another position. */
#include "model/vae.h"

#include "base/error.h"
#include "model/sinusoid.h"
#include "model/vae_net.h"

/* What is alive at the same time: a block's input, the activated copy a convolution reads, and what
 * it writes; and one map of injected noise. An upsampling block leaves its output where the
 * activated copy was; the two change names. */
enum role { ROLE_X, ROLE_ACTIVATED, ROLE_Y, ROLE_MAP, ROLE_COUNT };
_Static_assert((int)ROLE_COUNT == VAE_REGIONS, "a region for every role");

/* 4 PiB: far beyond any machine, and sums of a few still fit an address. */
static const int64_t MAX_REGION_FLOATS = (int64_t)1 << 50;

struct decode {
    struct vae *v;
    bool planning, too_large;
    int region[ROLE_COUNT]; /* role -> region */
    struct vae_regions r;
    struct rng *noise;
    const struct vae_progress *progress;
    int64_t work_done, work_total; /* multiply-adds */
};

/* ---- one operation each: noted while planning, else done ------------------------------------- */

/* Room for a clip in the region that plays this role now. */
static struct clip take(struct decode *d, enum role role, int64_t t, int64_t h, int64_t w,
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

static struct clip take_like(struct decode *d, enum role role, const struct clip *x, int64_t c,
                             int pad)
{
    return take(d, role, x->t, x->h, x->w, c, pad);
}

static void copy_padded(struct decode *d, const struct clip *y, const struct clip *x)
{
    if (!d->planning) op_copy_pad(d->v->dev, y, x);
}

/* rows: [2][C] shift, scale, or NULL. */
static void activate(struct decode *d, const struct clip *y, const struct clip *x,
                     const float *rows)
{
    if (!d->planning) op_pixel_norm_silu(d->v->dev, y, x, rows ? rows + x->c : NULL, rows);
}

static int64_t conv_work(const struct clip *y, const struct conv *conv)
{
    return y->t * y->h * y->w * conv->in * conv->out * conv->kernel * conv->kernel * conv->kernel;
}

static void plan_work(struct decode *d, const struct clip *y, const struct conv *conv)
{
    int64_t per_value = conv->in * conv->kernel * conv->kernel * conv->kernel, work;
    if (d->too_large) return; /* y's extents multiplied overflow */
    if (__builtin_mul_overflow(y->t * y->h * y->w * conv->out, per_value, &work) ||
        __builtin_add_overflow(d->work_total, work, &d->work_total))
        d->too_large = true;
}

static void convolve(struct decode *d, const struct clip *y, const struct clip *x,
                     struct conv *conv, const struct clip *add)
{
    struct vae *v = d->v;
    if (d->planning) {
        plan_work(d, y, conv);
        return;
    }
    if (!v->resident) op_conv_pack(v->dev, conv);
    op_conv3d(v->dev, y, x, conv, v->conv_time, add);
    if (!v->resident) op_conv_unpack(v->dev, conv);
    d->work_done += conv_work(y, conv);
    if (d->progress) d->progress->report(d->progress->arg, d->work_done, d->work_total);
}

/* y += map * scale; every use draws its own map, all frames share it (spec vae 1.9). */
static void inject_noise(struct decode *d, const struct clip *y, const float *scale)
{
    struct clip map = take(d, ROLE_MAP, 1, y->h, y->w, 1, 0);
    if (d->planning) return;
    rng_randn(d->noise, map.p, (size_t)(map.h * map.w));
    op_add_noise_map(d->v->dev, y, map.p, scale);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* The second convolution ends in x: x = shortcut + conv2(activated). */
static void add_second_conv(struct decode *d, struct vae_resblock *r, const struct clip *activated,
                            const struct clip *x)
{
    if (!r->noise_scale2) {
        convolve(d, x, activated, &r->conv2, x);
        return;
    }
    struct clip y = take_like(d, ROLE_Y, x, r->out, 0);
    convolve(d, &y, activated, &r->conv2, NULL);
    inject_noise(d, &y, r->noise_scale2);
    if (!d->planning) op_lincomb(d->v->dev, x->p, 1.0f, x->p, 1.0f, y.p, clip_count(x));
}

/* x [t,h,w,in] -> [t,h,w,out] in the same region: spec vae 1.5. */
static struct clip resblock(struct decode *d, struct vae_resblock *r, struct clip x)
{
    const float *rows = r->modulation; /* [4][in], in == out where conditioned */
    struct clip activated = take_like(d, ROLE_ACTIVATED, &x, r->in, 1);
    struct clip y = take_like(d, ROLE_Y, &x, r->out, 0);
    activate(d, &activated, &x, rows);
    convolve(d, &y, &activated, &r->conv1, NULL);
    if (r->noise_scale1) inject_noise(d, &y, r->noise_scale1);

    if (r->in != r->out) {
        /* The activated copy has been read: norm3(x) takes its place, then x makes way. */
        struct clip normed = take_like(d, ROLE_ACTIVATED, &x, r->in, 0);
        if (!d->planning)
            op_channel_layer_norm(d->v->dev, &normed, &x, 1e-6f, r->norm3_weight, r->norm3_bias);
        x = take_like(d, ROLE_X, &x, r->out, 0);
        convolve(d, &x, &normed, &r->shortcut, NULL);
    }
    activated = take_like(d, ROLE_ACTIVATED, &x, r->out, 1);
    activate(d, &activated, &y, rows ? rows + 2 * r->in : NULL);
    add_second_conv(d, r, &activated, &x);
    return x;
}

/* x [t,h,w,C] -> [2t-1,2h,2w,C/m]: spec vae 1.7. */
static struct clip upsample(struct decode *d, struct vae_block *b, struct clip x)
{
    struct clip padded = take_like(d, ROLE_ACTIVATED, &x, b->in, 1);
    struct clip y = take_like(d, ROLE_Y, &x, b->conv.out, 0);
    copy_padded(d, &padded, &x);
    convolve(d, &y, &padded, &b->conv, NULL);

    int free_region = d->region[ROLE_ACTIVATED];
    d->region[ROLE_ACTIVATED] = d->region[ROLE_X];
    d->region[ROLE_X] = free_region;
    struct clip out = take(d, ROLE_X, 2 * x.t - 1, 2 * x.h, 2 * x.w, b->out, 0);
    if (!d->planning) op_depth_to_space(d->v->dev, &out, &y, b->residual ? &x : NULL, 2, 2);
    return out;
}

/* latent [f,h,w,C] -> video [F,H,W,3] */
static void walk(struct decode *d, float *video, const struct clip *latent)
{
    struct vae *v = d->v;
    for (int i = 0; i < ROLE_COUNT; i++) d->region[i] = i;
    struct clip activated = take_like(d, ROLE_ACTIVATED, latent, v->latent_channels, 1);
    struct clip x = take_like(d, ROLE_X, latent, v->conv_in.out, 0);
    copy_padded(d, &activated, latent);
    convolve(d, &x, &activated, &v->conv_in, NULL);
    for (int k = 0; k < v->block_count; k++) {
        struct vae_block *b = &v->blocks[k];
        if (b->kind == VAE_BLOCK_UP) x = upsample(d, b, x);
        for (int j = 0; j < b->count; j++) x = resblock(d, &b->res[j], x);
    }
    activated = take_like(d, ROLE_ACTIVATED, &x, x.c, 1);
    activate(d, &activated, &x, v->last_modulation);
    struct clip y = take_like(d, ROLE_Y, &x, v->conv_out.out, 0);
    convolve(d, &y, &activated, &v->conv_out, NULL);
    if (!d->planning) op_unpatchify(v->dev, video, &y, v->patch);
}

/* ---- timestep conditioning (spec vae 1.8) ---------------------------------------------------- */

static void embed(struct vae *v, struct vae_embedder *e, float wave[VAE_SINUSOID])
{
    struct mat in = mat_f32(wave, 1, VAE_SINUSOID);
    struct mat hidden = mat_f32(v->time_hidden, 1, e->first.out);
    struct mat rows = mat_f32(e->rows, 1, e->second.out);
    op_linear(v->dev, hidden, in, &e->first, EPILOGUE_SILU, 1);
    op_linear(v->dev, rows, hidden, &e->second, EPILOGUE_NONE, 1);
}

static void add_rows(float *out, const float *table, const float *embedding, int64_t n)
{
    for (int64_t i = 0; i < n; i++) out[i] = table[i] + embedding[i];
}

/* Fills every modulation vector of the decode: they depend on the timestep alone. */
static void modulate(struct vae *v, float timestep)
{
    float wave[VAE_SINUSOID];
    sinusoid_fill(wave, VAE_SINUSOID, timestep * v->timestep_multiplier);
    for (int k = 0; k < v->block_count; k++) {
        struct vae_block *b = &v->blocks[k];
        if (!b->time.rows) continue;
        embed(v, &b->time, wave);
        for (int j = 0; j < b->count; j++)
            add_rows(b->res[j].modulation, b->res[j].table, b->time.rows, 4 * b->in);
    }
    embed(v, &v->last_time, wave);
    add_rows(v->last_modulation, v->last_table, v->last_time.rows, 2 * v->conv_out.in);
}

/* ---- the calls ------------------------------------------------------------------------------- */

static bool injects_noise(const struct vae *v)
{
    for (int k = 0; k < v->block_count; k++)
        for (int j = 0; j < v->blocks[k].count; j++)
            if (v->blocks[k].res[j].noise_scale1) return true;
    return false;
}

/* What a decode of this size needs and how much work it is; false if too much for any machine. */
static bool plan(struct decode *d, int64_t f, int64_t h, int64_t w)
{
    struct clip latent = {NULL, f, h, w, d->v->latent_channels, 0};
    d->planning = true;
    d->too_large = f > MAX_REGION_FLOATS || h > MAX_REGION_FLOATS || w > MAX_REGION_FLOATS;
    if (!d->too_large) walk(d, NULL, &latent);
    d->planning = false;
    return !d->too_large;
}

bool vae_plan(const struct vae *v, struct vae_regions *r, int64_t f, int64_t h, int64_t w)
{
    struct decode d = {.v = (struct vae *)v, .r = *r}; /* only read while planning */
    CHECK(f > 0 && h > 0 && w > 0, "vae_plan: %lldx%lldx%lld latents", (long long)f, (long long)h,
          (long long)w);
    if (!plan(&d, f, h, w)) return false;
    *r = d.r;
    return true;
}

void vae_lay_out(struct vae_regions *r, struct arena *a)
{
    for (int i = 0; i < VAE_REGIONS; i++) r->base[i] = arena_floats(a, r->floats[i]);
}

void vae_decode(struct vae *v, const struct vae_regions *r, float *video, const float *z, int64_t f,
                int64_t h, int64_t w, float timestep, struct rng *noise,
                const struct vae_progress *progress)
{
    struct decode d = {.v = v, .noise = noise, .progress = progress};
    struct clip latent = {(float *)z, f, h, w, v->latent_channels, 0}; /* only read */
    CHECK(noise || !injects_noise(v),
          "vae_decode: this decoder injects noise and was given no source of it");
    CHECK(f > 0 && h > 0 && w > 0 && plan(&d, f, h, w), "vae_decode: %lldx%lldx%lld latents",
          (long long)f, (long long)h, (long long)w);
    for (int i = 0; i < VAE_REGIONS; i++)
        CHECK(d.r.floats[i] <= r->floats[i], "vae_decode: region %d needs %lld floats, has %lld", i,
              (long long)d.r.floats[i], (long long)r->floats[i]);
    d.r = *r;
    if (v->conditioned) modulate(v, timestep);
    walk(&d, video, &latent);
}
