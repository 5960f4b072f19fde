/* y = epilogue(x W^T + b). Weights are packed into panels of 16 outputs, [panel][steps][16]; a task
 * is a block of rows times a chunk of panels. Every output element is one chain of multiply-adds
 * over all inputs, begun with the bias: the bits of a row depend on nothing but the row, so `tile`
 * needs no attention here.
 *
 * A step is what one 32-bit word holds: an input in fp32, or a pair of inputs in bf16. */
#include "kernels/cpu/cpu.h"

#include "base/error.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW_BLOCK = 144, /* rows of x that are packed at a time: with K_BLOCK, 108 KiB that stay in the
                        second cache */
    K_BLOCK = 192,   /* steps: a panel's part of 12 KiB stays in the first cache */
    PACK_BLOCK = 64, /* inputs that are reordered at a time */
    TAIL_COLUMNS = 32, /* the last panels' columns, when out is not a multiple of 16 */
};

static int64_t panels_of(const struct linear *l) { return (l->out + PANEL - 1) / PANEL; }

/* How operands meet. */
struct form {
    const struct gemm_simd *gemm;
    const struct rows_simd *rows;
    int inputs; /* a step's */
};
static struct form form_of(struct device *dev)
{
    const struct cpu *cpu = cpu_of(dev);
    return dev->precision == PRECISION_BF16 ? (struct form){cpu->gemm_bf16, cpu->rows, 2}
                                            : (struct form){cpu->gemm, cpu->rows, 1};
}
static int64_t steps_of(const struct form *f, int64_t in)
{
    return (in + f->inputs - 1) / f->inputs;
}

/* n <= 2 * K_BLOCK inputs as steps: themselves, or `room` filled with pairs. */
static const float *as_steps(const struct form *f, float *room, const float *x, int64_t n)
{
    if (f->inputs == 1) return x;
    uint16_t *pairs = (uint16_t *)room;
    f->rows->to_bf16(pairs, x, n);
    if (n % 2) pairs[n] = 0;
    return room;
}

/* ---- packing --------------------------------------------------------------------------------- */

/* Sixteen whole rows would lie a power of two apart in many networks and push each other out of the
 * first cache; short pieces of them, put beside each other at an odd number of lines, do not. */
static void pack_panel(const struct form *f, float *to, const struct linear *l, int64_t panel)
{
    float rows[PANEL][PACK_BLOCK + 16] = {{0}}; /* outputs that are not there stay zero */
    float pairs[PANEL][PACK_BLOCK / 2];
    const float *steps[PANEL];
    int64_t first = panel * PANEL, n = l->out - first < PANEL ? l->out - first : PANEL;
    enum dtype dtype = l->weight->dtype;
    const char *from = (const char *)l->weight->data + (size_t)(first * l->in) * dtype_size(dtype);
    for (int64_t i0 = 0; i0 < l->in; i0 += PACK_BLOCK) {
        int64_t k = l->in - i0 < PACK_BLOCK ? l->in - i0 : PACK_BLOCK;
        for (int64_t o = 0; o < PANEL; o++) {
            if (o < n)
                dtype_to_f32(rows[o], from + (size_t)(o * l->in + i0) * dtype_size(dtype), dtype,
                             (size_t)k);
            steps[o] = as_steps(f, pairs[o], rows[o], k);
        }
        for (int64_t i = 0; i < steps_of(f, k); i++, to += PANEL)
            for (int64_t o = 0; o < PANEL; o++) to[o] = steps[o][i];
    }
}

static void pack(struct device *dev, float *packed, float *bias, const struct linear *l)
{
    const struct form form = form_of(dev);
    memset(bias, 0, sizeof(float) * (size_t)(panels_of(l) * PANEL));
    if (l->bias) dtype_to_f32(bias, l->bias->data, l->bias->dtype, (size_t)l->out);
#pragma omp parallel num_threads(dev->threads)
    {
        int64_t done = 0;
#pragma omp for
        for (int64_t p = 0; p < panels_of(l); p++) {
            pack_panel(&form, packed + p * PANEL * steps_of(&form, l->in), l, p);
            if (omp_get_thread_num() == 0) cpu_task_done(dev, &done, panels_of(l));
        }
    }
}

