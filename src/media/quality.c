#include "media/quality.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Weighted means over a window: of both pictures, of their squares and of their product. */
enum { MEAN_A, MEAN_B, MEAN_AA, MEAN_BB, MEAN_AB, MEANS };

struct quality {
    int width, height;
    double weights[QUALITY_WINDOW]; /* of one direction; they sum to 1 */
    double *row;                    /* [MEANS][width]: a row's values whose means are wanted */
    double *rows; /* [QUALITY_WINDOW][MEANS][columns]: the last rows, filtered along x */
    double *sums; /* [MEANS][columns]: these, filtered along y */
};

static int columns(const struct quality *q) { return q->width - QUALITY_WINDOW + 1; }

static void set_weights(double weights[QUALITY_WINDOW])
{
    double sum = 0;
    for (int i = 0; i < QUALITY_WINDOW; i++) {
        double x = (i - QUALITY_WINDOW / 2) / 1.5;
        weights[i] = exp(-0.5 * x * x);
        sum += weights[i];
    }
    for (int i = 0; i < QUALITY_WINDOW; i++) weights[i] /= sum;
}

struct quality *quality_open(int width, int height)
{
    struct quality *q = xcalloc(1, sizeof *q);
    q->width = width;
    q->height = height;
    if (width < QUALITY_WINDOW || height < QUALITY_WINDOW) return q;
    set_weights(q->weights);
    q->row = xcalloc(MEANS * (size_t)width, sizeof(double));
    size_t row = MEANS * (size_t)columns(q);
    q->rows = xcalloc(QUALITY_WINDOW * row, sizeof(double));
    q->sums = xcalloc(row, sizeof(double));
    return q;
}

void quality_close(struct quality *q)
{
    if (!q) return;
    free(q->row);
    free(q->rows);
    free(q->sums);
    free(q);
}

/* ---- SSIM ------------------------------------------------------------------------------------ */

static double luma(const uint8_t *rgb) { return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]; }

static void read_row(struct quality *q, const struct rgb_frame *a, const struct rgb_frame *b, int y)
{
    for (int x = 0; x < q->width; x++) {
        double *to = q->row + x;
        double of_a = luma(a->rgb + y * a->stride + 3 * x);
        double of_b = luma(b->rgb + y * b->stride + 3 * x);
        to[MEAN_A * q->width] = of_a;
        to[MEAN_B * q->width] = of_b;
        to[MEAN_AA * q->width] = of_a * of_a;
        to[MEAN_BB * q->width] = of_b * of_b;
        to[MEAN_AB * q->width] = of_a * of_b;
    }
}

/* Into row y's place among the last ones. */
static void filter_along_x(struct quality *q, int y)
{
    size_t n = (size_t)columns(q);
    double *to = q->rows + (size_t)(y % QUALITY_WINDOW) * MEANS * n;
    memset(to, 0, MEANS * n * sizeof(double));
    for (int m = 0; m < MEANS; m++, to += n)
        for (int i = 0; i < QUALITY_WINDOW; i++) {
            const double *from = q->row + m * q->width + i;
            for (size_t x = 0; x < n; x++) to[x] += q->weights[i] * from[x];
        }
}

/* The window whose last row is y. */
static void filter_along_y(struct quality *q, int y)
{
    size_t row = MEANS * (size_t)columns(q);
    memset(q->sums, 0, row * sizeof(double));
    for (int i = 0; i < QUALITY_WINDOW; i++) {
        const double *from = q->rows + (size_t)((y + 1 + i) % QUALITY_WINDOW) * row;
        for (size_t x = 0; x < row; x++) q->sums[x] += q->weights[i] * from[x];
    }
}

static double sum_of_row(const struct quality *q)
{
    const double c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255;
    int n = columns(q);
    double sum = 0;
    for (int x = 0; x < n; x++) {
        const double *mean = q->sums + x;
        double a = mean[MEAN_A * n], b = mean[MEAN_B * n];
        double variances = mean[MEAN_AA * n] - a * a + mean[MEAN_BB * n] - b * b;
        double covariance = mean[MEAN_AB * n] - a * b;
        sum += (2 * a * b + c1) * (2 * covariance + c2) / ((a * a + b * b + c1) * (variances + c2));
    }
    return sum;
}

static double ssim(struct quality *q, const struct rgb_frame *a, const struct rgb_frame *b)
{
    double sum = 0;
    if (!q->rows) return NAN;
    for (int y = 0; y < q->height; y++) {
        read_row(q, a, b, y);
        filter_along_x(q, y);
        if (y < QUALITY_WINDOW - 1) continue;
        filter_along_y(q, y);
        sum += sum_of_row(q);
    }
    return sum / columns(q) / (q->height - QUALITY_WINDOW + 1);
}

/* ---- differences ----------------------------------------------------------------------------- */

struct picture_difference quality_measure(struct quality *q, const struct rgb_frame *a,
                                          const struct rgb_frame *b)
{
    struct picture_difference d = {0};
    CHECK(a->width == q->width && b->width == q->width && a->height == q->height &&
              b->height == q->height,
          "%dx%d and %dx%d, opened for %dx%d", a->width, a->height, b->width, b->height, q->width,
          q->height);
    for (int y = 0; y < q->height; y++) {
        const uint8_t *row_a = a->rgb + y * a->stride, *row_b = b->rgb + y * b->stride;
        for (int i = 0; i < 3 * q->width; i++) {
            int apart = abs(row_a[i] - row_b[i]);
            d.bytes += apart != 0;
            d.largest = apart > d.largest ? apart : d.largest;
            d.squares += (uint64_t)(apart * apart);
        }
    }
    if (d.bytes > 0)
        d.ssim = ssim(q, a, b);
    else
        d.ssim = q->rows ? 1 : NAN;
    return d;
}

double quality_psnr(uint64_t squares, int64_t bytes)
{
    return squares > 0 ? 10 * log10(255.0 * 255.0 * (double)bytes / (double)squares) : INFINITY;
}
