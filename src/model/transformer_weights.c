#include "model/transformer_weights.h"

#include "base/error.h"
#include "model/transformer.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { LONGEST_HOLE = 64, NAME_BYTES = 96 };

/* ---- what the file must hold ----------------------------------------------------------------- */

enum extent { WIDTH, WIDTH_4, WIDTH_6, CHANNELS, SINUSOID, CAPTION };

struct linear_entry { /* NAME.weight [out,in] and NAME.bias [out] */
    const char *name;
    size_t place; /* of the struct linear */
    enum extent out, in;
};

#define GLOBAL(member) offsetof(struct transformer_weights, member)
static const struct linear_entry global_linears[] = {
    {"patchify_proj", GLOBAL(patchify), WIDTH, CHANNELS},
    {"adaln_single.emb.timestep_embedder.linear_1", GLOBAL(time_in), WIDTH, SINUSOID},
    {"adaln_single.emb.timestep_embedder.linear_2", GLOBAL(time_out), WIDTH, WIDTH},
    {"adaln_single.linear", GLOBAL(modulation), WIDTH_6, WIDTH},
    {"caption_projection.linear_1", GLOBAL(caption_in), WIDTH, CAPTION},
    {"caption_projection.linear_2", GLOBAL(caption_out), WIDTH, WIDTH},
    {"proj_out", GLOBAL(proj_out), CHANNELS, WIDTH},
};

#define BLOCK(member) offsetof(struct block_weights, member)
static const struct linear_entry block_linears[] = {
    {"attn1.to_q", BLOCK(q), WIDTH, WIDTH},
    {"attn1.to_k", BLOCK(k), WIDTH, WIDTH},
    {"attn1.to_v", BLOCK(v), WIDTH, WIDTH},
    {"attn1.to_out.0", BLOCK(o), WIDTH, WIDTH},
    {"attn2.to_q", BLOCK(text_q), WIDTH, WIDTH},
    {"attn2.to_k", BLOCK(text_k), WIDTH, WIDTH},
    {"attn2.to_v", BLOCK(text_v), WIDTH, WIDTH},
    {"attn2.to_out.0", BLOCK(text_o), WIDTH, WIDTH},
    {"ff.net.0.proj", BLOCK(ff_in), WIDTH_4, WIDTH},
    {"ff.net.2", BLOCK(ff_out), WIDTH, WIDTH_4},
};

struct vector_entry { /* NAME [D], or [rows,D] for tables */
    const char *name;
    size_t place; /* of the float pointer */
    int rank, rows;
};

static const struct vector_entry global_vectors[] = {
    {"scale_shift_table", GLOBAL(final_table), 2, 2},
};

static const struct vector_entry block_vectors[] = {
    {"attn1.q_norm.weight", BLOCK(q_norm), 1, 1},
    {"attn1.k_norm.weight", BLOCK(k_norm), 1, 1},
    {"attn2.q_norm.weight", BLOCK(text_q_norm), 1, 1},
    {"attn2.k_norm.weight", BLOCK(text_k_norm), 1, 1},
    {"scale_shift_table", BLOCK(table), 2, MODULATIONS},
};

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* ---- finding --------------------------------------------------------------------------------- */

static int64_t extent_of(const struct transformer_weights *w, enum extent e)
{
    const int64_t extents[] = {
        [WIDTH] = w->width,       [WIDTH_4] = w->ff_width,    [WIDTH_6] = MODULATIONS * w->width,
        [CHANNELS] = w->channels, [SINUSOID] = TIME_CHANNELS, [CAPTION] = w->caption_width};
    return extents[e];
}

static int find_linears(const struct transformer_weights *w, const struct checkpoint *c,
                        void *owner, const struct linear_entry *entries, int count,
                        const char *prefix)
{
    for (int i = 0; i < count; i++) {
        const struct linear_entry *e = &entries[i];
        const struct tensor *weight, *bias;
        const int64_t shape[] = {extent_of(w, e->out), extent_of(w, e->in)};
        TRY(checkpoint_need(c, &weight, 2, shape, "%s%s.weight", prefix, e->name));
        TRY(checkpoint_need(c, &bias, 1, shape, "%s%s.bias", prefix, e->name));
        *(struct linear *)((char *)owner + e->place) = linear_make(weight, bias);
    }
    return STATUS_OK;
}