void cpu_linear_pack(struct device *dev, struct linear *l)
{
    const struct form form = form_of(dev);
    l->packed = cpu_floats((size_t)(panels_of(l) * PANEL * steps_of(&form, l->in)));
    l->bias_f32 = cpu_floats((size_t)(panels_of(l) * PANEL));
    pack(dev, l->packed, l->bias_f32, l);
}

void cpu_linear_unpack(struct device *dev, struct linear *l)
{
    (void)dev;
    free(l->packed);
    free(l->bias_f32);
    l->packed = l->bias_f32 = NULL;
}

/* ---- product --------------------------------------------------------------------------------- */

struct job {
    struct form form;
    struct mat y, x;
    const float *packed, *bias;
    enum epilogue epilogue;
};

/* A block of rows is cut into tiles of nearly equal height: one or two rows alone would leave the
 * multipliers idle. */
struct cut {
    int64_t tiles, rows;
};
static struct cut cut_rows(int64_t rows, int64_t tile_rows)
{
    return (struct cut){(rows + tile_rows - 1) / tile_rows, rows};
}
static int64_t cut_at(struct cut c, int64_t tile) { return tile * c.rows / c.tiles; }

/* One row of a packed tile: word by word, `height` floats apart. */
static void spread_row(float *to, const float *steps, int64_t k, int64_t height, int words)
{
    for (int64_t n = 0; n < k && words == 1; n++) to[n * height] = steps[n];
    for (int64_t n = 0; n < k && words == 2; n++) {
        uint16_t pair[2];
        memcpy(pair, steps + n, sizeof pair);
        to[2 * n * height] = f32_from_bf16(pair[1]);
        to[(2 * n + 1) * height] = f32_from_bf16(pair[0]);
    }
}

/* to[tile][k][words][tile_rows] from rows [first, ...) and steps [k0, k0 + k) of x */
static void pack_rows(const struct job *j, float *to, struct cut cut, int64_t first, int64_t k0,
                      int64_t k)
{
    int64_t height = j->form.gemm->tile_rows, i0 = k0 * j->form.inputs;
    int64_t inputs = k * j->form.inputs < j->x.cols - i0 ? k * j->form.inputs : j->x.cols - i0;
    int words = j->form.gemm->a_words;
    float pairs[K_BLOCK];
    for (int64_t t = 0; t < cut.tiles; t++, to += k * height * words)
        for (int64_t i = cut_at(cut, t); i < cut_at(cut, t + 1); i++) {
            const float *row = (const float *)j->x.p + (first + i) * j->x.cols + i0;
            const float *from = as_steps(&j->form, pairs, row, inputs);
            spread_row(to + (i - cut_at(cut, t)), from, k, height, words);
        }
}

static void finish(const struct job *j, float *c, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows && j->epilogue != EPILOGUE_NONE; i++) {
        float *row = c + i * j->y.cols;
        if (j->epilogue == EPILOGUE_GELU_TANH) j->form.rows->gelu(row, columns);
        if (j->epilogue == EPILOGUE_SILU) j->form.rows->silu(row, row, columns);
    }
}

/* Columns of the last panel beyond y are computed beside it and dropped. */
static void tail_tile(const struct job *j, const struct tile_ab *g, float *c, int rows, int panels,
                      int64_t columns, const float *init)
{
    float beside[16 * TAIL_COLUMNS];
    CHECK(rows <= 16 && panels * PANEL <= TAIL_COLUMNS, "tile of %d rows, %d panels", rows, panels);
    memset(beside, 0, sizeof beside);
    for (int i = 0; i < rows; i++)
        memcpy(beside + i * TAIL_COLUMNS, c + i * j->y.cols, sizeof(float) * (size_t)columns);
    j->form.gemm->tile(rows, panels, true, g, beside, TAIL_COLUMNS, init);
    for (int i = 0; i < rows; i++)
        memcpy(c + i * j->y.cols, beside + i * TAIL_COLUMNS, sizeof(float) * (size_t)columns);
}

/* While tile `part` of `parts` is computed, its share of the next panel comes nearer. */
static void prefetch(const float *b, int64_t floats, int64_t part, int64_t parts)
{
    for (int64_t i = part * floats / parts; i < (part + 1) * floats / parts; i += 16)
        __builtin_prefetch(b + i, 0, 2);
}

