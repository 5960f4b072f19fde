/* `ringreel compare`: PSNR and SSIM against values known from elsewhere, then what is said of
 * tensors. Command lines and files that cannot be read: tests/bad/compare.sh. */
#include "base/error.h"
#include "media/quality.h"
#include "render/compare_parts.h"
#include "tests/support/folder.h"
#include "tests/support/synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- pictures -------------------------------------------------------------------------------- */

enum { WIDTH = 53, HEIGHT = 41, BYTES = 3 * WIDTH * HEIGHT };

static uint8_t base[BYTES], other[BYTES];

static struct rgb_frame frame_of(const uint8_t *rgb, int width, int height)
{
    return (struct rgb_frame){.width = width, .height = height, .stride = 3 * width, .rgb = rgb};
}

static struct picture_difference measure(const uint8_t *a, const uint8_t *b, int width, int height)
{
    struct rgb_frame frame_a = frame_of(a, width, height), frame_b = frame_of(b, width, height);
    struct quality *q = quality_open(width, height);
    quality_measure(q, &frame_b, &frame_b); /* nothing of it may remain */
    struct picture_difference d = quality_measure(q, &frame_a, &frame_b);
    quality_close(q);
    return d;
}

/* The top byte of a linear congruential generator: the same numbers in any language. */
static int noise(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (int)(*state >> 24);
}

static uint8_t clipped(int x) { return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x); }

static void paint_base(void)
{
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            uint8_t *p = base + 3 * (y * WIDTH + x);
            p[0] = (uint8_t)(x * 4 + y);
            p[1] = (uint8_t)(y * 5 + x / 3);
            p[2] = (uint8_t)(x * y);
        }
}

static void expect(const char *name, double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) fail_msg("%s: %.16g instead of %.16g", name, got, want);
}

static void expect_quality(const char *name, double ssim, double psnr, int largest, int bytes)
{
    struct picture_difference d = measure(base, other, WIDTH, HEIGHT);
    expect(name, d.ssim, ssim, 1e-10);
    expect(name, quality_psnr(d.squares, BYTES), psnr, 1e-10);
    assert_int_equal(d.largest, largest);
    assert_int_equal(d.bytes, bytes);
}

/* The numbers are those of scikit-image 0.26.0 (NumPy 2.4.6) for these pictures:
 * structural_similarity(luma_a, luma_b, data_range=255, gaussian_weights=True, sigma=1.5,
 * use_sample_covariance=False), luma in fp64, and peak_signal_noise_ratio(a, b). */
static void test_against_scikit_image(void **state)
{
    (void)state;
    uint32_t random = 7, another = 2;
    paint_base();
    for (int i = 0; i < BYTES; i++) other[i] = clipped(base[i] + noise(&random) % 41 - 20);
    expect_quality("noise", 0.7813314274521796, 26.606475412321572, 20, 6313);
    for (int i = 0; i < BYTES; i++) other[i] = clipped(base[i] + 9);
    expect_quality("brighter", 0.9959553988241604, 29.074545805038483, 9, 6514);
    for (int i = 0; i < BYTES; i++) other[i] = (uint8_t)(255 - base[i]);
    expect_quality("negative", -0.4236482884881631, 5.505810345277729, 255, 6519);
    random = 1;
    for (int i = 0; i < BYTES; i++) {
        base[i] = (uint8_t)noise(&random);
        other[i] = (uint8_t)noise(&another);
    }
    expect_quality("unrelated", -0.02045829323341837, 7.750716479219165, 254, 6487);
}

