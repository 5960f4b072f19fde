/* A stream before anything runs through it: its stages, their memory, and what every clip begins
 * with. */
#include "model/vae.h"

#include "base/error.h"
#include "model/vae_net.h"

#include <stdlib.h>

/* ---- stages ---------------------------------------------------------------------------------- */

struct vae_part vae_part_of(int64_t extent, int ranks, int rank)
{
    int64_t each = extent / ranks, more = extent % ranks;
    return (struct vae_part){rank * each + (rank < more ? rank : more), each + (rank < more)};
}

static bool changes_size(const struct vae_block *b)
{
    return b->kind == VAE_BLOCK_SHUFFLE || b->kind == VAE_BLOCK_STRIDED;
}

static struct filter *add_filter(struct vae_stream *s, struct conv *conv)
{
    struct filter *f = &s->filters[s->filter_count++];
    f->conv = conv;
    return f;
}

static void make_block(struct vae_stream *s, struct block_state *state, struct vae_block *b)
{
    state->res = xcalloc((size_t)b->count + 1, sizeof *state->res);
    for (int j = 0; j < b->count; j++) {
        state->res[j].first = add_filter(s, &b->res[j].conv1);
        state->res[j].second = add_filter(s, &b->res[j].conv2);
    }
    if (!changes_size(b)) return;
    state->conv = add_filter(s, &b->conv);
    state->conv->resizes = b;
}

void vae_stream_make_filters(struct vae_stream *s, struct vae_coder *coder)
{
    size_t count = 2;
    for (int k = 0; k < coder->block_count; k++)
        count += 2 * (size_t)coder->blocks[k].count + changes_size(&coder->blocks[k]);
    s->coder = coder;
    s->filters = xcalloc(count, sizeof *s->filters);
    add_filter(s, &coder->conv_in);
    for (int k = 0; k < coder->block_count; k++) make_block(s, &s->blocks[k], &coder->blocks[k]);
    add_filter(s, &coder->conv_out);
}

static void choose_norms(struct vae_stream *s)
{
    for (int k = 0; k < s->coder->block_count; k++)
        for (int j = 0; j < s->coder->blocks[k].count; j++) {
            struct filter *second = s->blocks[k].res[j].second;
            second->norms = op_conv_norms(s->v->dev, second->conv);
        }
}

void vae_stream_free_filters(struct vae_stream *s)
{
    for (int k = 0; k < s->coder->block_count; k++) free(s->blocks[k].res);
    free(s->filters);
}

static void make_stages(struct vae_stream *s)
{
    const struct vae_task *t = &s->task;
    const struct vae_coder *c = s->coder;
    int64_t fine = t->encodes ? s->v->space_factor / s->v->patch : 1;
    int ranks = comm_size(t->group), rank = comm_rank(t->group);
    struct vae_part rows = {0, t->h}, columns = {0, t->w};
    *(t->axis == VAE_ROWS ? &rows : &columns) =
        vae_part_of(t->axis == VAE_ROWS ? t->h : t->w, ranks, rank);
    struct stage g = {.h = fine * rows.count,
                      .w = fine * columns.count,
                      .top = fine * rows.first,
                      .left = fine * columns.first,
                      .all_h = fine * t->h,
                      .all_w = fine * t->w,
                      .limit = t->encodes ? s->v->time_factor * t->chunk : t->chunk};
    for (int k = 0; k <= c->block_count; k++) {
        const struct vae_block *b = &c->blocks[k];
        if (k < c->block_count && !changes_size(b)) continue;
        CHECK(s->stage_count < STAGES, "VAE: more than %d resolutions", STAGES);
        g.end = k;
        s->stages[s->stage_count++] = g;
        if (k == c->block_count) break;
        g.first = k + 1;
        int64_t *const extents[] = {&g.h, &g.w, &g.top, &g.left, &g.all_h, &g.all_w};
        for (int i = 0; i < 6; i++)
            *extents[i] = t->encodes ? *extents[i] / b->stride_s : *extents[i] * b->stride_s;
        g.limit = t->encodes ? (g.limit + b->stride_t - 1) / b->stride_t : g.limit * b->stride_t;
    }
}

static void grow(int64_t *n, int64_t candidate) { *n = candidate > *n ? candidate : *n; }

/* The most bytes that a position takes of each region, and by how many frames a clip's end can
 * grow. */
struct needs {
    int64_t input, x, y, growth;
    bool norms; /* in a convolution: its input is in y */
};

static int64_t position_bytes(int64_t channels, enum dtype type)
{
    return channels * (int64_t)dtype_size(type);
}

static void need_conv(struct needs *n, const struct conv *c, enum dtype input, enum dtype output)
{
    grow(&n->input, position_bytes(c->in, input));
    grow(&n->y, position_bytes(c->out, output));
    n->growth++;
}

