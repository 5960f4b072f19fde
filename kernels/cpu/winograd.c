/* 3x3x3 convolutions by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016): a tile of
 * 2x2 outputs of a frame takes 16 multiplications a weight of time, not 36. The tile's 4x4 inputs
 * are spread into 16 values, so are the 3x3 weights of a kt; like values are multiplied and summed
 * over kt and inputs; the 16 sums are gathered into the outputs.
 *
 * Tiles begin at even rows and columns of the whole picture. An output is gathered from those
 * values alone that are made of its own 3x3 inputs: who owns a part of a tile computes its outputs
 * from the lines that it has, and gets the bits that the owner of the whole tile would get.
 *
 * A task is a group of positions (tiles, frames) times a share of the panels of 16 outputs. It goes
 * through the inputs once, block by block: spreads those of its positions, then for one panel after
 * the other spreads weights and multiplies. Spread weights are not kept, they would take 16 / 9 of
 * the memory; spreading them costs as much as a few positions more. */
#include "kernels/cpu/conv.h"

#include <omp.h>

enum {
    VALUES = 16, /* of a spread tile */
    CENTER = 5,  /* the one whose sum goes into all four outputs: it begins with the bias */
    POSITIONS =
        144,    /* most of a task: their spread inputs (at most 0.8 MiB a block) and sums (144 KiB
                        a panel) stay in the nearer caches */
    FRAMES = 8, /* most of a task: an input is spread for up to three of them */
    SHARE = 8,  /* most panels of a task */
    WEIGHTS_KT = CONV_BLOCK * PANEL,
    WEIGHTS_VALUE = 3 * WEIGHTS_KT, /* floats of spread weights */
};

bool winograd_serves(const struct conv *c)
{
    return c->kernel == 3 && c->stride_t == 1 && c->stride_s == 1 && c->in >= CONV_BLOCK &&
           c->in % PANEL == 0 && c->out % PANEL == 0;
}

/* The tiles that touch the span, and how the work is cut. */
struct plan {
    int64_t tile_row, tile_column, columns,
        tiles; /* the first; of a row of tiles; all of a frame */
    int64_t groups, frame_groups, shares;
    int64_t group_tiles, group_frames, share; /* at most */
};

/* What a thread has of its own: spread inputs [frame][16][tile][CONV_BLOCK] and weights [panel][16]
 * [kt][CONV_BLOCK][16] of a block, for one multiplication; sums of all,
 * [share][16][frame][tile][16]. */
struct room {
    float *input, *weights, *sums;
};

struct task {
    const struct conv_job *j;
    const struct plan *plan;
    struct room room;
    int64_t tile, tiles, frame, frames, panel, panels;
    int64_t input, inputs; /* the block's */
};

/* The frame of x that an output frame reads with kt. */
static int64_t frame_of(const struct task *k, int64_t frame, int64_t kt)
{
    int64_t t = frame + kt - k->j->front, last = k->j->x->t - 1;
    return t < 0 ? 0 : t > last ? last : t;
}

/* Where a tile begins in y: at row and column -1 at least, the latter may be another rank's. */
struct corner {
    int64_t row, column;
};
static struct corner corner_of(const struct task *k, int64_t tile)
{
    const struct plan *p = k->plan;
    const struct conv_span *s = &k->j->span;
    return (struct corner){2 * (p->tile_row + tile / p->columns) - s->top % 2,
                           2 * (p->tile_column + tile % p->columns) - s->left % 2};
}

/* ---- spreading ------------------------------------------------------------------------------- */

/* The block's inputs of all frames that the task reads. */
static void spread_input(const struct task *k)
{
    static const float zeros[CONV_BLOCK]; /* beyond the picture, or not this rank's */
    const struct clip *x = k->j->x;
    int64_t first = frame_of(k, k->frame, 0), last = frame_of(k, k->frame + k->frames - 1, 2);
    int64_t value = k->tiles * CONV_BLOCK;
    for (int64_t tile = 0; tile < k->tiles; tile++) {
        struct corner at = corner_of(k, k->tile + tile);
        const float *from[VALUES];
        int64_t step[VALUES]; /* to the next frame */
        for (int i = 0; i < VALUES; i++) {
            int64_t row = at.row - 1 + i / 4, column = at.column - 1 + i % 4;
            bool there = row >= -x->above && row < x->h + x->below && column >= -x->pad &&
                         column < x->w + x->pad;
            step[i] = there ? clip_frame(x) : 0;
            from[i] = there ? (const float *)x->p + first * step[i] + row * clip_row(x) +
                                  (column + x->pad) * x->c + k->input
                            : zeros;
        }
        float *to = k->room.input + tile * CONV_BLOCK;
        for (int64_t t = first; t <= last; t++, to += VALUES * value) {
            k->j->cpu->winograd->input(to, value, from, k->inputs);
            for (int i = 0; i < VALUES; i++) from[i] += step[i];
        }
    }
}