static void test_known_by_hand(void **state)
{
    (void)state;
    /* 2 x 1: one byte of six differs by 10, so MSE = 100/6. */
    const uint8_t a[6] = {10, 20, 30, 40, 50, 60}, b[6] = {10, 20, 30, 40, 40, 60};
    struct picture_difference d = measure(a, b, 2, 1);
    expect("MSE 100/6", quality_psnr(d.squares, 6), 10 * log10(65025 * 6 / 100.0), 1e-12);
    assert_true(d.bytes == 1 && d.largest == 10 && d.squares == 100);
    assert_true(isnan(d.ssim)); /* smaller than the window */
    assert_true(isinf(quality_psnr(0, 6)));
    /* Black and white: MSE = 255^2. Without variance SSIM is (2ab + C1) / (a^2 + b^2 + C1). */
    memset(base, 0, BYTES);
    memset(other, 255, BYTES);
    expect_quality("black and white", 6.5025 / (65025 + 6.5025), 0, 255, BYTES);
    memset(base, 100, BYTES);
    memset(other, 110, BYTES);
    d = measure(base, other, WIDTH, HEIGHT);
    expect("two greys", d.ssim, (22000 + 6.5025) / (22100 + 6.5025), 1e-10);
    d = measure(base, base, WIDTH, HEIGHT);
    assert_true(d.bytes == 0 && d.largest == 0 && d.ssim == 1);
}

/* The definition, window by window, in two dimensions and with means taken away first. */
static double window_ssim(const uint8_t *a, const uint8_t *b, int width, int left, int top)
{
    double sum = 0, mean[2] = {0}, variance[2] = {0}, covariance = 0;
    double luma[2][121], weight[121];
    for (int i = 0; i < 121; i++) {
        int x = i % 11, y = i / 11, at = 3 * ((top + y) * width + left + x);
        weight[i] = exp(-((x - 5) * (x - 5) + (y - 5) * (y - 5)) / 4.5);
        luma[0][i] = 0.299 * a[at] + 0.587 * a[at + 1] + 0.114 * a[at + 2];
        luma[1][i] = 0.299 * b[at] + 0.587 * b[at + 1] + 0.114 * b[at + 2];
        sum += weight[i];
        for (int k = 0; k < 2; k++) mean[k] += weight[i] * luma[k][i];
    }
    for (int k = 0; k < 2; k++) mean[k] /= sum;
    for (int i = 0; i < 121; i++) {
        for (int k = 0; k < 2; k++)
            variance[k] += weight[i] / sum * (luma[k][i] - mean[k]) * (luma[k][i] - mean[k]);
        covariance += weight[i] / sum * (luma[0][i] - mean[0]) * (luma[1][i] - mean[1]);
    }
    double c1 = pow(0.01 * 255, 2), c2 = pow(0.03 * 255, 2);
    return (2 * mean[0] * mean[1] + c1) * (2 * covariance + c2) /
           ((mean[0] * mean[0] + mean[1] * mean[1] + c1) * (variance[0] + variance[1] + c2));
}

static void test_against_the_definition(void **state)
{
    (void)state;
    const int sizes[][2] = {{11, 11}, {11, 30}, {30, 11}, {24, 17}};
    uint32_t random = 5;
    for (int s = 0; s < 4; s++) {
        int width = sizes[s][0], height = sizes[s][1];
        double sum = 0;
        for (int i = 0; i < 3 * width * height; i++) {
            base[i] = (uint8_t)(noise(&random) / 2 + i % 100);
            other[i] = clipped(base[i] + noise(&random) % 90 - 30);
        }
        for (int y = 0; y + 11 <= height; y++)
            for (int x = 0; x + 11 <= width; x++) sum += window_ssim(base, other, width, x, y);
        expect("SSIM", measure(base, other, width, height).ssim,
               sum / ((width - 10) * (height - 10)), 1e-10);
    }
}

/* ---- tensors --------------------------------------------------------------------------------- */

static struct tensor tensor_of(const char *name, enum dtype dtype, int64_t rows, int64_t columns,
                               const void *data)
{
    return (struct tensor){.name = name,
                           .dtype = dtype,
                           .rank = 2,
                           .shape = {rows, columns},
                           .data = data,
                           .bytes = (size_t)(rows * columns) * dtype_size(dtype)};
}

