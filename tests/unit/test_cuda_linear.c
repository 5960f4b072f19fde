/* Linear layers of the CUDA backend, on the emulated device and cuBLASLt, against the CPU backend.
 */
#include "kernel_helpers.h"

#include <stdio.h>
#include <unistd.h>

enum { ROWS = 48, IN = 72, OUT = 40, TILE = 16 };

static char library[4096]; /* not there where the CUDA headers are missing */

static struct device *cuda(enum precision precision)
{
    const char *why = "";
    if (access(library, F_OK) != 0) return NULL;
    if (device_cuda_count(&why) != 1) fail_msg("%s: %s", library, why);
    return device_open_cuda(0, 1, precision);
}

/* Device memory with n values of a type, rounded to it. */
static void *stored(struct device *dev, const float *x, int64_t n, enum dtype type)
{
    size_t bytes = (size_t)n * dtype_size(type);
    uint16_t *half = (uint16_t *)floats(n);
    for (int64_t i = 0; i < n; i++) half[i] = bf16_from_f32(x[i]);
    void *p = device_memory(dev)->take(bytes, "test");
    assert_non_null(p);
    op_upload(dev, p, type == DTYPE_BF16 ? (const void *)half : x, bytes);
    return p;
}
static void give(struct device *dev, void *p, int64_t n, enum dtype type)
{
    device_memory(dev)->give(p, (size_t)n * dtype_size(type));
}
static float *loaded(struct device *dev, const void *p, int64_t n, enum dtype type)
{
    void *raw = floats(n);
    float *x = floats(n);
    op_download(dev, raw, p, (size_t)n * dtype_size(type));
    device_finish(dev);
    dtype_to_f32(x, raw, type, (size_t)n);
    return x;
}

struct layer {
    enum dtype x, y;
    enum epilogue epilogue;
    bool bias, resident;
};

/* Rows first … of the product, `count` of them; the values of all `ROWS`. */
static float *multiplied(struct device *dev, const float *x, struct linear l, const struct layer *c,
                         int64_t first, int64_t count)
{
    float *nothing = floats(ROWS * OUT);
    memset(nothing, 0, ROWS * OUT * sizeof *nothing);
    void *dx = stored(dev, x, ROWS * IN, c->x), *dy = stored(dev, nothing, ROWS * OUT, c->y);
    struct mat mx = mat_of(dx, ROWS, IN, c->x), my = mat_of(dy, ROWS, OUT, c->y);
    if (c->resident) op_linear_pack(dev, &l);
    op_linear(dev, mat_rows(my, first, count), mat_rows(mx, first, count), &l, c->epilogue, TILE);
    float *y = loaded(dev, dy, ROWS * OUT, c->y);
    if (c->resident) op_linear_unpack(dev, &l);
    give(dev, dx, ROWS * IN, c->x);
    give(dev, dy, ROWS * OUT, c->y);
    return y;
}

/* Half a unit of bf16's eight bits for the result, as much for the bias and, under SiLU, which
 * reads the rounded product, once more; sums in another order are far below that. */
static void check_layer(struct device *dev, struct device *cpu, const struct layer *c)
{
    struct tensor w = {"w", DTYPE_F32, 2, {OUT, IN}, floats(OUT * IN), OUT * IN * sizeof(float)};
    struct tensor b = {"b", DTYPE_F32, 1, {OUT}, floats(OUT), OUT * sizeof(float)};
    struct linear l = linear_make(&w, c->bias ? &b : NULL);
    float *x = floats(ROWS * IN), *exact = floats(ROWS * OUT);
    double *want = doubles(ROWS * OUT);
    op_linear(cpu, mat_f32(exact, ROWS, OUT), mat_f32(x, ROWS, IN), &l, c->epilogue, TILE);
    for (int i = 0; i < ROWS * OUT; i++) want[i] = exact[i];
    char what[80];
    snprintf(what, sizeof what, "x %s, y %s, epilogue %d, bias %d, resident %d", dtype_name(c->x),
             dtype_name(c->y), (int)c->epilogue, c->bias, c->resident);
    float *all = multiplied(dev, x, l, c, 0, ROWS);
    expect_close(what, all, want, ROWS * OUT, c->y == DTYPE_BF16 ? 3 * 0x1p-9 : close_sum);
    float *some = multiplied(dev, x, l, c, TILE, TILE);
    expect_same(what, some + TILE * OUT, all + TILE * OUT, TILE * OUT);
    for (int i = 0; i < TILE * OUT; i++) assert_true(some[i] == 0 && some[2 * TILE * OUT + i] == 0);
}

static void check_precision(enum precision precision)
{
    struct device *dev = cuda(precision), *cpu = device_open_cpu(1, NULL, precision);
    enum dtype type = precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
    if (!dev) skip();
    assert_int_equal(device_activations(dev), type);
    assert_int_equal(device_activations(cpu), DTYPE_F32);
    const enum dtype types[] = {DTYPE_F32, type};
    for (int i = 0; i < 32; i++) {
        struct layer c = {.x = types[i & 1],
                          .y = types[i >> 1 & 1],
                          .epilogue = i >> 2 & 1 ? EPILOGUE_GELU_TANH : EPILOGUE_NONE,
                          .bias = i >> 3 & 1,
                          .resident = i >> 4};
        check_layer(dev, cpu, &c);
        free_blocks();
    }
    for (int i = 0; i < 2; i++) {
        struct layer c = {.x = DTYPE_F32, .y = types[i], .epilogue = EPILOGUE_SILU, .bias = true};
        check_layer(dev, cpu, &c);
        free_blocks();
    }
    device_close(dev);
    device_close(cpu);
}

