/* A forward pass reads from the end up: transformer_forward, block_forward, and its three parts. */
#include "model/transformer.h"

#include "base/arena.h"
#include "base/error.h"
#include "base/numbers.h"
#include "model/replay.h"
#include "model/rope.h"
#include "model/sinusoid.h"
#include "model/transformer_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_TOKENS = 2048, /* hidden [2048,4D] instead of [S_loc,4D]; enough work for all threads */
    TEXT_GRANULE = 64,   /* longest granule of text keys */
    TEXT_GRANULE_STEP = 16,
    ROW_TILE = 1, /* one row a timestep: each by itself, so their number does not matter */
};
static const float QK_NORM_EPS = 1e-5f, FINAL_NORM_EPS = 1e-6f;

struct text_slot { /* every block's cross-attention keys and values of one prompt */
    int tokens;
    int64_t granule;
    float *packed; /* [L] times text_block_floats */
};

struct transformer {
    struct device *dev;
    enum dtype type; /* device_activations: of the matrices below that are void * */
    struct comm *group;
    struct transformer_settings settings;
    struct transformer_weights w;
    const struct checkpoint_facts *facts; /* of the checkpoint */
    float attention_scale;
    struct ring ring;
    struct replays replays;
    int64_t capacity; /* tokens of the largest shard this rank may get */
    int64_t chunk;    /* tokens a chunk at most */
    int64_t tokens;   /* S_loc of the grid that is set */
    struct rope rope;
    struct arena activations, texts, rope_tables; /* the last is renewed with every grid */

    float *x;              /* residual stream [S_loc,D]; fp32, as a block changes it little */
    void *a;               /* what the next linear reads of x: x, or its modulated norm [S_loc,D] */
    void *q, *k, *v;       /* [S_loc,D]; k later a sub-layer's result */
    void *hidden;          /* feed-forward [chunk,4D] */
    float *sinusoid;       /* [T,256] */
    float *time_hidden;    /* [T,D] */
    float *time_embedding; /* c [T,D] */
    float *time_modulation; /* m [T,6D] */
    float *modulation[2];   /* of the current block and the next, in turn: [6][T][D]; of the final
                               layer [2][T][D] */

    struct text_slot *slot; /* [text_slots] */
    int64_t text_block_floats;
    float *embeds;                                    /* [text tokens, caption_width] */
    void *caption, *caption_hidden, *text_k, *text_v; /* [text tokens, D] */
};

/* What the blocks of one forward share. */
struct pass {
    struct transformer *t;
    struct mat v, x;          /* to and from [S_loc,C] */
    int times;                /* T */
    const int32_t *row_index; /* [S_loc] -> 0..T-1, or NULL: all 0 */
    const struct text_slot *text;
    const struct skip_layers *skip;
    float *modulation; /* set last: one of t->modulation */
};

/* ---- memory ---------------------------------------------------------------------------------- */

/* Whole granules, at least one. */
static int64_t chunk_of(const struct transformer *t, int64_t granule)
{
    return granule > t->chunk ? granule : t->chunk / granule * granule;
}

static void lay_out_activations(struct transformer *t, struct arena *a)
{
    const struct transformer_weights *w = &t->w;
    int64_t count = t->capacity * w->width, times = t->settings.max_times;
    int64_t granule = shard_granule(t->settings.max_tokens); /* the longest one */
    int64_t chunk = smaller(t->capacity, granule > t->chunk ? granule : t->chunk);
    t->x = arena_floats(a, count);
    t->a = arena_values(a, count, t->type);
    t->q = arena_values(a, count, t->type);
    t->k = arena_values(a, count, t->type);
    t->v = arena_values(a, count, t->type);
    ring_lay_out(&t->ring, a, t->capacity);
    t->hidden = arena_values(a, chunk * w->ff_width, t->type);
    t->sinusoid = arena_floats(a, times * TIME_CHANNELS);
    t->time_hidden = arena_floats(a, times * w->width);
    t->time_embedding = arena_floats(a, times * w->width);
    t->time_modulation = arena_floats(a, times * MODULATIONS * w->width);
    for (int i = 0; i < 2; i++) t->modulation[i] = arena_floats(a, times * MODULATIONS * w->width);
}

