/* hollow_checkpoint FOLDER: writes the files of a released LTX-Video 2B of 0.9.5 to 0.9.8 and of its
 * T5-XXL as far as their headers go: names, shapes and types of all tensors, while the data is a
 * hole in the file that takes no room on the disk and reads as zeros (spec transformer 2.1 and 5, vae
 * 3.1).
 *
 *     FOLDER/ltxv-2b.safetensors
 *     FOLDER/text_encoder/model.safetensors
 *
 * Prints the bytes of data of each. For dry_run.sh; not a test by itself. */
#include "base/error.h"

#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct hollow { /* a file under construction; all tensors are BF16 */
    FILE *header;
    char *text;
    size_t text_bytes;
    uint64_t data_bytes;
};

enum { MOST_RANK = 5, NAME = 160 };

static void begin(struct hollow *h, const char *config)
{
    *h = (struct hollow){0};
    h->header = open_memstream(&h->text, &h->text_bytes);
    CHECK(h->header, "out of memory");
    fprintf(h->header, "{\"__metadata__\":{\"config\":\"%s\"}", config);
}

/* shape ends with 0 */
static void add(struct hollow *h, const int64_t *shape, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add(struct hollow *h, const int64_t *shape, const char *format, ...)
{
    char name[NAME];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    uint64_t count = 1, from = h->data_bytes;
    fprintf(h->header, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[", name);
    for (int i = 0; i < MOST_RANK && shape[i]; i++) {
        fprintf(h->header, "%s%" PRId64, i ? "," : "", shape[i]);
        count *= (uint64_t)shape[i];
    }
    h->data_bytes += count * sizeof(uint16_t);
    fprintf(h->header, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", from, h->data_bytes);
}

static void finish(struct hollow *h, const char *folder, const char *path)
{
    char full[4096];
    fprintf(h->header, "}");
    CHECK(fclose(h->header) == 0, "out of memory");
    snprintf(full, sizeof full, "%s/%s", folder, path);
    FILE *file = fopen(full, "wb");
    uint64_t length = htole64(h->text_bytes);
    CHECK(file && fwrite(&length, sizeof length, 1, file) == 1 &&
              fwrite(h->text, h->text_bytes, 1, file) == 1 && fflush(file) == 0 &&
              ftruncate(fileno(file), (off_t)(sizeof length + h->text_bytes + h->data_bytes)) == 0,
          "cannot write %s", full);
    fclose(file);
    free(h->text);
    printf("%s %" PRIu64 "\n", path, h->data_bytes);
}

/* ---- layers ---------------------------------------------------------------------------------- */

static void add_linear(struct hollow *h, int64_t out, int64_t in, const char *base,
                       const char *name)
{
    add(h, (int64_t[]){out, in, 0}, "%s%s.weight", base, name);
    add(h, (int64_t[]){out, 0}, "%s%s.bias", base, name);
}

static void add_conv(struct hollow *h, int64_t out, int64_t in, const char *base, const char *name)
{
    add(h, (int64_t[]){out, in, 3, 3, 3}, "%s%s.conv.weight", base, name);
    add(h, (int64_t[]){out, 0}, "%s%s.conv.bias", base, name);
}

static void add_embedder(struct hollow *h, int64_t width, const char *base, const char *name)
{
    char full[NAME];
    snprintf(full, sizeof full, "%s%s.timestep_embedder.", base, name);
    add_linear(h, width, 256, full, "linear_1");
    add_linear(h, width, width, full, "linear_2");
}

/* ---- the transformer ------------------------------------------------------------------------- */

enum { WIDTH = 2048, BLOCKS = 28, CAPTION = 4096, LATENT = 128 };

static void add_attention(struct hollow *h, const char *base)
{
    add_linear(h, WIDTH, WIDTH, base, "to_q");
    add_linear(h, WIDTH, WIDTH, base, "to_k");
    add_linear(h, WIDTH, WIDTH, base, "to_v");
    add_linear(h, WIDTH, WIDTH, base, "to_out.0");
    add(h, (int64_t[]){WIDTH, 0}, "%sq_norm.weight", base);
    add(h, (int64_t[]){WIDTH, 0}, "%sk_norm.weight", base);
}

static void add_transformer(struct hollow *h)
{
    static const char top[] = "model.diffusion_model.";
    char block[64], part[NAME];
    add_linear(h, WIDTH, LATENT, top, "patchify_proj");
    add_embedder(h, WIDTH, top, "adaln_single.emb");
    add_linear(h, 6 * WIDTH, WIDTH, top, "adaln_single.linear");
    add_linear(h, WIDTH, CAPTION, top, "caption_projection.linear_1");
    add_linear(h, WIDTH, WIDTH, top, "caption_projection.linear_2");
    for (int i = 0; i < BLOCKS; i++) {
        snprintf(block, sizeof block, "%stransformer_blocks.%d.", top, i);
        add(h, (int64_t[]){6, WIDTH, 0}, "%sscale_shift_table", block);
        for (int j = 1; j <= 2; j++) {
            snprintf(part, sizeof part, "%sattn%d.", block, j);
            add_attention(h, part);
        }
        add_linear(h, 4 * WIDTH, WIDTH, block, "ff.net.0.proj");
        add_linear(h, WIDTH, 4 * WIDTH, block, "ff.net.2");
    }
    add(h, (int64_t[]){2, WIDTH, 0}, "%sscale_shift_table", top);
    add_linear(h, LATENT, WIDTH, top, "proj_out");
}

/* ---- the VAE --------------------------------------------------------------------------------- */

static void add_resblocks(struct hollow *h, int count, int64_t channels, bool conditioned,
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

static void add_decoder(struct hollow *h)
{
    enum { STAGES = 4, RESBLOCKS = 5 };
    static const char top[] = "vae.decoder.";
    char base[64];
    int64_t channels = 1024;
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

static void add_encoder(struct hollow *h)
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
    add(h, (int64_t[]){LATENT, 0}, "vae.per_channel_statistics.mean-of-means");
    add(h, (int64_t[]){LATENT, 0}, "vae.per_channel_statistics.std-of-means");
}

/* ---- T5-XXL ---------------------------------------------------------------------------------- */

static void add_text_encoder(struct hollow *h)
{
    enum { LAYERS = 24, VOCABULARY = 32128, HEADS = 64, HEAD = 64, HIDDEN = 10240, BUCKETS = 32 };
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

int main(int argc, char **argv)
{
    struct hollow h;
    if (argc != 2) {
        fprintf(stderr, "usage: hollow_checkpoint FOLDER\n");
        return 2;
    }
    begin(&h, "{\\\"transformer\\\":{\\\"causal_temporal_positioning\\\":true}}");
    add_transformer(&h);
    add_decoder(&h);
    add_encoder(&h);
    finish(&h, argv[1], "ltxv-2b.safetensors");
    begin(&h, "{}");
    add_text_encoder(&h);
    finish(&h, argv[1], "text_encoder/model.safetensors");
    return 0;
}
