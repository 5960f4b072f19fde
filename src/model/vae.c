/* Opens and closes decoder and encoder, keeps or counts their reordered weights, and normalises. */
#include "model/vae.h"

#include "base/error.h"
#include "model/vae_net.h"

#include <stdlib.h>

typedef void visit_conv(struct device *dev, struct conv *conv, void *argument);

/* Every convolution of a coder that was read whole, in execution order. */
static void for_each_conv(struct device *dev, struct vae_coder *coder, visit_conv *visit,
                          void *argument)
{
    visit(dev, &coder->conv_in, argument);
    for (int k = 0; k < coder->block_count; k++) {
        struct vae_block *b = &coder->blocks[k];
        if (b->kind == VAE_BLOCK_SHUFFLE || b->kind == VAE_BLOCK_STRIDED)
            visit(dev, &b->conv, argument);
        for (int j = 0; j < b->count; j++) {
            struct vae_resblock *r = &b->res[j];
            visit(dev, &r->conv1, argument);
            visit(dev, &r->conv2, argument);
            if (r->in != r->out) visit(dev, &r->shortcut, argument);
        }
    }
    visit(dev, &coder->conv_out, argument);
}

static void pack_conv(struct device *dev, struct conv *conv, void *argument)
{
    (void)argument;
    op_conv_pack(dev, conv);
}

static void unpack_conv(struct device *dev, struct conv *conv, void *argument)
{
    (void)argument;
    op_conv_unpack(dev, conv);
}

struct packed_bytes {
    int64_t sum, largest;
};

static void count_packed_bytes(struct device *dev, struct conv *conv, void *argument)
{
    struct packed_bytes *p = argument;
    int64_t bytes = (int64_t)op_conv_packed_bytes(dev, conv);
    p->sum += bytes;
    if (bytes > p->largest) p->largest = bytes;
}

static int64_t packed_bytes(const struct vae *v, const struct vae_coder *coder, bool resident)
{
    struct packed_bytes p = {0};
    for_each_conv(v->dev, (struct vae_coder *)coder, count_packed_bytes, &p); /* only read */
    return resident ? p.sum : p.largest;
}

static void make_resident(struct vae *v, struct vae_coder *coder)
{
    coder->resident = true;
    for_each_conv(v->dev, coder, pack_conv, NULL);
}

/* Also of one that was read in part; nothing is left in it. */
static void coder_free(struct vae *v, struct vae_coder *coder)
{
    if (coder->resident) for_each_conv(v->dev, coder, unpack_conv, NULL);
    for (int k = 0; k < coder->block_count; k++) free(coder->blocks[k].res);
    arena_free(&coder->vectors);
    *coder = (struct vae_coder){0};
}

/* Called twice, see arena.h: the first reading counts what its vectors take. */
static int read_coder(struct vae *v, struct vae_coder *coder, const struct checkpoint *c,
                      int (*read)(struct vae *v, const struct checkpoint *c))
{
    arena_init_on(&coder->vectors, "VAE norms and tables", device_memory(v->dev));
    TRY(read(v, c));
    struct arena counted = coder->vectors;
    coder_free(v, coder);
    coder->vectors = counted;
    arena_commit(&coder->vectors);
    return read(v, c);
}

/* ---- the calls ------------------------------------------------------------------------------- */

int vae_open(struct vae **out, struct device *dev, const struct checkpoint *c)
{
    struct vae *v = xcalloc(1, sizeof *v);
    v->dev = dev;
    int status = read_coder(v, &v->decoder, c, vae_read_decoder);
    if (status != STATUS_OK) {
        vae_close(v);
        return status;
    }
    *out = v;
    return STATUS_OK;
}

int vae_open_encoder(struct vae *v, const struct checkpoint *c)
{
    if (v->has_encoder) return STATUS_OK;
    int status = read_coder(v, &v->encoder, c, vae_read_encoder);
    if (status != STATUS_OK) coder_free(v, &v->encoder);
    v->has_encoder = status == STATUS_OK;
    return status;
}

void vae_close(struct vae *v)
{
    if (!v) return;
    coder_free(v, &v->decoder);
    coder_free(v, &v->encoder);
    free(v->mean);
    free(v->std);
    free(v);
}

void vae_make_resident(struct vae *v) { make_resident(v, &v->decoder); }

void vae_encoder_make_resident(struct vae *v)
{
    CHECK(v->has_encoder, "vae_encoder_make_resident: no encoder is open");
    make_resident(v, &v->encoder);
}

int64_t vae_packed_bytes(const struct vae *v, bool resident)
{
    return packed_bytes(v, &v->decoder, resident);
}

int64_t vae_encoder_packed_bytes(const struct vae *v, bool resident)
{
    CHECK(v->has_encoder, "vae_encoder_packed_bytes: no encoder is open");
    return packed_bytes(v, &v->encoder, resident);
}

static void find_largest(struct device *dev, struct conv *conv, void *argument)
{
    const struct tensor **largest = argument;
    (void)dev;
    if (!*largest || tensor_count(conv->weight) > tensor_count(*largest)) *largest = conv->weight;
}

const struct tensor *vae_largest_weight(const struct vae *v)
{
    const struct tensor *largest = NULL;
    for_each_conv(v->dev, (struct vae_coder *)&v->decoder, find_largest, &largest); /* only read */
    if (v->has_encoder)
        for_each_conv(v->dev, (struct vae_coder *)&v->encoder, find_largest, &largest);
    return largest;
}

int64_t vae_latent_channels(const struct vae *v) { return v->latent_channels; }
int64_t vae_encoder_outputs(const struct vae *v) { return v->encoder.conv_out.out; }
int vae_time_factor(const struct vae *v) { return v->time_factor; }
int vae_space_factor(const struct vae *v) { return v->space_factor; }
bool vae_wants_timestep(const struct vae *v) { return v->conditioned; }
bool vae_wants_noise(const struct vae *v) { return vae_injects_noise(&v->decoder); }

void vae_unnormalize(const struct vae *v, float *z, int64_t tokens)
{
    int64_t channels = v->latent_channels;
    for (int64_t i = 0; i < tokens; i++, z += channels)
        for (int64_t c = 0; c < channels; c++) z[c] = z[c] * v->std[c] + v->mean[c];
}

void vae_normalize(const struct vae *v, float *z, int64_t tokens)
{
    int64_t channels = v->latent_channels;
    for (int64_t i = 0; i < tokens; i++, z += channels)
        for (int64_t c = 0; c < channels; c++) z[c] = (z[c] - v->mean[c]) / v->std[c];
}