/* Depends on the text alone, like every granule. */
static int64_t text_granule(int64_t tokens)
{
    return smaller(TEXT_GRANULE,
                   (tokens + TEXT_GRANULE_STEP - 1) / TEXT_GRANULE_STEP * TEXT_GRANULE_STEP);
}

static void lay_out_texts(struct transformer *t, struct arena *a)
{
    const struct transformer_weights *w = &t->w;
    int64_t tokens = t->settings.max_text_tokens, count = tokens * w->width;
    int64_t granules = (tokens + TEXT_GRANULE - 1) / TEXT_GRANULE;
    t->text_block_floats =
        granules * op_kv_granule_floats(t->dev, TEXT_GRANULE, w->heads, w->head_dim);
    for (int i = 0; i < t->settings.text_slots; i++)
        t->slot[i].packed = arena_floats(a, t->text_block_floats * w->blocks);
    t->embeds = arena_floats(a, tokens * w->caption_width);
    t->caption_hidden = arena_values(a, count, t->type);
    t->caption = arena_values(a, count, t->type);
    t->text_k = arena_values(a, count, t->type);
    t->text_v = arena_values(a, count, t->type);
}

/* Everything but memory; the arenas have counted what they need. */
static int prepare(struct transformer *t, struct device *dev, const struct checkpoint *c,
                   struct comm *group, const struct transformer_settings *s)
{
    CHECK(s->max_tokens > 0 && s->max_text_tokens > 0 && s->text_slots > 0 && s->max_times > 0,
          "transformer for %lld tokens, %d text tokens, %d slots, %d timesteps",
          (long long)s->max_tokens, s->max_text_tokens, s->text_slots, s->max_times);
    struct transformer_weights w;
    TRY(transformer_weights_open(&w, dev, c));
    *t = (struct transformer){.dev = dev,
                              .type = device_activations(dev),
                              .group = group,
                              .settings = *s,
                              .w = w,
                              .facts = checkpoint_facts(c)};
    t->attention_scale = (float)(1.0 / sqrt((double)w.head_dim));
    t->ring = (struct ring){
        .dev = dev, .group = group, .order = s->order, .heads = w.heads, .head_dim = w.head_dim};
    /* What comes by way of the host cannot be recorded: weights that are not resident, messages
     * over MPI. */
    t->replays.dev = dev;
    t->replays.on = s->replay && s->resident && comm_is_direct(group);
    t->slot = xcalloc((size_t)s->text_slots, sizeof *t->slot);
    t->capacity = shard_most_tokens(s->max_tokens, comm_size(group));
    t->chunk = s->chunk_tokens > 0 ? s->chunk_tokens : CHUNK_TOKENS;
    const struct arena_memory *memory = device_memory(dev);
    arena_init_on(&t->activations, "transformer activations", memory);
    arena_init_on(&t->texts, "text keys and values", memory);
    arena_init_on(&t->rope_tables, "RoPE tables", memory);
    lay_out_activations(t, &t->activations);
    lay_out_texts(t, &t->texts);
    return STATUS_OK;
}

static void release(struct transformer *t)
{
    replays_forget(&t->replays);
    transformer_weights_close(&t->w, t->dev);
    arena_free(&t->activations);
    arena_free(&t->texts);
    arena_free(&t->rope_tables);
    free(t->slot);
}

int transformer_open(struct transformer **out, struct device *dev, const struct checkpoint *c,
                     struct comm *group, const struct transformer_settings *s)
{
    struct transformer *t = xcalloc(1, sizeof *t);
    int status = prepare(t, dev, c, group, s);
    if (status != STATUS_OK) {
        free(t);
        return status;
    }
    arena_commit(&t->activations);
    lay_out_activations(t, &t->activations);
    arena_commit(&t->texts);
    lay_out_texts(t, &t->texts);
    transformer_weights_load(&t->w, dev, c, s->resident);
    *out = t;
    return STATUS_OK;
}

/* What is fp32 before a product of a device that computes in another type is rounded there: the
 * largest are the shard of the latents and the text. */
