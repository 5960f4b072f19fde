/* Reads the decoder's block list and shapes from the checkpoint's tensors. */
#include "model/vae.h"

#include "base/error.h"
#include "model/vae_net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DECODER "vae.decoder"

enum { MAX_FACTOR = 256, NAME_BYTES = 160 };

/* ---- reading single tensors ------------------------------------------------------------------ */

/* A small tensor as fp32 in memory of its own. */
static int read_floats(const struct checkpoint *c, float **out, int rank, const int64_t *shape,
                       const char *name)
{
    const struct tensor *t;
    TRY(checkpoint_need(c, &t, rank, shape, "%s", name));
    size_t n = (size_t)tensor_count(t);
    *out = xmalloc(n * sizeof **out);
    dtype_to_f32(*out, t->data, t->dtype, n);
    return STATUS_OK;
}

static int read_vector(const struct checkpoint *c, float **out, int64_t n, const char *name)
{
    return read_floats(c, out, 1, &n, name);
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
static int read_embedder(const struct checkpoint *c, struct vae_embedder *e, int64_t width,
                         const char *base)
{
    TRY(read_linear(c, &e->first, width, VAE_SINUSOID, base, "timestep_embedder.linear_1"));
    TRY(read_linear(c, &e->second, width, width, base, "timestep_embedder.linear_2"));
    e->rows = xcalloc((size_t)width, sizeof *e->rows);
    return STATUS_OK;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static int read_shortcut(const struct checkpoint *c, struct vae_resblock *r, const char *base)
{
    char name[NAME_BYTES];
    TRY(read_vector(c, &r->norm3_weight, r->in, join(name, base, "norm3.norm.weight")));
    TRY(read_vector(c, &r->norm3_bias, r->in, join(name, base, "norm3.norm.bias")));
    return read_conv(c, &r->shortcut, r->out, r->in, 1, base, "conv_shortcut");
}

static int read_resblock(const struct checkpoint *c, struct vae_resblock *r, int64_t out,
                         int64_t in, bool conditioned, const char *base)
{
    char name[NAME_BYTES];
    TRY(read_conv(c, &r->conv1, out, in, 3, base, "conv1.conv"));
    r->in = r->conv1.in;
    r->out = r->conv1.out;
    TRY(read_conv(c, &r->conv2, r->out, r->out, 3, base, "conv2.conv"));
    if (r->in != r->out) TRY(read_shortcut(c, r, base));
    if (conditioned) {
        TRY(read_floats(c, &r->table, 2, (int64_t[]){4, r->in},
                        join(name, base, "scale_shift_table")));
        r->modulation = xcalloc((size_t)(4 * r->in), sizeof *r->modulation);
    }
    if (has(c, base, "per_channel_scale1")) {
        int64_t shape[] = {r->out, 1, 1};
        TRY(read_floats(c, &r->noise_scale1, 3, shape, join(name, base, "per_channel_scale1")));
        TRY(read_floats(c, &r->noise_scale2, 3, shape, join(name, base, "per_channel_scale2")));
    }
    return STATUS_OK;
}

/* res_x: resblocks that keep the channels, under one time embedder. */
static int read_res_stage(const struct checkpoint *c, struct vae_block *b, bool conditioned,
                          const char *base)
{
    char name[NAME_BYTES], part[48];
    if (has(c, base, "attention_blocks.0.to_q.weight"))
        return error_set(STATUS_INPUT, "%s: %s has attention blocks, which are not supported",
                         checkpoint_path(c), base);
    int count = 0; /* a gap in the numbers shows below as a missing tensor */
    for (int j = 0; j < VAE_MAX_BLOCKS; j++) {
        snprintf(part, sizeof part, "res_blocks.%d.conv1.conv.weight", j);
        count += has(c, base, part);
    }
    b->res = xcalloc((size_t)count, sizeof *b->res);
    b->count = count;
    b->out = b->in;
    if (conditioned) TRY(read_embedder(c, &b->time, 4 * b->in, join(name, base, "time_embedder")));
    for (int j = 0; j < count; j++) {
        snprintf(part, sizeof part, "res_blocks.%d", j);
        TRY(read_resblock(c, &b->res[j], b->in, b->in, conditioned, join(name, base, part)));
    }
    return STATUS_OK;
}

/* res_x_y: a bare resblock that changes the channels; conditioned in no version. */
static int read_res_x_y(const struct checkpoint *c, struct vae_block *b, const char *base)
{
    b->res = xcalloc(1, sizeof *b->res);
    b->count = 1;
    TRY(read_resblock(c, &b->res[0], -1, b->in, false, base));
    b->out = b->res[0].out;
    return STATUS_OK;
}

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
    return STATUS_OK;
}

static enum vae_block_kind block_kind(const struct checkpoint *c, int k)
{
    char base[64];
    snprintf(base, sizeof base, DECODER ".up_blocks.%d", k);
    if (has(c, base, "res_blocks.0.conv1.conv.weight")) return VAE_BLOCK_RES;
    if (has(c, base, "conv1.conv.weight")) return VAE_BLOCK_RES_X_Y;
    if (has(c, base, "conv.conv.weight")) return VAE_BLOCK_UP;
    return VAE_BLOCK_NONE;
}

static int read_block(struct vae *v, const struct checkpoint *c, int k, int64_t in)
{
    char base[64];
    struct vae_block *b = &v->blocks[k];
    snprintf(base, sizeof base, DECODER ".up_blocks.%d", k);
    b->in = in;
    switch (b->kind) {
    case VAE_BLOCK_RES:
        return read_res_stage(c, b, v->conditioned, base);
    case VAE_BLOCK_RES_X_Y:
        return read_res_x_y(c, b, base);
    case VAE_BLOCK_UP:
        return read_up(c, b, base);
    case VAE_BLOCK_NONE:
        break;
    }
    return error_set(STATUS_INPUT,
                     "%s: no tensor of %s is a known block's first, but later blocks are there",
                     checkpoint_path(c), base);
}

static int read_blocks(struct vae *v, const struct checkpoint *c)
{
    int64_t channels = v->conv_in.out;
    v->time_factor = 1;
    for (int k = 0; k < VAE_MAX_BLOCKS; k++) {
        v->blocks[k].kind = block_kind(c, k);
        if (v->blocks[k].kind != VAE_BLOCK_NONE) v->block_count = k + 1;
    }
    for (int k = 0; k < v->block_count; k++) {
        TRY(read_block(v, c, k, channels));
        channels = v->blocks[k].out;
        if (v->blocks[k].kind == VAE_BLOCK_UP) v->time_factor *= 2;
        if (v->time_factor > MAX_FACTOR)
            return error_set(STATUS_INPUT, "%s: the VAE decoder enlarges more than %d times",
                             checkpoint_path(c), MAX_FACTOR);
    }
    return read_conv(c, &v->conv_out, -1, channels, 3, DECODER, "conv_out.conv");
}

/* ---- the whole decoder ----------------------------------------------------------------------- */

/* Three colours of a patch x patch square per position. */
static int derive_patch(struct vae *v, const struct checkpoint *c)
{
    char shape[96];
    int64_t patch = 1;
    while (patch < MAX_FACTOR && 3 * patch * patch < v->conv_out.out) patch++;
    if (3 * patch * patch != v->conv_out.out)
        return error_set(STATUS_INPUT,
                         "%s: tensor vae.decoder.conv_out.conv.weight has shape %s, expected 3 "
                         "times a square of outputs",
                         checkpoint_path(c), tensor_shape_text(v->conv_out.weight, shape));
    v->patch = (int)patch;
    v->space_factor = v->time_factor * v->patch;
    return STATUS_OK;
}

static float *constant(int64_t n, float value)
{
    float *p = xmalloc((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = value;
    return p;
}

static int read_statistic(const struct checkpoint *c, float **out, int64_t channels,
                          const char *part, float fallback)
{
    char name[NAME_BYTES];
    join(name, "vae.per_channel_statistics", part);
    if (checkpoint_find(c, name)) return read_vector(c, out, channels, name);
    *out = constant(channels, fallback);
    return STATUS_OK;
}

static int read_final_modulation(struct vae *v, const struct checkpoint *c)
{
    float *multiplier = NULL;
    int64_t channels = v->conv_out.in;
    TRY(read_floats(c, &multiplier, 0, NULL, DECODER ".timestep_scale_multiplier"));
    v->timestep_multiplier = *multiplier;
    free(multiplier);
    TRY(read_embedder(c, &v->last_time, 2 * channels, DECODER ".last_time_embedder"));
    TRY(read_floats(c, &v->last_table, 2, (int64_t[]){2, channels},
                    DECODER ".last_scale_shift_table"));
    v->last_modulation = xcalloc((size_t)(2 * channels), sizeof *v->last_modulation);

    int64_t widest = v->last_time.first.out;
    for (int k = 0; k < v->block_count; k++)
        if (v->blocks[k].time.first.out > widest) widest = v->blocks[k].time.first.out;
    v->time_hidden = xcalloc((size_t)widest, sizeof *v->time_hidden);
    return STATUS_OK;
}

static int read_decoder(struct vae *v, const struct checkpoint *c)
{
    /* Any trace of conditioning makes all of its tensors needed: a damaged file is noticed. */
    v->conditioned = has(c, DECODER, "timestep_scale_multiplier") ||
                     has(c, DECODER, "last_scale_shift_table") ||
                     has(c, DECODER, "up_blocks.0.time_embedder.timestep_embedder.linear_1.weight");
    v->conv_time = checkpoint_facts(c)->vae_causal_decoder ? CONV_CAUSAL : CONV_SYMMETRIC;
    TRY(read_conv(c, &v->conv_in, -1, -1, 3, DECODER, "conv_in.conv"));
    v->latent_channels = v->conv_in.in;
    TRY(read_statistic(c, &v->mean, v->latent_channels, "mean-of-means", 0.0f));
    TRY(read_statistic(c, &v->std, v->latent_channels, "std-of-means", 1.0f));
    TRY(read_blocks(v, c));
    TRY(derive_patch(v, c));
    return v->conditioned ? read_final_modulation(v, c) : STATUS_OK;
}

/* Every convolution of a decoder that was read whole, in execution order. */
static void for_each_conv(struct vae *v, void (*visit)(struct vae *, struct conv *, void *),
                          void *argument)
{
    visit(v, &v->conv_in, argument);
    for (int k = 0; k < v->block_count; k++) {
        struct vae_block *b = &v->blocks[k];
        if (b->kind == VAE_BLOCK_UP) visit(v, &b->conv, argument);
        for (int j = 0; j < b->count; j++) {
            struct vae_resblock *r = &b->res[j];
            visit(v, &r->conv1, argument);
            visit(v, &r->conv2, argument);
            if (r->in != r->out) visit(v, &r->shortcut, argument);
        }
    }
    visit(v, &v->conv_out, argument);
}

static void pack_conv(struct vae *v, struct conv *conv, void *argument)
{
    (void)argument;
    op_conv_pack(v->dev, conv);
}

static void unpack_conv(struct vae *v, struct conv *conv, void *argument)
{
    (void)argument;
    op_conv_unpack(v->dev, conv);
}

struct packed_bytes {
    int64_t sum, largest;
};

static void count_packed_bytes(struct vae *v, struct conv *conv, void *argument)
{
    struct packed_bytes *p = argument;
    int64_t bytes = (int64_t)op_conv_packed_bytes(conv);
    (void)v;
    p->sum += bytes;
    if (bytes > p->largest) p->largest = bytes;
}

int vae_open(struct vae **out, struct device *dev, const struct checkpoint *c)
{
    struct vae *v = xcalloc(1, sizeof *v);
    v->dev = dev;
    int status = read_decoder(v, c);
    if (status != STATUS_OK) {
        vae_close(v);
        return status;
    }
    *out = v;
    return STATUS_OK;
}

void vae_make_resident(struct vae *v)
{
    v->resident = true;
    for_each_conv(v, pack_conv, NULL);
}

static void resblock_free(struct vae_resblock *r)
{
    free(r->norm3_weight);
    free(r->norm3_bias);
    free(r->noise_scale1);
    free(r->noise_scale2);
    free(r->table);
    free(r->modulation);
}

void vae_close(struct vae *v)
{
    if (!v) return;
    if (v->resident) for_each_conv(v, unpack_conv, NULL);
    for (int k = 0; k < v->block_count; k++) {
        for (int j = 0; j < v->blocks[k].count; j++) resblock_free(&v->blocks[k].res[j]);
        free(v->blocks[k].res);
        free(v->blocks[k].time.rows);
    }
    free(v->last_time.rows);
    free(v->last_table);
    free(v->last_modulation);
    free(v->time_hidden);
    free(v->mean);
    free(v->std);
    free(v);
}

int64_t vae_latent_channels(const struct vae *v) { return v->latent_channels; }
int vae_time_factor(const struct vae *v) { return v->time_factor; }
int vae_space_factor(const struct vae *v) { return v->space_factor; }
bool vae_wants_timestep(const struct vae *v) { return v->conditioned; }

int64_t vae_packed_bytes(const struct vae *v, bool resident)
{
    struct packed_bytes p = {0};
    for_each_conv((struct vae *)v, count_packed_bytes, &p);
    return resident ? p.sum : p.largest;
}

void vae_unnormalize(const struct vae *v, float *z, int64_t tokens)
{
    int64_t channels = v->latent_channels;
    for (int64_t i = 0; i < tokens; i++, z += channels)
        for (int64_t c = 0; c < channels; c++) z[c] = z[c] * v->std[c] + v->mean[c];
}
