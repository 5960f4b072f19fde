/* Runs a coder on frames as they come. Stage after stage: the blocks of one resolution take a piece
 * of a clip, each gives what is known of its output, and what the last one gives becomes pieces of
 * the next stage. Every convolution of a decoder looks one frame ahead, so pieces shrink at a
 * clip's front, and at its end each adds one frame that nothing follows. */
#include "model/vae.h"

#include "base/error.h"
#include "model/vae_net.h"

#include <stdlib.h>
#include <string.h>

/* ---- pieces ---------------------------------------------------------------------------------- */

/* Where a piece begins in the stage's x: behind room for frames that waited. */
static struct clip piece_at(const struct stage *g, int64_t t, int64_t channels)
{
    struct clip x = {.t = t, .h = g->h, .w = g->w, .c = channels};
    CHECK((KEPT + t) * clip_frame(&x) <= g->x_floats, "VAE stage: %lld frames of %lld floats",
          (long long)t, (long long)clip_frame(&x));
    x.p = g->x + KEPT * clip_frame(&x);
    return x;
}

static struct clip frames_of(const struct clip *x, int64_t first, int64_t count)
{
    struct clip part = *x;
    part.p += first * clip_frame(x);
    part.t = count;
    return part;
}

/* x with the frames that waited before it. */
static struct clip delay_join(const struct delay *d, const struct clip *x)
{
    struct clip window = frames_of(x, -d->held, x->t + d->held);
    memcpy(window.p, d->frames, sizeof(float) * (size_t)(d->held * clip_frame(x)));
    return window;
}

/* The first `given` frames of the window are done with; the others wait. */
static void delay_keep(struct delay *d, const struct clip *window, int64_t given)
{
    struct clip rest = frames_of(window, given, window->t - given);
    CHECK(rest.t >= 0 && rest.t <= KEPT, "VAE stage: %lld frames wait", (long long)rest.t);
    d->held = rest.t;
    memcpy(d->frames, rest.p, sizeof(float) * (size_t)clip_count(&rest));
}

static void activate(struct vae_stream *s, const struct clip *y, const struct clip *x,
                     const float *rows)
{
    if (x->t > 0) op_pixel_norm_silu(s->v->dev, y, x, rows ? rows + x->c : NULL, rows);
}

static void copy_bordered(struct vae_stream *s, const struct clip *y, const struct clip *x)
{
    if (x->t > 0) op_copy_pad(s->v->dev, y, x);
}

/* ---- resblocks (spec vae 1.5) ---------------------------------------------------------------- */

static void add_noise(struct vae_stream *s, const struct clip *y, const float *map,
                      const float *scale)
{
    if (map && y->t > 0) op_add_noise_map(s->v->dev, y, map, scale);
}

/* x of `in` channels -> its shortcut of `out`: nothing but channels is mixed. */
static struct clip shortcut(struct vae_stream *s, struct stage *g, struct vae_resblock *r,
                            const struct clip *x)
{
    struct clip normed = *x, out = piece_at(g, x->t, r->out);
    normed.p = g->input;
    if (x->t == 0) return out;
    op_channel_layer_norm(s->v->dev, &normed, x, 1e-6f, r->norm3_weight, r->norm3_bias);
    if (!s->coder->resident) op_conv_pack(s->v->dev, &r->shortcut);
    op_conv3d(s->v->dev, &out, &normed, &r->shortcut, 0, NULL, NULL);
    if (!s->coder->resident) op_conv_unpack(s->v->dev, &r->shortcut);
    return out;
}

/* The second convolution is added to what waited for it, in its place. */
static struct clip add_second(struct vae_stream *s, struct stage *g, struct vae_resblock *r,
                              struct res_state *state, const struct clip *fresh, bool last,
                              const struct clip *window)
{
    if (!state->noise[1]) return filter_run(s, g, &state->second, fresh, last, window->p, true);
    struct clip y = filter_run(s, g, &state->second, fresh, last, g->y, false);
    struct clip out = frames_of(window, 0, y.t);
    add_noise(s, &y, state->noise[1], r->noise_scale2);
    op_lincomb(s->v->dev, out.p, 1.0f, out.p, 1.0f, y.p, clip_count(&y));
    return out;
}