static struct needs stage_needs(const struct vae_stream *s, int number)
{
    const struct vae_coder *c = s->coder;
    const struct stage *g = &s->stages[number];
    struct needs n = {0};
    int64_t widest = number == 0 ? c->conv_in.out : c->blocks[g->first - 1].out;
    if (number == 0) { /* what is pushed comes by way of x */
        need_conv(&n, &c->conv_in, s->clips, s->clips);
        grow(&n.x, position_bytes(c->conv_in.in, DTYPE_F32));
    }
    for (int k = g->first; k < g->end; k++)
        for (int j = 0; j < c->blocks[k].count; j++) {
            const struct vae_resblock *r = &c->blocks[k].res[j];
            need_conv(&n, &r->conv1, s->clips, s->clips);
            need_conv(&n, &r->conv2, s->clips, s->clips);
            n.norms = n.norms || s->blocks[k].res[j].second->norms;
            grow(&widest, r->in > r->out ? r->in : r->out);
        }
    grow(&n.x, position_bytes(widest, DTYPE_F32));
    if (g->end < c->block_count)
        need_conv(&n, &c->blocks[g->end].conv, s->clips, s->clips);
    else
        need_conv(&n, &c->conv_out, s->clips, DTYPE_F32);
    return n;
}

/* 4 PiB: far beyond any machine, and sums of a few still fit an address. */
static const int64_t MOST_BYTES = (int64_t)1 << 52;

/* a * b * c * d, or false. */
static bool product(int64_t *out, int64_t a, int64_t b, int64_t c, int64_t d)
{
    int64_t n = a;
    if (__builtin_mul_overflow(n, b, &n) || __builtin_mul_overflow(n, c, &n) ||
        __builtin_mul_overflow(n, d, &n) || n > MOST_BYTES)
        return false;
    *out = n;
    return true;
}

static bool size_stages(struct vae_stream *s)
{
    for (int i = 0; i < s->stage_count; i++) {
        struct stage *g = &s->stages[i];
        struct needs n = stage_needs(s, i);
        g->room = s->coder->causal || g->limit > n.growth ? g->limit : n.growth;
        if (!product(&g->input_bytes, KEPT + g->room, g->h + 2, g->w + 2, n.input) ||
            !product(&g->x_bytes, KEPT + g->room, g->h, g->w, n.x) ||
            !product(&g->y_bytes, g->room, g->h, g->w, n.y))
            return false;
        if (n.norms) {
            grow(&g->y_bytes, g->input_bytes);
            g->factors = (KEPT + g->room) * (g->h + 2) * (g->w + 2);
        }
        int64_t line = (s->task.axis == VAE_ROWS ? g->w : g->h) * n.input;
        if (comm_size(s->task.group) > 1)
            grow(&s->halo.floats, g->room * ((line + 3) / (int64_t)sizeof(float)));
    }
    return true;
}

int vae_stream_open(struct vae_stream **out, struct vae *v, const struct vae_task *task)
{
    int64_t extent = task->axis == VAE_ROWS ? task->h : task->w;
    int rank = comm_rank(task->group), ranks = comm_size(task->group);
    CHECK(task->h > 0 && task->w > 0 && task->chunk > 0 && (!task->encodes || v->has_encoder),
          "vae_stream_open: %lldx%lld latents, chunks of %lld", (long long)task->h,
          (long long)task->w, (long long)task->chunk);
    struct vae_stream *s = xcalloc(1, sizeof *s);
    *s = (struct vae_stream){.v = v, .task = *task, .clips = device_activations(v->dev)};
    s->halo.group = task->group;
    s->halo.axis = task->axis;
    s->halo.before = rank < extent ? rank - 1 : -1;
    s->halo.after = rank + 1 < ranks && rank + 1 < extent ? rank + 1 : -1;
    vae_stream_make_filters(s, task->encodes ? &v->encoder : &v->decoder);
    choose_norms(s);
    int64_t pixels;
    bool fits = product(&pixels, task->h, task->w, task->chunk, (int64_t)1 << 16);
    if (fits) make_stages(s);
    if (!fits || !size_stages(s)) {
        vae_stream_close(s);
        return error_set(STATUS_INPUT, "a picture of %lldx%lld latents is too large",
                         (long long)task->w, (long long)task->h);
    }
    *out = s;
    return STATUS_OK;
}

void vae_stream_close(struct vae_stream *s)
{
    if (!s) return;
    vae_stream_free_filters(s);
    free(s);
}

int64_t vae_stream_most_frames(const struct vae_stream *s)
{
    return s->stages[s->stage_count - 1].room;
}

static void *take_positions(struct arena *a, int64_t n, int64_t channels, enum dtype type)
{
    return arena_take(a, (size_t)(n * position_bytes(channels, type)));
}

static void lay_out_filter(struct vae_stream *s, struct arena *a, const struct stage *g,
                           struct filter *f)
{
    bool rows = s->halo.axis == VAE_ROWS;
    int64_t lines = g->h + (rows && s->halo.before >= 0) + (rows && s->halo.after >= 0);
    f->cache = take_positions(a, KEPT * lines * (g->w + 2), f->conv->in, s->clips);
}