static int64_t rounded_bytes(const struct transformer *t)
{
    int64_t shard = t->capacity * t->w.channels,
            text = t->settings.max_text_tokens * t->w.caption_width;
    if (t->type == DTYPE_F32) return 0;
    return (shard > text ? shard : text) * (int64_t)dtype_size(t->type);
}

int transformer_plan_memory(struct memory_plan *device, struct memory_plan *host,
                            struct device *dev, const struct checkpoint *c, struct comm *group,
                            const struct transformer_settings *s)
{
    struct transformer t;
    TRY(prepare(&t, dev, c, group, s));
    memory_plan_add(device, t.w.vectors.name, (int64_t)t.w.vectors.used_bytes);
    memory_plan_add(device, t.activations.name, (int64_t)t.activations.used_bytes);
    memory_plan_add(device, t.texts.name, (int64_t)t.texts.used_bytes);
    memory_plan_add(device, "inputs of products", rounded_bytes(&t));
    memory_plan_add(host, "messages", ring_staging_bytes(&t.ring, t.capacity));
    release(&t);
    return STATUS_OK;
}

void transformer_close(struct transformer *t)
{
    if (!t) return;
    release(t);
    free(t);
}

int64_t transformer_channels(const struct transformer *t) { return t->w.channels; }
int64_t transformer_caption_width(const struct transformer *t) { return t->w.caption_width; }
int transformer_blocks(const struct transformer *t) { return t->w.blocks; }
const struct shard_plan *transformer_plan(const struct transformer *t) { return &t->ring.plan; }

void transformer_set_phase(struct transformer *t, int shot, int step)
{
    t->ring.shot = shot;
    t->ring.step = step;
}

/* ---- once per prompt and once per shot ------------------------------------------------------- */

int transformer_set_text(struct transformer *t, int slot, const float *embeds, int tokens)
{
    const struct transformer_weights *w = &t->w;
    CHECK(slot >= 0 && slot < t->settings.text_slots, "text slot %d of %d", slot,
          t->settings.text_slots);
    CHECK(tokens > 0 && tokens <= t->settings.max_text_tokens, "%d text tokens, room for %d",
          tokens, t->settings.max_text_tokens);
    struct text_slot *s = &t->slot[slot];
    s->tokens = tokens;
    s->granule = text_granule(tokens);

    struct mat text = mat_f32(t->embeds, tokens, w->caption_width);
    struct mat hidden = mat_of(t->caption_hidden, tokens, w->width, t->type);
    struct mat caption = mat_of(t->caption, tokens, w->width, t->type);
    struct mat k = mat_of(t->text_k, tokens, w->width, t->type);
    struct mat v = mat_of(t->text_v, tokens, w->width, t->type), none = {.p = NULL};
    op_upload(t->dev, t->embeds, embeds, (size_t)(text.rows * text.cols) * sizeof *embeds);
    op_linear(t->dev, hidden, text, &w->caption_in, EPILOGUE_GELU_TANH, s->granule);
    op_linear(t->dev, caption, hidden, &w->caption_out, EPILOGUE_NONE, s->granule);
    for (int i = 0; i < w->blocks; i++) {
        const struct block_weights *b = &w->block[i];
        op_linear(t->dev, k, caption, &b->text_k, EPILOGUE_NONE, s->granule);
        op_linear(t->dev, v, caption, &b->text_v, EPILOGUE_NONE, s->granule);
        op_qk_norm_rope(t->dev, k, none, QK_NORM_EPS, b->text_k_norm, NULL, NULL);
        op_kv_pack(t->dev, s->packed + i * t->text_block_floats, k, v, w->heads, s->granule);
    }
    return STATUS_OK;
}