static struct safetensors *stored(const char *name, const struct tensor *tensors, int count)
{
    struct safetensors *f;
    char *path = xasprintf("%s/%s", test_folder, name);
    assert_int_equal(safetensors_write(path, tensors, count, NULL), STATUS_OK);
    assert_int_equal(safetensors_open(&f, path), STATUS_OK);
    free(path);
    return f;
}

/* Negative tolerance: none was given. What is said must hold every one of the texts. */
static void check_files(struct safetensors *a, struct safetensors *b, double tolerance, bool same,
                        const char *const *said)
{
    char *text = NULL;
    size_t bytes = 0;
    bool got = !same;
    struct comparison c = {.tensors = {a, b},
                           .tolerant = tolerance >= 0,
                           .tolerance = tolerance >= 0 ? tolerance : 0,
                           .out = open_memstream(&text, &bytes)};
    assert_int_equal(compare_tensors(&c, &got), STATUS_OK);
    fclose(c.out);
    for (; *said; said++)
        if (!strstr(text, *said)) fail_msg("'%s' is not said, but: %s", *said, text);
    if (got != same) fail_msg("same %d instead of %d: %s", got, same, text);
    free(text);
}

static void check(const struct tensor *a, const struct tensor *b, double tolerance, bool same,
                  const char *said)
{
    struct safetensors *file_a = stored("a", a, 1), *file_b = stored("b", b, 1);
    check_files(file_a, file_b, tolerance, same, (const char *const[]){said, NULL});
    safetensors_close(file_a);
    safetensors_close(file_b);
}

static void test_values(void **state)
{
    (void)state;
    float x[6] = {3, 0, 4, NAN, INFINITY, -0.0f}, y[6];
    memcpy(y, x, sizeof x);
    y[5] = 0;
    struct tensor a = tensor_of("t", DTYPE_F32, 2, 3, x), b = tensor_of("t", DTYPE_F32, 2, 3, y);
    check(&a, &b, -1, true, "t: F32 [2,3]: identical\n1 tensor identical\n");
    y[1] = 0.25f;
    y[2] = 3.5f; /* |a - b| = sqrt(5/16), |a| = 5 */
    check(&a, &b, -1, false,
          "2 of 6 elements differ, the first at [0,1]; largest difference 0.5 at [0,2] (4, 3.5); "
          "relative RMS 1.118e-01\n");
    check(&a, &b, 0.5, true, "within the tolerance of 0.5");
    check(&a, &b, 0.4375, false, "beyond the tolerance of 0.4375");
    y[3] = 1;
    check(&a, &b, 1e30, false,
          "the first at [0,1]; largest difference 0.5 at [0,2] (4, 3.5); "
          "relative RMS 1.118e-01; 1 NaN on one side only");
    y[3] = NAN;
    y[4] = -INFINITY;
    check(&a, &b, 1e30, false,
          "3 of 6 elements differ, the first at [0,1]; largest difference inf");
}

/* Longer than what is read at once, and a difference in its last element. */
static void test_long(void **state)
{
    (void)state;
    enum { ROWS = 1001, COLUMNS = 9 };
    static uint8_t x[ROWS * COLUMNS], y[ROWS * COLUMNS];
    struct tensor a = tensor_of("t", DTYPE_U8, ROWS, COLUMNS, x);
    struct tensor b = tensor_of("t", DTYPE_U8, ROWS, COLUMNS, y);
    x[ROWS * COLUMNS - 1] = 200;
    check(&a, &b, -1, false,
          "1 of 9009 elements differ, the first at [1000,8]; largest difference 200 at [1000,8]");
    x[4096] = 1;
    check(&a, &b, -1, false, "2 of 9009 elements differ, the first at [455,1]");
}

