/* Reads the block lists and shapes of decoder and encoder from the checkpoint's tensors. */
#include "model/vae_net.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DECODER "vae.decoder"
#define ENCODER "vae.encoder"

enum { MAX_FACTOR = 256, NAME_BYTES = 160 };

/* ---- single tensors -------------------------------------------------------------------------- */

/* What is read: a checkpoint, and where its vectors go. */
struct source {
    struct device *dev;
    const struct checkpoint *c;
    struct arena *vectors;
};

/* A small tensor as fp32 in device memory. */
static int read_floats(const struct source *s, float **out, int rank, const int64_t *shape,
                       const char *name)
{
    const struct tensor *t;
    TRY(checkpoint_need(s->c, &t, rank, shape, "%s", name));
    *out = arena_floats(s->vectors, tensor_count(t));
    if (*out) op_upload_tensor(s->dev, *out, t);
    return STATUS_OK;
}

static int read_vector(const struct source *s, float **out, int64_t n, const char *name)
{
    return read_floats(s, out, 1, &n, name);
}

/* The same in the host's. */
static int read_host_floats(const struct checkpoint *c, float *out, int rank, const int64_t *shape,
                            const char *name)
{
    const struct tensor *t;
    TRY(checkpoint_need(c, &t, rank, shape, "%s", name));
    dtype_to_f32(out, t->data, t->dtype, (size_t)tensor_count(t));
    return STATUS_OK;
}

/* "BASE.PART" */
static const char *join(char name[NAME_BYTES], const char *base, const char *part)
{
    int length = snprintf(name, NAME_BYTES, "%s.%s", base, part);
    CHECK(length < NAME_BYTES, "VAE tensor name %s.%s is too long", base, part);
    return name;
}

static bool has(const struct checkpoint *c, const char *base, const char *part)
{
    char name[NAME_BYTES];
    return checkpoint_find(c, join(name, base, part)) != NULL;
}

/* NAME.weight [out,in,k,k,k] and NAME.bias [out]; out or in may be -1. */
static int read_conv(const struct checkpoint *c, struct conv *conv, int64_t out, int64_t in,
                     int kernel, const char *base, const char *part)
{
    const struct tensor *weight, *bias;
    int64_t shape[] = {out, in, kernel, kernel, kernel};
    TRY(checkpoint_need(c, &weight, 5, shape, "%s.%s.weight", base, part));
    TRY(checkpoint_need(c, &bias, 1, &weight->shape[0], "%s.%s.bias", base, part));
    *conv = conv_make(weight, bias);
    return STATUS_OK;
}

static int read_linear(const struct checkpoint *c, struct linear *l, int64_t out, int64_t in,
                       const char *base, const char *part)
{
    const struct tensor *weight, *bias;
    int64_t shape[] = {out, in};
    TRY(checkpoint_need(c, &weight, 2, shape, "%s.%s.weight", base, part));
    TRY(checkpoint_need(c, &bias, 1, &out, "%s.%s.bias", base, part));
    *l = linear_make(weight, bias);
    return STATUS_OK;
}

/* BASE.timestep_embedder with `width` outputs. It serves one row per decode, so its weights are not
 * kept reordered. */