void transformer_set_grid(struct transformer *t, const struct latent_grid *g)
{
    CHECK(g->f > 0 && g->h > 0 && g->w > 0 && g->frame_rate > 0 &&
              g->f <= t->settings.max_tokens / g->h / g->w,
          "grid of %lld x %lld x %lld tokens at %g frames/s, room for %lld tokens", (long long)g->f,
          (long long)g->h, (long long)g->w, g->frame_rate, (long long)t->settings.max_tokens);
    int me = comm_rank(t->group);
    struct shard_plan plan = shard_plan_make(g->f * g->h * g->w, comm_size(t->group));
    int64_t needed = shard_max_granules(&plan) * plan.granule;
    CHECK(needed <= t->capacity, "a shard of %lld tokens, room for %lld", (long long)needed,
          (long long)t->capacity);
    replays_forget(&t->replays);
    ring_set_plan(&t->ring, &plan);
    t->tokens = shard_tokens(&plan, me);

    const struct checkpoint_facts *f = t->facts;
    struct rope_settings settings = {.theta = f->rope_theta,
                                     .causal = f->causal_temporal_positioning};
    memcpy(settings.max_pos, f->rope_max_pos, sizeof settings.max_pos);
    struct rope_grid grid = {.f = g->f,
                             .h = g->h,
                             .w = g->w,
                             .frame_rate = g->frame_rate,
                             .time_factor = g->time_factor,
                             .space_factor = g->space_factor};
    arena_free(&t->rope_tables);
    rope_lay_out(&t->rope, &t->rope_tables, t->w.width, &grid, t->tokens);
    arena_commit(&t->rope_tables);
    rope_lay_out(&t->rope, &t->rope_tables, t->w.width, &grid, t->tokens);
    rope_fill(&t->rope, t->dev, &settings, &grid, shard_first_token(&plan, me), t->tokens);
}

/* ---- timesteps ------------------------------------------------------------------------------- */

/* All that the host gives to a pass. */
static void upload_times(struct transformer *t, const struct timesteps *times)
{
    float wave[TIME_CHANNELS];
    for (int64_t i = 0; i < times->count; i++) {
        sinusoid_fill(wave, TIME_CHANNELS, (float)t->facts->timestep_scale * times->values[i]);
        op_upload(t->dev, t->sinusoid + i * TIME_CHANNELS, wave, sizeof wave);
    }
}

/* One row per distinct noise level: c for the final layer, m for the blocks. */
static void embed_times(struct transformer *t, int64_t rows)
{
    const struct transformer_weights *w = &t->w;
    struct mat e = mat_f32(t->sinusoid, rows, TIME_CHANNELS);
    struct mat hidden = mat_f32(t->time_hidden, rows, w->width);
    struct mat c = mat_f32(t->time_embedding, rows, w->width);
    struct mat m = mat_f32(t->time_modulation, rows, MODULATIONS * w->width);
    op_linear(t->dev, hidden, e, &w->time_in, EPILOGUE_SILU, ROW_TILE);
    op_linear(t->dev, c, hidden, &w->time_out, EPILOGUE_NONE, ROW_TILE);
    op_silu(t->dev, hidden, c);
    op_linear(t->dev, m, hidden, &w->modulation, EPILOGUE_NONE, ROW_TILE);
}

/* modulation[kind][time] = table[kind] + embedding[time][kind], or + embedding[time] for all kinds
 * where that is all it has. The other half of t->modulation stays: the block before may still need
 * it. */
static void set_modulation(struct transformer *t, struct pass *p, const float *table, int kinds,
                           float *embedding, int64_t embedding_cols)
{
    p->modulation = t->modulation[p->modulation == t->modulation[0]];
    op_modulation(t->dev, mat_f32(p->modulation, kinds * p->times, t->w.width), table,
                  mat_f32(embedding, p->times, embedding_cols));
}

/* Row `kind` of the modulation, for every timestep: [T,D]. */
static struct mat modulation_of(const struct transformer *t, const struct pass *p, int kind)
{
    return mat_f32(p->modulation + kind * p->times * t->w.width, p->times, t->w.width);
}

/* ---- one block ------------------------------------------------------------------------------- */

static bool perturbed(const struct pass *p, int block, enum stg_mode mode)
{
    if (!p->skip || p->skip->mode != mode) return false;
    for (int i = 0; i < p->skip->count; i++)
        if (p->skip->blocks[i] == block) return true;
    return false;
}

static struct mat stream(const struct transformer *t)
{
    return mat_f32(t->x, t->tokens, t->w.width);
}
static struct mat all_rows(const struct transformer *t, void *p)
{
    return mat_of(p, t->tokens, t->w.width, t->type);
}

static const struct next_norm no_norm = {.none = true};

