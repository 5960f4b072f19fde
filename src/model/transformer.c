/* A forward pass reads from the end up: transformer_forward, block_forward, and its three parts. */
#include "model/transformer.h"

#include "base/arena.h"
#include "base/error.h"
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
    struct comm *group;
    struct transformer_settings settings;
    struct transformer_weights w;
    const struct checkpoint_facts *facts; /* of the checkpoint */
    float attention_scale;
    struct ring ring;
    int64_t capacity; /* tokens of the largest shard this rank may get */
    int64_t chunk;    /* tokens a chunk at most */
    int64_t tokens;   /* S_loc of the grid that is set */
    struct rope rope;
    struct arena activations, texts, rope_tables; /* the last is renewed with every grid */

    float *x;               /* residual stream [S_loc,D] */
    float *a;               /* modulated norm of x, later a linear's result [S_loc,D] */
    float *q, *k, *v;       /* [S_loc,D] */
    float *hidden;          /* feed-forward [chunk,4D] */
    float *text_state;      /* running softmax of the cross-attention of one chunk */
    float *sinusoid;        /* [T,256] */
    float *time_hidden;     /* [T,D] */
    float *time_embedding;  /* c [T,D] */
    float *time_modulation; /* m [T,6D] */
    float *modulation;      /* of the current block [6][T][D]; of the final layer [2][T][D] */

    struct text_slot *slot; /* [text_slots] */
    int64_t text_block_floats;
    float *embeds;                                     /* [text tokens, caption_width] */
    float *caption, *caption_hidden, *text_k, *text_v; /* [text tokens, D] */
};

/* What the blocks of one forward share. */
struct pass {
    int times;                /* T */
    const int32_t *row_index; /* [S_loc] -> 0..T-1, or NULL: all 0 */
    const struct text_slot *text;
    const struct skip_layers *skip;
};

/* ---- memory ---------------------------------------------------------------------------------- */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Whole granules, at least one. */
static int64_t chunk_of(const struct transformer *t, int64_t granule)
{
    return granule > t->chunk ? granule : t->chunk / granule * granule;
}

static void lay_out_activations(struct transformer *t, struct arena *a)
{
    const struct transformer_weights *w = &t->w;
    int64_t floats = t->capacity * w->width, times = t->settings.max_times;
    int64_t granule = shard_granule(t->settings.max_tokens); /* the longest one */
    int64_t chunk = smaller(t->capacity, granule > t->chunk ? granule : t->chunk);
    t->x = arena_floats(a, floats);
    t->a = arena_floats(a, floats);
    t->q = arena_floats(a, floats);
    t->k = arena_floats(a, floats);
    t->v = arena_floats(a, floats);
    ring_lay_out(&t->ring, a, t->capacity);
    t->hidden = arena_floats(a, chunk * w->ff_width);
    t->text_state = arena_floats(a, op_attention_state_floats(chunk, w->heads, w->head_dim));
    t->sinusoid = arena_floats(a, times * TIME_CHANNELS);
    t->time_hidden = arena_floats(a, times * w->width);
    t->time_embedding = arena_floats(a, times * w->width);
    t->time_modulation = arena_floats(a, times * MODULATIONS * w->width);
    t->modulation = arena_floats(a, times * MODULATIONS * w->width);
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
    int64_t tokens = t->settings.max_text_tokens, floats = tokens * w->width;
    int64_t granules = (tokens + TEXT_GRANULE - 1) / TEXT_GRANULE;
    t->text_block_floats = granules * op_kv_granule_floats(TEXT_GRANULE, w->heads, w->head_dim);
    for (int i = 0; i < t->settings.text_slots; i++)
        t->slot[i].packed = arena_floats(a, t->text_block_floats * w->blocks);
    t->embeds = arena_floats(a, tokens * w->caption_width);
    t->caption_hidden = arena_floats(a, floats);
    t->caption = arena_floats(a, floats);
    t->text_k = arena_floats(a, floats);
    t->text_v = arena_floats(a, floats);
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
    *t = (struct transformer){
        .dev = dev, .group = group, .settings = *s, .w = w, .facts = checkpoint_facts(c)};
    t->attention_scale = (float)(1.0 / sqrt((double)w.head_dim));
    t->ring = (struct ring){
        .dev = dev, .group = group, .order = s->order, .heads = w.heads, .head_dim = w.head_dim};
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
    if (s->resident) transformer_weights_pack(&t->w, dev);
    *out = t;
    return STATUS_OK;
}

/* A device with memory of its own rounds what goes into a product there: the largest is a shard
 * or a chunk of the feed-forward. */
static int64_t rounded_bytes(const struct transformer *t)
{
    int64_t shard = t->capacity * t->w.width,
            chunk = smaller(t->capacity, t->chunk) * t->w.ff_width;
    if (!device_has_memory(t->dev) || device_precision(t->dev) != PRECISION_BF16) return 0;
    return (shard > chunk ? shard : chunk) * (int64_t)sizeof(uint16_t);
}

