/* check_ops [--small]: ops of kernels/ops.h on the first CUDA device against the CPU, on the same
 * random numbers, in sizes of the 2B and of no round number (--small: for emulated devices).
 * What only they go through is cuBLASLt and the library's own host code; the kernels by themselves
 * are compared in tests/emulation/test_*.cu. Speaks TAP. */
#include "base/error.h"
#include "base/log.h"
#include "kernels/ops.h"
#include "tests/support/held.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool small;

/* ---- a case's operands, on whichever device it runs ------------------------------------------ */

struct side {
    struct device *dev;
    uint32_t seed;
    struct held held;
    float *result; /* in host memory */
    int64_t results;
};

static float uniform(struct side *s) /* [-1, 1) */
{
    s->seed = s->seed * 1664525u + 1013904223u;
    return (float)(int32_t)s->seed * 0x1p-31f;
}

static float *host_floats(struct side *s, int64_t n, float amplitude)
{
    float *values = xmalloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = amplitude * uniform(s);
    return values;
}

static float *floats(struct side *s, int64_t n)
{
    float *values = host_floats(s, n, 1), *p = held_take(&s->held, (size_t)n * sizeof *p);
    op_upload(s->dev, p, values, (size_t)n * sizeof *p);
    free(values);
    return p;
}

static struct mat mat(struct side *s, int64_t rows, int64_t cols)
{
    return mat_f32(floats(s, rows * cols), rows, cols);
}

