/* Every op of kernels/ops.h against a naive computation in double precision, on every instruction
 * set this CPU has; and bit for bit against itself: 1, 2, 3 threads, rows alone and rows among
 * others. */
#include "tests/unit/kernel_helpers.h"

#include <pthread.h>

static double gelu(double x)
{
    return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}
static double silu(double x) { return x / (1.0 + exp(-x)); }

/* ---- linear ---------------------------------------------------------------------------------- */

struct linear_case {
    int64_t rows, in, out, tile;
    enum dtype dtype;
    bool bias;
    enum epilogue epilogue;
};

/* A weight of which every stored bit pattern is finite, and what it means, decoded here
 * independently. */
static const void *random_weight(enum dtype dtype, int64_t n, double *value)
{
    float *memory = floats(n);
    if (dtype == DTYPE_F32)
        for (int64_t i = 0; i < n; i++) value[i] = memory[i];
    for (int64_t i = 0; i < n && dtype != DTYPE_F32; i++) {
        uint32_t bits = (uint32_t)(int32_t)(uniform() * 0x1p31f) >> 8;
        int sign = bits & 1, fraction, exponent;
        if (dtype == DTYPE_BF16) {
            fraction = bits >> 1 & 127, exponent = 120 + (bits >> 8) % 9;
            ((uint16_t *)memory)[i] = (uint16_t)(sign << 15 | exponent << 7 | fraction);
            value[i] = ldexp(1.0 + fraction / 128.0, exponent - 127);
        } else if (dtype == DTYPE_F16) {
            fraction = bits >> 1 & 1023, exponent = (bits >> 11) % 16; /* 0: subnormal */
            ((uint16_t *)memory)[i] = (uint16_t)(sign << 15 | exponent << 10 | fraction);
            value[i] = exponent ? ldexp(1.0 + fraction / 1024.0, exponent - 15)
                                : ldexp(fraction / 1024.0, -14);
        } else {
            fraction = bits >> 1 & 7,
            exponent = (bits >> 4) % 15; /* e4m3fn; the top exponent holds its NaN */
            ((uint8_t *)memory)[i] = (uint8_t)(sign << 7 | exponent << 3 | fraction);
            value[i] =
                exponent ? ldexp(1.0 + fraction / 8.0, exponent - 7) : ldexp(fraction / 8.0, -6);
        }
        if (sign) value[i] = -value[i];
    }
    return memory;
}

static float *run_linear(struct device *dev, const void *argument, int64_t *n)
{
    const struct linear_case *c = argument;
    double *weight = doubles(c->in * c->out), *want = doubles(c->rows * c->out);
    struct tensor w = {"w", c->dtype, 2, {c->out, c->in}, NULL, 0};
    w.data = random_weight(c->dtype, c->in * c->out, weight);
    struct tensor b = {"b", DTYPE_F32, 1, {c->out}, floats(c->out), 0};
    struct linear l = linear_make(&w, c->bias ? &b : NULL);
    *n = c->rows * c->out;
    float *x = floats(c->rows * c->in), *y = floats(*n), *streamed = floats(*n), *part = floats(*n);
    op_linear(dev, mat_f32(streamed, c->rows, c->out), mat_f32(x, c->rows, c->in), &l, c->epilogue,
              c->tile);
    op_linear_pack(dev, &l);
    assert_true(op_linear_packed_bytes(dev, &l) >= sizeof(float) * (size_t)(c->in * c->out));
    op_linear(dev, mat_f32(y, c->rows, c->out), mat_f32(x, c->rows, c->in), &l, c->epilogue,
              c->tile);
    expect_same("linear, streamed", y, streamed, *n);
    for (int64_t first = 0; first < c->rows; first += 2 * c->tile) {
        int64_t rows = c->rows - first < 2 * c->tile ? c->rows - first : 2 * c->tile;
        op_linear(dev, mat_f32(part + first * c->out, rows, c->out),
                  mat_f32(x + first * c->in, rows, c->in), &l, c->epilogue, c->tile);
    }
    expect_same("linear, two granules at a time", y, part, *n);
    op_linear_unpack(dev, &l);
    assert_null(l.packed);
    for (int64_t i = 0; i < *n; i++) {
        double sum = c->bias ? ((const float *)b.data)[i % c->out] : 0.0;
        for (int64_t k = 0; k < c->in; k++)
            sum += x[i / c->out * c->in + k] * weight[i % c->out * c->in + k];
        want[i] = c->epilogue == EPILOGUE_GELU_TANH ? gelu(sum)
                  : c->epilogue == EPILOGUE_SILU    ? silu(sum)
                                                    : sum;
    }
    expect_close("linear", y, want, *n, close_sum);
    return y;
}

