/* Convolutions: weights are packed here, then winograd.c has the 3x3x3 that it serves, and this
 * file the others, as sums of products, with no copy of the input: a tap of a picture row is a
 * pointer into the row of the frame it reads, so frames and rows may lie anywhere. Every output
 * element is one chain of multiply-adds: bias, then input blocks, kt, ky, kx, inputs. Rows above
 * and below the picture are left out. */
#include "kernels/cpu/conv.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
    TAPS_2D = 9,
    BLOCK_1 = 256,
    PIXELS = 384, /* about as many per task: they use each block of weights while it is near */
};

static int64_t block_of(const struct conv *c) { return c->kernel == 3 ? CONV_BLOCK : BLOCK_1; }
static int64_t taps_of(const struct conv *c) { return (int64_t)c->kernel * c->kernel * c->kernel; }

/* `rows` holds the weights of the panel's outputs as they are in the checkpoint, [16][in][taps]. */
static void pack_panel(float *to, const float *rows, const struct conv *c)
{
    int64_t taps = taps_of(c);
    for (int64_t first = 0; first < c->in; first += block_of(c))
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t i = first; i < first + block_of(c) && i < c->in; i++)
                for (int64_t o = 0; o < PANEL; o++) *to++ = rows[(o * c->in + i) * taps + tap];
}

void cpu_conv_pack(struct device *dev, struct conv *c)
{
    struct cpu *cpu = cpu_of(dev);
    int64_t per_output = c->in * taps_of(c), panels = conv_panels(c);
    float *packed = cpu_floats((size_t)(panels * PANEL * per_output));
    c->packed = packed;
    c->bias_f32 = cpu_floats((size_t)(panels * PANEL));
    memset(c->bias_f32, 0, sizeof(float) * (size_t)(panels * PANEL));
    if (c->bias) dtype_to_f32(c->bias_f32, c->bias->data, c->bias->dtype, (size_t)c->out);
#pragma omp parallel num_threads(dev->threads)
    {
        float *rows =
            cpu_scratch(&cpu->threads[omp_get_thread_num()], (size_t)(PANEL * per_output));
#pragma omp for
        for (int64_t p = 0; p < panels; p++) {
            int64_t n = c->out - p * PANEL < PANEL ? c->out - p * PANEL : PANEL;
            const char *from = c->weight->data;
            from += (size_t)(p * PANEL * per_output) * dtype_size(c->weight->dtype);
            dtype_to_f32(rows, from, c->weight->dtype, (size_t)(n * per_output));
            memset(rows + n * per_output, 0, sizeof(float) * (size_t)((PANEL - n) * per_output));
            pack_panel(packed + p * PANEL * per_output, rows, c);
        }
    }
}

void cpu_conv_unpack(struct device *dev, struct conv *c)
{
    (void)dev;
    free(c->packed);
    free(c->bias_f32);
    c->packed = c->bias_f32 = NULL;
}

/* What one block of inputs and one kt add to a line of positions, for one panel (or two). */
struct part {
    const float *weights; /* [ky][kx][inputs][16] */
    int64_t panel_floats; /* from one panel's weights to the next one's */
    int64_t input, inputs;
    int kt, panels;
    const float *init; /* the bias, in the first part */
};

/* The row of x in the middle of what a row of the span reads. */
static int64_t middle_of(const struct conv_job *j, int64_t row)
{
    return (j->span.row + row % j->span.rows) * j->conv->stride_s;
}

/* Which ky of a row are within the picture: [from, to). */
struct taps_y {
    int from, to;
};

static struct taps_y taps_of_row(const struct conv_job *j, int64_t row)
{
    const struct clip *x = j->x;
    int kernel = j->conv->kernel, half = kernel / 2;
    int64_t y = middle_of(j, row);
    return (struct taps_y){y - half < -x->above ? 1 : 0,
                           y + half >= x->h + x->below ? kernel - 1 : kernel};
}

/* Rows from `row` on that are one line of positions: of a single column those of a frame that have
 * the same taps, else one. */
static int64_t line_rows(const struct conv_job *j, int64_t row, int64_t end)
{
    struct taps_y first = taps_of_row(j, row);
    int64_t next = row + 1;
    if (j->span.columns > 1) return 1;
    for (; next < end && next % j->span.rows > 0; next++) {
        struct taps_y taps = taps_of_row(j, next);
        if (taps.from != first.from || taps.to != first.to) break;
    }
    return next - row;
}

