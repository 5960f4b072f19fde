/* What the tests of kernels/ops.h share: random operands, comparing, running on every device. */
#ifndef RINGREEL_TESTS_KERNEL_HELPERS_H
#define RINGREEL_TESTS_KERNEL_HELPERS_H

#include "kernels/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t seed = 1;
static inline float uniform(void) /* [-1, 1) */
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed * 0x1p-31f;
}

static void *blocks[256]; /* freed after each test */
static int block_count;

static inline float *floats(int64_t n) /* 64-byte aligned, random */
{
    float *p = aligned_alloc(64, ((size_t)n * sizeof(float) + 127) / 64 * 64);
    assert_non_null(p);
    assert_true(block_count < 256);
    blocks[block_count++] = p;
    for (int64_t i = 0; i < n; i++) p[i] = uniform();
    return p;
}
static inline double *doubles(int64_t n) { return (double *)(void *)floats(2 * n + 2); }

static inline float *copy_of(const float *from, int64_t n)
{
    float *p = floats(n);
    memcpy(p, from, (size_t)n * sizeof(float));
    return p;
}

static inline void free_blocks(void)
{
    while (block_count > 0) free(blocks[--block_count]);
}
static inline int teardown(void **state)
{
    (void)state;
    free_blocks();
    return 0;
}

/* Relative to the result's root mean square. A chain of n multiply-adds of random signs errs by
 * about 3e-8 sqrt(n) of it, 1.5e-6 for n = 2000, and the worst of some thousand elements by four to
 * five times that (more where a multiply-add rounds twice); one wrong term changes 1 / sqrt(n). */
static const double close_sum = 1e-5;    /* linear and conv3d: up to some thousand terms */
static const double close_enough = 3e-6; /* shorter sums, averages, elementwise */

static inline void expect_close(const char *what, const float *got, const double *want, int64_t n,
                                double tolerance)
{
    double square = 0.0;
    for (int64_t i = 0; i < n; i++) square += want[i] * want[i];
    double scale = sqrt(square / (double)n) + 1e-30;
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= tolerance * (scale + fabs(want[i]))))
            fail_msg("%s: element %lld is %.9g, not %.9g", what, (long long)i, (double)got[i],
                     want[i]);
}

static inline void expect_same(const char *what, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s: element %lld is %.9g and %.9g", what, (long long)i, (double)a[i],
                     (double)b[i]);
}

/* Runs `body` with a device for every instruction set and 1, 2, 3 threads. The body returns its
 * result (n floats), which must be the same bits for every thread count. */
typedef float *body(struct device *dev, const void *argument, int64_t *n);
static inline void on_all_devices(const char *what, body *run, const void *argument)
{
    static const char *const isas[] = {"generic", "avx2", "avx512", "avx512_bf16"};
    uint32_t first_seed = seed;
    for (int level = 0; level <= device_isa_level(device_best_isa()); level++) {
        float *first = NULL;
        int64_t n = 0;
        for (int threads = 1; threads <= 3; threads++) {
            struct device *dev = device_open_cpu(threads, isas[level], PRECISION_F32);
            assert_string_equal(device_isa(dev), isas[level]);
            assert_int_equal(device_threads(dev), threads);
            seed = first_seed;
            float *result = run(dev, argument, &n);
            device_close(dev);
            if (threads == 1)
                first = result;
            else
                expect_same(what, first, result, n);
        }
        free_blocks();
    }
}

static inline struct clip clip_of(int64_t t, int64_t h, int64_t w, int64_t c, int pad)
{
    struct clip v = {.t = t, .h = h, .w = w, .c = c, .pad = pad};
    v.p = floats(clip_count(&v));
    return v;
}
static inline float *at(const struct clip *v, int64_t t, int64_t y, int64_t x)
{
    return clip_at(v, t, y, x);
}
static inline void clear_border(const struct clip *v)
{
    for (int64_t r = 0; r < v->t * v->h && v->pad; r++) {
        memset(at(v, r / v->h, r % v->h, -1), 0, (size_t)v->c * sizeof(float));
        memset(at(v, r / v->h, r % v->h, v->w), 0, (size_t)v->c * sizeof(float));
    }
}
static inline void expect_clear_border(const char *what, const struct clip *v)
{
    for (int64_t r = 0; r < v->t * v->h && v->pad; r++)
        for (int64_t c = 0; c < v->c; c++)
            if (at(v, r / v->h, r % v->h, -1)[c] != 0.0f ||
                at(v, r / v->h, r % v->h, v->w)[c] != 0.0f)
                fail_msg("%s: border of row %lld is not zero", what, (long long)r);
}

#endif
