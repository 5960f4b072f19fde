/* make bench: the arithmetic against what this core can do. The peak is measured here too
 * (independent multiply-adds in registers), because clocks and neighbours change. A convolution
 * counts all its taps, also those outside the picture. */
#include "base/log.h"
#include "kernels/ops.h"
#include "tests/bench_model.h"
#include "tests/support/timing.h"

#include <omp.h>
#include <stdio.h>

enum { RUNS = 5 };

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
    double start = clock_s();
#pragma omp parallel num_threads(threads) reduction(max : per_round)
    per_round = spin(level, device_precision(dev), rounds);
    return 1e-9 * (double)rounds * per_round * threads / (clock_s() - start);
}

/* Before every run, because clocks and neighbours change. */
struct peaks {
    struct device *dev;
    double gflops[RUNS];
};
static void measure_peak(void *argument, int run)
{
    struct peaks *peaks = argument;
    peaks->gflops[run] = peak_gflops(peaks->dev);
}

/* ---- rows of the table ----------------------------------------------------------------------- */

struct row {
    const char *name;
    timed_open *open;
    int64_t size[5];
    enum precision precision;
};

#define LINEAR_AS(kind, precision, rows, out, in, epilogue)                                        \
    {                                                                                              \
        "linear" kind " " #rows " x " #in " -> " #out, timed_linear,                               \
            {rows, out, in, 128, epilogue}, precision                                              \
    }
#define LINEAR(...) LINEAR_AS("", PRECISION_F32, __VA_ARGS__)
#define LINEAR_BF16(...) LINEAR_AS(" bf16", PRECISION_BF16, __VA_ARGS__)
#define ATTENTION(n, heads, d, granule)                                                            \
    {                                                                                              \
        "attention " #n " tokens, d " #d ", granule " #granule, timed_attention,                   \
            {n, heads, d, granule}, PRECISION_F32                                                  \
    }
#define CONV(c, t, h, w, k)                                                                        \
    {                                                                                              \
        "conv" #k " " #c " channels, " #t "x" #h "x" #w, timed_conv, {c, t, h, w, k},              \
            PRECISION_F32                                                                          \
    }
#define BYTES(label, function, rows, d)                                                            \
    {                                                                                              \
        label " " #rows " x " #d, function, {rows, d}, PRECISION_F32                               \
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
    BYTES("rms norm, modulated", timed_norm, 6144, 2048),
    BYTES("silu", timed_silu, 6144, 2048),
};

static void print_table(int threads)
{
    struct device *devices[] = {[PRECISION_F32] = device_open_cpu(threads, NULL, PRECISION_F32),
                                [PRECISION_BF16] = device_open_cpu(threads, NULL, PRECISION_BF16)};
    printf("\n%d thread%s, %s\n", threads, threads == 1 ? "" : "s", device_best_isa());
    printf("%-44s %10s %10s %10s %8s %8s\n", "", "ms", "GFLOP/s", "peak", "% peak", "GB/s");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct row *row = table + i;
        struct device *dev = devices[row->precision];
        struct peaks peaks = {.dev = dev};
        struct timed t;
        row->open(&t, dev, row->size);
        double seconds = timed_seconds(&t, RUNS, 1, measure_peak, &peaks);
        double gflops = 1e-9 * t.flop / seconds, peak = median(peaks.gflops, RUNS);
        printf("%-44s %10.2f", row->name, 1e3 * seconds);
        if (t.flop > 0) printf(" %10.1f %10.1f %7.0f%%", gflops, peak, 100.0 * gflops / peak);
        if (t.bytes > 0) printf(" %10s %10s %8s %8.1f", "", "", "", 1e-9 * t.bytes / seconds);
        timed_close(&t);
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