static struct clip resblock(struct vae_stream *s, struct stage *g, struct vae_resblock *r,
                            struct res_state *state, struct clip x, bool last)
{
    const float *rows = r->modulation; /* [4][in], in == out where conditioned */
    struct clip fresh = filter_input(s, g, &state->first, x.t);
    activate(s, &fresh, &x, rows);
    struct clip y = filter_run(s, g, &state->first, &fresh, last, g->y, false);
    add_noise(s, &y, state->noise[0], r->noise_scale1);

    if (r->in != r->out) x = shortcut(s, g, r, &x);
    struct clip window = delay_join(&state->skip, &x);
    fresh = filter_input(s, g, &state->second, y.t);
    activate(s, &fresh, &y, rows ? rows + 2 * r->in : NULL);
    struct clip out = add_second(s, g, r, state, &fresh, last, &window);
    delay_keep(&state->skip, &window, out.t);
    struct clip piece = piece_at(g, out.t, r->out);
    memmove(piece.p, out.p, sizeof(float) * (size_t)clip_count(&out));
    return piece;
}

/* ---- from stage to stage --------------------------------------------------------------------- */

static void push_stage(struct vae_stream *s, int number, struct clip x, bool last);

/* x [t,h,w,C] -> [2t,2h,2w,C/m], at a clip's front one frame less: spec vae 1.7. */
static void upsample(struct vae_stream *s, int number, const struct clip *x, bool last)
{
    struct stage *g = &s->stages[number];
    struct vae_block *b = &s->coder->blocks[g->end];
    struct block_state *state = &s->blocks[g->end];
    int64_t given = state->conv.given;
    struct clip fresh = filter_input(s, g, &state->conv, x->t);
    copy_bordered(s, &fresh, x);
    struct clip y = filter_run(s, g, &state->conv, &fresh, last, g->y, false);
    struct clip window = delay_join(&state->skip, x);
    bool whole = last && given == 0 && y.t <= g->limit;
    for (int64_t i = 0; i < y.t; i += g->limit) {
        int64_t n = y.t - i < g->limit ? y.t - i : g->limit;
        bool first = given + i == 0;
        struct clip from = frames_of(&y, i, n), skip = frames_of(&window, i, n);
        struct clip out = piece_at(&s->stages[number + 1],
                                   b->stride_t * n - (first ? b->stride_t - 1 : 0), b->out);
        op_depth_to_space(s->v->dev, &out, &from, b->residual ? &skip : NULL, b->stride_t,
                          b->stride_s, first);
        push_stage(s, number + 1, out, whole);
    }
    delay_keep(&state->skip, &window, y.t);
    if (last && !whole)
        push_stage(s, number + 1, piece_at(&s->stages[number + 1], 0, b->out), last);
}

/* x [t,h,w,C] -> [t/2,h/2,w/2,mC], or without the halves of a stride 1; at a clip's front (t+1)/2
 * frames: spec vae 1.6. There the convolution reads a clip whose frame 0 was doubled before. Being
 * causal, it would give the same frame twice at its front, so it reads x, and its output is doubled
 * with the residual. */
static void downsample(struct vae_stream *s, int number, const struct clip *x, bool last)
{
    struct stage *g = &s->stages[number];
    struct vae_block *b = &s->coder->blocks[g->end];
    struct filter *conv = &s->blocks[g->end].conv;
    bool first = conv->given == 0;
    int64_t frames = (x->t + (first ? b->stride_t - 1 : 0)) / b->stride_t;
    struct clip fresh = filter_input(s, g, conv, x->t);
    struct clip out = piece_at(&s->stages[number + 1], frames, b->out);
    copy_bordered(s, &fresh, x);
    if (b->kind == VAE_BLOCK_STRIDED) {
        filter_run(s, g, conv, &fresh, last, out.p, false);
    } else {
        struct clip y = filter_run(s, g, conv, &fresh, last, g->y, false);
        op_space_to_depth(s->v->dev, &out, &y, b->residual ? x : NULL, b->stride_t, b->stride_s,
                          first);
    }
    push_stage(s, number + 1, out, last);
}

/* The last convolution; what it makes leaves the stream. */
static void finish(struct vae_stream *s, struct stage *g, const struct clip *x, bool last)
{
    const struct vae *v = s->v;
    struct clip fresh = filter_input(s, g, &s->conv_out, x->t);
    activate(s, &fresh, x, s->task.encodes ? NULL : v->last_modulation);
    struct clip y = filter_run(s, g, &s->conv_out, &fresh, last, g->y, false);
    if (y.t == 0) return;
    if (!s->task.encodes) op_unpatchify(v->dev, s->pixels, &y, v->patch);
    s->sink.take(s->sink.argument, s->task.encodes ? y.p : s->pixels, y.t);
}

