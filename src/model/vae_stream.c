/* Runs a coder on frames as they come. Stage after stage: the blocks of one resolution take a piece
 * of a clip, each gives what is known of its output, and what the last one gives becomes pieces of
 * the next stage. Every convolution of a decoder looks one frame ahead, so pieces shrink at a
 * clip's front, and at its end each adds one frame that nothing follows. */
#include "model/vae.h"

#include "base/error.h"
#include "model/vae_net.h"

/* ---- pieces ---------------------------------------------------------------------------------- */

/* Where a piece begins in the stage's x: behind room for frames that waited. In fp32, for block
 * after block adds to it. */
static struct clip piece_at(const struct stage *g, int64_t t, int64_t channels)
{
    struct clip x = {.p = g->x, .t = KEPT + t, .h = g->h, .w = g->w, .c = channels};
    CHECK((int64_t)clip_bytes(&x) <= g->x_bytes, "VAE stage: %lld frames take %zu bytes of %lld",
          (long long)x.t, clip_bytes(&x), (long long)g->x_bytes);
    return clip_frames(&x, KEPT, t);
}

/* Where what a convolution makes goes first, for filter_run. */
static struct clip made_at(const struct vae_stream *s, const struct stage *g)
{
    return (struct clip){.p = g->y, .dtype = s->clips};
}

/* x with the frames that waited before it, without those that come too early for that. */
static struct clip delay_join(const struct vae_stream *s, struct delay *d, const struct clip *x)
{
    int64_t early = d->early < x->t ? d->early : x->t, before = d->held - early;
    CHECK(early == 0 || d->held == 0, "VAE stage: %lld frames wait, %lld come too early",
          (long long)d->held, (long long)early);
    struct clip window = clip_frames(x, -before, x->t + before);
    struct clip waited = clip_frames(&window, 0, d->held);
    d->early -= early;
    op_copy(s->v->dev, waited.p, d->frames, clip_bytes(&waited));
    return window;
}

/* The first `given` frames of the window are done with; the others wait. */
static void delay_keep(const struct vae_stream *s, struct delay *d, const struct clip *window,
                       int64_t given)
{
    struct clip rest = clip_frames(window, given, window->t - given);
    CHECK(rest.t >= 0 && rest.t <= KEPT, "VAE stage: %lld frames wait", (long long)rest.t);
    d->held = rest.t;
    op_copy(s->v->dev, d->frames, rest.p, clip_bytes(&rest));
}

/* Moves a clip `step` frames on, so few that both places overlap: the last frames first. */
static struct clip move_on(const struct vae_stream *s, const struct clip *x, int64_t step)
{
    for (int64_t end = x->t; step > 0 && end > 0; end -= step) {
        int64_t first = end > step ? end - step : 0;
        struct clip part = clip_frames(x, first, end - first);
        op_copy(s->v->dev, clip_at(&part, step, 0, 0), part.p, clip_bytes(&part));
    }
    return clip_frames(x, step, x->t);
}

static void activate(struct vae_stream *s, const struct clip *y, const struct clip *x,
                     const float *rows)
{
    if (clip_count(x) > 0) op_pixel_norm_silu(s->v->dev, y, x, rows ? rows + x->c : NULL, rows);
}

static void copy_bordered(const struct vae_stream *s, const struct clip *y, const struct clip *x)
{
    if (clip_count(x) > 0) op_copy_pad(s->v->dev, y, x);
}

/* ---- resblocks (spec vae 1.5) ---------------------------------------------------------------- */

/* y = x with noise (+ y) */
static void add_noise(struct vae_stream *s, const struct clip *y, const struct clip *x,
                      const float *map, const float *scale, bool accumulate)
{
    if (map && clip_count(y) > 0)
        op_add_noise_map(s->v->dev, y, x, map, scale, accumulate ? y : NULL);
}