static int read_embedder(const struct source *s, struct vae_embedder *e, int64_t width,
                         const char *base)
{
    TRY(read_linear(s->c, &e->first, width, VAE_SINUSOID, base, "timestep_embedder.linear_1"));
    TRY(read_linear(s->c, &e->second, width, width, base, "timestep_embedder.linear_2"));
    e->rows = arena_floats(s->vectors, width);
    return STATUS_OK;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static int read_shortcut(const struct source *s, struct vae_resblock *r, const char *base)
{
    char name[NAME_BYTES];
    TRY(read_vector(s, &r->norm3_weight, r->in, join(name, base, "norm3.norm.weight")));
    TRY(read_vector(s, &r->norm3_bias, r->in, join(name, base, "norm3.norm.bias")));
    return read_conv(s->c, &r->shortcut, r->out, r->in, 1, base, "conv_shortcut");
}

static int read_resblock(const struct source *s, struct vae_resblock *r, int64_t out, int64_t in,
                         bool conditioned, const char *base)
{
    char name[NAME_BYTES];
    TRY(read_conv(s->c, &r->conv1, out, in, 3, base, "conv1.conv"));
    r->in = r->conv1.in;
    r->out = r->conv1.out;
    TRY(read_conv(s->c, &r->conv2, r->out, r->out, 3, base, "conv2.conv"));
    if (r->in != r->out) TRY(read_shortcut(s, r, base));
    if (conditioned) {
        TRY(read_floats(s, &r->table, 2, (int64_t[]){4, r->in},
                        join(name, base, "scale_shift_table")));
        r->modulation = arena_floats(s->vectors, 4 * r->in);
    }
    if (has(s->c, base, "per_channel_scale1")) {
        int64_t shape[] = {r->out, 1, 1};
        TRY(read_floats(s, &r->noise_scale1, 3, shape, join(name, base, "per_channel_scale1")));
        TRY(read_floats(s, &r->noise_scale2, 3, shape, join(name, base, "per_channel_scale2")));
    }
    return STATUS_OK;
}

/* res_x: resblocks that keep the channels, under one time embedder. */
static int read_res_stage(const struct source *s, struct vae_block *b, bool conditioned,
                          const char *base)
{
    char name[NAME_BYTES], part[48];
    if (has(s->c, base, "attention_blocks.0.to_q.weight"))
        return error_set(STATUS_INPUT, "%s: %s has attention blocks, which are not supported",
                         checkpoint_path(s->c), base);
    int count = 0; /* a gap in the numbers shows below as a missing tensor */
    for (int j = 0; j < VAE_MAX_BLOCKS; j++) {
        snprintf(part, sizeof part, "res_blocks.%d.conv1.conv.weight", j);
        count += has(s->c, base, part);
    }
    b->res = xcalloc((size_t)count, sizeof *b->res);
    b->count = count;
    b->out = b->in;
    if (conditioned) TRY(read_embedder(s, &b->time, 4 * b->in, join(name, base, "time_embedder")));
    for (int j = 0; j < count; j++) {
        snprintf(part, sizeof part, "res_blocks.%d", j);
        TRY(read_resblock(s, &b->res[j], b->in, b->in, conditioned, join(name, base, part)));
    }
    return STATUS_OK;
}

/* res_x_y: a bare resblock that changes the channels; conditioned in no version. */
static int read_res_x_y(const struct source *s, struct vae_block *b, const char *base)
{
    b->res = xcalloc(1, sizeof *b->res);
    b->count = 1;
    TRY(read_resblock(s, &b->res[0], -1, b->in, false, base));
    b->out = b->res[0].out;
    return STATUS_OK;
}

/* What the first tensor of each kind of block is called. */
static const char *const first_tensor[] = {[VAE_BLOCK_RES] = "res_blocks.0.conv1.conv.weight",
                                           [VAE_BLOCK_RES_X_Y] = "conv1.conv.weight",
                                           [VAE_BLOCK_SHUFFLE] = "conv.conv.weight",
                                           [VAE_BLOCK_STRIDED] = "conv.weight"};

/* The kinds of all blocks of a list ("vae.decoder.up_blocks"), up to the last that is there. */
static void find_blocks(struct vae_coder *coder, const struct checkpoint *c, const char *list,
                        enum vae_block_kind last_kind)
{
    char base[64];
    for (int k = 0; k < VAE_MAX_BLOCKS; k++) {
        struct vae_block *b = &coder->blocks[k];
        snprintf(base, sizeof base, "%s.%d", list, k);
        b->stride_t = b->stride_s = 1;
        b->kind = last_kind;
        while (b->kind != VAE_BLOCK_NONE && !has(c, base, first_tensor[b->kind])) b->kind--;
        if (b->kind != VAE_BLOCK_NONE) coder->block_count = k + 1;
    }
}

static int refuse_block(const struct checkpoint *c, const char *base)
{
    return error_set(STATUS_INPUT,
                     "%s: no tensor of %s is a known block's first, but later blocks are there",
                     checkpoint_path(c), base);
}

/* ---- the decoder ----------------------------------------------------------------------------- */

/* compress_all: C -> C/m channels with strides 2,2,2. The convolution has 8C/m outputs, which tells
 * m: 1 comes without a residual (0.9.0), 2 with one (0.9.1 and later). */
static int read_up(const struct checkpoint *c, struct vae_block *b, const char *base)
{
    char shape[96];
    TRY(read_conv(c, &b->conv, -1, b->in, 3, base, "conv.conv"));
    int64_t out = b->conv.out, tiles = out / b->in;
    b->residual = tiles == 4;
    if (out % b->in || (tiles != 4 && tiles != 8) || (b->residual && b->in % 8))
        return error_set(STATUS_INPUT,
                         "%s: tensor %s.conv.conv.weight has shape %s, expected 8 or 4 times as "
                         "many outputs as inputs",
                         checkpoint_path(c), base, tensor_shape_text(b->conv.weight, shape));
    b->out = out / 8;
    b->stride_t = b->stride_s = 2;
    return STATUS_OK;
}

static int read_up_block(struct vae *v, const struct source *s, struct vae_block *b,
                         const char *base)
{
    switch (b->kind) {
    case VAE_BLOCK_RES:
        return read_res_stage(s, b, v->conditioned, base);
    case VAE_BLOCK_RES_X_Y:
        return read_res_x_y(s, b, base);
    case VAE_BLOCK_SHUFFLE:
        return read_up(s->c, b, base);
    default:
        return refuse_block(s->c, base);
    }
}

static int read_up_blocks(struct vae *v, const struct source *s)
{
    const struct checkpoint *c = s->c;
    struct vae_coder *coder = &v->decoder;
    int64_t channels = coder->conv_in.out;
    v->time_factor = 1;
    find_blocks(coder, c, DECODER ".up_blocks", VAE_BLOCK_SHUFFLE);
    for (int k = 0; k < coder->block_count; k++) {
        char base[64];
        struct vae_block *b = &coder->blocks[k];
        snprintf(base, sizeof base, DECODER ".up_blocks.%d", k);
        b->in = channels;
        TRY(read_up_block(v, s, b, base));
        channels = b->out;
        v->time_factor *= b->stride_t;
        if (v->time_factor > MAX_FACTOR)
            return error_set(STATUS_INPUT, "%s: the VAE decoder enlarges more than %d times",
                             checkpoint_path(c), MAX_FACTOR);
    }
    return read_conv(c, &coder->conv_out, -1, channels, 3, DECODER, "conv_out.conv");
}

/* Three colours of a patch x patch square per position. */
static int derive_patch(struct vae *v, const struct checkpoint *c)
{
    char shape[96];
    int64_t patch = 1;
    while (patch < MAX_FACTOR && 3 * patch * patch < v->decoder.conv_out.out) patch++;
    if (3 * patch * patch != v->decoder.conv_out.out)
        return error_set(STATUS_INPUT,
                         "%s: tensor vae.decoder.conv_out.conv.weight has shape %s, expected 3 "
                         "times a square of outputs",
                         checkpoint_path(c), tensor_shape_text(v->decoder.conv_out.weight, shape));
    v->patch = (int)patch;
    v->space_factor = v->time_factor * v->patch;
    return STATUS_OK;
}

/* Into *out [channels] of the host, which is taken at the first reading. */
static int read_statistic(const struct checkpoint *c, float **out, int64_t channels,
                          const char *part, float fallback)
{
    char name[NAME_BYTES];
    join(name, "vae.per_channel_statistics", part);
    if (!*out) *out = xmalloc((size_t)channels * sizeof **out);
    if (checkpoint_find(c, name)) return read_host_floats(c, *out, 1, &channels, name);
    for (int64_t i = 0; i < channels; i++) (*out)[i] = fallback;
    return STATUS_OK;
}

static int read_final_modulation(struct vae *v, const struct source *s)
{
    int64_t channels = v->decoder.conv_out.in;
    TRY(read_host_floats(s->c, &v->timestep_multiplier, 0, NULL,
                         DECODER ".timestep_scale_multiplier"));
    TRY(read_embedder(s, &v->last_time, 2 * channels, DECODER ".last_time_embedder"));
    TRY(read_floats(s, &v->last_table, 2, (int64_t[]){2, channels},
                    DECODER ".last_scale_shift_table"));
    v->last_modulation = arena_floats(s->vectors, 2 * channels);

    int64_t widest = v->last_time.first.out;
    for (int k = 0; k < v->decoder.block_count; k++)
        if (v->decoder.blocks[k].time.first.out > widest)
            widest = v->decoder.blocks[k].time.first.out;
    v->time_wave = arena_floats(s->vectors, VAE_SINUSOID);
    v->time_hidden = arena_floats(s->vectors, widest);
    return STATUS_OK;
}

int vae_read_decoder(struct vae *v, const struct checkpoint *c)
{
    struct source s = {v->dev, c, &v->decoder.vectors};
    /* Any trace of conditioning makes all of its tensors needed: a damaged file is noticed. */
    v->conditioned = has(c, DECODER, "timestep_scale_multiplier") ||
                     has(c, DECODER, "last_scale_shift_table") ||
                     has(c, DECODER, "up_blocks.0.time_embedder.timestep_embedder.linear_1.weight");
    v->decoder.causal = checkpoint_facts(c)->vae_causal_decoder;
    TRY(read_conv(c, &v->decoder.conv_in, -1, -1, 3, DECODER, "conv_in.conv"));
    v->latent_channels = v->decoder.conv_in.in;
    TRY(read_statistic(c, &v->mean, v->latent_channels, "mean-of-means", 0.0f));
    TRY(read_statistic(c, &v->std, v->latent_channels, "std-of-means", 1.0f));
    TRY(read_up_blocks(v, &s));
    TRY(derive_patch(v, c));
    return v->conditioned ? read_final_modulation(v, &s) : STATUS_OK;
}

/* ---- the encoder ----------------------------------------------------------------------------- */

/* Input channels of what follows block k. */
static int channels_after(const struct checkpoint *c, const struct vae_coder *coder, int k,
                          int64_t *channels)
{
    static const int64_t any[] = {-1, -1, 3, 3, 3};
    const struct tensor *t;
    char base[64];
    snprintf(base, sizeof base, ENCODER ".down_blocks.%d", k + 1);
    if (k + 1 == coder->block_count)
        TRY(checkpoint_need(c, &t, 5, any, ENCODER ".conv_out.conv.weight"));
    else if (coder->blocks[k + 1].kind == VAE_BLOCK_NONE)
        return refuse_block(c, base);
    else
        TRY(checkpoint_need(c, &t, 5, any, "%s.%s", base, first_tensor[coder->blocks[k + 1].kind]));
    *channels = t->shape[1];
    return STATUS_OK;
}

/* compress_space_res, compress_time_res, compress_all_res: the convolution has a quarter, half or
 * an eighth of the block's outputs, whose number the next tensor tells. */
static int read_space_to_depth(const struct checkpoint *c, struct vae_coder *coder, int k,
                               const char *base)
{
    char shape[96];
    struct vae_block *b = &coder->blocks[k];
    TRY(read_conv(c, &b->conv, -1, b->in, 3, base, "conv.conv"));
    TRY(channels_after(c, coder, k, &b->out));
    int64_t p = b->out % b->conv.out ? 0 : b->out / b->conv.out;
    if ((p != 2 && p != 4 && p != 8) || b->in * p % b->out)
        return error_set(STATUS_INPUT,
                         "%s: tensor %s.conv.conv.weight has shape %s, expected half, a quarter or "
                         "an eighth of the %lld channels that follow as outputs",
                         checkpoint_path(c), base, tensor_shape_text(b->conv.weight, shape),
                         (long long)b->out);
    b->stride_t = p == 4 ? 1 : 2;
    b->stride_s = p == 2 ? 1 : 2;
    b->residual = true;
    return STATUS_OK;
}

/* compress_all. That it is no compress_time or compress_space, which have the same tensors, shows
 * when the factors are compared with the decoder's: taken for all, any of them makes too much. */
static int read_strided(const struct checkpoint *c, struct vae_block *b, const char *base)
{
    TRY(read_conv(c, &b->conv, -1, b->in, 3, base, "conv"));
    b->out = b->conv.out;
    b->stride_t = b->stride_s = 2;
    b->conv.stride_t = b->conv.stride_s = 2;
    return STATUS_OK;
}

static int read_down_block(struct vae *v, const struct source *s, int k)
{
    char base[64];
    struct vae_block *b = &v->encoder.blocks[k];
    snprintf(base, sizeof base, ENCODER ".down_blocks.%d", k);
    switch (b->kind) {
    case VAE_BLOCK_RES:
        return read_res_stage(s, b, false, base);
    case VAE_BLOCK_RES_X_Y:
        return read_res_x_y(s, b, base);
    case VAE_BLOCK_SHUFFLE:
        return read_space_to_depth(s->c, &v->encoder, k, base);
    case VAE_BLOCK_STRIDED:
        return read_strided(s->c, b, base);
    case VAE_BLOCK_NONE:
        break;
    }
    return refuse_block(s->c, base);
}

static int read_down_blocks(struct vae *v, const struct source *s)
{
    const struct checkpoint *c = s->c;
    struct vae_coder *coder = &v->encoder;
    int64_t channels = coder->conv_in.out, time = 1, space = v->patch;
    find_blocks(coder, c, ENCODER ".down_blocks", VAE_BLOCK_STRIDED);
    for (int k = 0; k < coder->block_count; k++) {
        struct vae_block *b = &coder->blocks[k];
        b->in = channels;
        TRY(read_down_block(v, s, k));
        channels = b->out;
        if (time <= MAX_FACTOR) time *= b->stride_t;
        if (space <= MAX_FACTOR) space *= b->stride_s;
    }
    if (time != v->time_factor || space != v->space_factor)
        return error_set(STATUS_INPUT,
                         "%s: the blocks of the VAE encoder reduce time by %lld and space by %lld, "
                         "the decoder's enlarge by %d and %d",
                         checkpoint_path(c), (long long)time, (long long)space, v->time_factor,
                         v->space_factor);
    if (vae_injects_noise(coder))
        return error_set(STATUS_INPUT, "%s: the VAE encoder injects noise, which is not supported",
                         checkpoint_path(c));
    return read_conv(c, &coder->conv_out, -1, channels, 3, ENCODER, "conv_out.conv");
}

int vae_read_encoder(struct vae *v, const struct checkpoint *c)
{
    char shape[96];
    struct vae_coder *coder = &v->encoder;
    struct source s = {v->dev, c, &coder->vectors};
    coder->causal = true;
    v->constant_variance = checkpoint_facts(c)->vae_constant_variance;
    TRY(read_conv(c, &coder->conv_in, -1, 3 * (int64_t)v->patch * v->patch, 3, ENCODER,
                  "conv_in.conv"));
    TRY(read_down_blocks(v, &s));
    int64_t out = coder->conv_out.out, channels = v->latent_channels;
    if (out != channels + 1 && (out != 2 * channels || v->constant_variance))
        return error_set(STATUS_INPUT,
                         "%s: tensor vae.encoder.conv_out.conv.weight has shape %s, expected "
                         "%lld%s outputs",
                         checkpoint_path(c), tensor_shape_text(coder->conv_out.weight, shape),
                         (long long)(channels + 1),
                         v->constant_variance ? "" : " or twice the latent channels");
    return STATUS_OK;
}

bool vae_injects_noise(const struct vae_coder *coder)
{
    for (int k = 0; k < coder->block_count; k++)
        for (int j = 0; j < coder->blocks[k].count; j++)
            if (coder->blocks[k].res[j].noise_scale1) return true;
    return false;
}