static void lay_out_vectors(struct arena *a, int64_t width, void *owner,
                            const struct vector_entry *entries, int count)
{
    for (int i = 0; i < count; i++)
        *(float **)((char *)owner + entries[i].place) = arena_floats(a, entries[i].rows * width);
}

/* Also before they have memory (arena.h): then they are only looked for. */
static int read_vectors(const struct transformer_weights *w, struct device *dev,
                        const struct checkpoint *c, void *owner, const struct vector_entry *entries,
                        int count, const char *prefix)
{
    for (int i = 0; i < count; i++) {
        const struct vector_entry *e = &entries[i];
        const struct tensor *t;
        const int64_t table[] = {e->rows, w->width};
        TRY(checkpoint_need(c, &t, e->rank, e->rank == 1 ? &w->width : table, "%s%s", prefix,
                            e->name));
        float *to = *(float **)((char *)owner + e->place);
        if (to) op_upload_tensor(dev, to, t);
    }
    return STATUS_OK;
}

static void block_prefix(char out[NAME_BYTES], int block)
{
    snprintf(out, NAME_BYTES, "transformer_blocks.%d.", block);
}

/* 1 + the largest index, so that a hole in the middle is reported as missing instead of ending the
 * model there. */
static int count_blocks(const struct checkpoint *c)
{
    int blocks = 0;
    for (int i = 0; i < blocks + LONGEST_HOLE; i++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "transformer_blocks.%d.scale_shift_table", i);
        if (checkpoint_find(c, name)) blocks = i + 1;
    }
    return blocks;
}

static int find_dimensions(struct transformer_weights *w, const struct checkpoint *c)
{
    const struct tensor *patchify, *caption;
    const int64_t any[] = {-1, -1};
    TRY(checkpoint_need(c, &patchify, 2, any, "patchify_proj.weight"));
    w->width = patchify->shape[0];
    w->ff_width = 4 * w->width;
    w->channels = patchify->shape[1];
    w->heads = checkpoint_facts(c)->heads;
    if (w->heads < 1 || w->width < 6 || w->width % (2 * (int64_t)w->heads) != 0)
        return error_set(STATUS_INPUT,
                         "%s: tensor patchify_proj.weight has %lld rows, not an even number for "
                         "each of %d attention heads",
                         checkpoint_path(c), (long long)w->width, w->heads);
    w->head_dim = (int)(w->width / w->heads);
    TRY(checkpoint_need(c, &caption, 2, (const int64_t[]){w->width, -1},
                        "caption_projection.linear_1.weight"));
    w->caption_width = caption->shape[1];
    if (w->channels < 1 || w->caption_width < 1)
        return error_set(STATUS_INPUT, "%s: tensor %s has no columns", checkpoint_path(c),
                         w->channels < 1 ? "patchify_proj.weight"
                                         : "caption_projection.linear_1.weight");
    w->blocks = count_blocks(c);
    if (w->blocks == 0)
        return error_set(STATUS_INPUT,
                         "%s: tensor transformer_blocks.0.scale_shift_table is missing",
                         checkpoint_path(c));
    return STATUS_OK;
}

static int find_all_linears(struct transformer_weights *w, const struct checkpoint *c)
{
    TRY(find_linears(w, c, w, global_linears, COUNT(global_linears), ""));
    for (int i = 0; i < w->blocks; i++) {
        char prefix[NAME_BYTES];
        block_prefix(prefix, i);
        TRY(find_linears(w, c, &w->block[i], block_linears, COUNT(block_linears), prefix));
    }
    return STATUS_OK;
}

static void lay_out_all_vectors(struct transformer_weights *w)
{
    lay_out_vectors(&w->vectors, w->width, w, global_vectors, COUNT(global_vectors));
    for (int i = 0; i < w->blocks; i++)
        lay_out_vectors(&w->vectors, w->width, &w->block[i], block_vectors, COUNT(block_vectors));
}