static void line_part(const struct conv_job *j, const struct part *part, float *c, int64_t row,
                      int64_t rows)
{
    const struct clip *x = j->x;
    int kernel = j->conv->kernel, half = kernel / 2, step = j->conv->stride_s, taps = 0;
    struct taps_y ky_of = taps_of_row(j, row);
    int64_t t = row / j->span.rows * j->conv->stride_t + part->kt - j->front;
    int64_t y = middle_of(j, row), column = j->span.column * step;
    bool upright = j->span.columns == 1;
    int64_t width = upright ? rows : j->span.columns;
    int64_t a_row = step * (upright ? clip_row(x) : x->c);
    t = t < 0 ? 0 : t >= x->t ? x->t - 1 : t;
    const float *a[TAPS_2D], *shifted[TAPS_2D];
    for (int ky = ky_of.from; ky < ky_of.to; ky++)
        for (int kx = 0; kx < kernel; kx++)
            a[taps++] = (const float *)x->p + t * clip_frame(x) + (y + ky - half) * clip_row(x) +
                        (column + kx - half + x->pad) * x->c + part->input;
    int64_t b_tap = part->inputs * PANEL,
            tiles = (width + j->cpu->gemm->tile_rows - 1) / j->cpu->gemm->tile_rows;
    struct tile_ab g = {.a = shifted,
                        .taps = taps,
                        .a_row = a_row,
                        .k = part->inputs,
                        .b = part->weights + ky_of.from * kernel * b_tap,
                        .b_tap = b_tap,
                        .b_panel = part->panel_floats};
    for (int64_t i = 0; i < tiles;
         i++) { /* of nearly equal width: a narrow one would leave the multipliers idle */
        int64_t first = i * width / tiles, end = (i + 1) * width / tiles;
        for (int k = 0; k < taps; k++) shifted[k] = a[k] + first * a_row;
        j->cpu->gemm->tile((int)(end - first), part->panels, false, &g,
                           c + first * part->panels * PANEL, part->panels * PANEL, part->init);
    }
}

/* y, for the columns of these panels, = c + add */
static void store(const struct conv_job *j, const float *c, int64_t row, int64_t panel,
                  int64_t columns)
{
    int64_t out = j->y->c, first = panel * PANEL;
    float *y = j->y->p;
    const float *add = j->add ? j->add->p : NULL;
    int64_t n = out - first < columns ? out - first : columns;
    int64_t picture_row = row / j->span.rows * j->y->h + j->span.row + row % j->span.rows;
    for (int64_t px = 0; px < j->span.columns; px++, c += columns) {
        int64_t at = (picture_row * j->y->w + j->span.column + px) * out + first;
        for (int64_t o = 0; o < n; o++) y[at + o] = add ? c[o] + add[at + o] : c[o];
    }
}

/* Rows [row, end) of the span, counted over all frames, for one panel (or two). */
static void rows_times_panels(const struct conv_job *j, float *c, int64_t row, int64_t end,
                              int64_t panel, int panels)
{
    const struct conv *conv = j->conv;
    int64_t per_panel = PANEL * conv->in * taps_of(conv);
    int64_t per_row = j->span.columns * panels * PANEL;
    const float *weights = (const float *)conv->packed + panel * per_panel;
    struct part part = {
        .panel_floats = per_panel, .panels = panels, .init = conv->bias_f32 + panel * PANEL};
    for (part.input = 0; part.input < conv->in; part.input += part.inputs) {
        part.inputs =
            conv->in - part.input < block_of(conv) ? conv->in - part.input : block_of(conv);
        for (part.kt = 0; part.kt < conv->kernel; part.kt++) {
            part.weights = weights;
            for (int64_t r = row, n; r < end; r += n) {
                n = line_rows(j, r, end);
                line_part(j, &part, c + (r - row) * per_row, r, n);
            }
            weights += conv->kernel * conv->kernel * part.inputs * PANEL;
            part.init = NULL;
        }
    }
    for (int64_t r = row; r < end; r++) store(j, c + (r - row) * per_row, r, panel, panels * PANEL);
}

static void direct_conv3d(struct device *dev, const struct conv_job *j)
{
    struct cpu *cpu = cpu_of(dev);
    const struct conv_span *span = &j->span;
    int64_t wide = cpu->gemm->tile_panels, panels = conv_panels(j->conv);
    int64_t rows = j->y->t * span->rows;
    int64_t group = PIXELS / span->columns > 1 ? PIXELS / span->columns : 1;
    int64_t groups = (rows + group - 1) / group;
    int64_t columns = (panels + wide - 1) / wide, tasks = groups * columns;
#pragma omp parallel num_threads(dev->threads)
    {
        float *partial = cpu_scratch(&cpu->threads[omp_get_thread_num()],
                                     (size_t)(group * span->columns * wide * PANEL));
        int64_t done = 0;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tasks; i++) {
            int64_t row = i / columns * group, panel = i % columns * wide;
            rows_times_panels(j, partial, row, row + group < rows ? row + group : rows, panel,
                              (int)(panels - panel < wide ? 1 : wide));
            if (omp_get_thread_num() == 0) cpu_task_done(dev, &done, tasks);
        }
    }
}

void cpu_conv3d(struct device *dev, const struct clip *y, const struct clip *x,
                const struct conv *c, int front, const struct clip *add,
                const struct conv_span *span)
{
    struct conv_job job = {cpu_of(dev), y, x, add, c, c->kernel == 1 ? 0 : front, *span};
    if (winograd_serves(c)) {
        winograd_conv3d(dev, &job);
    } else if (span->columns == 2) { /* two upright lines in place of as many as there are rows */
        job.span.columns = 1;
        direct_conv3d(dev, &job);
        job.span.column++;
        direct_conv3d(dev, &job);
    } else {
        direct_conv3d(dev, &job);
    }
}
