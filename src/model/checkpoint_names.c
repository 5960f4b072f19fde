#include "model/checkpoint_names.h"

#include <stdio.h>
#include <string.h>

struct rename {
    const char *official, *diffusers; /* one or more whole components */
};

/* ---- replacing components -------------------------------------------------------------------- */

/* Whether `name` starts with all of `components`, ending at a dot or at its end: "up_blocks.1" is
 * no start of "up_blocks.10". Returns the length, or 0. */
static size_t match_components(const char *name, const char *components)
{
    size_t length = strlen(components);
    if (strncmp(name, components, length) != 0) return 0;
    return name[length] == '.' || name[length] == '\0' ? length : 0;
}

struct text {
    char *at, *end;
    bool overflow;
};

static void append(struct text *t, const char *from, size_t length)
{
    if (length >= (size_t)(t->end - t->at)) {
        t->overflow = true;
        return;
    }
    memcpy(t->at, from, length);
    t->at += length;
    *t->at = '\0';
}

/* Copies `name`, replacing each run of components that is in the table. */
static void append_renamed(struct text *t, const char *name, const struct rename *table,
                           size_t count)
{
    while (*name) {
        size_t length = strcspn(name, "."), i;
        for (i = 0; i < count; i++) {
            size_t matched = match_components(name, table[i].official);
            if (matched) {
                append(t, table[i].diffusers, strlen(table[i].diffusers));
                length = matched;
                break;
            }
        }
        if (i == count) append(t, name, length);
        name += length;
        if (*name == '.') append(t, name++, 1);
    }
}

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- transformer ----------------------------------------------------------------------------- */

bool names_transformer_to_diffusers(char out[TENSOR_NAME_BYTES], const char *official)
{
    static const struct rename parts[] = {{"patchify_proj", "proj_in"},
                                          {"adaln_single", "time_embed"},
                                          {"q_norm", "norm_q"},
                                          {"k_norm", "norm_k"}};
    struct text t = {out, out + TENSOR_NAME_BYTES, false};
    append_renamed(&t, official, parts, COUNT(parts));
    return !t.overflow;
}

/* ---- VAE ------------------------------------------------------------------------------------- */

/* Block k of the official list is a place in a tree in diffusers: stages of resnets with their
 * resampling inside. */
static const char *const up_blocks_090[] = {
    "mid_block",   "up_blocks.0",         "up_blocks.1.upsamplers.0",
    "up_blocks.1", "up_blocks.2.conv_in", "up_blocks.2.upsamplers.0",
    "up_blocks.2", "up_blocks.3.conv_in", "up_blocks.3.upsamplers.0",
    "up_blocks.3"};
static const char *const up_blocks_091[] = {
    "mid_block",   "up_blocks.0.upsamplers.0", "up_blocks.0", "up_blocks.1.upsamplers.0",
    "up_blocks.1", "up_blocks.2.upsamplers.0", "up_blocks.2"};
static const char *const down_blocks_090[] = {
    "down_blocks.0", "down_blocks.0.downsamplers.0", "down_blocks.0.conv_out",
    "down_blocks.1", "down_blocks.1.downsamplers.0", "down_blocks.1.conv_out",
    "down_blocks.2", "down_blocks.2.downsamplers.0", "down_blocks.3",
    "mid_block"};
static const char *const down_blocks_095[] = {"down_blocks.0", "down_blocks.0.downsamplers.0",
                                              "down_blocks.1", "down_blocks.1.downsamplers.0",
                                              "down_blocks.2", "down_blocks.2.downsamplers.0",
                                              "down_blocks.3", "down_blocks.3.downsamplers.0",
                                              "mid_block"};

struct block_list {
    const char *prefix, *coder; /* official "decoder.up_blocks." becomes "decoder." + places[k] */
    const char *const *places;
    size_t count;
};

/* The generation's list for decoder or encoder. */
static struct block_list block_list(bool decoder, enum vae_generation generation)
{
    if (decoder && generation == VAE_0_9_0)
        return (struct block_list){"decoder.up_blocks.", "decoder.", up_blocks_090,
                                   COUNT(up_blocks_090)};
    if (decoder)
        return (struct block_list){"decoder.up_blocks.", "decoder.", up_blocks_091,
                                   COUNT(up_blocks_091)};
    if (generation != VAE_0_9_5)
        return (struct block_list){"encoder.down_blocks.", "encoder.", down_blocks_090,
                                   COUNT(down_blocks_090)};
    return (struct block_list){"encoder.down_blocks.", "encoder.", down_blocks_095,
                               COUNT(down_blocks_095)};
}

/* Writes the new place of "decoder.up_blocks.K" and returns what follows it in `name`; NULL if K is
 * not in the list. */
static const char *append_place(struct text *t, const char *name, const struct block_list *list)
{
    for (size_t k = 0; k < list->count; k++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", k);
        size_t matched = match_components(name + strlen(list->prefix), number);
        if (!matched) continue;
        append(t, list->coder, strlen(list->coder));
        append(t, list->places[k], strlen(list->places[k]));
        return name + strlen(list->prefix) + matched;
    }
    return NULL;
}

bool names_vae_to_diffusers(char out[TENSOR_NAME_BYTES], const char *official,
                            enum vae_generation generation)
{
    static const struct rename statistics[] = {
        {"per_channel_statistics.mean-of-means", "latents_mean"},
        {"per_channel_statistics.std-of-means", "latents_std"}};
    static const struct rename parts[] = {{"res_blocks", "resnets"},
                                          {"conv_shortcut", "conv_shortcut.conv"},
                                          {"norm3.norm", "norm3"},
                                          {"last_time_embedder", "time_embedder"},
                                          {"last_scale_shift_table", "scale_shift_table"}};
    struct text t = {out, out + TENSOR_NAME_BYTES, false};
    out[0] = '\0';
    if (strncmp(official, "per_channel_statistics.", strlen("per_channel_statistics.")) == 0) {
        append_renamed(&t, official, statistics, COUNT(statistics));
        return !t.overflow && strncmp(out, "latents_", strlen("latents_")) == 0;
    }
    for (int decoder = 0; decoder <= 1; decoder++) {
        struct block_list list = block_list(decoder, generation);
        if (strncmp(official, list.prefix, strlen(list.prefix)) != 0) continue;
        official = append_place(&t, official, &list);
        if (!official) return false;
        break;
    }
    append_renamed(&t, official, parts, COUNT(parts));
    return !t.overflow;
}
