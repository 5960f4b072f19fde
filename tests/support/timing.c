#include "tests/support/timing.h"

#include "base/error.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT = 64, BLOCK = 1 << 20 }; /* tokens of the prompt; numbers made at a time */

/* ---- operands -------------------------------------------------------------------------------- */

static float number(int64_t i) { return (float)((i * 7919) % 2003) * 1e-3f - 1.0f; }

/* n numbers in device memory: some from the host, which are doubled there until they are enough. */
static void *random_on(struct timed *t, int64_t n, enum dtype type)
{
    size_t size = dtype_size(type), bytes = (size_t)n * size;
    int64_t made = n < BLOCK ? n : BLOCK;
    unsigned char *to = held_take(&t->held, bytes);
    float *numbers = xmalloc((size_t)made * sizeof *numbers);
    uint16_t *halves = (uint16_t *)(void *)numbers; /* over them: each is read before */
    for (int64_t i = 0; i < made; i++) {
        float x = number(i);
        if (type == DTYPE_BF16)
            halves[i] = bf16_from_f32(x);
        else
            numbers[i] = x;
    }
    op_upload(t->dev, to, numbers, (size_t)made * size);
    for (size_t done = (size_t)made * size; done < bytes;) {
        size_t more = bytes - done < done ? bytes - done : done;
        op_copy(t->dev, to + done, to, more);
        done += more;
    }
    device_finish(t->dev);
    free(numbers);
    return to;
}

static struct mat random_mat(struct timed *t, int64_t rows, int64_t cols)
{
    enum dtype dtype = device_activations(t->dev);
    return (struct mat){random_on(t, rows * cols, dtype), rows, cols, dtype};
}

static struct clip random_clip(struct timed *t, int64_t frames, int64_t h, int64_t w, int64_t c,
                               int pad)
{
    struct clip clip = {
        .dtype = device_activations(t->dev), .t = frames, .h = h, .w = w, .c = c, .pad = pad};
    clip.p = random_on(t, clip_count(&clip), clip.dtype);
    return clip;
}

/* In the host's memory, as in a checkpoint; small enough for finite sums of many layers. */
static struct tensor random_weight(int rank, const int64_t *shape)
{
    struct tensor w = {.name = "weight", .dtype = DTYPE_BF16, .rank = rank};
    for (int i = 0; i < rank; i++) w.shape[i] = shape[i];
    int64_t n = tensor_count(&w);
    uint16_t *values = xmalloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = bf16_from_f32(number(i) * 0.03f);
    w.data = values;
    w.bytes = (size_t)n * sizeof *values;
    return w;
}

void timed_close(struct timed *t)
{
    device_finish(t->dev);
    if (t->linear.packed) op_linear_unpack(t->dev, &t->linear);
    if (t->conv.packed) op_conv_unpack(t->dev, &t->conv);
    held_give(&t->held);
    free((void *)t->weight.data);
    *t = (struct timed){0};
}

/* ---- ops ------------------------------------------------------------------------------------- */

static void linear_once(struct timed *t)
{
    op_linear(t->dev, t->y, t->x, &t->linear, t->epilogue, t->tile);
}

void timed_linear(struct timed *t, struct device *dev, const int64_t *size)
{
    int64_t rows = size[0], out = size[1], in = size[2];
    *t = (struct timed){.dev = dev,
                        .held.dev = dev,
                        .once = linear_once,
                        .tile = size[3],
                        .epilogue = (enum epilogue)size[4]};
    t->flop = 2.0 * (double)rows * (double)in * (double)out;
    t->weight = random_weight(2, (int64_t[]){out, in});
    t->linear = linear_make(&t->weight, NULL);
    op_linear_pack(dev, &t->linear);
    t->x = random_mat(t, rows, in);
    t->y = random_mat(t, rows, out);
}

static void attention_once(struct timed *t)
{
    int64_t n = t->x.rows, d = t->x.cols / t->heads;
    op_attention_begin(t->dev, t->state, n, t->heads, d);
    op_attention_block(t->dev, t->state, t->x, t->packed, n, t->tile, t->heads, 0.125f);
    op_attention_finish(t->dev, t->y, t->state, t->heads);
}

void timed_attention(struct timed *t, struct device *dev, const int64_t *size)
{
    int64_t tokens = size[0], heads = size[1], head_dim = size[2], granule = size[3];
    *t = (struct timed){
        .dev = dev, .held.dev = dev, .once = attention_once, .heads = heads, .tile = granule};
    int64_t granules = (tokens + granule - 1) / granule;
    t->flop = 4.0 * (double)tokens * (double)tokens * (double)(heads * head_dim);
    t->x = random_mat(t, tokens, heads * head_dim);
    t->y = random_mat(t, tokens, heads * head_dim);
    t->state = random_on(t, op_attention_state_floats(tokens, heads, head_dim), DTYPE_F32);
    t->packed =
        random_on(t, granules * op_kv_granule_floats(dev, granule, heads, head_dim), DTYPE_F32);
    op_kv_pack(dev, t->packed, t->x, t->x, heads, granule);
}

static void conv_once(struct timed *t)
{
    op_conv3d(t->dev, &t->to, &t->from, &t->conv, 1, NULL, NULL);
}