static int read_all_vectors(struct transformer_weights *w, struct device *dev,
                            const struct checkpoint *c)
{
    TRY(read_vectors(w, dev, c, w, global_vectors, COUNT(global_vectors), ""));
    for (int i = 0; i < w->blocks; i++) {
        char prefix[NAME_BYTES];
        block_prefix(prefix, i);
        TRY(read_vectors(w, dev, c, &w->block[i], block_vectors, COUNT(block_vectors), prefix));
    }
    return STATUS_OK;
}

/* ---- the public face ------------------------------------------------------------------------- */

/* Nothing is packed yet: only the block array and the vectors are owned. */
static void release(struct transformer_weights *w)
{
    free(w->block);
    w->block = NULL;
    arena_free(&w->vectors);
}

/* Everything but what is in the vectors. */
static int find_all(struct transformer_weights *w, const struct checkpoint *c)
{
    *w = (struct transformer_weights){0};
    TRY(find_dimensions(w, c));
    w->block = xcalloc((size_t)w->blocks, sizeof *w->block);
    int status;
    TRY_OR(fail, status, find_all_linears(w, c));
    TRY_OR(fail, status, read_all_vectors(w, NULL, c));
    return STATUS_OK;
fail:
    release(w);
    return status;
}

int transformer_weights_open(struct transformer_weights *w, struct device *dev,
                             const struct checkpoint *c)
{
    TRY(find_all(w, c));
    arena_init_on(&w->vectors, "transformer norms and tables", device_memory(dev));
    lay_out_all_vectors(w);
    return STATUS_OK;
}

static void each_linear(struct transformer_weights *w,
                        void (*visit)(struct device *, struct linear *), struct device *dev)
{
    for (int i = 0; i < COUNT(global_linears); i++)
        visit(dev, (struct linear *)((char *)w + global_linears[i].place));
    for (int b = 0; b < w->blocks; b++)
        for (int i = 0; i < COUNT(block_linears); i++)
            visit(dev, (struct linear *)((char *)&w->block[b] + block_linears[i].place));
}

void transformer_weights_load(struct transformer_weights *w, struct device *dev,
                              const struct checkpoint *c, bool resident)
{
    arena_commit(&w->vectors);
    lay_out_all_vectors(w);
    CHECK(read_all_vectors(w, dev, c) == STATUS_OK, "%s", error_message()); /* all were found */
    if (resident) each_linear(w, op_linear_pack, dev);
}

void transformer_weights_close(struct transformer_weights *w, struct device *dev)
{
    each_linear(w, op_linear_unpack, dev);
    release(w);
}

static size_t linears_bytes(const struct device *dev, const void *owner,
                            const struct linear_entry *entries, int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        const struct linear *l = (const void *)((const char *)owner + entries[i].place);
        bytes += op_linear_packed_bytes(dev, l);
    }
    return bytes;
}

size_t transformer_packed_bytes(const struct device *dev, const struct checkpoint *c)
{
    struct transformer_weights w;
    if (find_all(&w, c) != STATUS_OK) {
        error_clear(); /* transformer_open will say it again, as an error */
        return 0;
    }
    size_t bytes = linears_bytes(dev, &w, global_linears, COUNT(global_linears));
    for (int i = 0; i < w.blocks; i++)
        bytes += linears_bytes(dev, &w.block[i], block_linears, COUNT(block_linears));
    release(&w);
    return bytes;
}

/* Of a block: four products of self-attention, the query and the output of cross-attention, eight
 * in the feed-forward. The text's keys and values are made once a shot, and nothing beside the
 * steps. */
double transformer_work(const struct checkpoint *c, int64_t tokens, int64_t text_tokens)
{
    struct transformer_weights w = {0};
    if (find_dimensions(&w, c) != STATUS_OK) {
        error_clear(); /* transformer_open will say it again, as an error */
        return 0;
    }
    double width = (double)w.width, keys = (double)(tokens + text_tokens);
    double block = 14 * width * width + 2 * width * keys;
    return (double)tokens * (w.blocks * block + 2 * width * (double)w.channels);
}