static void test_linear(void **state)
{
    (void)state;
    static const struct linear_case cases[] = {
        {1, 1, 1, 16, DTYPE_F32, false, EPILOGUE_NONE},
        {37, 20, 33, 16, DTYPE_F32, true, EPILOGUE_NONE},
        {37, 20, 33, 16, DTYPE_BF16, true, EPILOGUE_GELU_TANH},
        {50, 64, 96, 32, DTYPE_F16, false, EPILOGUE_SILU},
        {331, 300, 128, 128, DTYPE_F8_E4M3, true, EPILOGUE_NONE},
        {150, 700, 280, 48, DTYPE_F32, true, EPILOGUE_GELU_TANH},
        {3, 4096, 40, 16, DTYPE_BF16, false, EPILOGUE_NONE}, /* rows a power of two apart */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        on_all_devices("linear", run_linear, cases + i);
}

/* Weights times the identity are the weights: packing converts exactly, with no rounding and no
 * element astray. */
static float *run_exact_weights(struct device *dev, const void *argument, int64_t *n)
{
    enum { IN = 24, OUT = 40 };
    enum dtype dtype = *(const enum dtype *)argument;
    double *weight = doubles(IN * OUT);
    struct tensor w = {"w", dtype, 2, {OUT, IN}, NULL, 0};
    w.data = random_weight(dtype, IN * OUT, weight);
    struct linear l = linear_make(&w, NULL);
    *n = IN * OUT;
    float *x = floats(IN * IN), *y = floats(*n);
    for (int i = 0; i < IN * IN; i++) x[i] = i % (IN + 1) == 0;
    op_linear_pack(dev, &l);
    op_linear(dev, mat_f32(y, IN, OUT), mat_f32(x, IN, IN), &l, EPILOGUE_NONE, 16);
    op_linear_unpack(dev, &l);
    for (int i = 0; i < IN; i++)
        for (int o = 0; o < OUT; o++) assert_true(y[i * OUT + o] == weight[o * IN + i]);
    return y;
}

static void test_exact_weights(void **state)
{
    (void)state;
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3};
    for (int i = 0; i < 4; i++) on_all_devices("weights", run_exact_weights, dtypes + i);
}

/* ---- norms and elementwise ------------------------------------------------------------------- */

static void naive_norm(double *y, const float *x, int64_t n, enum norm kind, double eps)
{
    double mean = 0.0, square = 0.0;
    for (int64_t i = 0; i < n && kind == NORM_LAYER; i++) mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) / sqrt(square + eps);
}

static float *run_norms(struct device *dev, const void *argument, int64_t *n)
{
    enum { ROWS = 11, T = 3 };
    int64_t d = *(const int64_t *)argument;
    int32_t index[ROWS] = {0, 2, 1, 1, 0, 2, 2, 0, 1, 2, 0};
    *n = ROWS * d;
    float *x = floats(*n), *y = floats(*n), *scale = floats(T * d), *shift = floats(T * d),
          *all = floats(4 * *n);
    double *want = doubles(*n);
    for (int kind = NORM_RMS; kind <= NORM_LAYER; kind++)
        for (int rows = 0; rows < 2; rows++) {
            op_norm_modulate(dev, mat_f32(y, ROWS, d), mat_f32(x, ROWS, d), kind, 1e-6f,
                             mat_f32(shift, T, d), mat_f32(scale, T, d), rows ? index : NULL);
            for (int s = 0; s < ROWS; s++) {
                naive_norm(want + s * d, x + s * d, d, kind, 1e-6);
                int64_t m = rows ? index[s] * d : 0;
                for (int64_t i = 0; i < d; i++)
                    want[s * d + i] = want[s * d + i] * (1.0 + scale[m + i]) + shift[m + i];
            }
            expect_close("norm_modulate", y, want, *n, close_enough);
            memcpy(all + (2 * kind + rows) * *n, y, (size_t)*n * sizeof *y);
        }
    struct mat none = {.p = NULL};
    float *in_place = copy_of(x, *n);
    op_norm_modulate(dev, mat_f32(in_place, ROWS, d), mat_f32(in_place, ROWS, d), NORM_LAYER, 1e-6f,
                     none, none, NULL);
    for (int s = 0; s < ROWS; s++) naive_norm(want + s * d, x + s * d, d, NORM_LAYER, 1e-6);
    expect_close("norm", in_place, want, *n, close_enough);
    op_rms_norm(dev, mat_f32(y, ROWS, d), mat_f32(x, ROWS, d), 1e-5f, scale);
    for (int s = 0; s < ROWS; s++) {
        naive_norm(want + s * d, x + s * d, d, NORM_RMS, 1e-5);
        for (int64_t i = 0; i < d; i++) want[s * d + i] *= scale[i];
    }
    expect_close("rms_norm", y, want, *n, close_enough);
    *n *= 4;
    return all;
}

static void test_norms(void **state)
{
    (void)state;
    static const int64_t widths[] = {1, 6, 31, 64, 200};
    for (int i = 0; i < 5; i++) on_all_devices("norms", run_norms, widths + i);
}

