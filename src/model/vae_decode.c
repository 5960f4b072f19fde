/* Runs the decoder on one rank: the whole clip, level after level. */
#include "model/vae.h"

#include "base/error.h"
#include "model/sinusoid.h"
#include "model/vae_net.h"

/* x [t,h,w,C] -> [2t-1,2h,2w,C/m]: spec vae 1.7. */
static struct clip upsample(struct walk *d, struct vae_block *b, struct clip x)
{
    int st = b->stride_t, ss = b->stride_s;
    struct clip padded = walk_take_like(d, ROLE_ACTIVATED, &x, b->in, 1);
    struct clip y = walk_take_like(d, ROLE_Y, &x, b->conv.out, 0);
    walk_copy_padded(d, &padded, &x);
    walk_convolve(d, &y, &padded, &b->conv, NULL);

    walk_swap(d, ROLE_X, ROLE_ACTIVATED);
    struct clip out = walk_take(d, ROLE_X, st * x.t - (st - 1), ss * x.h, ss * x.w, b->out, 0);
    if (!d->planning) op_depth_to_space(d->v->dev, &out, &y, b->residual ? &x : NULL, st, ss);
    return out;
}

/* latent [f,h,w,C] -> [F,H/patch,W/patch,3*patch^2] */
static struct clip decode(struct walk *d, const float *z, int64_t f, int64_t h, int64_t w)
{
    struct vae_coder *coder = d->coder;
    struct clip latent = {(float *)z, f, h, w, d->v->latent_channels, 0}; /* only read */
    struct clip activated = walk_take_like(d, ROLE_ACTIVATED, &latent, latent.c, 1);
    struct clip x = walk_take_like(d, ROLE_X, &latent, coder->conv_in.out, 0);
    walk_copy_padded(d, &activated, &latent);
    walk_convolve(d, &x, &activated, &coder->conv_in, NULL);
    for (int k = 0; k < coder->block_count; k++) {
        struct vae_block *b = &coder->blocks[k];
        if (b->kind == VAE_BLOCK_SHUFFLE) x = upsample(d, b, x);
        x = walk_resblocks(d, b, x);
    }
    activated = walk_take_like(d, ROLE_ACTIVATED, &x, x.c, 1);
    walk_activate(d, &activated, &x, d->v->last_modulation);
    struct clip y = walk_take_like(d, ROLE_Y, &x, coder->conv_out.out, 0);
    walk_convolve(d, &y, &activated, &coder->conv_out, NULL);
    return y;
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
    for (int k = 0; k < v->decoder.block_count; k++) {
        struct vae_block *b = &v->decoder.blocks[k];
        if (!b->time.rows) continue;
        embed(v, &b->time, wave);
        for (int j = 0; j < b->count; j++)
            add_rows(b->res[j].modulation, b->res[j].table, b->time.rows, 4 * b->in);
    }
    embed(v, &v->last_time, wave);
    add_rows(v->last_modulation, v->last_table, v->last_time.rows, 2 * v->decoder.conv_out.in);
}

/* ---- the calls ------------------------------------------------------------------------------- */

bool vae_plan(const struct vae *v, struct vae_regions *r, int64_t f, int64_t h, int64_t w)
{
    struct vae *read = (struct vae *)v; /* only read while planning */
    struct walk d = {.v = read, .coder = &read->decoder, .r = *r};
    CHECK(f > 0 && h > 0 && w > 0, "vae_plan: %lldx%lldx%lld latents", (long long)f, (long long)h,
          (long long)w);
    if (!walk_plan(&d, decode, f, h, w)) return false;
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
    struct walk d = {.v = v, .coder = &v->decoder, .noise = noise, .progress = progress};
    CHECK(noise || !vae_injects_noise(&v->decoder),
          "vae_decode: this decoder injects noise and was given no source of it");
    if (v->conditioned) modulate(v, timestep);
    struct clip y = walk_run(&d, decode, "vae_decode", r, z, f, h, w);
    op_unpatchify(v->dev, video, &y, v->patch);
}
