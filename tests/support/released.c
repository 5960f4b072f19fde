#include "tests/support/released.h"

#include "base/error.h"
#include "base/tensor.h"

#include <endian.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

struct part { /* a tensor's numbers: offset + amplitude * uniform in [-1, 1) */
    uint64_t from, count;
    float amplitude, offset;
};

struct file { /* under construction */
    FILE *header;
    char *text;
    size_t text_bytes;
    uint64_t data_bytes;
    struct part *parts;
    int count;
};

enum { MOST_RANK = 5, NAME = 160, LATENT = 128 };

static void begin(struct file *h, const char *config)
{
    *h = (struct file){0};
    h->header = open_memstream(&h->text, &h->text_bytes);
    CHECK(h->header, "out of memory");
    fprintf(h->header, "{\"__metadata__\":{\"config\":\"%s\"}", config);
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* So that what a layer gives is about as large as what it takes. */
static struct part scaled(const char *name, uint64_t from, uint64_t count, uint64_t inputs)
{
    bool factor = ends_with(name, "norm.weight") || ends_with(name, "std-of-means");
    float amplitude = inputs > 1 ? sqrtf(3.0f / (float)inputs) : 0.1f;
    return (struct part){from, count, amplitude, factor ? 1.0f : 0.0f};
}

/* shape ends with 0 */
static void add(struct file *h, const int64_t *shape, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add(struct file *h, const int64_t *shape, const char *format, ...)
{
    char name[NAME];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    uint64_t count = 1, inputs = 1, from = h->data_bytes;
    fprintf(h->header, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[", name);
    for (int i = 0; i < MOST_RANK && shape[i]; i++) {
        fprintf(h->header, "%s%" PRId64, i ? "," : "", shape[i]);
        count *= (uint64_t)shape[i];
        inputs *= i ? (uint64_t)shape[i] : 1;
    }
    h->data_bytes += count * sizeof(uint16_t);
    fprintf(h->header, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", from, h->data_bytes);
    h->parts = xrealloc(h->parts, (size_t)(h->count + 1) * sizeof *h->parts);
    h->parts[h->count++] = scaled(name, from, count, inputs);
}

/* ---- numbers --------------------------------------------------------------------------------- */

enum { BLOCK = 1 << 20 }; /* numbers written at a time */

/* xorshift64*, Vigna 2016 */
static uint64_t next_word(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1D;
}

static void write_block(int file, const struct part *p, uint64_t first, uint64_t data)
{
    uint64_t n = p->count - first < BLOCK ? p->count - first : BLOCK, at = p->from / 2 + first;
    uint64_t state = at + 1, word = 0;
    uint16_t *values = xmalloc(n * sizeof *values);
    for (uint64_t i = 0; i < n; i++) {
        word = i % 4 ? word >> 16 : next_word(&state);
        values[i] = bf16_from_f32(p->offset + p->amplitude * 0x1p-15f * (float)(int16_t)word);
    }
    ssize_t written = pwrite(file, values, n * sizeof *values, (off_t)(data + 2 * at));
    CHECK(written == (ssize_t)(n * sizeof *values), "random weights: no room for them");
    free(values);
}

static void write_numbers(int file, const struct file *h, uint64_t data)
{
    for (int i = 0; i < h->count; i++) {
        const struct part *p = &h->parts[i];
#pragma omp parallel for schedule(dynamic)
        for (uint64_t first = 0; first < p->count; first += BLOCK)
            write_block(file, p, first, data);
    }
}

static uint64_t finish(struct file *h, const char *path, bool random)
{
    fprintf(h->header, "}");
    CHECK(fclose(h->header) == 0, "out of memory");
    FILE *file = fopen(path, "wb");
    uint64_t length = htole64(h->text_bytes), data = sizeof length + h->text_bytes;
    CHECK(file && fwrite(&length, sizeof length, 1, file) == 1 &&
              fwrite(h->text, h->text_bytes, 1, file) == 1 && fflush(file) == 0 &&
              ftruncate(fileno(file), (off_t)(data + h->data_bytes)) == 0,
          "cannot write %s", path);
    if (random) write_numbers(fileno(file), h, data);
    CHECK(fclose(file) == 0, "cannot write %s", path);
    free(h->text);
    free(h->parts);
    return h->data_bytes;
}

/* ---- layers ---------------------------------------------------------------------------------- */

static void add_linear(struct file *h, int64_t out, int64_t in, const char *base, const char *name)
{
    add(h, (int64_t[]){out, in, 0}, "%s%s.weight", base, name);
    add(h, (int64_t[]){out, 0}, "%s%s.bias", base, name);
}

static void add_conv(struct file *h, int64_t out, int64_t in, const char *base, const char *name)
{
    add(h, (int64_t[]){out, in, 3, 3, 3}, "%s%s.conv.weight", base, name);
    add(h, (int64_t[]){out, 0}, "%s%s.conv.bias", base, name);
}

static void add_embedder(struct file *h, int64_t width, const char *base, const char *name)
{
    char full[NAME];
    snprintf(full, sizeof full, "%s%s.timestep_embedder.", base, name);
    add_linear(h, width, 256, full, "linear_1");
    add_linear(h, width, width, full, "linear_2");
}

/* ---- the transformer ------------------------------------------------------------------------- */

static void add_attention(struct file *h, int64_t width, const char *base)
{
    add_linear(h, width, width, base, "to_q");
    add_linear(h, width, width, base, "to_k");
    add_linear(h, width, width, base, "to_v");
    add_linear(h, width, width, base, "to_out.0");
    add(h, (int64_t[]){width, 0}, "%sq_norm.weight", base);
    add(h, (int64_t[]){width, 0}, "%sk_norm.weight", base);
}

static void add_transformer(struct file *h, const struct released *r)
{
    int64_t width = r->width;
    static const char top[] = "model.diffusion_model.";
    char block[64], part[NAME];
    add_linear(h, width, LATENT, top, "patchify_proj");
    add_embedder(h, width, top, "adaln_single.emb");
    add_linear(h, 6 * width, width, top, "adaln_single.linear");
    add_linear(h, width, r->caption, top, "caption_projection.linear_1");
    add_linear(h, width, width, top, "caption_projection.linear_2");
    for (int i = 0; i < r->blocks; i++) {
        snprintf(block, sizeof block, "%stransformer_blocks.%d.", top, i);
        add(h, (int64_t[]){6, width, 0}, "%sscale_shift_table", block);
        for (int j = 1; j <= 2; j++) {
            snprintf(part, sizeof part, "%sattn%d.", block, j);
            add_attention(h, width, part);
        }
        add_linear(h, 4 * width, width, block, "ff.net.0.proj");
        add_linear(h, width, 4 * width, block, "ff.net.2");
    }
    add(h, (int64_t[]){2, width, 0}, "%sscale_shift_table", top);
    add_linear(h, LATENT, width, top, "proj_out");
}

/* ---- the VAE --------------------------------------------------------------------------------- */

static void add_resblocks(struct file *h, int count, int64_t channels, bool conditioned,
                          const char *stage)
{
    char base[NAME];
    for (int i = 0; i < count; i++) {
        snprintf(base, sizeof base, "%sres_blocks.%d.", stage, i);
        add_conv(h, channels, channels, base, "conv1");
        add_conv(h, channels, channels, base, "conv2");
        if (conditioned) add(h, (int64_t[]){4, channels, 0}, "%sscale_shift_table", base);
    }
}

static void add_decoder(struct file *h, int64_t channels)
{
    enum { STAGES = 4, RESBLOCKS = 5 };
    static const char top[] = "vae.decoder.";
    char base[64];
    add_conv(h, channels, LATENT, top, "conv_in");
    for (int i = 0; i < STAGES; i++, channels /= 2) {
        snprintf(base, sizeof base, "%sup_blocks.%d.", top, 2 * i);
        add_embedder(h, 4 * channels, base, "time_embedder");
        add_resblocks(h, RESBLOCKS, channels, true, base);
        if (i == STAGES - 1) break;
        snprintf(base, sizeof base, "%sup_blocks.%d.", top, 2 * i + 1);
        add_conv(h, 4 * channels, channels, base, "conv");
    }
    add_conv(h, 48, channels, top, "conv_out");
    add(h, (int64_t[]){0}, "%stimestep_scale_multiplier", top);
    add_embedder(h, 2 * channels, top, "last_time_embedder");
    add(h, (int64_t[]){2, channels, 0}, "%slast_scale_shift_table", top);
}

static void add_encoder(struct file *h)
{
    static const struct {
        int64_t channels;
        int resblocks;
        int64_t outputs; /* of the convolution that follows */
    } stages[] = {{128, 4, 64}, {256, 6, 256}, {512, 6, 128}, {1024, 2, 256}, {2048, 2, 0}};
    static const char top[] = "vae.encoder.";
    char base[64];
    add_conv(h, 128, 48, top, "conv_in");
    for (int i = 0; i < 5; i++) {
        snprintf(base, sizeof base, "%sdown_blocks.%d.", top, 2 * i);
        add_resblocks(h, stages[i].resblocks, stages[i].channels, false, base);
        if (!stages[i].outputs) break;
        snprintf(base, sizeof base, "%sdown_blocks.%d.", top, 2 * i + 1);
        add_conv(h, stages[i].outputs, stages[i].channels, base, "conv");
    }
    add_conv(h, LATENT + 1, 2048, top, "conv_out");
}

/* ---- T5-XXL ---------------------------------------------------------------------------------- */

static void add_text_encoder(struct file *h)
{
    enum { LAYERS = 24, VOCABULARY = 32128, HEADS = 64, HEAD = 64, HIDDEN = 10240, BUCKETS = 32 };
    enum { CAPTION = HEADS * HEAD };
    const int64_t square[] = {HEADS * HEAD, CAPTION, 0}, norm[] = {CAPTION, 0};
    add(h, (int64_t[]){VOCABULARY, CAPTION, 0}, "shared.weight");
    for (int i = 0; i < LAYERS; i++) {
        char base[64];
        snprintf(base, sizeof base, "encoder.block.%d.layer.", i);
        for (const char *p = "qkvo"; *p; p++)
            add(h, square, "%s0.SelfAttention.%c.weight", base, *p);
        if (i == 0)
            add(h, (int64_t[]){BUCKETS, HEADS, 0},
                "%s0.SelfAttention.relative_attention_bias.weight", base);
        add(h, norm, "%s0.layer_norm.weight", base);
        add(h, (int64_t[]){HIDDEN, CAPTION, 0}, "%s1.DenseReluDense.wi_0.weight", base);
        add(h, (int64_t[]){HIDDEN, CAPTION, 0}, "%s1.DenseReluDense.wi_1.weight", base);
        add(h, (int64_t[]){CAPTION, HIDDEN, 0}, "%s1.DenseReluDense.wo.weight", base);
        add(h, norm, "%s1.layer_norm.weight", base);
    }
    add(h, norm, "encoder.final_layer_norm.weight");
}

uint64_t released_write(const struct released *r, const char *path)
{
    char config[160];
    struct file h;
    snprintf(config, sizeof config,
             "{\\\"transformer\\\":{\\\"causal_temporal_positioning\\\":true,"
             "\\\"num_attention_heads\\\":%" PRId64 "}}",
             r->heads);
    begin(&h, config);
    add_transformer(&h, r);
    add_decoder(&h, r->vae_channels);
    if (r->encoder) add_encoder(&h);
    add(&h, (int64_t[]){LATENT, 0}, "vae.per_channel_statistics.mean-of-means");
    add(&h, (int64_t[]){LATENT, 0}, "vae.per_channel_statistics.std-of-means");
    return finish(&h, path, r->random);
}

uint64_t released_write_t5(const char *path)
{
    struct file h;
    begin(&h, "{}");
    add_text_encoder(&h);
    return finish(&h, path, false);
}
