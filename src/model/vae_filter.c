/* One convolution of a stream: what it keeps of the frames before, and what it needs of the
 * neighbours' lines. A frame's lines are exchanged once, then kept with it. */
#include "model/vae_net.h"

#include "base/error.h"

enum { TAG_HALO_BEFORE = 41, TAG_HALO_AFTER };

/* ---- lines of a picture, to and from the neighbours ------------------------------------------ */

/* Floats that one line of one frame takes, borders not included: the last one may be half used. */
static int64_t line_floats(const struct halo *h, const struct clip *x)
{
    int64_t values = (h->axis == VAE_ROWS ? x->w : x->h) * x->c;
    return (values * (int64_t)dtype_size(x->dtype) + 3) / (int64_t)sizeof(float);
}

/* Line `at` (-1 ... extent) of all frames, to or from `lines`, one behind the other. A column of a
 * picture without neighbours above and below is one row of positions after the other through all
 * frames. */
static void copy_lines(const struct halo *h, struct device *dev, const struct clip *x, int64_t at,
                       float *lines, bool out)
{
    bool rows = h->axis == VAE_ROWS;
    int64_t pieces = rows ? x->t : x->t * x->h;
    size_t size = dtype_size(x->dtype);
    size_t stride = size * (size_t)(rows ? clip_frame(x) : clip_row(x));
    size_t bytes = size * (size_t)(rows ? x->w * x->c : x->c);
    void *p = clip_at(x, 0, rows ? at : 0, rows ? 0 : at);
    if (out)
        op_copy_rows(dev, lines, bytes, p, stride, bytes, pieces);
    else
        op_copy_rows(dev, p, stride, lines, bytes, bytes, pieces);
}

/* A neighbour's row ends where the picture does. */
static void clear_ends(struct device *dev, const struct clip *x, int64_t row)
{
    size_t size = dtype_size(x->dtype);
    size_t stride = size * (size_t)clip_frame(x), bytes = size * (size_t)x->c;
    op_zero_rows(dev, clip_at(x, 0, row, -1), stride, bytes, x->t);
    op_zero_rows(dev, clip_at(x, 0, row, x->w), stride, bytes, x->t);
}

/* Starts sending this rank's outer lines of x and receiving the neighbours'. */
static void halo_start(struct halo *h, struct device *dev, const struct clip *x)
{
    const int neighbour[2] = {h->before, h->after};
    int64_t own[2] = {0, (h->axis == VAE_ROWS ? x->h : x->w) - 1}, line = line_floats(h, x);
    comm_batch_begin(h->group);
    for (int i = 0; i < 2; i++) {
        if (neighbour[i] < 0) continue;
        CHECK(x->t * line <= h->floats, "halo of %lld frames x %lld floats, room for %lld",
              (long long)x->t, (long long)line, (long long)h->floats);
        copy_lines(h, dev, x, own[i], h->out[i], true);
        h->sends[i].device = h->receives[i].device = dev;
        comm_receive_start(h->group, &h->receives[i], h->in[i], x->t, line, neighbour[i],
                           i == 0 ? TAG_HALO_AFTER : TAG_HALO_BEFORE);
        comm_send_start(h->group, &h->sends[i], h->out[i], x->t, line, neighbour[i],
                        i == 0 ? TAG_HALO_BEFORE : TAG_HALO_AFTER);
    }
    comm_batch_end(h->group);
}

static void halo_finish(struct halo *h, struct device *dev, const struct clip *x)
{
    const int neighbour[2] = {h->before, h->after};
    int64_t outside[2] = {-1, h->axis == VAE_ROWS ? x->h : x->w};
    for (int i = 0; i < 2; i++) {
        if (neighbour[i] < 0) continue;
        comm_wait(h->group, &h->receives[i]);
        comm_wait(h->group, &h->sends[i]);
        copy_lines(h, dev, x, outside[i], h->in[i], false);
        if (h->axis == VAE_ROWS) clear_ends(dev, x, outside[i]);
    }
}

/* ---- the convolution ------------------------------------------------------------------------- */

/* With the rows of neighbours. */
static size_t frame_bytes(const struct clip *x)
{
    return (size_t)clip_frame(x) * dtype_size(x->dtype);
}

static int64_t kept_frames(const struct filter *f)
{
    int64_t come = f->seen - f->reads.first;
    return come < KEPT ? come : KEPT;
}