static float *run_rope(struct device *dev, const void *argument, int64_t *n)
{
    enum { ROWS = 7, POSITIONS = 5 };
    int64_t d = *(const int64_t *)argument;
    struct rope rope = {
        .n = d / 6, .pad = (int)(d % 6), .positions = {POSITIONS, POSITIONS, POSITIONS}};
    int32_t coord[ROWS * 3];
    for (int i = 0; i < ROWS * 3; i++) coord[i] = (i * 7 + 3) % POSITIONS;
    rope.coord = coord;
    for (int a = 0; a < 3; a++) rope.table[a] = floats(POSITIONS * rope.n * 2);
    *n = ROWS * d;
    float *x = floats(*n), *y = copy_of(x, *n), *weight = floats(d);
    double *want = doubles(*n);
    op_qk_norm_rope(dev, mat_f32(y, ROWS, d), (struct mat){.p = NULL}, 1e-5f, weight, NULL, &rope);
    for (int s = 0; s < ROWS; s++) {
        double *row = want + s * d;
        naive_norm(row, x + s * d, d, NORM_RMS, 1e-5);
        for (int64_t i = 0; i < d; i++) row[i] *= weight[i];
        for (int64_t c = d % 6; c < d; c += 2) { /* spec transformer 2.5: axis is the fast index */
            int64_t j = (c - d % 6) / 6, a = (c - d % 6) % 6 / 2;
            const float *at = rope.table[a] + 2 * (coord[s * 3 + a] * rope.n + j);
            double even = row[c], odd = row[c + 1];
            row[c] = even * at[0] - odd * at[1];
            row[c + 1] = odd * at[0] + even * at[1];
        }
    }
    expect_close("qk_norm_rope", y, want, *n, close_enough);
    return y;
}

static void test_rope(void **state)
{
    (void)state;
    static const int64_t widths[] = {6, 20, 64, 128, 130};
    for (int i = 0; i < 5; i++) on_all_devices("rope", run_rope, widths + i);
}

static float *run_elementwise(struct device *dev, const void *argument, int64_t *n)
{
    (void)argument;
    enum { ROWS = 9, D = 53, N = ROWS * D };
    int32_t index[ROWS] = {1, 0, 1, 1, 0, 0, 1, 0, 1};
    float *x = floats(N), *y = floats(N), *gate = floats(2 * D), *out = floats(5 * N);
    double *want = doubles(N);
    for (int i = 0; i < N; i++)
        y[i] *= i % 5 ? 5.0f : 60.0f; /* into the flat ends of the activations */
    struct mat none = {.p = NULL}, m[5];
    for (int i = 0; i < 5; i++) m[i] = mat_f32(memcpy(out + i * N, x, N * sizeof *x), ROWS, D);
    op_gate_residual(dev, m[0], mat_f32(y, ROWS, D), mat_f32(gate, 2, D), index);
    for (int i = 0; i < N; i++) want[i] = x[i] + (double)gate[index[i / D] * D + i % D] * y[i];
    expect_close("gate_residual", out, want, N, close_enough);
    op_gate_residual(dev, m[1], mat_f32(y, ROWS, D), none, NULL);
    for (int i = 0; i < N; i++) want[i] = (double)x[i] + y[i];
    expect_close("residual", out + N, want, N, close_enough);
    op_gelu_gate(dev, m[2], mat_f32(y, ROWS, D), m[2]);
    for (int i = 0; i < N; i++) want[i] = gelu(y[i]) * x[i];
    expect_close("gelu_gate", out + 2 * N, want, N, 1e-6);
    op_silu(dev, m[3], mat_f32(y, ROWS, D));
    for (int i = 0; i < N; i++) want[i] = silu(y[i]);
    expect_close("silu", out + 3 * N, want, N, 1e-6);
    op_lincomb(dev, out + 4 * N, 0.75f, out + 4 * N, -2.5f, y, N);
    for (int i = 0; i < N; i++) want[i] = 0.75 * x[i] - 2.5 * y[i];
    expect_close("lincomb", out + 4 * N, want, N, close_enough);
    for (int length = 1; length < 40; length++) { /* at an array's end as in its middle */
        float part[40];
        op_lincomb(dev, part, 0.75f, x, -2.5f, y, length);
        expect_same("lincomb of a part", part, out + 4 * N, length);
    }
    *n = 5 * N;
    return out;
}

static void test_elementwise(void **state)
{
    (void)state;
    on_all_devices("elementwise", run_elementwise, NULL);
}