/* x of `in` channels -> its shortcut of `out`: nothing but channels is mixed. */
static struct clip shortcut(struct vae_stream *s, struct stage *g, struct vae_resblock *r,
                            const struct clip *x)
{
    struct clip normed = *x, out = piece_at(g, x->t, r->out);
    normed.p = g->input;
    normed.dtype = s->clips;
    if (clip_count(x) == 0) return out;
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
    if (!state->noise[1]) return filter_run(s, g, state->second, fresh, last, *window, true);
    struct clip y = made_at(s, g);
    if (state->second->norms) y.p = g->input; /* in y is what it reads */
    y = filter_run(s, g, state->second, fresh, last, y, false);
    struct clip out = clip_frames(window, 0, y.t);
    add_noise(s, &out, &y, state->noise[1], r->noise_scale2, true);
    return out;
}

static struct clip resblock(struct vae_stream *s, struct stage *g, struct vae_resblock *r,
                            struct res_state *state, struct clip x, bool last)
{
    const float *rows = r->modulation; /* [4][in], in == out where conditioned */
    struct filter *first = state->first, *second = state->second;
    int64_t made = filter_gives(s, first, x.t, last);
    struct clip fresh = filter_input(s, g, first, x.t);
    activate(s, &fresh, &x, rows);
    struct clip y = second->norms ? filter_input(s, g, second, made) : made_at(s, g);
    y = filter_run(s, g, first, &fresh, last, y, false);
    add_noise(s, &y, &y, state->noise[0], r->noise_scale1, false);

    if (r->in != r->out) x = shortcut(s, g, r, &x);
    int64_t waited = state->skip.held;
    struct clip window = delay_join(s, &state->skip, &x);
    second->rows = rows ? rows + 2 * r->in : NULL;
    fresh = second->norms ? y : filter_input(s, g, second, made);
    if (!second->norms) activate(s, &fresh, &y, second->rows);
    struct clip out = add_second(s, g, r, state, &fresh, last, &window);
    delay_keep(s, &state->skip, &window, out.t);
    return move_on(s, &out, waited);
}

/* ---- from stage to stage --------------------------------------------------------------------- */

static void push_stage(struct vae_stream *s, int number, struct clip x, bool last);

/* Of frames that begin with number `first`, those of a span. */
static struct clip cut(const struct clip *x, int64_t first, struct vae_span span)
{
    int64_t begin = span.first > first ? span.first - first : 0;
    int64_t end = span.end - first < x->t ? span.end - first : x->t;
    return clip_frames(x, begin, end > begin ? end - begin : 0);
}

/* x [t,h,w,C] -> [2t,2h,2w,C/m], at a clip's front one frame less: spec vae 1.7. */
static void upsample(struct vae_stream *s, int number, const struct clip *x, bool last)
{
    struct stage *g = &s->stages[number];
    struct vae_block *b = &s->coder->blocks[g->end];
    struct block_state *state = &s->blocks[g->end];
    int64_t given = state->conv->given;
    struct clip fresh = filter_input(s, g, state->conv, x->t);
    copy_bordered(s, &fresh, x);
    struct clip y = filter_run(s, g, state->conv, &fresh, last, made_at(s, g), false);
    struct clip window = delay_join(s, &state->skip, x);
    bool whole = last && given == state->conv->makes.first && y.t <= g->limit;
    for (int64_t i = 0; i < y.t; i += g->limit) {
        int64_t n = y.t - i < g->limit ? y.t - i : g->limit;
        bool first = given + i == 0;
        struct clip from = clip_frames(&y, i, n), skip = clip_frames(&window, i, n);
        struct clip out = piece_at(&s->stages[number + 1],
                                   b->stride_t * n - (first ? b->stride_t - 1 : 0), b->out);
        if (clip_count(&out) > 0)
            op_depth_to_space(s->v->dev, &out, &from, b->residual ? &skip : NULL, b->stride_t,
                              b->stride_s, first);
        out = cut(&out, first ? 0 : b->stride_t * (given + i - 1) + 1, (state->conv + 1)->reads);
        push_stage(s, number + 1, out, whole);
    }
    delay_keep(s, &state->skip, &window, y.t);
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
    struct filter *conv = s->blocks[g->end].conv;
    bool first = conv->given == 0;
    int64_t frames = (x->t + (first ? b->stride_t - 1 : 0)) / b->stride_t;
    struct clip fresh = filter_input(s, g, conv, x->t);
    struct clip out = piece_at(&s->stages[number + 1], frames, b->out);
    copy_bordered(s, &fresh, x);
    if (b->kind == VAE_BLOCK_STRIDED) {
        filter_run(s, g, conv, &fresh, last, out, false);
    } else {
        struct clip y = filter_run(s, g, conv, &fresh, last, made_at(s, g), false);
        if (clip_count(&out) > 0)
            op_space_to_depth(s->v->dev, &out, &y, b->residual ? x : NULL, b->stride_t, b->stride_s,
                              first);
    }
    push_stage(s, number + 1, out, last);
}