static struct clip clip(struct side *s, int64_t t, int64_t h, int64_t w, int64_t c, int pad)
{
    struct clip clip = {.t = t, .h = h, .w = w, .c = c, .pad = pad};
    int64_t n = clip_count(&clip), row = clip_row(&clip);
    float *values = host_floats(s, n, 1), *p = held_take(&s->held, (size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) /* border columns are zero */
        if (i % row < pad * c || i % row >= row - pad * c) values[i] = 0;
    op_upload(s->dev, p, values, (size_t)n * sizeof *p);
    clip.p = p;
    free(values);
    return clip;
}

static struct tensor weight(struct side *s, int rank, const int64_t *shape)
{
    struct tensor t = {.name = "weight", .dtype = DTYPE_F32, .rank = rank};
    int64_t inputs = 1;
    for (int i = 0; i < rank; i++) {
        t.shape[i] = shape[i];
        inputs *= i ? shape[i] : 1;
    }
    t.bytes = (size_t)tensor_count(&t) * sizeof(float);
    t.data = host_floats(s, tensor_count(&t), sqrtf(3.0f / (float)inputs));
    return t;
}

static void give_result(struct side *s, const void *p, int64_t n)
{
    s->results = n;
    s->result = xmalloc((size_t)n * sizeof(float));
    op_download(s->dev, s->result, p, (size_t)n * sizeof(float));
    device_finish(s->dev);
}
static void give_mat(struct side *s, struct mat m) { give_result(s, m.p, m.rows * m.cols); }
static void give_clip(struct side *s, const struct clip *c) { give_result(s, c->p, clip_count(c)); }

static void side_end(struct side *s)
{
    free(s->result);
    held_give(&s->held);
}

static int64_t sized(int64_t real, int64_t tiny) { return small ? tiny : real; }

/* ---- products -------------------------------------------------------------------------------- */

static void linear(struct side *s, int64_t rows, int64_t in, int64_t out, enum epilogue e,
                   bool resident)
{
    struct tensor w = weight(s, 2, (int64_t[]){out, in}), b = weight(s, 1, (int64_t[]){out});
    struct linear l = linear_make(&w, &b);
    struct mat x = mat(s, rows, in), y = mat(s, rows, out);
    if (resident) op_linear_pack(s->dev, &l);
    op_linear(s->dev, y, x, &l, e, 128);
    give_mat(s, y);
    if (resident) op_linear_unpack(s->dev, &l);
    free((void *)w.data), free((void *)b.data);
}
static void linear_square(struct side *s)
{
    linear(s, sized(1000, 20), sized(2048, 32), sized(2048, 48), EPILOGUE_NONE, true);
}
static void linear_gelu(struct side *s)
{
    linear(s, sized(999, 20), sized(2048, 32), sized(8192, 48), EPILOGUE_GELU_TANH, true);
}
static void linear_silu(struct side *s)
{
    linear(s, sized(3, 3), sized(2048, 32), sized(12288, 48), EPILOGUE_SILU, true);
}
static void linear_streamed(struct side *s)
{
    linear(s, sized(130, 20), sized(8192, 64), sized(2048, 32), EPILOGUE_NONE, false);
}

/* The keys come in two blocks, as from two ranks. */
static void attention(struct side *s, int64_t queries, int64_t keys, int64_t head_dim,
                      int64_t granule)
{
    int64_t heads = sized(4, 2), width = heads * head_dim, half = keys / granule / 2 * granule;
    struct mat q = mat(s, queries, width), k = mat(s, keys, width), v = mat(s, keys, width),
               o = mat(s, queries, width);
    float *packed = floats(s, (keys + granule - 1) / granule *
                                  op_kv_granule_floats(s->dev, granule, heads, head_dim));
    float *state = floats(s, op_attention_state_floats(queries, heads, head_dim));
    float scale = 4 / sqrtf((float)head_dim); /* scores differ by some units */
    op_attention_begin(s->dev, state, queries, heads, head_dim);
    for (int64_t from = 0, n; from < keys; from += n) {
        n = from == 0 && half ? half : keys - from;
        op_kv_pack(s->dev, packed, mat_rows(k, from, n), mat_rows(v, from, n), heads, granule);
        op_attention_block(s->dev, state, q, packed, n, granule, heads, scale);
    }
    op_attention_finish(s->dev, o, state, heads);
    give_mat(s, o);
}
static void attention_64(struct side *s)
{
    attention(s, sized(1501, 70), sized(2999, 90), 64, sized(256, 32));
}
static void attention_128(struct side *s)
{
    attention(s, sized(1501, 70), sized(2999, 90), 128, sized(256, 32));
}
static void attention_32(struct side *s) { attention(s, sized(333, 70), sized(777, 90), 32, 48); }
static void attention_text(struct side *s) { attention(s, sized(2000, 40), 77, 64, 64); }

static void attention_t5(struct side *s)
{
    int64_t tokens = sized(256, 20), heads = sized(64, 2), width = heads * 64;
    struct mat q = mat(s, tokens, width), k = mat(s, tokens, width), v = mat(s, tokens, width),
               o = mat(s, tokens, width);
    op_attention_t5(s->dev, o, q, k, v, heads, floats(s, 32 * heads));
    give_mat(s, o);
}

static void convolution(struct side *s, int64_t in, int64_t out, int kernel, int stride_t,
                        int stride_s, bool added)
{
    int64_t t = stride_t == 2 ? 4 : 3, h = sized(19, 6), w = sized(30, 8), k = kernel;
    struct tensor weights = weight(s, 5, (int64_t[]){out, in, k, k, k}),
                  bias = weight(s, 1, (int64_t[]){out});
    struct conv c = conv_make(&weights, &bias);
    c.stride_t = stride_t, c.stride_s = stride_s;
    struct clip x = clip(s, t, h, w, in, kernel == 3),
                y = clip(s, (t - 1) / stride_t + 1, (h - 1) / stride_s + 1, (w - 1) / stride_s + 1,
                         out, 0),
                add = clip(s, y.t, y.h, y.w, out, 0);
    op_conv_pack(s->dev, &c);
    op_conv3d(s->dev, &y, &x, &c, kernel == 3 ? 1 : 0, added ? &add : NULL, NULL);
    give_clip(s, &y);
    op_conv_unpack(s->dev, &c);
    free((void *)weights.data), free((void *)bias.data);
}
static void conv_wide(struct side *s)
{
    convolution(s, sized(512, 32), sized(512, 32), 3, 1, 1, true);
}
static void conv_narrow(struct side *s) { convolution(s, sized(128, 16), 48, 3, 1, 1, false); }
static void conv_strided(struct side *s)
{
    convolution(s, sized(128, 16), sized(128, 16), 3, 2, 2, false);
}
static void conv_point(struct side *s)
{
    convolution(s, sized(256, 32), sized(512, 32), 1, 1, 1, false);
}

/* As in a block of the VAE: normed on its way into the convolution where the device does that. */
static void conv_normed(struct side *s)
{
    int64_t c = sized(128, 16), k = 3;
    struct tensor weights = weight(s, 5, (int64_t[]){c, c, k, k, k});
    struct conv conv = conv_make(&weights, NULL);
    struct clip x = clip(s, 3, sized(19, 6), sized(30, 8), c, 1), y = clip(s, 3, x.h, x.w, c, 0);
    struct clip raw = x, normed = x;
    raw.dtype = normed.dtype = device_activations(s->dev);
    struct conv_norm norm = {.scale = floats(s, c), .shift = floats(s, c)};
    norm.room = floats(s, clip_count(&x) / c);
    raw.p = held_take(&s->held, clip_bytes(&raw));
    normed.p = held_take(&s->held, clip_bytes(&normed));
    op_copy_pad(s->dev, &raw, &x);
    op_conv_pack(s->dev, &conv);
    if (op_conv_norms(s->dev, &conv)) {
        op_conv3d_normed(s->dev, &y, &raw, &conv, 1, NULL, NULL, &norm);
    } else {
        op_pixel_norm_silu(s->dev, &normed, &raw, norm.scale, norm.shift);
        op_conv3d(s->dev, &y, &normed, &conv, 1, NULL, NULL);
    }
    give_clip(s, &y);
    op_conv_unpack(s->dev, &conv);
    free((void *)weights.data);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void norm(struct side *s, enum norm kind)
{
    int64_t rows = sized(1537, 9), cols = sized(2048, 64);
    struct mat x = mat(s, rows, cols), y = mat(s, rows, cols);
    op_norm_modulate(s->dev, y, x, kind, 1e-6f, mat(s, 1, cols), mat(s, 1, cols), NULL);
    give_mat(s, y);
}
static void norm_rms(struct side *s) { norm(s, NORM_RMS); }
static void norm_layer(struct side *s) { norm(s, NORM_LAYER); }

static void rms_weighted(struct side *s)
{
    int64_t rows = sized(257, 9), cols = sized(4096, 64);
    struct mat x = mat(s, rows, cols), y = mat(s, rows, cols);
    op_rms_norm(s->dev, y, x, 1e-6f, floats(s, cols));
    give_mat(s, y);
}

static void gates(struct side *s)
{
    int64_t rows = sized(1537, 9), cols = sized(2048, 64);
    struct mat x = mat(s, rows, cols), y = mat(s, rows, cols);
    op_gate_residual(s->dev, x, y, mat(s, 1, cols), NULL);
    op_gelu_gate(s->dev, x, x, y);
    op_silu(s->dev, x, x);
    give_mat(s, x);
}

static void lincomb(struct side *s)
{
    int64_t n = sized(786433, 65);
    float *x = floats(s, n);
    op_lincomb(s->dev, x, 0.7f, x, -1.3f, floats(s, n), n);
    give_result(s, x, n);
}

static void pixel_norm(struct side *s)
{
    int64_t c = sized(256, 32);
    struct clip x = clip(s, 3, sized(21, 4), sized(31, 5), c, 0), y = clip(s, 3, x.h, x.w, c, 1);
    op_pixel_norm_silu(s->dev, &y, &x, floats(s, c), floats(s, c));
    give_clip(s, &y);
}

static void pixels(struct side *s)
{
    struct clip x = clip(s, 2, sized(16, 4), sized(24, 4), 64 * 8, 0);
    struct clip y = clip(s, 3, 2 * x.h, 2 * x.w, 64, 0), back = clip(s, 2, x.h, x.w, 64 * 8, 0);
    op_depth_to_space(s->dev, &y, &x, NULL, 2, 2, true);
    op_space_to_depth(s->dev, &back, &y, NULL, 2, 2, true);
    give_clip(s, &back);
}

static void patches(struct side *s)
{
    struct clip x = clip(s, 2, sized(40, 4), sized(60, 4), 48, 0);
    float *y = floats(s, clip_count(&x));
    op_unpatchify(s->dev, y, &x, 4);
    give_result(s, y, clip_count(&x));
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* Largest root mean square of the error, relative to the values'. Tensor cores may round their fp32
 * sums down, and approximate functions are right to some 1e-4; one wrong term of 2048
 * makes 2e-2. */
static const double exact = 0, sums = 1e-5, tensor_sums = 1e-4, functions = 1e-3,
                    rounded = 1e-2; /* inputs to bf16, which the CPU does not do */

static const struct check {
    const char *name;
    void (*run)(struct side *s);
    const double *bf16, *fp32;
} checks[] = {
    {"linear", linear_square, &tensor_sums, &sums},
    {"linear with gelu", linear_gelu, &functions, &functions},
    {"linear with silu, few rows", linear_silu, &functions, &functions},
    {"linear from the checkpoint at every call", linear_streamed, &tensor_sums, &sums},
    {"attention, heads of 64", attention_64, &rounded, &rounded},
    {"attention, heads of 128", attention_128, &rounded, &rounded},
    {"attention, heads of 32", attention_32, &rounded, &rounded},
    {"attention to a text", attention_text, &rounded, &rounded},
    {"attention of T5", attention_t5, &tensor_sums, &tensor_sums},
    {"convolution with a sum", conv_wide, &rounded, &sums},
    {"convolution to 48 channels", conv_narrow, &rounded, &sums},
    {"convolution with strides", conv_strided, &rounded, &sums},
    {"convolution of single positions", conv_point, &rounded, &sums},
    {"convolution that norms", conv_normed, &rounded, &functions},
    {"rms norm, modulated", norm_rms, &sums, &sums},
    {"layer norm, modulated", norm_layer, &sums, &sums},
    {"rms norm, weighted", rms_weighted, &sums, &sums},
    {"gates, gelu, silu", gates, &functions, &functions},
    {"linear combination", lincomb, &sums, &sums},
    {"pixel norm and silu", pixel_norm, &functions, &functions},
    {"depth to space and back", pixels, &exact, &exact},
    {"pixels from patches", patches, &exact, &exact},
};

/* The worst element may be this much farther off than the root mean square: one that is wrong,
 * among a million, would not show in that. */
enum { WORST = 12 };

static bool compare(const char *name, const char *kind, const struct side *got,
                    const struct side *want, double allowed)
{
    double error = 0, square = 0, worst = 0;
    for (int64_t i = 0; i < want->results; i++) {
        double d = fabs((double)got->result[i] - (double)want->result[i]);
        error += d * d;
        square += (double)want->result[i] * (double)want->result[i];
        worst = d <= worst ? worst : d; /* NaN stays */
    }
    double size = sqrt(square / (double)want->results), rms = sqrt(error / square);
    bool good = rms <= allowed && worst <= WORST * allowed * size;
    printf("%s - %s, %s\n", good ? "ok" : "not ok", name, kind);
    if (!good)
        printf("# error %.3g of the values' size, the worst %.3g; allowed %.3g, %.3g\n", rms,
               worst / size, allowed, WORST * allowed);
    fflush(stdout);
    return good;
}

static bool check(const struct check *c, enum precision precision)
{
    bool fp32 = precision == PRECISION_F32;
    struct device *host = device_open_cpu(omp_get_max_threads(), NULL, precision),
                  *gpu = device_open_cuda(0, 1, precision);
    struct side cpu = {.dev = host, .held.dev = host, .seed = 1},
                cuda = {.dev = gpu, .held.dev = gpu, .seed = 1};
    c->run(&cpu);
    c->run(&cuda);
    CHECK(cpu.results == cuda.results, "%s: as many results on both", c->name);
    bool good = compare(c->name, fp32 ? "fp32" : "bf16", &cuda, &cpu, fp32 ? *c->fp32 : *c->bf16);
    side_end(&cpu);
    side_end(&cuda);
    device_close(gpu);
    device_close(host);
    return good;
}

int main(int argc, char **argv)
{
    const char *why;
    int failed = 0;
    log_init(0, LOG_ERROR);
    small = argc > 1 && strcmp(argv[1], "--small") == 0;
    if (device_cuda_count(&why) < 1) {
        printf("Bail out! no CUDA device: %s\n", why);
        return 1;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        for (int p = 0; p < 2; p++)
            failed += !check(&checks[i], p ? PRECISION_F32 : PRECISION_BF16);
    return failed ? 1 : 0;
}