static float *run_bytes(struct device *dev, const void *argument, int64_t *n)
{
    (void)argument;
    enum { ROW = 5000, STRIDE = 5003, PICTURE_ROWS = 4 };
    *n = ROW * PICTURE_ROWS;
    float *y = floats(STRIDE * PICTURE_ROWS), *result = floats(*n);
    uint8_t *bytes = (uint8_t *)floats(*n / 4);
    const float special[] = {-1.0f, 1.0f, 0.0f, -3.0f, 7.0f, INFINITY, -INFINITY, 0.9999f};
    for (int64_t i = 0; i < STRIDE * PICTURE_ROWS; i++)
        y[i] = i < 8 ? special[i] : 1.3f * uniform();
    op_to_bytes(dev, bytes, y, STRIDE, ROW, PICTURE_ROWS);
    for (int64_t i = 0; i < *n; i++) {
        float v = 0.5f * y[i / ROW * STRIDE + i % ROW] +
                  0.5f; /* exact but for one rounding, however it is contracted */
        v = 255.0f * fminf(fmaxf(v, 0.0f), 1.0f);
        assert_int_equal(bytes[i], (int)v);
        result[i] = bytes[i];
    }
    return result;
}

static void test_bytes(void **state)
{
    (void)state;
    on_all_devices("bytes", run_bytes, NULL);
}

/* 65535.5 in fp32 is 65536: the largest value must not become 0. */
static float *run_words(struct device *dev, const void *argument, int64_t *n)
{
    (void)argument;
    *n = 20001;
    float *y = floats(*n), *result = floats(*n);
    uint16_t *words = (uint16_t *)floats(*n / 2 + 1);
    const float special[] = {-1.0f, 1.0f, 0.0f, -3.0f, 7.0f, INFINITY, -INFINITY, NAN, 0.99999f};
    const int expected[] = {0, 65535, 32768, 0, 65535, 65535, 0, 0, 65535};
    for (int64_t i = 0; i < *n; i++) y[i] = i < 9 ? special[i] : 1.3f * uniform();
    op_to_words(dev, words, y, *n, *n, 1);
    for (int64_t i = 0; i < *n; i++) {
        double v = 65535 * fmin(fmax(0.5 * y[i] + 0.5, 0), 1);
        if (i < 9 && words[i] != expected[i]) fail_msg("words: %g is %d", y[i], words[i]);
        if (i >= 9 && fabs(words[i] - v) > 0.51) fail_msg("words: %g is %d", y[i], words[i]);
        result[i] = words[i];
    }
    return result;
}

static void test_words(void **state)
{
    (void)state;
    on_all_devices("words", run_words, NULL);
}

/* ---- attention ------------------------------------------------------------------------------- */

struct attention_case {
    int64_t queries, keys, heads, d, granule;
    float sharpness; /* of the scores */
};

/* o[i] = sum_j softmax_j(scale q_i k_j + bias(j - i)) v_j for every head */
static void naive_attention(double *o, struct mat q, struct mat k, struct mat v, int64_t heads,
                            double scale,
                            double (*bias)(const float *, int64_t distance, int64_t head,
                                           int64_t heads),
                            const float *table)
{
    const float *qp = q.p, *kp = k.p, *vp = v.p;
    int64_t d = q.cols / heads;
    double *p = doubles(k.rows);
    for (int64_t n = 0; n < heads; n++)
        for (int64_t i = 0; i < q.rows; i++) {
            double top = -INFINITY, sum = 0.0;
            for (int64_t j = 0; j < k.rows; j++) {
                p[j] = bias ? bias(table, j - i, n, heads) : 0.0;
                for (int64_t c = 0; c < d; c++)
                    p[j] += scale * qp[i * q.cols + n * d + c] * kp[j * q.cols + n * d + c];
                top = fmax(top, p[j]);
            }
            for (int64_t j = 0; j < k.rows; j++) sum += p[j] = exp(p[j] - top);
            for (int64_t c = 0; c < d; c++) {
                double at = 0.0;
                for (int64_t j = 0; j < k.rows; j++) at += p[j] / sum * vp[j * q.cols + n * d + c];
                o[i * q.cols + n * d + c] = at;
            }
        }
}