static void spread_weights(const struct task *k, int64_t panel, int panels)
{
    const struct conv *c = k->j->conv;
    int64_t tap = k->inputs * PANEL;
    for (int p = 0; p < panels; p++) {
        const float *from =
            (const float *)c->packed + CONV_TAPS_3 * PANEL * ((panel + p) * c->in + k->input);
        for (int kt = 0; kt < 3; kt++, from += CONV_TAPS_3 / 3 * tap)
            k->j->cpu->winograd->weights(k->room.weights + p * VALUES * WEIGHTS_VALUE +
                                             kt * WEIGHTS_KT,
                                         WEIGHTS_VALUE, from, tap, tap);
    }
}

/* ---- products -------------------------------------------------------------------------------- */

static void multiply(const struct task *k, float *sums, int64_t panel, int panels)
{
    static const float zeros[CONV_BLOCK];
    const struct gemm_simd *gemm = k->j->cpu->gemm;
    const int64_t first = frame_of(k, k->frame, 0), columns = panels * PANEL;
    const int64_t cuts = (k->tiles + gemm->tile_rows - 1) / gemm->tile_rows;
    const float *a[3], *bias = k->j->conv->bias_f32 + panel * PANEL;
    struct tile_ab g = {.a = a,
                        .taps = 3,
                        .a_row = CONV_BLOCK,
                        .k = k->inputs,
                        .b_tap = WEIGHTS_KT,
                        .b_panel = VALUES * WEIGHTS_VALUE};
    for (int64_t e = 0; e < VALUES; e++) {
        const float *init = k->input > 0 ? NULL : e == CENTER ? bias : zeros;
        g.b = k->room.weights + e * WEIGHTS_VALUE;
        for (int64_t f = 0; f < k->frames; f++) {
            for (int kt = 0; kt < 3; kt++)
                a[kt] = k->room.input + ((frame_of(k, k->frame + f, kt) - first) * VALUES + e) *
                                            k->tiles * CONV_BLOCK;
            for (int64_t cut = 0; cut < cuts; cut++) { /* of nearly equal height */
                int64_t rows = (cut + 1) * k->tiles / cuts - cut * k->tiles / cuts;
                gemm->tile((int)rows, panels, false, &g, sums, columns, init);
                sums += rows * columns;
                for (int kt = 0; kt < 3; kt++) a[kt] += rows * CONV_BLOCK;
            }
        }
    }
}