void timed_conv(struct timed *t, struct device *dev, const int64_t *size)
{
    int64_t channels = size[0], frames = size[1], h = size[2], w = size[3], k = size[4];
    *t = (struct timed){.dev = dev, .held.dev = dev, .once = conv_once};
    t->flop = 2.0 * (double)(k * k * k * channels * channels) * (double)(frames * h * w);
    t->weight = random_weight(5, (int64_t[]){channels, channels, k, k, k});
    t->conv = conv_make(&t->weight, NULL);
    op_conv_pack(dev, &t->conv);
    t->from = random_clip(t, frames, h, w, channels, 1);
    t->to = random_clip(t, frames, h, w, channels, 0);
}

static void norm_once(struct timed *t)
{
    op_norm_modulate(t->dev, t->y, t->x, NORM_RMS, 1e-6f, t->shift, t->scale, NULL);
}

static void open_rows(struct timed *t, struct device *dev, int64_t rows, int64_t cols,
                      void (*once)(struct timed *))
{
    *t = (struct timed){.dev = dev, .held.dev = dev, .once = once};
    t->x = random_mat(t, rows, cols);
    t->y = random_mat(t, rows, cols);
    t->bytes = 2.0 * (double)(rows * cols) * (double)dtype_size(t->x.dtype);
}

void timed_norm(struct timed *t, struct device *dev, const int64_t *size)
{
    open_rows(t, dev, size[0], size[1], norm_once);
    t->scale = mat_f32(random_on(t, size[1], DTYPE_F32), 1, size[1]);
    t->shift = mat_f32(random_on(t, size[1], DTYPE_F32), 1, size[1]);
}

static void silu_once(struct timed *t) { op_silu(t->dev, t->y, t->x); }

void timed_silu(struct timed *t, struct device *dev, const int64_t *size)
{
    open_rows(t, dev, size[0], size[1], silu_once);
}

static void copy_once(struct timed *t)
{
    op_copy(t->dev, t->y.p, t->x.p, (size_t)t->x.cols * dtype_size(t->x.dtype));
}

void timed_copy(struct timed *t, struct device *dev, const int64_t *size)
{
    open_rows(t, dev, 1, size[0] / (int64_t)sizeof(float), copy_once);
}

/* ---- time ------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

double timed_seconds(struct timed *t, int runs, int calls, before_run *before, void *argument)
{
    double seconds[MOST_RUNS];
    CHECK(runs > 0 && runs <= MOST_RUNS && calls > 0, "%d runs of %d calls", runs, calls);
    t->once(t);
    device_finish(t->dev);
    for (int run = 0; run < runs; run++) {
        if (before) before(argument, run);
        double start_s = clock_s();
        for (int i = 0; i < calls; i++) t->once(t);
        device_finish(t->dev);
        seconds[run] = (clock_s() - start_s) / calls;
    }
    return median(seconds, runs);
}

/* ---- a step of a model ----------------------------------------------------------------------- */

int step_model_open(struct step_model *m, struct device *dev, const char *checkpoint,
                    struct latent_grid grid)
{
    *m = (struct step_model){.dev = dev, .self = comm_open_self()};
    m->tokens = grid.f * grid.h * grid.w;
    struct transformer_settings settings = {.max_tokens = m->tokens,
                                            .max_text_tokens = TEXT,
                                            .text_slots = 1,
                                            .max_times = 1,
                                            .resident = true};
    TRY(checkpoint_open(&m->checkpoint, checkpoint));
    TRY(transformer_open(&m->transformer, dev, m->checkpoint, m->self, &settings));
    int64_t n = TEXT * transformer_caption_width(m->transformer);
    float *text = xcalloc((size_t)n, sizeof *text);
    for (int64_t i = 0; i < n; i++) text[i] = 0.5f * number(i);
    int status = transformer_set_text(m->transformer, 0, text, TEXT);
    free(text);
    transformer_set_grid(m->transformer, &grid);
    m->flop = 2 * transformer_work(m->checkpoint, m->tokens, TEXT);
    return status;
}

double step_model_seconds(struct step_model *m, int runs)
{
    const float level = 0.7f;
    const struct timesteps times = {.count = 1, .values = &level};
    int64_t channels = transformer_channels(m->transformer);
    struct timed memory = {.dev = m->dev, .held.dev = m->dev};
    struct mat x = mat_f32(random_on(&memory, m->tokens * channels, DTYPE_F32), m->tokens,
                           channels),
               v = mat_f32(random_on(&memory, m->tokens * channels, DTYPE_F32), m->tokens,
                           channels);
    double seconds[MOST_RUNS];
    CHECK(runs > 0 && runs <= MOST_RUNS, "%d runs", runs);
    for (int run = -1; run < runs; run++) {
        double start_s = clock_s();
        transformer_forward(m->transformer, v, x, &times, 0, NULL);
        device_finish(m->dev);
        if (run >= 0) seconds[run] = clock_s() - start_s;
    }
    timed_close(&memory);
    return median(seconds, runs);
}

void step_model_close(struct step_model *m)
{
    transformer_close(m->transformer);
    checkpoint_close(m->checkpoint);
    comm_close(m->self);
}
