/* Linear layers in bf16: on every instruction set this CPU has, the bits of a sum written out in
 * scalar arithmetic; and close to what fp32 gives. */
#include "kernels/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t seed = 1;
static float uniform(void) /* [-1, 1) */
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed * 0x1p-31f;
}

static float *floats(int64_t n)
{
    float *p = aligned_alloc(64, ((size_t)n * sizeof(float) + 63) / 64 * 64);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++) p[i] = uniform();
    return p;
}

struct shape {
    int64_t rows, in, out;
};
/* Odd and even numbers of inputs, more than a block of them, short panels, short tiles. */
static const struct shape shapes[] = {{1, 1, 1},      {5, 2, 16},     {37, 21, 33}, {13, 384, 48},
                                      {150, 785, 40}, {300, 128, 96}, {3, 4096, 17}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

struct problem {
    struct shape shape;
    struct tensor weight, bias;
    float *w, *b, *x;
};

static struct problem problem_make(struct shape s)
{
    struct problem p = {.shape = s};
    p.w = floats(s.out * s.in), p.b = floats(s.out), p.x = floats(s.rows * s.in);
    p.weight = (struct tensor){"w", DTYPE_F32, 2, {s.out, s.in}, p.w, 0};
    p.bias = (struct tensor){"b", DTYPE_F32, 1, {s.out}, p.b, 0};
    return p;
}

static void problem_free(struct problem *p)
{
    free(p->w);
    free(p->b);
    free(p->x);
}

/* Pair by pair, the odd input first; a product of two bf16 is exact in fp32. */
static float in_words(const struct problem *p, int64_t row, int64_t o)
{
    const float *x = p->x + row * p->shape.in, *w = p->w + o * p->shape.in;
    float sum = p->b[o];
    for (int64_t k = 0; k < p->shape.in; k += 2)
        for (int64_t i = k + 1; i >= k; i--)
            if (i < p->shape.in)
                sum += f32_from_bf16(bf16_from_f32(x[i])) * f32_from_bf16(bf16_from_f32(w[i]));
    return sum;
}

static float *multiply(struct device *dev, const struct problem *p, bool pack)
{
    struct linear l = linear_make(&p->weight, &p->bias);
    float *y = floats(p->shape.rows * p->shape.out);
    if (pack) op_linear_pack(dev, &l);
    op_linear(dev, mat_f32(y, p->shape.rows, p->shape.out),
              mat_f32(p->x, p->shape.rows, p->shape.in), &l, EPILOGUE_NONE, 16);
    op_linear_unpack(dev, &l);
    return y;
}

static void every_instruction_set_gives_the_bits_of_the_definition(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        struct problem p = problem_make(shapes[i]);
        for (int level = 0; level <= device_isa_level(device_best_isa()); level++)
            for (int pass = 0; pass < 4; pass++) {
                struct device *dev =
                    device_open_cpu(1 + pass / 2, device_isa_name(level), PRECISION_BF16);
                float *y = multiply(dev, &p, pass % 2);
                for (int64_t k = 0; k < p.shape.rows * p.shape.out; k++) {
                    float want = in_words(&p, k / p.shape.out, k % p.shape.out);
                    if (y[k] != want)
                        fail_msg("%s, shape %d: element %lld is %.9g, not %.9g", device_isa(dev), i,
                                 (long long)k, (double)y[k], (double)want);
                }
                free(y);
                device_close(dev);
            }
        problem_free(&p);
    }
}

/* Each operand's rounding errs by 2^-9 at most and 2^-9 / sqrt(3) on average: of a sum's size,
 * about 0.16 % whatever its length. Less than 0.05 % would mean that nothing was rounded. */
static void it_differs_from_fp32_as_much_as_rounding_does(void **state)
{
    (void)state;
    struct problem p = problem_make((struct shape){64, 1024, 64});
    struct device *fp32 = device_open_cpu(1, NULL, PRECISION_F32),
                  *bf16 = device_open_cpu(1, NULL, PRECISION_BF16);
    assert_int_equal(device_precision(bf16), PRECISION_BF16);
    float *a = multiply(fp32, &p, true), *b = multiply(bf16, &p, true);
    double square = 0, error = 0;
    for (int i = 0; i < 64 * 64; i++) {
        square += (double)a[i] * a[i];
        error += (double)(a[i] - b[i]) * (a[i] - b[i]);
    }
    double relative = sqrt(error / square);
    print_message("relative RMS of rounding: %.2e\n", relative);
    assert_true(relative > 5e-4 && relative < 3e-3);
    struct linear l = linear_make(&p.weight, &p.bias);
    assert_int_equal(op_linear_packed_bytes(fp32, &l), sizeof(float) * (64 * 1024 + 64));
    assert_int_equal(op_linear_packed_bytes(bf16, &l), sizeof(float) * (64 * 512 + 64));
    free(a), free(b);
    device_close(fp32);
    device_close(bf16);
    problem_free(&p);
}

/* A render that goes wrong must be seen to: NaN and infinity stay what they are. */
static void what_is_not_a_number_stays_so(void **state)
{
    (void)state;
    static const uint32_t patterns[] = {0x7fffffffu, 0xffffffffu, 0x7f800001u, 0x7fc00000u};
    for (int level = 0; level <= device_isa_level(device_best_isa()); level++) {
        struct device *dev = device_open_cpu(1, device_isa_name(level), PRECISION_BF16);
        struct problem p = problem_make((struct shape){6, 32, 16});
        for (int row = 0; row < 4; row++) memcpy(p.x + row * 32 + row, patterns + row, 4);
        p.x[4 * 32 + 1] = INFINITY;
        float *y = multiply(dev, &p, true);
        for (int o = 0; o < 16; o++) {
            for (int row = 0; row < 4; row++) assert_true(isnan(y[row * 16 + o]));
            assert_true(isinf(y[4 * 16 + o]));
            assert_true(isfinite(y[5 * 16 + o]));
        }
        free(y);
        problem_free(&p);
        device_close(dev);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instruction_set_gives_the_bits_of_the_definition),
        cmocka_unit_test(it_differs_from_fp32_as_much_as_rounding_does),
        cmocka_unit_test(what_is_not_a_number_stays_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