struct clip filter_input(struct vae_stream *s, struct stage *g, struct filter *f, int64_t t)
{
    struct clip x = {.dtype = s->clips, .t = t, .h = g->h, .w = g->w, .c = f->conv->in, .pad = 1};
    x.above = s->halo.axis == VAE_ROWS && s->halo.before >= 0;
    x.below = s->halo.axis == VAE_ROWS && s->halo.after >= 0;
    size_t frame = frame_bytes(&x), kept = (size_t)kept_frames(f);
    int64_t room = f->norms ? g->y_bytes : g->input_bytes;
    CHECK((KEPT + t) * (int64_t)frame <= room, "%s: %lld frames of %zu bytes, room for %lld",
          f->conv->weight->name, (long long)t, frame, (long long)room);
    char *fresh = (char *)(f->norms ? g->y : g->input) + KEPT * frame;
    op_copy(s->v->dev, fresh - kept * frame, f->cache, kept * frame);
    x.p = fresh;
    x.p = clip_at(&x, 0, x.above, -1);
    return x;
}

static void keep(struct device *dev, struct filter *f, const struct clip *window)
{
    int64_t kept = window->t < KEPT ? window->t : KEPT;
    const void *from = clip_at(window, window->t - kept, -window->above, -1);
    op_copy(dev, f->cache, from, (size_t)kept * frame_bytes(window));
}

static void convolve(struct vae_stream *s, struct stage *g, struct filter *f, const struct clip *y,
                     const struct clip *window, int front, const struct clip *add,
                     struct conv_span span)
{
    bool columns = s->halo.axis == VAE_COLUMNS;
    struct conv_norm norm = {.scale = f->rows ? f->rows + window->c : NULL,
                             .shift = f->rows,
                             .left = columns && s->halo.before >= 0,
                             .right = columns && s->halo.after >= 0,
                             .room = g->factor};
    if (y->t == 0 || span.rows == 0 || span.columns == 0) return;
    if (f->norms)
        op_conv3d_normed(s->v->dev, y, window, f->conv, front, add, &span, &norm);
    else
        op_conv3d(s->v->dev, y, window, f->conv, front, add, &span);
}

/* The lines that need no neighbour first, while the others' are under way: pairs of the whole
 * picture's lines stay together, see struct conv_span. */
static void convolve_sharing(struct vae_stream *s, struct stage *g, struct filter *f,
                             const struct clip *y, const struct clip *window,
                             const struct clip *fresh, int front, const struct clip *add,
                             struct conv_span span)
{
    struct halo *h = &s->halo;
    bool rows = h->axis == VAE_ROWS;
    int64_t extent = rows ? y->h : y->w, place = rows ? span.top : span.left;
    int64_t first = h->before >= 0 ? 2 - place % 2 : 0;
    int64_t last = h->after >= 0 ? 2 - (place + extent) % 2 : 0;
    if (first > extent) first = extent;
    int64_t end = extent - last > first ? extent - last : first;
    const int64_t part[3][2] = {{first, end}, {0, first}, {end, extent}};
    if (fresh->t > 0) halo_start(h, s->v->dev, fresh);
    for (int i = 0; i < 3; i++) {
        *(rows ? &span.row : &span.column) = part[i][0];
        *(rows ? &span.rows : &span.columns) = part[i][1] - part[i][0];
        convolve(s, g, f, y, window, front, add, span);
        if (i == 0 && fresh->t > 0) halo_finish(h, s->v->dev, fresh);
    }
}

int64_t filter_gives(const struct vae_stream *s, const struct filter *f, int64_t t, bool last)
{
    int64_t seen = f->seen + t, known = (seen + f->conv->stride_t - 1) / f->conv->stride_t;
    if (!s->coder->causal) known = last || seen == 0 ? seen : seen - 1;
    if (known > f->makes.end) known = f->makes.end;
    return known > f->given ? known - f->given : 0;
}

struct clip filter_run(struct vae_stream *s, struct stage *g, struct filter *f,
                       const struct clip *fresh, bool last, struct clip to, bool accumulate)
{
    const struct conv *c = f->conv;
    int64_t kept = kept_frames(f), before = f->seen - kept; /* the window's first frame */
    struct clip window = clip_frames(fresh, -kept, kept + fresh->t);
    struct clip y = to;
    y.t = filter_gives(s, f, fresh->t, last);
    y.h = g->h / c->stride_s;
    y.w = g->w / c->stride_s;
    y.c = c->out;
    f->seen += fresh->t;
    int64_t front = before + (s->coder->causal ? 2 : 1) - c->stride_t * f->given;
    f->given += y.t;
    if (!s->coder->resident) op_conv_pack(s->v->dev, f->conv);
    struct conv_span span = {
        .rows = y.h, .columns = y.w, .top = g->top / c->stride_s, .left = g->left / c->stride_s};
    convolve_sharing(s, g, f, &y, &window, fresh, (int)front, accumulate ? &y : NULL, span);
    if (!s->coder->resident) op_conv_unpack(s->v->dev, f->conv);
    keep(s->v->dev, f, &window);
    s->work_done += clip_count(&y) * c->in * 27;
    if (s->progress && clip_count(&y) > 0)
        s->progress->report(s->progress->arg, s->work_done, s->work_total);
    return y;
}