/* Rows [first, first + rows) times panels [p0, p1). */
static void product(const struct job *j, float *a, int64_t first, int64_t rows, int64_t p0,
                    int64_t p1)
{
    int64_t steps = steps_of(&j->form, j->x.cols), out = j->y.cols;
    int64_t height = j->form.gemm->tile_rows, wide = j->form.gemm->tile_panels;
    struct cut cut = cut_rows(rows, height);
    for (int64_t k0 = 0; k0 < steps; k0 += K_BLOCK) {
        int64_t k = steps - k0 < K_BLOCK ? steps - k0 : K_BLOCK, panels;
        pack_rows(j, a, cut, first, k0, k);
        for (int64_t p = p0; p < p1; p += panels) {
            panels = p1 - p < wide ? 1 : wide;
            int64_t columns = out - p * PANEL < panels * PANEL ? out - p * PANEL : panels * PANEL;
            const float *init = k0 == 0 ? j->bias + p * PANEL : NULL;
            for (int64_t t = 0; t < cut.tiles; t++) {
                const float *tap = a + t * k * height * j->form.gemm->a_words;
                struct tile_ab g = {.a = &tap,
                                    .taps = 1,
                                    .k = k,
                                    .b = j->packed + (p * steps + k0) * PANEL,
                                    .b_panel = steps * PANEL};
                int n = (int)(cut_at(cut, t + 1) - cut_at(cut, t));
                float *c = (float *)j->y.p + (first + cut_at(cut, t)) * out + p * PANEL;
                if (p + panels < p1) prefetch(g.b + panels * g.b_panel, k * PANEL, t, cut.tiles);
                for (int i = 0; i < n && t + 1 < cut.tiles; i++)
                    __builtin_prefetch(c + (n + i) * out);
                if (columns == panels * PANEL)
                    j->form.gemm->tile(n, (int)panels, true, &g, c, out, init);
                else
                    tail_tile(j, &g, c, n, (int)panels, columns, init);
                if (k0 + k == steps) finish(j, c, n, columns);
            }
        }
    }
}

/* Enough chunks of panels that all threads have work; wide enough that packing rows for each does
 * not show. */
static int64_t chunk_panels(int64_t panels, int64_t blocks, int64_t threads)
{
    int64_t chunks = blocks >= 4 * threads ? 1 : (4 * threads + blocks - 1) / blocks;
    int64_t size = threads == 1 ? panels : (panels + chunks - 1) / chunks;
    return size < 8 ? 8 : (size + 1) / 2 * 2;
}

void cpu_linear(struct device *dev, struct mat y, struct mat x, const struct linear *l,
                enum epilogue e, int64_t tile)
{
    (void)tile;
    struct cpu *cpu = cpu_of(dev);
    int64_t panels = panels_of(l), blocks = (y.rows + ROW_BLOCK - 1) / ROW_BLOCK;
    const float *packed = l->packed, *bias = l->bias_f32;
    const struct form form = form_of(dev);
    if (!packed) {
        int64_t weights = panels * PANEL * steps_of(&form, l->in);
        float *own = cpu_scratch(&cpu->shared, (size_t)(weights + panels * PANEL));
        pack(dev, own, own + weights, l);
        packed = own;
        bias = own + weights;
    }
    struct job job = {form, y, x, packed, bias, e};
    int64_t chunk = chunk_panels(panels, blocks, dev->threads),
            chunks = (panels + chunk - 1) / chunk;
#pragma omp parallel num_threads(dev->threads)
    {
        float *a = cpu_scratch(&cpu->threads[omp_get_thread_num()],
                               (size_t)((ROW_BLOCK + 16) * K_BLOCK * form.gemm->a_words));
        int64_t done = 0;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < blocks * chunks; i++) {
            int64_t first = i / chunks * ROW_BLOCK, p0 = i % chunks * chunk;
            product(&job, a, first, y.rows - first < ROW_BLOCK ? y.rows - first : ROW_BLOCK, p0,
                    p0 + chunk < panels ? p0 + chunk : panels);
            if (omp_get_thread_num() == 0) cpu_task_done(dev, &done, blocks * chunks);
        }
    }
}