/* The norm before a sub-layer: `shift` and `scale` say which modulations. */
static struct next_norm norm_before(const struct transformer *t, const struct pass *p, int shift,
                                    int scale)
{
    return (struct next_norm){.kind = NORM_RMS,
                              .eps = t->facts->norm_eps,
                              .shift = modulation_of(t, p, shift),
                              .scale = modulation_of(t, p, scale)};
}

/* The norm that block `first`, or the first one behind it that is not left out, begins with, or the
 * final layer; sets the modulation of whichever it is. */
static struct next_norm norm_from(struct transformer *t, struct pass *p, int first)
{
    enum { SHIFT, SCALE, FINAL_MODULATIONS };
    int64_t width = t->w.width;
    while (first < t->w.blocks && perturbed(p, first, STG_TRANSFORMER_BLOCK)) first++;
    if (first < t->w.blocks) {
        set_modulation(t, p, t->w.block[first].table, MODULATIONS, t->time_modulation,
                       MODULATIONS * width);
        return norm_before(t, p, SHIFT_ATTENTION, SCALE_ATTENTION);
    }
    set_modulation(t, p, t->w.final_table, FINAL_MODULATIONS, t->time_embedding, width);
    struct next_norm norm = norm_before(t, p, SHIFT, SCALE);
    norm.kind = NORM_LAYER;
    norm.eps = FINAL_NORM_EPS;
    return norm;
}

/* x += gate * to_out(attention(a)), a being the modulated norm of x, and then the new x. Perturbed
 * blocks put v or a in place of the attention. */
static void self_attention(struct transformer *t, const struct block_weights *b,
                           const struct pass *p, int block)
{
    int64_t tile = t->ring.plan.granule;
    struct mat a = all_rows(t, t->a), q = all_rows(t, t->q);
    struct mat k = all_rows(t, t->k), v = all_rows(t, t->v), o = a;
    if (!perturbed(p, block, STG_ATTENTION_SKIP)) {
        op_linear(t->dev, v, a, &b->v, EPILOGUE_NONE, tile);
        o = v;
    }
    if (!perturbed(p, block, STG_ATTENTION_SKIP) && !perturbed(p, block, STG_ATTENTION_VALUES)) {
        op_linear(t->dev, q, a, &b->q, EPILOGUE_NONE, tile);
        op_linear(t->dev, k, a, &b->k, EPILOGUE_NONE, tile);
        op_qk_norm_rope(t->dev, q, k, QK_NORM_EPS, b->q_norm, b->k_norm, &t->rope);
        ring_attend(&t->ring, q, q, k, v, t->attention_scale);
        o = q;
    }
    op_linear(t->dev, k, o, &b->o, EPILOGUE_NONE, tile);
    op_gate_residual_norm(t->dev, a, stream(t), k, modulation_of(t, p, GATE_ATTENTION), &no_norm,
                          p->row_index);
}

/* Rows of the matrices that a block works on after self-attention. */
struct chunk {
    struct mat x, a, q, y;
    const int32_t *row_index;
};

/* x += to_out(attention(a, text)), a being x: no norm, no modulation, no gate, no rotation. Then a
 * is the modulated norm of x. */
static void cross_attention(struct transformer *t, const struct block_weights *b,
                            const struct pass *p, int block, const struct chunk *c)
{
    int64_t tile = t->ring.plan.granule, heads = t->w.heads;
    struct mat q = c->q, none = {.p = NULL};
    struct next_norm norm = norm_before(t, p, SHIFT_FF, SCALE_FF);
    op_linear(t->dev, q, c->a, &b->text_q, EPILOGUE_NONE, tile);
    op_qk_norm_rope(t->dev, q, none, QK_NORM_EPS, b->text_q_norm, NULL, NULL);
    op_attention_part(t->dev, q, t->ring.state, q, p->text->packed + block * t->text_block_floats,
                      p->text->tokens, p->text->granule, heads, t->attention_scale, true, true);
    op_linear(t->dev, c->y, q, &b->text_o, EPILOGUE_NONE, tile);
    op_gate_residual_norm(t->dev, c->a, c->x, c->y, none, &norm, c->row_index);
}