/* The last convolution; what it makes leaves the stream, in fp32: pixels in bf16 would be wrong by
 * up to a quarter of a step of 8 bits. */
static void finish(struct vae_stream *s, struct stage *g, const struct clip *x, bool last)
{
    const struct vae *v = s->v;
    struct filter *conv_out = &s->filters[s->filter_count - 1];
    struct clip fresh = filter_input(s, g, conv_out, x->t);
    activate(s, &fresh, x, s->task.encodes ? NULL : v->last_modulation);
    struct clip y = {.p = g->y, .dtype = DTYPE_F32};
    y = filter_run(s, g, conv_out, &fresh, last, y, false);
    if (y.t == 0) return;
    if (!s->task.encodes && clip_count(&y) > 0) op_unpatchify(v->dev, s->pixels, &y, v->patch);
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

/* This rank's part of frames [t][scale * all_h][scale * all_w][c], in the stage's x. */
static float *take_part(const struct vae_stream *s, const float *from, int64_t t, int64_t scale,
                        int64_t c)
{
    const struct stage *g = &s->stages[0];
    int64_t rows = scale * g->h, line = scale * g->w * c, row = scale * g->all_w * c;
    float *part = g->x;
    from += scale * g->top * row + scale * g->left * c;
    for (int64_t i = 0; i < t; i++)
        op_upload_rows(s->v->dev, part + i * rows * line, sizeof *part * (size_t)line,
                       from + i * scale * g->all_h * row, sizeof *part * (size_t)row,
                       sizeof *part * (size_t)line, rows);
    return part;
}

/* Pixels as patches. */
static void take_pixels(const struct vae_stream *s, const struct clip *y, const float *from)
{
    float *part = take_part(s, from, y->t, s->v->patch, 3);
    if (y->h > 0 && y->w > 0) op_patchify(s->v->dev, y, part, s->v->patch);
}

/* Latents, between border columns. */
static void take_latents(const struct vae_stream *s, const struct clip *y, const float *from)
{
    struct clip part = {.t = y->t, .h = y->h, .w = y->w, .c = y->c};
    part.p = take_part(s, from, y->t, 1, y->c);
    copy_bordered(s, y, &part);
}

static void push_first(struct vae_stream *s, const float *frames, int64_t n, bool last)
{
    struct stage *g = &s->stages[0];
    struct clip fresh = filter_input(s, g, &s->filters[0], n);
    if (n > 0) (s->task.encodes ? take_pixels : take_latents)(s, &fresh, frames);
    struct clip x = piece_at(g, 0, s->coder->conv_in.out);
    x = filter_run(s, g, &s->filters[0], &fresh, last, x, false);
    push_stage(s, 0, x, last);
}

void vae_stream_push(struct vae_stream *s, const float *frames, int64_t n, bool last)
{
    bool whole = last && s->filters[0].seen == s->filters[0].reads.first;
    CHECK(n > 0 && n <= s->stages[0].limit, "vae_stream_push: %lld frames, at most %lld",
          (long long)n, (long long)s->stages[0].limit);
    push_first(s, frames, n, whole);
    if (last && !whole && !s->coder->causal) push_first(s, NULL, 0, true);
}
