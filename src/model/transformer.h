/* The LTX-Video transformer on one shard of the token sequence (spec transformer 2; official
 * transformer3d.py).
 *
 *   struct transformer *t;
 *   TRY(transformer_open(&t, dev, checkpoint, group, &settings)); // weights, arenas
 *   TRY(transformer_set_text(t, 0, embeds, tokens));              // every block's text K/V, once
 *   transformer_set_grid(t, &grid);                               // RoPE tables for this shot
 *   transformer_forward(t, v, x, &times, text_slot, NULL);        // v [S_loc, C]
 *
 * Everything except self-attention is local to the shard. */
#ifndef RINGREEL_TRANSFORMER_H
#define RINGREEL_TRANSFORMER_H

#include "base/memory.h"
#include "base/tensor.h"
#include "config/options.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "parallel/comm.h"
#include "parallel/ring.h"

struct transformer;

struct transformer_settings {
    int64_t max_tokens; /* longest sequence of any shot (S, whole group) */
    int max_text_tokens;
    int text_slots; /* cached prompts: 2 for CFG (0 negative, 1 positive) */
    int max_times;  /* distinct timesteps in one forward: 1, more with conditioning */
    enum attention_order order;
    int64_t chunk_tokens; /* cross-attention and feed-forward: tokens at a time; 0: 2048 */
    bool replay;          /* passes are recorded and replayed, where device and group allow it */
    bool resident;        /* keep reordered weights (else expand layer by layer from the file) */
};

/* Validates every tensor's presence and shape (STATUS_INPUT) and takes all memory. Local. */
int transformer_open(struct transformer **out, struct device *dev, const struct checkpoint *c,
                     struct comm *group, const struct transformer_settings *s);
void transformer_close(struct transformer *t);
/* Adds what transformer_open would take for these settings, weights apart, without taking it: of
 * the device's memory, and what messages take of the host's. Local. */
int transformer_plan_memory(struct memory_plan *device, struct memory_plan *host,
                            struct device *dev, const struct checkpoint *c, struct comm *group,
                            const struct transformer_settings *s);

int64_t transformer_channels(const struct transformer *t);      /* C = 128 */
int64_t transformer_caption_width(const struct transformer *t); /* 4096 */
int transformer_blocks(const struct transformer *t);            /* L */
/* What `resident` would take; 0 if unknown. */
size_t transformer_packed_bytes(const struct device *dev, const struct checkpoint *c);
/* Multiply-adds of one forward over a sequence, on all ranks together; 0 if unknown. */
double transformer_work(const struct checkpoint *c, int64_t tokens, int64_t text_tokens);

/* Text of one slot: embeds [tokens, caption_width], in host memory, of the real tokens only (masked
 * ones dropped: spec 2.8). Computes the caption projection and every block's cross-attention K and
 * V. Local (every rank does the same). */
int transformer_set_text(struct transformer *t, int slot, const float *embeds, int tokens);

/* Position of every token of the sequence: f x h x w latent grid in token order (spec 2.5), of
 * which this rank holds the shard. */
struct latent_grid {
    int64_t f, h, w;
    double frame_rate;
    int time_factor, space_factor; /* 8, 32 */
};
void transformer_set_grid(struct transformer *t, const struct latent_grid *g);
const struct shard_plan *transformer_plan(
    const struct transformer *t); /* plan of the grid that is set */

/* Noise levels: values[count] in [0,1], row_index [S_loc] (device) picks one per token (NULL: all
 * tokens values[0]). */
struct timesteps {
    int count;
    const float *values;
    const int32_t *row_index;
};

/* Blocks to perturb (STG): listed blocks run in `mode`. NULL or count 0: none. */
struct skip_layers {
    enum stg_mode mode;
    int count;
    const int *blocks;
};

/* v [S_loc, C] = velocity for x [S_loc, C], both in device memory. Collective over the group. */
void transformer_forward(struct transformer *t, struct mat v, struct mat x,
                         const struct timesteps *times, int text_slot,
                         const struct skip_layers *skip);
/* For traces and messages. */
void transformer_set_phase(struct transformer *t, int shot, int step);

#endif