/* x += gate * ff(a). Then a is the `next` norm of x. */
static void feed_forward(struct transformer *t, const struct block_weights *b, const struct pass *p,
                         const struct next_norm *next, const struct chunk *c)
{
    int64_t tile = t->ring.plan.granule;
    struct mat hidden = mat_of(t->hidden, c->x.rows, t->w.ff_width, t->type);
    op_linear(t->dev, hidden, c->a, &b->ff_in, EPILOGUE_GELU_TANH, tile);
    op_linear(t->dev, c->y, hidden, &b->ff_out, EPILOGUE_NONE, tile);
    op_gate_residual_norm(t->dev, c->a, c->x, c->y, modulation_of(t, p, GATE_FF), next,
                          c->row_index);
}

/* t->a has the norm that this block begins with, and has the next one's in the end. */
static void block_forward(struct transformer *t, struct pass *p, int block)
{
    const struct block_weights *b = &t->w.block[block];
    struct pass own = *p; /* with this block's modulation */
    int64_t step = chunk_of(t, t->ring.plan.granule);
    self_attention(t, b, &own, block);
    struct next_norm next = norm_from(t, p, block + 1);
    for (int64_t first = 0; first < t->tokens; first += step) {
        int64_t rows = smaller(step, t->tokens - first);
        struct chunk c = {.x = mat_rows(stream(t), first, rows),
                          .a = mat_rows(all_rows(t, t->a), first, rows),
                          .q = mat_rows(all_rows(t, t->q), first, rows),
                          .y = mat_rows(all_rows(t, t->k), first, rows),
                          .row_index = p->row_index ? p->row_index + first : NULL};
        cross_attention(t, b, &own, block, &c);
        feed_forward(t, b, &own, &next, &c);
    }
}

/* ---- the whole pass -------------------------------------------------------------------------- */

/* Nothing but ops on the device's memory and messages of it: it may be recorded. */
static void run_pass(void *pass)
{
    struct pass *p = pass;
    struct transformer *t = p->t;
    struct mat a = all_rows(t, t->a);
    int64_t tile = t->ring.plan.granule;
    embed_times(t, p->times);
    op_linear(t->dev, stream(t), p->x, &t->w.patchify, EPILOGUE_NONE, tile);
    struct next_norm first = norm_from(t, p, 0);
    op_norm_modulate(t->dev, a, stream(t), first.kind, first.eps, first.shift, first.scale,
                     p->row_index);
    for (int i = 0; i < t->w.blocks; i++) {
        phase_set("shot %d step %d block %d", t->ring.shot + 1, t->ring.step + 1, i);
        t->ring.block = i;
        if (!perturbed(p, i, STG_TRANSFORMER_BLOCK)) block_forward(t, p, i);
    }
    op_linear(t->dev, p->v, a, &t->w.proj_out, EPILOGUE_NONE, tile);
}

void transformer_forward(struct transformer *t, struct mat v, struct mat x,
                         const struct timesteps *times, int text_slot,
                         const struct skip_layers *skip)
{
    CHECK(t->ring.plan.tokens > 0, "transformer_set_grid comes first");
    CHECK(x.rows == t->tokens && v.rows == t->tokens && x.cols == t->w.channels &&
              v.cols == t->w.channels,
          "transformer: x [%lld,%lld], v [%lld,%lld], expected [%lld,%lld]", (long long)x.rows,
          (long long)x.cols, (long long)v.rows, (long long)v.cols, (long long)t->tokens,
          (long long)t->w.channels);
    CHECK(times->count > 0 && times->count <= t->settings.max_times, "%d timesteps, room for %d",
          times->count, t->settings.max_times);
    CHECK(text_slot >= 0 && text_slot < t->settings.text_slots && t->slot[text_slot].tokens > 0,
          "text slot %d is not set", text_slot);

    struct pass p = {.t = t,
                     .v = v,
                     .x = x,
                     .times = times->count,
                     .row_index = times->row_index,
                     .text = &t->slot[text_slot],
                     .skip = skip};
    struct replay_key key = {.to = v.p,
                             .from = x.p,
                             .row_index = times->row_index,
                             .times = times->count,
                             .text_slot = text_slot,
                             .text_tokens = p.text->tokens};
    if (skip) key.skip = *skip;
    upload_times(t, times);
    replays_run(&t->replays, &key, run_pass, &p);
}