static void push_stage(struct vae_stream *s, int number, struct clip x, bool last)
{
    struct stage *g = &s->stages[number];
    if (x.t == 0 && (!last || s->coder->causal)) return; /* nothing new */
    for (int k = g->first; k < g->end; k++)
        for (int j = 0; j < s->coder->blocks[k].count; j++)
            x = resblock(s, g, &s->coder->blocks[k].res[j], &s->blocks[k].res[j], x, last);
    if (number + 1 == s->stage_count)
        finish(s, g, &x, last);
    else
        (s->task.encodes ? downsample : upsample)(s, number, &x, last);
}

/* This rank's part of n frames of the whole picture [n][scale * h][scale * w][channels]. */
static void take_part(const struct vae_stream *s, const struct clip *y, const float *from)
{
    const struct stage *g = &s->stages[0];
    int scale = s->task.encodes ? s->v->patch : 1;
    int64_t channels = s->task.encodes ? 3 : y->c, row = g->all_w * scale * channels;
    if (s->task.encodes) {
        float *part = g->x; /* [n][scale * h][scale * w][3] */
        for (int64_t i = 0; i < y->t * g->h * scale; i++) {
            int64_t t = i / (g->h * scale), line = g->top * scale + i % (g->h * scale);
            memcpy(part + i * g->w * scale * 3,
                   from + (t * g->all_h * scale + line) * row + g->left * scale * 3,
                   sizeof(float) * (size_t)(g->w * scale * 3));
        }
        op_patchify(s->v->dev, y, part, scale);
        return;
    }
    for (int64_t i = 0; i < y->t * g->h; i++) {
        float *to = y->p + i / g->h * clip_frame(y) + i % g->h * clip_row(y);
        memset(to, 0, sizeof(float) * (size_t)clip_row(y));
        memcpy(to + channels,
               from + (i / g->h * g->all_h + g->top + i % g->h) * row + g->left * channels,
               sizeof(float) * (size_t)(g->w * channels));
    }
}

static void push_first(struct vae_stream *s, const float *frames, int64_t n, bool last)
{
    struct stage *g = &s->stages[0];
    struct clip fresh = filter_input(s, g, &s->conv_in, n);
    if (n > 0) take_part(s, &fresh, frames);
    struct clip x = piece_at(g, 0, s->coder->conv_in.out);
    x.t = filter_run(s, g, &s->conv_in, &fresh, last, x.p, false).t;
    push_stage(s, 0, x, last);
}

void vae_stream_push(struct vae_stream *s, const float *frames, int64_t n, bool last)
{
    bool whole = last && s->conv_in.seen == 0;
    if (s->stages[0].h == 0 || s->stages[0].w == 0) return;
    CHECK(n > 0 && n <= s->stages[0].limit, "vae_stream_push: %lld frames, at most %lld",
          (long long)n, (long long)s->stages[0].limit);
    push_first(s, frames, n, whole);
    if (last && !whole && !s->coder->causal) push_first(s, NULL, 0, true);
}

/* ---- opening: stages and their memory -------------------------------------------------------- */

struct vae_part vae_part_of(int64_t extent, int ranks, int rank)
{
    int64_t each = extent / ranks, more = extent % ranks;
    return (struct vae_part){rank * each + (rank < more ? rank : more), each + (rank < more)};
}

static void filter_make(struct filter *f, struct conv *conv) { *f = (struct filter){.conv = conv}; }

static void make_states(struct vae_stream *s)
{
    struct vae_coder *c = s->coder;
    filter_make(&s->conv_in, &c->conv_in);
    filter_make(&s->conv_out, &c->conv_out);
    for (int k = 0; k < c->block_count; k++) {
        struct vae_block *b = &c->blocks[k];
        filter_make(&s->blocks[k].conv, &b->conv);
        s->blocks[k].res = xcalloc((size_t)b->count + 1, sizeof *s->blocks[k].res);
        for (int j = 0; j < b->count; j++) {
            filter_make(&s->blocks[k].res[j].first, &b->res[j].conv1);
            filter_make(&s->blocks[k].res[j].second, &b->res[j].conv2);
        }
    }
}