static void lay_out_stage(struct vae_stream *s, struct arena *a, struct stage *g)
{
    g->input = arena_take(a, (size_t)g->input_bytes);
    g->x = arena_take(a, (size_t)g->x_bytes);
    g->y = arena_take(a, (size_t)g->y_bytes);
    g->factor = arena_floats(a, g->factors);
    int64_t plane = g->h * g->w;
    for (int k = g->first; k < g->end; k++)
        for (int j = 0; j < s->coder->blocks[k].count; j++) {
            const struct vae_resblock *r = &s->coder->blocks[k].res[j];
            struct res_state *state = &s->blocks[k].res[j];
            lay_out_filter(s, a, g, state->first);
            lay_out_filter(s, a, g, state->second);
            state->skip.frames = take_positions(a, KEPT * plane, r->out, DTYPE_F32);
            if (r->noise_scale1) state->noise[0] = arena_floats(a, plane);
            if (r->noise_scale2) state->noise[1] = arena_floats(a, plane);
        }
    if (g->end == s->coder->block_count) return;
    const struct vae_block *b = &s->coder->blocks[g->end];
    lay_out_filter(s, a, g, s->blocks[g->end].conv);
    s->blocks[g->end].skip.frames = take_positions(a, KEPT * plane, b->in, DTYPE_F32);
}

void vae_stream_lay_out(struct vae_stream *s, struct arena *a)
{
    struct stage *first = &s->stages[0], *last = &s->stages[s->stage_count - 1];
    lay_out_filter(s, a, first, &s->filters[0]);
    for (int i = 0; i < s->stage_count; i++) lay_out_stage(s, a, &s->stages[i]);
    lay_out_filter(s, a, last, &s->filters[s->filter_count - 1]);
    if (!s->task.encodes)
        s->pixels = arena_floats(a, last->room * last->h * last->w * s->coder->conv_out.out);
    for (int i = 0; i < 2; i++) {
        s->halo.out[i] = arena_floats(a, s->halo.floats);
        s->halo.in[i] = arena_floats(a, s->halo.floats);
    }
}

/* ---- a new clip ------------------------------------------------------------------------------ */

/* A map of the whole picture from the generator; this rank keeps its part. */
static void draw_map(struct device *dev, const struct stage *g, float *map, float *room,
                     struct rng *noise)
{
    size_t row = sizeof *map * (size_t)g->w;
    if (!map) return;
    rng_randn(noise, room, (size_t)(g->all_h * g->all_w));
    op_upload_rows(dev, map, row, room + g->top * g->all_w + g->left,
                   sizeof *map * (size_t)g->all_w, row, g->h);
}

static void draw_maps(struct vae_stream *s, struct stage *g, struct rng *noise)
{
    float *room = xmalloc(sizeof *room * (size_t)(g->all_h * g->all_w));
    for (int k = g->first; k < g->end; k++)
        for (int j = 0; j < s->coder->blocks[k].count; j++)
            for (int i = 0; i < 2; i++)
                draw_map(s->v->dev, g, s->blocks[k].res[j].noise[i], room, noise);
    free(room);
}

static void start_delay(struct delay *d, const struct filter *first, const struct filter *last)
{
    d->held = 0;
    d->early = last->makes.first - first->reads.first;
}

/* Everything is before the first frame of what is wanted. */
static void rewind_filters(struct vae_stream *s)
{
    for (int i = 0; i < s->filter_count; i++) {
        s->filters[i].seen = s->filters[i].reads.first;
        s->filters[i].given = s->filters[i].makes.first;
    }
    for (int k = 0; k < s->coder->block_count; k++) {
        struct block_state *b = &s->blocks[k];
        for (int j = 0; j < s->coder->blocks[k].count; j++)
            start_delay(&b->res[j].skip, b->res[j].first, b->res[j].second);
        if (b->conv) start_delay(&b->skip, b->conv, b->conv);
    }
    s->work_done = 0;
}

/* Of this rank. */
static int64_t stream_work(const struct vae_stream *s)
{
    return (int64_t)vae_wanted_work(s, s->stages[0].h, s->stages[0].w);
}

void vae_stream_begin(struct vae_stream *s, int64_t frames, float timestep, struct rng *noise,
                      struct vae_sink sink, const struct vae_progress *progress)
{
    bool encodes = s->task.encodes;
    CHECK(noise || !vae_injects_noise(s->coder),
          "vae_stream_begin: this decoder injects noise and was given no source of it");
    CHECK(frames > 0 || encodes, "vae_stream_begin: %lld latents", (long long)frames);
    s->sink = sink;
    s->progress = progress;
    if (!encodes && s->v->conditioned) vae_modulate(s->v, timestep);
    vae_want_all(s, encodes && frames > 0 ? s->v->time_factor * (frames - 1) + 1 : frames);
    rewind_filters(s);
    s->work_total = frames > 0 ? stream_work(s) : 0;
    for (int i = 0; i < s->stage_count; i++) draw_maps(s, &s->stages[i], noise);
}

struct vae_span vae_stream_narrow(struct vae_stream *s, struct vae_span frames)
{
    vae_want(s, frames);
    rewind_filters(s);
    s->work_total = stream_work(s);
    return s->filters[0].reads;
}
