/* make bench: the arithmetic against what this core can do. The peak is measured here too
 * (independent multiply-adds in registers), because clocks and neighbours change. A convolution
 * counts all its taps, also those outside the picture. */
#include "base/log.h"
#include "kernels/ops.h"
#include "tests/bench_model.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RUNS = 5 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- the measured peak ----------------------------------------------------------------------- */

#define TWELVE(op, a, b)                                                                           \
    op(a, b, 0) op(a, b, 1) op(a, b, 2) op(a, b, 3) op(a, b, 4) op(a, b, 5) op(a, b, 6)            \
        op(a, b, 7) op(a, b, 8) op(a, b, 9) op(a, b, 10) op(a, b, 11)
#define FMA(reg, unused, n) "vfmadd231ps %%" reg "14, %%" reg "15, %%" reg #n "\n"
#define MUL_ADD(unused1, unused2, n) "mulps %%xmm15, %%xmm" #n "\n addps %%xmm14, %%xmm" #n "\n"
#define SPIN(body, count)                                                                          \
    __asm__ volatile("1:\n" body "dec %0\n jnz 1b\n"                                               \
                     : "+r"(count)::"cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",  \
                       "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm14", "xmm15")

#define DOT(reg, unused, n) "vdpbf16ps %%" reg "14, %%" reg "15, %%" reg #n "\n"

/* Runs `count` rounds of twelve multiply-adds; returns how many operations a round has. */
static int spin(int isa_level, enum precision precision, long count)
{
    if (isa_level == 3 && precision == PRECISION_BF16) {
        SPIN(TWELVE(DOT, "zmm", ), count);
        return 12 * 16 * 4;
    }
    if (isa_level >= 2) {
        SPIN(TWELVE(FMA, "zmm", ), count);
        return 12 * 16 * 2;
    }
    if (isa_level == 1) {
        SPIN(TWELVE(FMA, "ymm", ), count);
        return 12 * 8 * 2;
    }
    SPIN(TWELVE(MUL_ADD, , ), count);
    return 12 * 4 * 2;
}

/* GFLOP/s of all threads together, over a few milliseconds. */
static double peak_gflops(struct device *dev)
{
    const long rounds = 1000000;
    int per_round = 0, threads = device_threads(dev), level = device_isa_level(device_isa(dev));
    double start = now_s();
#pragma omp parallel num_threads(threads) reduction(max : per_round)
    per_round = spin(level, device_precision(dev), rounds);
    return 1e-9 * (double)rounds * per_round * threads / (now_s() - start);
}

/* ---- rows of the table ----------------------------------------------------------------------- */

static float *floats(int64_t n)
{
    float *p = aligned_alloc(64, ((size_t)n * sizeof(float) + 63) / 64 * 64);
    if (!p) {
        fprintf(stderr, "bench: no memory for %lld floats\n", (long long)n);
        exit(1);
    }
    for (int64_t i = 0; i < n; i++) p[i] = (float)((i * 7919) % 2003) * 1e-3f - 1.0f;
    return p;
}

struct timing {
    double seconds, peak; /* medians of RUNS; the peak is measured anew before every run */
};

struct row {
    const char *name;
    struct timing (*run)(struct device *dev, const struct row *row);
    int64_t size[5];
    double gflop, gbyte; /* of one run; 0 = not shown */
    enum precision precision;
};

/* Runs `work` once to warm up and RUNS times more. */
#define TIME(dev, work)                                                                            \
    ({                                                                                             \
        double seconds[RUNS], peak[RUNS];                                                          \
        work;                                                                                      \
        for (int run = 0; run < RUNS; run++) {                                                     \
            peak[run] = peak_gflops(dev);                                                          \
            double start = now_s();                                                                \
            work;                                                                                  \
            seconds[run] = now_s() - start;                                                        \
        }                                                                                          \
        qsort(seconds, RUNS, sizeof *seconds, by_value);                                           \
        qsort(peak, RUNS, sizeof *peak, by_value);                                                 \
        (struct timing){seconds[RUNS / 2], peak[RUNS / 2]};                                        \
    })

/* size: rows, out, in, tile, epilogue */
static struct timing run_linear(struct device *dev, const struct row *row)
{
    int64_t rows = row->size[0], out = row->size[1], in = row->size[2];
    float *w = floats(out * in), *x = floats(rows * in), *y = floats(rows * out);
    struct tensor weight = {"w", DTYPE_F32, 2, {out, in}, w, 0};
    struct linear l = linear_make(&weight, NULL);
    op_linear_pack(dev, &l);
    struct timing t = TIME(dev, op_linear(dev, mat_f32(y, rows, out), mat_f32(x, rows, in), &l,
                                          (enum epilogue)row->size[4], row->size[3]));
    op_linear_unpack(dev, &l);
    free(w), free(x), free(y);
    return t;
}

/* size: queries = keys, heads, d, granule */
static struct timing run_attention(struct device *dev, const struct row *row)
{
    int64_t n = row->size[0], heads = row->size[1], d = row->size[2], granule = row->size[3],
            cols = heads * d;
    float *q = floats(n * cols), *state = floats(op_attention_state_floats(n, heads, d));
    float *packed =
        floats((n + granule - 1) / granule * op_kv_granule_floats(dev, granule, heads, d));
    struct mat mq = mat_f32(q, n, cols);
    op_kv_pack(dev, packed, mq, mq, heads, granule);
    struct timing t =
        TIME(dev, (op_attention_begin(dev, state, n, heads, d),
                   op_attention_block(dev, state, mq, packed, n, granule, heads, 0.125f)));
    free(q), free(state), free(packed);
    return t;
}