static void test_bf16(void **state)
{
    (void)state;
    check_precision(PRECISION_BF16);
}

static void test_f32(void **state)
{
    (void)state;
    check_precision(PRECISION_F32);
}

/* ---- weights that another rank reads --------------------------------------------------------- */

/* What one packing passed on, for the next to be given as if by another rank. */
struct passed {
    struct device *dev;
    bool reads;
    int asked, count, at;
    float *memory[4];
    int64_t floats[4];
};

static bool reads(void *argument, const struct tensor *t)
{
    struct passed *p = argument;
    assert_non_null(t->name);
    p->asked++;
    return p->reads;
}

static void pass_on(void *argument, float *memory, int64_t count)
{
    struct passed *p = argument;
    if (p->reads) {
        assert_in_range(p->count, 0, 3);
        p->floats[p->count] = count;
        p->memory[p->count++] = memory;
        return;
    }
    assert_in_range(p->at, 0, p->count - 1);
    assert_int_equal(count, p->floats[p->at]);
    op_copy(p->dev, memory, p->memory[p->at++], (size_t)count * sizeof *memory);
}

/* With everything odd: of bf16 there is no whole number of floats. */
enum { ODD_IN = 7, ODD_OUT = 5 };
struct brought {
    struct linear layer;
    float *vector; /* [ODD_IN] */
};

static struct brought bring(struct passed *p, const struct tensor *weight,
                            const struct tensor *bias, const struct tensor *vector)
{
    struct reading reading = {.reads = reads, .pass_on = pass_on, .argument = p};
    struct brought b = {.layer = linear_make(weight, bias),
                        .vector = stored(p->dev, floats(ODD_IN), ODD_IN, DTYPE_F32)};
    device_set_reading(p->dev, &reading);
    op_linear_pack(p->dev, &b.layer);
    op_upload_tensor(p->dev, b.vector, vector);
    device_set_reading(p->dev, NULL);
    return b;
}

static float *product_of(struct device *dev, const struct brought *b)
{
    float *y = stored(dev, floats(ODD_OUT), ODD_OUT, DTYPE_F32);
    op_linear(dev, mat_f32(y, 1, ODD_OUT), mat_f32(b->vector, 1, ODD_IN), &b->layer, EPILOGUE_NONE,
              TILE);
    float *values = loaded(dev, y, ODD_OUT, DTYPE_F32);
    give(dev, y, ODD_OUT, DTYPE_F32);
    return values;
}

static void check_given(enum precision precision)
{
    struct device *dev = cuda(precision);
    if (!dev) skip();
    struct passed p = {.dev = dev, .reads = true};
    const int64_t f = sizeof(float);
    struct tensor w = {"w", DTYPE_F32, 2, {ODD_OUT, ODD_IN}, floats(ODD_OUT * ODD_IN), 35 * f},
                  b = {"b", DTYPE_F32, 1, {ODD_OUT}, floats(ODD_OUT), ODD_OUT * f},
                  v = {"v", DTYPE_F32, 1, {ODD_IN}, floats(ODD_IN), ODD_IN * f};
    struct brought of[2] = {bring(&p, &w, &b, &v)};
    expect_same("a vector that was read", loaded(dev, of[0].vector, ODD_IN, DTYPE_F32), v.data,
                ODD_IN);
    p.reads = false;
    w.data = b.data = v.data = NULL; /* not touched */
    of[1] = bring(&p, &w, &b, &v);
    expect_same("what was given", product_of(dev, &of[1]), product_of(dev, &of[0]), ODD_OUT);
    assert_int_equal(p.at, p.count);
    assert_int_equal(p.asked, 2 * p.count);
    for (int i = 0; i < 2; i++) {
        op_linear_unpack(dev, &of[i].layer);
        give(dev, of[i].vector, ODD_IN, DTYPE_F32);
    }
    device_close(dev);
}

static void test_given(void **state)
{
    (void)state;
    check_given(PRECISION_BF16);
    check_given(PRECISION_F32);
}

/* Keys and values in bf16: half a float each, whatever the CPU's panels need. */
static void test_granule(void **state)
{
    (void)state;
    struct device *dev = cuda(PRECISION_BF16), *cpu = device_open_cpu(1, NULL, PRECISION_BF16);
    if (!dev) skip();
    assert_int_equal(op_kv_granule_floats(dev, 128, 4, 64), 128 * 4 * 64);
    assert_int_equal(op_kv_granule_floats(cpu, 128, 4, 64), 2 * 128 * 4 * 64);
    device_close(dev);
    device_close(cpu);
}

int main(void)
{
    const char *build = getenv("BUILD");
    snprintf(library, sizeof library, "%s/emulation/libringreel_cuda.so", build ? build : "build");
    setenv("RINGREEL_CUDA_LIBRARY", library, 1);
    setenv("RINGREEL_EMULATION_DEVICES", "1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_bf16, teardown),
        cmocka_unit_test_teardown(test_f32, teardown),
        cmocka_unit_test_teardown(test_given, teardown),
        cmocka_unit_test_teardown(test_granule, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