static bool changes_size(const struct vae_block *b)
{
    return b->kind == VAE_BLOCK_SHUFFLE || b->kind == VAE_BLOCK_STRIDED;
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

/* Channels of the widest of each region, and by how many frames a clip's end can grow. */
struct needs {
    int64_t input, x, y, growth;
};

static void need_conv(struct needs *n, const struct conv *c)
{
    grow(&n->input, c->in);
    grow(&n->y, c->out);
    n->growth++;
}

static struct needs stage_needs(const struct vae_stream *s, int number)
{
    const struct vae_coder *c = s->coder;
    const struct stage *g = &s->stages[number];
    struct needs n = {0};
    if (number == 0) need_conv(&n, &c->conv_in);
    grow(&n.x, number == 0 ? c->conv_in.out : c->blocks[g->first - 1].out);
    if (number == 0 && s->task.encodes) grow(&n.x, 3 * s->v->patch * s->v->patch);
    for (int k = g->first; k < g->end; k++)
        for (int j = 0; j < c->blocks[k].count; j++) {
            const struct vae_resblock *r = &c->blocks[k].res[j];
            need_conv(&n, &r->conv1);
            need_conv(&n, &r->conv2);
            grow(&n.x, r->in > r->out ? r->in : r->out);
        }
    need_conv(&n, g->end < c->block_count ? &c->blocks[g->end].conv : &c->conv_out);
    return n;
}

/* 4 PiB: far beyond any machine, and sums of a few still fit an address. */
static const int64_t MOST_FLOATS = (int64_t)1 << 50;

/* a * b * c * d, or false. */
static bool product(int64_t *out, int64_t a, int64_t b, int64_t c, int64_t d)
{
    int64_t n = a;
    if (__builtin_mul_overflow(n, b, &n) || __builtin_mul_overflow(n, c, &n) ||
        __builtin_mul_overflow(n, d, &n) || n > MOST_FLOATS)
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
        if (!product(&g->input_floats, KEPT + g->room, g->h + 2, g->w + 2, n.input) ||
            !product(&g->x_floats, KEPT + g->room, g->h, g->w, n.x) ||
            !product(&g->y_floats, g->room, g->h, g->w, n.y))
            return false;
        int64_t line = s->task.axis == VAE_ROWS ? g->w : g->h;
        if (comm_size(s->task.group) > 1) grow(&s->halo.floats, g->room * line * n.input);
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
    *s = (struct vae_stream){
        .v = v, .coder = task->encodes ? &v->encoder : &v->decoder, .task = *task};
    s->halo.group = task->group;
    s->halo.axis = task->axis;
    s->halo.before = rank - 1;
    s->halo.after = rank + 1 < ranks && rank + 1 < extent ? rank + 1 : -1;
    make_states(s);
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
    for (int k = 0; k < s->coder->block_count; k++) free(s->blocks[k].res);
    free(s);
}

int64_t vae_stream_most_frames(const struct vae_stream *s)
{
    return s->stages[s->stage_count - 1].room;
}

static void lay_out_filter(struct vae_stream *s, struct arena *a, const struct stage *g,
                           struct filter *f)
{
    bool rows = s->halo.axis == VAE_ROWS;
    int64_t lines = g->h + (rows && s->halo.before >= 0) + (rows && s->halo.after >= 0);
    f->cache = arena_floats(a, KEPT * lines * (g->w + 2) * f->conv->in);
}

static void lay_out_stage(struct vae_stream *s, struct arena *a, struct stage *g)
{
    g->input = arena_floats(a, g->input_floats);
    g->x = arena_floats(a, g->x_floats);
    g->y = arena_floats(a, g->y_floats);
    int64_t plane = g->h * g->w;
    for (int k = g->first; k < g->end; k++)
        for (int j = 0; j < s->coder->blocks[k].count; j++) {
            const struct vae_resblock *r = &s->coder->blocks[k].res[j];
            struct res_state *state = &s->blocks[k].res[j];
            lay_out_filter(s, a, g, &state->first);
            lay_out_filter(s, a, g, &state->second);
            state->skip.frames = arena_floats(a, KEPT * plane * r->out);
            if (r->noise_scale1) state->noise[0] = arena_floats(a, plane);
            if (r->noise_scale2) state->noise[1] = arena_floats(a, plane);
        }
    if (g->end == s->coder->block_count) return;
    const struct vae_block *b = &s->coder->blocks[g->end];
    lay_out_filter(s, a, g, &s->blocks[g->end].conv);
    s->blocks[g->end].skip.frames = arena_floats(a, KEPT * plane * b->in);
}

void vae_stream_lay_out(struct vae_stream *s, struct arena *a)
{
    struct stage *first = &s->stages[0], *last = &s->stages[s->stage_count - 1];
    lay_out_filter(s, a, first, &s->conv_in);
    for (int i = 0; i < s->stage_count; i++) lay_out_stage(s, a, &s->stages[i]);
    lay_out_filter(s, a, last, &s->conv_out);
    if (!s->task.encodes)
        s->pixels = arena_floats(a, last->room * last->h * last->w * s->coder->conv_out.out);
    for (int i = 0; i < 2; i++) {
        s->halo.out[i] = arena_floats(a, s->halo.floats);
        s->halo.in[i] = arena_floats(a, s->halo.floats);
    }
}

/* ---- a new clip ------------------------------------------------------------------------------ */

/* A map of the whole picture from the generator; this rank keeps its part. */
static void draw_map(const struct stage *g, float *map, float *room, struct rng *noise)
{
    if (!map) return;
    rng_randn(noise, room, (size_t)(g->all_h * g->all_w));
    for (int64_t y = 0; y < g->h; y++)
        memcpy(map + y * g->w, room + (g->top + y) * g->all_w + g->left,
               sizeof(float) * (size_t)g->w);
}

static void start_filter(struct filter *f) { f->seen = f->given = 0; }

static void start_stage(struct vae_stream *s, struct stage *g, struct rng *noise)
{
    float *room = xmalloc(sizeof *room * (size_t)(g->all_h * g->all_w));
    for (int k = g->first; k < g->end; k++)
        for (int j = 0; j < s->coder->blocks[k].count; j++) {
            struct res_state *state = &s->blocks[k].res[j];
            start_filter(&state->first);
            start_filter(&state->second);
            state->skip.held = 0;
            for (int i = 0; i < 2; i++) draw_map(g, state->noise[i], room, noise);
        }
    if (g->end < s->coder->block_count) {
        start_filter(&s->blocks[g->end].conv);
        s->blocks[g->end].skip.held = 0;
    }
    free(room);
}

/* Multiply-adds of this rank for a clip of `frames` latents. */
static int64_t count_work(const struct vae_stream *s, int64_t frames)
{
    const struct vae_coder *c = s->coder;
    int64_t t = s->task.encodes ? s->v->time_factor * (frames - 1) + 1 : frames, work = 0;
    for (int i = 0; i < s->stage_count; i++) {
        const struct stage *g = &s->stages[i];
        int64_t positions = t * g->h * g->w * 27;
        if (i == 0) work += positions * c->conv_in.in * c->conv_in.out;
        for (int k = g->first; k < g->end; k++)
            for (int j = 0; j < c->blocks[k].count; j++)
                work += positions * (c->blocks[k].res[j].in + c->blocks[k].res[j].out) *
                        c->blocks[k].res[j].out;
        if (g->end == c->block_count) return work + positions * c->conv_out.in * c->conv_out.out;
        const struct vae_block *b = &c->blocks[g->end];
        int64_t st = b->conv.stride_t, ss = b->conv.stride_s;
        work += ((t - 1) / st + 1) * (g->h / ss) * (g->w / ss) * 27 * b->conv.in * b->conv.out;
        t = s->task.encodes ? (t - 1) / b->stride_t + 1 : b->stride_t * (t - 1) + 1;
    }
    return work;
}

void vae_stream_begin(struct vae_stream *s, int64_t frames, float timestep, struct rng *noise,
                      struct vae_sink sink, const struct vae_progress *progress)
{
    CHECK(noise || !vae_injects_noise(s->coder),
          "vae_stream_begin: this decoder injects noise and was given no source of it");
    s->sink = sink;
    s->progress = progress;
    s->work_done = 0;
    s->work_total = frames > 0 ? count_work(s, frames) : 0;
    if (!s->task.encodes && s->v->conditioned) vae_modulate(s->v, timestep);
    start_filter(&s->conv_in);
    start_filter(&s->conv_out);
    for (int i = 0; i < s->stage_count; i++) start_stage(s, &s->stages[i], noise);
}