/* size: channels, t, h, w, kernel */
static struct timing run_conv(struct device *dev, const struct row *row)
{
    int64_t c = row->size[0], k = row->size[4];
    struct clip x = {.t = row->size[1], .h = row->size[2], .w = row->size[3], .c = c, .pad = 1},
                y = x;
    y.pad = 0;
    x.p = floats(clip_count(&x)), y.p = floats(clip_count(&y));
    float *w = floats(c * c * k * k * k);
    struct tensor weight = {"w", DTYPE_F32, 5, {c, c, k, k, k}, w, 0};
    struct conv conv = conv_make(&weight, NULL);
    op_conv_pack(dev, &conv);
    struct timing t = TIME(dev, op_conv3d(dev, &y, &x, &conv, 1, NULL, NULL));
    op_conv_unpack(dev, &conv);
    free(w), free(x.p), free(y.p);
    return t;
}

/* size: rows, width */
static struct timing run_norm(struct device *dev, const struct row *row)
{
    int64_t rows = row->size[0], d = row->size[1];
    float *x = floats(rows * d), *y = floats(rows * d), *m = floats(2 * d);
    struct timing t =
        TIME(dev, op_norm_modulate(dev, mat_f32(y, rows, d), mat_f32(x, rows, d), NORM_RMS, 1e-6f,
                                   mat_f32(m, 1, d), mat_f32(m + d, 1, d), NULL));
    free(x), free(y), free(m);
    return t;
}

static struct timing run_silu(struct device *dev, const struct row *row)
{
    int64_t rows = row->size[0], d = row->size[1];
    float *x = floats(rows * d), *y = floats(rows * d);
    struct timing t = TIME(dev, op_silu(dev, mat_f32(y, rows, d), mat_f32(x, rows, d)));
    free(x), free(y);
    return t;
}

#define LINEAR_AS(kind, precision, rows, out, in, epilogue)                                        \
    {                                                                                              \
        "linear" kind " " #rows " x " #in " -> " #out, run_linear, {rows, out, in, 128, epilogue}, \
            2e-9 * rows *in *out, 0, precision                                                     \
    }
#define LINEAR(...) LINEAR_AS("", PRECISION_F32, __VA_ARGS__)
#define LINEAR_BF16(...) LINEAR_AS(" bf16", PRECISION_BF16, __VA_ARGS__)
#define ATTENTION(n, heads, d, granule)                                                            \
    {                                                                                              \
        "attention " #n " tokens, d " #d ", granule " #granule, run_attention,                     \
            {n, heads, d, granule}, 4e-9 * n *n *heads *d, 0, PRECISION_F32                        \
    }
#define CONV(c, t, h, w, k)                                                                        \
    {                                                                                              \
        "conv" #k " " #c " channels, " #t "x" #h "x" #w, run_conv, {c, t, h, w, k},                \
            2e-9 * k *k *k *c *c *t *h *w, 0, PRECISION_F32                                        \
    }
#define BYTES(label, function, rows, d)                                                            \
    {                                                                                              \
        label " " #rows " x " #d, function, {rows, d}, 0, 8e-9 * rows *d, PRECISION_F32            \
    }

static const struct row table[] = {
    LINEAR(128, 2048, 2048, EPILOGUE_NONE),
    LINEAR(128, 8192, 2048, EPILOGUE_GELU_TANH),
    LINEAR(128, 2048, 8192, EPILOGUE_NONE),
    LINEAR(6144, 2048, 2048, EPILOGUE_NONE),
    LINEAR(1536, 8192, 2048, EPILOGUE_GELU_TANH),
    LINEAR_BF16(128, 2048, 2048, EPILOGUE_NONE),
    LINEAR_BF16(128, 2048, 8192, EPILOGUE_NONE),
    LINEAR_BF16(6144, 2048, 2048, EPILOGUE_NONE),
    ATTENTION(1536, 4, 64, 128),
    ATTENTION(1536, 4, 128, 128),
    ATTENTION(6144, 1, 64, 128),
    ATTENTION(6144, 1, 128, 128),
    CONV(1024, 4, 8, 12, 3),
    CONV(512, 4, 16, 24, 3),
    CONV(256, 8, 32, 48, 3),
    CONV(128, 8, 64, 96, 3),
    CONV(128, 2, 24, 480, 3),
    CONV(512, 4, 32, 48, 1),
    BYTES("rms norm, modulated", run_norm, 6144, 2048),
    BYTES("silu", run_silu, 6144, 2048),
};

static void print_table(int threads)
{
    struct device *devices[] = {[PRECISION_F32] = device_open_cpu(threads, NULL, PRECISION_F32),
                                [PRECISION_BF16] = device_open_cpu(threads, NULL, PRECISION_BF16)};
    printf("\n%d thread%s, %s\n", threads, threads == 1 ? "" : "s", device_best_isa());
    printf("%-44s %10s %10s %10s %8s %8s\n", "", "ms", "GFLOP/s", "peak", "% peak", "GB/s");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct row *row = table + i;
        struct timing t = row->run(devices[row->precision], row);
        double gflops = row->gflop / t.seconds;
        printf("%-44s %10.2f", row->name, 1e3 * t.seconds);
        if (row->gflop > 0)
            printf(" %10.1f %10.1f %7.0f%%", gflops, t.peak, 100.0 * gflops / t.peak);
        if (row->gbyte > 0) printf(" %10s %10s %8s %8.1f", "", "", "", row->gbyte / t.seconds);
        printf("\n");
        fflush(stdout);
    }
    for (int i = 0; i < 2; i++) device_close(devices[i]);
}

int main(void)
{
    int threads = omp_get_max_threads();
    log_init(0, LOG_ERROR);
    print_table(1);
    bench_models(1);
    if (threads > 1) {
        print_table(threads);
        bench_models(threads);
    }
    return 0;
}