/* All keys at once; then granules in blocks of 1, 2, 1, 2 ...; and a few queries alone. */
static float *run_attention(struct device *dev, const void *argument, int64_t *n)
{
    const struct attention_case *c = argument;
    int64_t cols = c->heads * c->d, size = op_kv_granule_floats(dev, c->granule, c->heads, c->d);
    int64_t granules = (c->keys + c->granule - 1) / c->granule;
    *n = c->queries * cols;
    float *q = floats(*n), *k = floats(c->keys * cols), *v = floats(c->keys * cols),
          *packed = floats(granules * size);
    float *o = floats(*n), *again = floats(*n);
    for (int64_t i = 0; i < *n; i++) q[i] *= c->sharpness;
    float *state = floats(op_attention_state_floats(c->queries, c->heads, c->d)),
          scale = 1.0f / sqrtf((float)c->d);
    struct mat mq = mat_f32(q, c->queries, cols), mk = mat_f32(k, c->keys, cols),
               mv = mat_f32(v, c->keys, cols);
    op_kv_pack(dev, packed, mk, mv, c->heads, c->granule);
    op_attention_begin(dev, state, c->queries, c->heads, c->d);
    op_attention_block(dev, state, mq, packed, c->keys, c->granule, c->heads, scale);
    op_attention_finish(dev, mat_f32(o, c->queries, cols), state, c->heads);
    double *want = doubles(*n);
    naive_attention(want, mq, mk, mv, c->heads, scale, NULL, NULL);
    /* a score of size s is off by s roundings, and so is the weight's exponent */
    expect_close("attention", o, want, *n, close_enough * fmax(1.0, c->sharpness / 2));

    op_attention_begin(dev, state, c->queries, c->heads, c->d);
    for (int64_t g = 0, count; g < granules; g += count) {
        count = 1 + g % 2;
        int64_t left = c->keys - g * c->granule,
                keys = left < count * c->granule ? left : count * c->granule;
        op_attention_block(dev, state, mq, packed + g * size, keys, c->granule, c->heads, scale);
    }
    op_attention_finish(dev, mat_f32(again, c->queries, cols), state, c->heads);
    expect_same("attention in blocks", o, again, *n);

    int64_t first = c->queries / 3, rows = (c->queries + 1) / 2;
    op_attention_begin(dev, state, rows, c->heads, c->d);
    op_attention_block(dev, state, mat_f32(q + first * cols, rows, cols), packed, c->keys,
                       c->granule, c->heads, scale);
    op_attention_finish(dev, mat_f32(again, rows, cols), state, c->heads);
    expect_same("attention of some queries", o + first * cols, again, rows * cols);
    return o;
}

static void test_attention(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {1, 1, 1, 2, 16, 1.0f},      {37, 37, 3, 20, 16, 1.0f},    {50, 75, 2, 32, 32, 4.0f},
        {130, 200, 2, 64, 64, 1.0f}, {29, 300, 1, 128, 128, 1.0f}, {23, 90, 2, 64, 48, 400.0f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        on_all_devices("attention", run_attention, cases + i);
}

/* Scores of -infinity leave the other keys alone; a granule of nothing else leaves no NaN. */
static float *run_infinite(struct device *dev, const void *argument, int64_t *n)
{
    (void)argument;
    enum { KEYS = 40, D = 16, GRANULE = 16 };
    float *q = floats(D), *k = floats(KEYS * D), *v = floats(KEYS * D), *o = floats(D);
    float *packed = floats(3 * op_kv_granule_floats(dev, GRANULE, 1, D)),
          *state = floats(op_attention_state_floats(1, 1, D));
    for (int c = 0; c < D; c++) q[c] = 1.0f;
    for (int j = 0; j < 20; j++) k[j * D] = -INFINITY; /* all of granule 0, some of granule 1 */
    op_kv_pack(dev, packed, mat_f32(k, KEYS, D), mat_f32(v, KEYS, D), 1, GRANULE);
    op_attention_begin(dev, state, 1, 1, D);
    op_attention_block(dev, state, mat_f32(q, 1, D), packed, KEYS, GRANULE, 1, 0.25f);
    op_attention_finish(dev, mat_f32(o, 1, D), state, 1);
    double *want = doubles(D);
    naive_attention(want, mat_f32(q, 1, D), mat_f32(k + 20 * D, 20, D), mat_f32(v + 20 * D, 20, D),
                    1, 0.25, NULL, NULL);
    expect_close("attention, -infinity", o, want, D, close_enough);
    *n = D;
    return o;
}

static void test_infinite(void **state)
{
    (void)state;
    on_all_devices("-infinity", run_infinite, NULL);
}

static double t5_bias(const float *table, int64_t distance, int64_t head, int64_t heads)
{
    int64_t a = llabs(distance), bucket = a;
    if (a >= 8) bucket = 8 + (int64_t)floor(log(a / 8.0) / log(16.0) * 8.0);
    if (bucket > 15) bucket = 15;
    return table[(bucket + (distance > 0 ? 16 : 0)) * heads + head];
}

static float *run_t5(struct device *dev, const void *argument, int64_t *n)
{
    int64_t length = *(const int64_t *)argument, heads = 3, cols = heads * 20;
    *n = length * cols;
    float *q = floats(*n), *k = floats(*n), *v = floats(*n), *o = floats(*n),
          *table = floats(32 * heads);
    struct mat mq = mat_f32(q, length, cols), mk = mat_f32(k, length, cols),
               mv = mat_f32(v, length, cols);
    op_attention_t5(dev, mat_f32(o, length, cols), mq, mk, mv, heads, table);
    double *want = doubles(*n);
    naive_attention(want, mq, mk, mv, heads, 1.0, t5_bias, table);
    expect_close("attention_t5", o, want, *n, close_enough);
    return o;
}

static void test_t5(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 17, 140};
    for (int i = 0; i < 3; i++) on_all_devices("t5", run_t5, lengths + i);
}

/* ---- VAE ------------------------------------------------------------------------------------- */

struct conv_case {
    int64_t t, h, w, in, out;
    int kernel, pad;
    int front;
    enum dtype dtype;
    bool bias, add;
};