static void test_dtypes(void **state)
{
    (void)state;
    const float x[2] = {1.5f, -2};
    const double wide[2] = {1.5, -2};
    const uint16_t narrow[2] = {bf16_from_f32(1.5f), bf16_from_f32(-2)};
    struct tensor a = tensor_of("t", DTYPE_F32, 1, 2, x),
                  b = tensor_of("t", DTYPE_BF16, 1, 2, narrow);
    check(&a, &b, -1, false, "t: F32 in A, BF16 in B [1,2]: equal values");
    check(&a, &b, 0, true, "t: F32 in A, BF16 in B [1,2]: equal values");
    b = tensor_of("t", DTYPE_F64, 1, 2, wide);
    check(&a, &b, 0, true, "equal values");
    b = tensor_of("t", DTYPE_F32, 2, 1, x);
    check(&a, &b, 1e30, false, "t: F32, shapes differ: [1,2] in A, [2,1] in B");
    const int64_t many[2] = {(INT64_C(1) << 53), INT64_MAX};
    const int64_t more[2] = {(INT64_C(1) << 53) + 1, INT64_MIN};
    a = tensor_of("t", DTYPE_I64, 1, 2, many);
    b = tensor_of("t", DTYPE_I64, 1, 2, more);
    check(&a, &b, -1, false,
          "2 of 2 elements differ, the first at [0,0]; largest difference 1.84467e+19 at [0,1]");
    const int32_t small[2] = {-3, 5}, same[2] = {-3, 5};
    a = tensor_of("t", DTYPE_I32, 1, 2, small);
    b = tensor_of("t", DTYPE_I32, 1, 2, same);
    check(&a, &b, -1, true, "identical");
}

static struct safetensors *unread(const char *name, const char *data)
{
    static const char header[] =
        "{\"t\":{\"dtype\":\"F8_E5M2\",\"shape\":[4],\"data_offsets\":[0,4]}} ";
    const uint8_t length[8] = {sizeof header - 1};
    struct safetensors *f;
    char *path = xasprintf("%s/%s", test_folder, name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fwrite(length, 1, 8, out);
    fwrite(header, 1, sizeof header - 1, out);
    fwrite(data, 1, 4, out);
    fclose(out);
    assert_int_equal(safetensors_open(&f, path), STATUS_OK);
    free(path);
    return f;
}

static void test_unread_dtype(void **state)
{
    (void)state;
    struct safetensors *a = unread("c", "abcd"), *b = unread("d", "abcd"), *c = unread("e", "abce");
    check_files(a, b, -1, true, (const char *const[]){"t: F8_E5M2 [4]: identical", NULL});
    check_files(a, c, 1e30, false, (const char *const[]){"t: F8_E5M2 [4]: different", NULL});
    safetensors_close(a);
    safetensors_close(b);
    safetensors_close(c);
}

static void test_names(void **state)
{
    (void)state;
    const float x[2] = {1, 2}, y[2] = {1, 3};
    struct tensor a[] = {tensor_of("same", DTYPE_F32, 1, 2, x),
                         tensor_of("mine", DTYPE_F32, 1, 2, x), tensor_of("t", DTYPE_F32, 1, 2, x)};
    struct tensor b[] = {tensor_of("t", DTYPE_F32, 1, 2, y), tensor_of("same", DTYPE_F32, 1, 2, x),
                         tensor_of("yours", DTYPE_F32, 1, 2, y)};
    struct safetensors *file_a = stored("f", a, 3), *file_b = stored("g", b, 3);
    struct safetensors *first_two = stored("h", a, 2);
    check_files(file_a, file_b, -1, false,
                (const char *const[]){"same: F32 [1,2]: identical\nt: F32 [1,2]: 1 of 2",
                                      "mine: only in A\nyours: only in B\n",
                                      "1 of 2 common tensors different", NULL});
    check_files(first_two, file_a, 5, false, (const char *const[]){"t: only in B\n", NULL});
    check_files(first_two, first_two, -1, true, (const char *const[]){"2 tensors identical", NULL});
    safetensors_close(file_a);
    safetensors_close(file_b);
    safetensors_close(first_two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_scikit_image),
        cmocka_unit_test(test_known_by_hand),
        cmocka_unit_test(test_against_the_definition),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_unread_dtype),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