int transformer_plan_memory(struct memory_plan *device, struct memory_plan *host,
                            struct device *dev, const struct checkpoint *c, struct comm *group,
                            const struct transformer_settings *s)
{
    struct transformer t;
    TRY(prepare(&t, dev, c, group, s));
    memory_plan_add(device, t.w.vectors.name, (int64_t)t.w.vectors.size_bytes);
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
    struct mat hidden = mat_f32(t->caption_hidden, tokens, w->width);
    struct mat caption = mat_f32(t->caption, tokens, w->width);
    struct mat k = mat_f32(t->text_k, tokens, w->width), v = mat_f32(t->text_v, tokens, w->width);
    op_upload(t->dev, t->embeds, embeds, (size_t)(text.rows * text.cols) * sizeof *embeds);
    op_linear(t->dev, hidden, text, &w->caption_in, EPILOGUE_GELU_TANH, s->granule);
    op_linear(t->dev, caption, hidden, &w->caption_out, EPILOGUE_NONE, s->granule);
    for (int i = 0; i < w->blocks; i++) {
        const struct block_weights *b = &w->block[i];
        op_linear(t->dev, k, caption, &b->text_k, EPILOGUE_NONE, s->granule);
        op_linear(t->dev, v, caption, &b->text_v, EPILOGUE_NONE, s->granule);
        op_qk_norm_rope(t->dev, k, QK_NORM_EPS, b->text_k_norm, NULL);
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

/* One row per distinct noise level: c for the final layer, m for the blocks. */
static void embed_times(struct transformer *t, const struct timesteps *times)
{
    const struct transformer_weights *w = &t->w;
    int64_t rows = times->count;
    float wave[TIME_CHANNELS];
    for (int64_t i = 0; i < rows; i++) {
        sinusoid_fill(wave, TIME_CHANNELS, (float)t->facts->timestep_scale * times->values[i]);
        op_upload(t->dev, t->sinusoid + i * TIME_CHANNELS, wave, sizeof wave);
    }
    struct mat e = mat_f32(t->sinusoid, rows, TIME_CHANNELS);
    struct mat hidden = mat_f32(t->time_hidden, rows, w->width);
    struct mat c = mat_f32(t->time_embedding, rows, w->width);
    struct mat m = mat_f32(t->time_modulation, rows, MODULATIONS * w->width);
    op_linear(t->dev, hidden, e, &w->time_in, EPILOGUE_SILU, ROW_TILE);
    op_linear(t->dev, c, hidden, &w->time_out, EPILOGUE_NONE, ROW_TILE);
    op_silu(t->dev, hidden, c);
    op_linear(t->dev, m, hidden, &w->modulation, EPILOGUE_NONE, ROW_TILE);
}

/* Row `kind` of the current modulation, for every timestep: [T,D]. */
static struct mat modulation_of(const struct transformer *t, const struct pass *p, int kind)
{
    return mat_f32(t->modulation + kind * p->times * t->w.width, p->times, t->w.width);
}

/* modulation[kind][time] = table[kind] + embedding[time][kind]; the final layer's two kinds share
 * one embedding (stride 0 between kinds). */
static void set_modulation(struct transformer *t, const struct pass *p, const float *table,
                           int kinds, const float *embedding, int64_t time_stride,
                           int64_t kind_stride)
{
    int64_t width = t->w.width;
    for (int kind = 0; kind < kinds; kind++) {
        float *to = modulation_of(t, p, kind).p;
        for (int64_t i = 0; i < p->times; i++)
            op_lincomb(t->dev, to + i * width, 1.0f, table + kind * width, 1.0f,
                       embedding + i * time_stride + kind * kind_stride, width);
    }
}

/* ---- one block ------------------------------------------------------------------------------- */

static bool perturbed(const struct pass *p, int block, enum stg_mode mode)
{
    if (!p->skip || p->skip->mode != mode) return false;
    for (int i = 0; i < p->skip->count; i++)
        if (p->skip->blocks[i] == block) return true;
    return false;
}

static struct mat all_rows(const struct transformer *t, float *p)
{
    return mat_f32(p, t->tokens, t->w.width);
}

/* x += gate * to_out(attention(a)), a = modulated norm of x. Perturbed blocks put v or a in place
 * of the attention. */
static void self_attention(struct transformer *t, const struct block_weights *b,
                           const struct pass *p, int block)
{
    int64_t tile = t->ring.plan.granule;
    struct mat x = all_rows(t, t->x), a = all_rows(t, t->a);
    struct mat q = all_rows(t, t->q), k = all_rows(t, t->k), v = all_rows(t, t->v);
    op_norm_modulate(t->dev, a, x, NORM_RMS, t->facts->norm_eps,
                     modulation_of(t, p, SHIFT_ATTENTION), modulation_of(t, p, SCALE_ATTENTION),
                     p->row_index);
    struct mat o = a;
    if (!perturbed(p, block, STG_ATTENTION_SKIP)) {
        op_linear(t->dev, v, a, &b->v, EPILOGUE_NONE, tile);
        o = v;
    }
    if (!perturbed(p, block, STG_ATTENTION_SKIP) && !perturbed(p, block, STG_ATTENTION_VALUES)) {
        op_linear(t->dev, q, a, &b->q, EPILOGUE_NONE, tile);
        op_linear(t->dev, k, a, &b->k, EPILOGUE_NONE, tile);
        op_qk_norm_rope(t->dev, q, QK_NORM_EPS, b->q_norm, &t->rope);
        op_qk_norm_rope(t->dev, k, QK_NORM_EPS, b->k_norm, &t->rope);
        ring_attend(&t->ring, q, q, k, v, t->attention_scale);
        o = q;
    }
    op_linear(t->dev, k, o, &b->o, EPILOGUE_NONE, tile);
    op_gate_residual(t->dev, x, k, modulation_of(t, p, GATE_ATTENTION), p->row_index);
}

/* x += to_out(attention(x, text)): no norm, no modulation, no gate, no rotation. */
static void cross_attention(struct transformer *t, const struct block_weights *b,
                            const struct pass *p, int block, struct mat x, struct mat q,
                            struct mat y)
{
    int64_t tile = t->ring.plan.granule, heads = t->w.heads;
    op_linear(t->dev, q, x, &b->text_q, EPILOGUE_NONE, tile);
    op_qk_norm_rope(t->dev, q, QK_NORM_EPS, b->text_q_norm, NULL);
    op_attention_begin(t->dev, t->text_state, q.rows, heads, t->w.head_dim);
    op_attention_block(t->dev, t->text_state, q, p->text->packed + block * t->text_block_floats,
                       p->text->tokens, p->text->granule, heads, t->attention_scale);
    op_attention_finish(t->dev, q, t->text_state, heads);
    op_linear(t->dev, y, q, &b->text_o, EPILOGUE_NONE, tile);
    op_gate_residual(t->dev, x, y, (struct mat){0}, NULL);
}

/* x += gate * ff(modulated norm of x). */
static void feed_forward(struct transformer *t, const struct block_weights *b, const struct pass *p,
                         const int32_t *row_index, struct mat x, struct mat y)
{
    int64_t tile = t->ring.plan.granule;
    struct mat hidden = mat_f32(t->hidden, x.rows, t->w.ff_width);
    op_norm_modulate(t->dev, y, x, NORM_RMS, t->facts->norm_eps, modulation_of(t, p, SHIFT_FF),
                     modulation_of(t, p, SCALE_FF), row_index);
    op_linear(t->dev, hidden, y, &b->ff_in, EPILOGUE_GELU_TANH, tile);
    op_linear(t->dev, y, hidden, &b->ff_out, EPILOGUE_NONE, tile);
    op_gate_residual(t->dev, x, y, modulation_of(t, p, GATE_FF), row_index);
}

static void block_forward(struct transformer *t, const struct pass *p, int block)
{
    const struct block_weights *b = &t->w.block[block];
    int64_t width = t->w.width, chunk = chunk_of(t, t->ring.plan.granule);
    set_modulation(t, p, b->table, MODULATIONS, t->time_modulation, MODULATIONS * width, width);
    self_attention(t, b, p, block);
    for (int64_t first = 0; first < t->tokens; first += chunk) {
        int64_t rows = smaller(chunk, t->tokens - first);
        struct mat x = mat_rows(all_rows(t, t->x), first, rows);
        struct mat y = mat_rows(all_rows(t, t->a), first, rows);
        cross_attention(t, b, p, block, x, mat_rows(all_rows(t, t->q), first, rows), y);
        feed_forward(t, b, p, p->row_index ? p->row_index + first : NULL, x, y);
    }
}

/* ---- the whole pass -------------------------------------------------------------------------- */

static void final_layer(struct transformer *t, struct mat v, const struct pass *p)
{
    enum { SHIFT, SCALE, FINAL_MODULATIONS };
    struct mat x = all_rows(t, t->x), a = all_rows(t, t->a);
    set_modulation(t, p, t->w.final_table, FINAL_MODULATIONS, t->time_embedding, t->w.width, 0);
    op_norm_modulate(t->dev, a, x, NORM_LAYER, FINAL_NORM_EPS, modulation_of(t, p, SHIFT),
                     modulation_of(t, p, SCALE), p->row_index);
    op_linear(t->dev, v, a, &t->w.proj_out, EPILOGUE_NONE, t->ring.plan.granule);
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

    struct pass p = {.times = times->count,
                     .row_index = times->row_index,
                     .text = &t->slot[text_slot],
                     .skip = skip};
    embed_times(t, times);
    op_linear(t->dev, all_rows(t, t->x), x, &t->w.patchify, EPILOGUE_NONE, t->ring.plan.granule);
    for (int i = 0; i < t->w.blocks; i++) {
        phase_set("shot %d step %d block %d", t->ring.shot + 1, t->ring.step + 1, i);
        t->ring.block = i;
        if (!perturbed(&p, i, STG_TRANSFORMER_BLOCK)) block_forward(t, &p, i);
    }
    final_layer(t, v, &p);
}