static double naive_conv(const struct conv_case *c, const struct clip *x, const double *weight,
                         int64_t t, int64_t y, int64_t px, int64_t o)
{
    int k = c->kernel, front = k == 1 ? 0 : c->front;
    double sum = 0.0;
    for (int a = 0; a < k; a++)
        for (int b = 0; b < k; b++)
            for (int d = 0; d < k; d++) {
                int64_t ft = t + a - front, fy = y + b - k / 2, fx = px + d - k / 2;
                if (fy < 0 || fy >= c->h || fx < 0 || fx >= c->w) continue;
                ft = ft < 0 ? 0 : ft >= c->t ? c->t - 1 : ft;
                for (int64_t i = 0; i < c->in; i++)
                    sum +=
                        at(x, ft, fy, fx)[i] * weight[(((o * c->in + i) * k + a) * k + b) * k + d];
            }
    return sum;
}

static float *run_conv(struct device *dev, const void *argument, int64_t *n)
{
    const struct conv_case *c = argument;
    int64_t weights = c->in * c->out * c->kernel * c->kernel * c->kernel;
    double *weight = doubles(weights);
    struct tensor w = {"w", c->dtype, 5, {c->out, c->in, c->kernel, c->kernel, c->kernel}, NULL, 0};
    w.data = random_weight(c->dtype, weights, weight);
    struct tensor b = {"b", DTYPE_F32, 1, {c->out}, floats(c->out), 0};
    struct conv conv = conv_make(&w, c->bias ? &b : NULL);
    struct clip x = clip_of(c->t, c->h, c->w, c->in, c->pad),
                y = clip_of(c->t, c->h, c->w, c->out, 0);
    clear_border(&x);
    *n = clip_count(&y);
    float *before = copy_of(y.p, *n);
    op_conv_pack(dev, &conv);
    op_conv3d(dev, &y, &x, &conv, c->front, c->add ? &y : NULL, NULL);
    double *want = doubles(*n);
    for (int64_t i = 0; i < *n; i++) {
        int64_t o = i % c->out, px = i / c->out % c->w, row = i / c->out / c->w;
        want[i] = naive_conv(c, &x, weight, row / c->h, row % c->h, px, o);
        want[i] += (c->bias ? ((const float *)b.data)[o] : 0.0f) + (c->add ? before[i] : 0.0f);
    }
    expect_close("conv3d", y.p, want, *n, close_sum);
    if (c->t >= 4 &&
        !c->add) { /* frames 1 and 2 need frames 0 to 3 (3 only when symmetric) and no other */
        struct clip part = x, out = clip_of(4, c->h, c->w, c->out, 0);
        part.t = 4;
        op_conv3d(dev, &out, &part, &conv, c->front, NULL, NULL);
        expect_same("conv3d of some frames", at(&y, 1, 0, 0), at(&out, 1, 0, 0),
                    2 * clip_frame(&y));
    }
    op_conv_unpack(dev, &conv);
    assert_null(conv.packed);
    return y.p;
}