/* y, for these panels, = the sums gathered + add, where the tile is within the span */
static void gather(const struct task *k, const float *sums, int64_t panel, int panels)
{
    const struct clip *y = k->j->y, *add = k->j->add;
    const struct conv_span *s = &k->j->span;
    int64_t columns = panels * PANEL, value = k->frames * k->tiles * columns;
    for (int64_t tile = 0; tile < k->tiles; tile++) {
        struct corner at = corner_of(k, k->tile + tile);
        int64_t offset[4];
        bool there[4];
        for (int i = 0; i < 4; i++) {
            int64_t row = at.row + i / 2, column = at.column + i % 2;
            there[i] = row >= s->row && row < s->row + s->rows && column >= s->column &&
                       column < s->column + s->columns;
            offset[i] = (row * y->w + column) * y->c + panel * PANEL;
        }
        for (int64_t f = 0; f < k->frames; f++)
            for (int p = 0; p < panels; p++) {
                int64_t frame = (k->frame + f) * clip_frame(y) + p * PANEL;
                float *to[4];
                const float *plus[4];
                for (int i = 0; i < 4; i++) {
                    to[i] = there[i] ? (float *)y->p + frame + offset[i] : NULL;
                    plus[i] = there[i] && add ? (const float *)add->p + frame + offset[i] : NULL;
                }
                const float *from = sums + (f * k->tiles + tile) * columns + p * PANEL;
                k->j->cpu->winograd->output(to, plus, from, value);
            }
    }
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static void run_task(struct task *k)
{
    const struct conv *c = k->j->conv;
    int64_t wide = k->j->cpu->gemm->tile_panels, panels;
    int64_t panel_sums = VALUES * k->frames * k->tiles * PANEL;
    for (k->input = 0; k->input < c->in; k->input += k->inputs) {
        k->inputs = c->in - k->input < CONV_BLOCK ? c->in - k->input : CONV_BLOCK;
        spread_input(k);
        for (int64_t p = 0; p < k->panels; p += panels) {
            panels = k->panels - p < wide ? 1 : wide;
            spread_weights(k, k->panel + p, (int)panels);
            multiply(k, k->room.sums + p * panel_sums, k->panel + p, (int)panels);
        }
    }
    for (int64_t p = 0; p < k->panels; p += panels) {
        panels = k->panels - p < wide ? 1 : wide;
        gather(k, k->room.sums + p * panel_sums, k->panel + p, (int)panels);
    }
}

static int64_t parts_of(int64_t n, int64_t most) { return (n + most - 1) / most; }

static struct plan make_plan(const struct conv_job *j, int64_t threads)
{
    const struct conv_span *s = &j->span;
    int64_t row = s->row + s->top % 2, column = s->column + s->left % 2;
    int64_t panels = conv_panels(j->conv), wide = j->cpu->gemm->tile_panels;
    struct plan p = {.tile_row = row / 2, .tile_column = column / 2};
    p.columns = (column + s->columns - 1) / 2 - p.tile_column + 1;
    p.tiles = ((row + s->rows - 1) / 2 - p.tile_row + 1) * p.columns;
    p.frame_groups = parts_of(j->y->t, FRAMES);
    p.group_frames = parts_of(j->y->t, p.frame_groups);
    p.groups = parts_of(p.tiles, POSITIONS / p.group_frames);
    p.group_tiles = parts_of(p.tiles, p.groups);
    /* narrower shares, each of which spreads the inputs, only where threads would have nothing to
     * do */
    int64_t enough = threads == 1 ? 1 : parts_of(4 * threads, p.groups * p.frame_groups);
    p.shares = parts_of(panels, SHARE) > enough ? parts_of(panels, SHARE) : enough;
    p.share = parts_of(parts_of(panels, p.shares), wide) * wide;
    p.shares = parts_of(panels, p.share);
    return p;
}

/* Task i of the plan. */
static void choose(struct task *k, int64_t i)
{
    const struct plan *p = k->plan;
    int64_t panels = conv_panels(k->j->conv), t = k->j->y->t;
    int64_t group = i / p->shares % p->groups, frames = i / p->shares / p->groups;
    k->panel = i % p->shares * p->share;
    k->panels = panels - k->panel < p->share ? panels - k->panel : p->share;
    k->tile = group * p->tiles / p->groups;
    k->tiles = (group + 1) * p->tiles / p->groups - k->tile;
    k->frame = frames * t / p->frame_groups;
    k->frames = (frames + 1) * t / p->frame_groups - k->frame;
}

void winograd_conv3d(struct device *dev, const struct conv_job *j)
{
    const struct plan plan = make_plan(j, dev->threads);
    int64_t tasks = plan.groups * plan.frame_groups * plan.shares;
    int64_t inputs = (plan.group_frames + 2) * VALUES * plan.group_tiles * CONV_BLOCK;
    int64_t weights = j->cpu->gemm->tile_panels * VALUES * WEIGHTS_VALUE;
    int64_t sums = plan.share * VALUES * plan.group_frames * plan.group_tiles * PANEL;
#pragma omp parallel num_threads(dev->threads)
    {
        float *own = cpu_scratch(&cpu_of(dev)->threads[omp_get_thread_num()],
                                 (size_t)(inputs + weights + sums));
        struct task k = {
            .j = j, .plan = &plan, .room = {own, own + inputs, own + inputs + weights}};
        int64_t done = 0;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tasks; i++) {
            choose(&k, i);
            run_task(&k);
            if (omp_get_thread_num() == 0) cpu_task_done(dev, &done, tasks);
        }
    }
}