static void test_conv(void **state)
{
    (void)state;
    static const struct conv_case cases[] = {
        {1, 1, 1, 1, 1, 3, 1, 1, DTYPE_F32, true, false},
        {1, 4, 7, 3, 5, 3, 1, 1, DTYPE_F32, true, false},
        {3, 5, 13, 48, 20, 3, 1, 2, DTYPE_BF16, true, false},
        {5, 3, 6, 70, 33, 3, 1, 1, DTYPE_F16, false, false},
        {5, 3, 9, 64, 32, 3, 1, 2, DTYPE_F32, true, true},
        {2, 2, 400, 4, 17, 3, 1, 1, DTYPE_F32, true, true},
        {1, 1, 1, 32, 16, 3, 1, 1, DTYPE_F32, false, false},
        {12, 7, 5, 48, 48, 3, 1, 2, DTYPE_BF16, true, false},
        {1, 11, 50, 32, 144, 3, 1, 1, DTYPE_F16, true, true},
        {3, 4, 5, 300, 48, 1, 0, 1, DTYPE_F32, true, false},
        {2, 4, 5, 16, 130, 1, 1, 2, DTYPE_BF16, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        on_all_devices("conv3d", run_conv, cases + i);
}

static float *run_clip_norms(struct device *dev, const void *argument, int64_t *n)
{
    int pad = *(const int *)argument;
    enum { T = 2, H = 3, W = 5, C = 37 };
    struct clip x = clip_of(T, H, W, C, 1 - pad), y = clip_of(T, H, W, C, pad);
    float *scale = floats(C), *shift = floats(C), *kept = floats(3 * clip_count(&y));
    double want[C];
    for (int mode = 0; mode < 3; mode++) {
        if (mode < 2)
            op_pixel_norm_silu(dev, &y, &x, mode ? scale : NULL, mode ? shift : NULL);
        else
            op_channel_layer_norm(dev, &y, &x, 1e-6f, scale, shift);
        for (int64_t i = 0; i < T * H * W; i++) {
            int64_t t = i / (H * W), h = i / W % H, w = i % W;
            naive_norm(want, at(&x, t, h, w), C, mode == 2 ? NORM_LAYER : NORM_RMS,
                       mode == 2 ? 1e-6 : 1e-8);
            for (int c = 0; c < C; c++) {
                if (mode == 1) want[c] = want[c] * (1.0 + scale[c]) + shift[c];
                want[c] = mode == 2 ? want[c] * scale[c] + shift[c] : silu(want[c]);
            }
            expect_close(mode == 2 ? "channel_layer_norm" : "pixel_norm_silu", at(&y, t, h, w),
                         want, C, close_enough);
        }
        expect_clear_border("norm", &y);
        memcpy(kept + mode * clip_count(&y), y.p, (size_t)clip_count(&y) * sizeof(float));
    }
    *n = 3 * clip_count(&y);
    return kept;
}

static float *run_copy_and_noise(struct device *dev, const void *argument, int64_t *n)
{
    int pad = *(const int *)argument;
    struct clip x = clip_of(2, 3, 4, 5, 1 - pad), y = clip_of(2, 3, 4, 5, pad), sum = y;
    float *map = floats(3 * 4), *per_channel = floats(5);
    op_copy_pad(dev, &y, &x);
    for (int64_t i = 0; i < 2 * 3 * 4; i++)
        expect_same("copy_pad", at(&y, i / 12, i / 4 % 3, i % 4), at(&x, i / 12, i / 4 % 3, i % 4),
                    5);
    expect_clear_border("copy_pad", &y);
    sum.p = copy_of(y.p, clip_count(&y));
    op_add_noise_map(dev, &y, &y, map, per_channel, NULL);
    op_add_noise_map(dev, &sum, &x, map, per_channel, &sum);
    for (int64_t i = 0; i < 2 * 3 * 4; i++) {
        int64_t t = i / 12, h = i / 4 % 3, w = i % 4;
        double want[5], twice[5];
        for (int c = 0; c < 5; c++) {
            want[c] = at(&x, t, h, w)[c] + (double)map[i % 12] * per_channel[c];
            twice[c] = want[c] + at(&x, t, h, w)[c];
        }
        expect_close("add_noise_map", at(&y, t, h, w), want, 5, close_enough);
        expect_close("add_noise_map, add", at(&sum, t, h, w), twice, 5, close_enough);
    }
    expect_clear_border("add_noise_map", &sum);
    *n = clip_count(&y);
    return y.p;
}

static void test_clips(void **state)
{
    (void)state;
    static const int pads[] = {0, 1};
    for (int i = 0; i < 2; i++) {
        on_all_devices("clip norms", run_clip_norms, pads + i);
        on_all_devices("copy and noise", run_copy_and_noise, pads + i);
    }
}

struct shuffle_case {
    int st, ss, pad;
    int64_t channels, residual; /* of y; of the residual, 0 = none */
};

/* Written from the coarse side, as the specification has it: D[o, 2t+i1, ...] = Yc[8o + 4 i1 + 2 i2
 * + i3, t, ...]. */
static float *run_shuffle(struct device *dev, const void *argument, int64_t *n)
{
    const struct shuffle_case *c = argument;
    int64_t p = c->st * c->ss * c->ss, drop = c->st - 1;
    struct clip x = clip_of(3, 2, 3, c->channels * p, 1 - c->pad);
    struct clip r = clip_of(3, 2, 3, c->residual ? c->residual : p, 0);
    struct clip y = clip_of(3 * c->st - drop, 2 * c->ss, 3 * c->ss, c->channels, c->pad);
    op_depth_to_space(dev, &y, &x, c->residual ? &r : NULL, c->st, c->ss, true);
    for (int64_t t = 0; t < x.t; t++)
        for (int64_t i = 0; i < x.h * x.w; i++)
            for (int64_t source = 0; source < x.c; source++) {
                int64_t o = source / p, sub = source % p, i3 = sub % c->ss,
                        i2 = sub / c->ss % c->ss;
                int64_t fine_t = c->st * t + sub / (c->ss * c->ss) - drop, h = i / x.w, w = i % x.w;
                if (fine_t < 0) continue;
                float want = at(&x, t, h, w)[source];
                if (c->residual) want += at(&r, t, h, w)[p * (o % (r.c / p)) + sub];
                assert_true(at(&y, fine_t, c->ss * h + i2, c->ss * w + i3)[o] == want);
            }
    expect_clear_border("depth_to_space", &y);
    *n = clip_count(&y);
    return y.p;
}

static void test_shuffle(void **state)
{
    (void)state;
    static const struct shuffle_case cases[] = {
        {2, 2, 1, 8, 16}, {2, 2, 0, 6, 0}, {1, 2, 1, 6, 8},
        {2, 1, 0, 5, 4},  {2, 2, 1, 8, 8}, {1, 1, 0, 3, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        on_all_devices("depth_to_space", run_shuffle, cases + i);
}

static float *run_unpatchify(struct device *dev, const void *argument, int64_t *n)
{
    (void)argument;
    struct clip x = clip_of(2, 2, 3, 48, 0);
    *n = 2 * 8 * 12 * 3;
    float *y = floats(*n);
    op_unpatchify(dev, y, &x, 4);
    for (int64_t t = 0; t < 2; t++)
        for (int64_t i = 0; i < 6 * 48;
             i++) { /* V[c, t, 4y+q, 4x+r] = O[(c*4 + r)*4 + q, t, y, x] */
            int64_t source = i % 48, h = i / 48 / 3, w = i / 48 % 3, q = source % 4,
                    r = source / 4 % 4;
            assert_true(y[((t * 8 + 4 * h + q) * 12 + 4 * w + r) * 3 + source / 16] ==
                        at(&x, t, h, w)[source]);
        }
    return y;
}

static void test_unpatchify(void **state)
{
    (void)state;
    on_all_devices("unpatchify", run_unpatchify, NULL);
}

/* ---- poll ------------------------------------------------------------------------------------ */

struct calls {
    pthread_t caller;
    int count, elsewhere;
};
static void count_call(void *argument)
{
    struct calls *calls = argument;
    calls->count++;
    calls->elsewhere += !pthread_equal(calls->caller, pthread_self());
}

static void poll_conv(struct device *dev, struct calls *calls)
{
    struct tensor w = {"w", DTYPE_F32, 5, {64, 16, 3, 3, 3}, floats(64 * 16 * 27), 0};
    struct conv conv = conv_make(&w, NULL);
    struct clip x = clip_of(8, 16, 16, 16, 1), y = clip_of(8, 16, 16, 64, 0);
    op_conv_pack(dev, &conv);
    calls->count = 0;
    op_conv3d(dev, &y, &x, &conv, 1, NULL, NULL);
    op_conv_unpack(dev, &conv);
}

static void poll_linear(struct device *dev, struct calls *calls)
{
    struct tensor w = {"w", DTYPE_F32, 2, {512, 64}, floats(512 * 64), 0};
    struct linear l = linear_make(&w, NULL);
    float *x = floats(2000 * 64), *y = floats(2000 * 512);
    op_linear_pack(dev, &l);
    calls->count = 0;
    op_linear(dev, mat_f32(y, 2000, 512), mat_f32(x, 2000, 64), &l, EPILOGUE_NONE, 16);
    op_linear_unpack(dev, &l);
}

static void poll_attention(struct device *dev, struct calls *calls)
{
    float *q = floats(1000 * 64), *packed = floats(8 * op_kv_granule_floats(dev, 128, 4, 16));
    float *running = floats(op_attention_state_floats(1000, 4, 16));
    op_kv_pack(dev, packed, mat_f32(q, 1000, 64), mat_f32(q, 1000, 64), 4, 128);
    op_attention_begin(dev, running, 1000, 4, 16);
    calls->count = 0;
    op_attention_block(dev, running, mat_f32(q, 1000, 64), packed, 1000, 128, 4, 0.25f);
}

/* Alone, the caller polls often; among other threads it may by chance get few of the tasks, and no
 * other thread polls for it. */
static void test_poll(void **state)
{
    (void)state;
    static void (*const ops[])(struct device *, struct calls *) = {poll_linear, poll_attention,
                                                                   poll_conv};
    for (int i = 0; i < 3; i++)
        for (int threads = 1; threads <= 3; threads += 2) {
            struct calls calls = {.caller = pthread_self()};
            struct device *dev = device_open_cpu(threads, NULL, PRECISION_F32);
            device_set_poll(dev, count_call, &calls);
            ops[i](dev, &calls);
            device_close(dev);
            assert_int_equal(calls.elsewhere, 0);
            if (threads == 1) assert_in_range(calls.count, 8, 1024);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_linear, teardown),
        cmocka_unit_test_teardown(test_exact_weights, teardown),
        cmocka_unit_test_teardown(test_norms, teardown),
        cmocka_unit_test_teardown(test_rope, teardown),
        cmocka_unit_test_teardown(test_elementwise, teardown),
        cmocka_unit_test_teardown(test_bytes, teardown),
        cmocka_unit_test_teardown(test_words, teardown),
        cmocka_unit_test_teardown(test_attention, teardown),
        cmocka_unit_test_teardown(test_infinite, teardown),
        cmocka_unit_test_teardown(test_t5, teardown),
        cmocka_unit_test_teardown(test_conv, teardown),
        cmocka_unit_test_teardown(test_clips, teardown),
        cmocka_unit_test_teardown(test_shuffle, teardown),
        cmocka_unit_test_teardown(test_unpatchify, teardown),
        cmocka_unit_test_teardown(test_poll, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
