/* Per-token ops: every row by one thread. */
#include "kernels/cpu/cpu.h"

#include <string.h>

static float *row_of(struct mat m, int64_t row) { return (float *)m.p + row * m.cols; }

static const float *modulation(struct mat rows, const int32_t *row_index, int64_t s)
{
    return rows.p ? row_of(rows, row_index ? row_index[s] : 0) : NULL;
}

void cpu_norm_modulate(struct device *dev, struct mat y, struct mat x, enum norm kind, float eps,
                       struct mat shift, struct mat scale, const int32_t *row_index)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t s = 0; s < x.rows; s++)
        simd->norm(row_of(y, s), row_of(x, s), x.cols, kind, eps, modulation(scale, row_index, s),
                   modulation(shift, row_index, s));
}

void cpu_rms_norm(struct device *dev, struct mat y, struct mat x, float eps, const float *weight)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t s = 0; s < x.rows; s++)
        simd->norm_weight(row_of(y, s), row_of(x, s), x.cols, NORM_RMS, eps, weight, NULL);
}

static void norm_rope(const struct rows_simd *simd, float *row, int64_t cols, float eps,
                      const float *weight, const struct rope *rope, int64_t s)
{
    simd->norm_weight(row, row, cols, NORM_RMS, eps, weight, NULL);
    if (rope) simd->rotate(row, rope, rope->coord + 3 * s);
}

void cpu_qk_norm_rope(struct device *dev, struct mat q, struct mat k, float eps,
                      const float *q_weight, const float *k_weight, const struct rope *rope)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t s = 0; s < q.rows; s++) {
        norm_rope(simd, row_of(q, s), q.cols, eps, q_weight, rope, s);
        if (k.p) norm_rope(simd, row_of(k, s), k.cols, eps, k_weight, rope, s);
    }
}

void cpu_gate_residual(struct device *dev, struct mat x, struct mat y, struct mat gate,
                       const int32_t *row_index)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t s = 0; s < x.rows; s++)
        simd->gate(row_of(x, s), row_of(y, s), x.cols, modulation(gate, row_index, s));
}

void cpu_gate_residual_norm(struct device *dev, struct mat z, struct mat x, struct mat y,
                            struct mat gate, const struct next_norm *norm, const int32_t *row_index)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t s = 0; s < x.rows; s++) {
        float *row = row_of(x, s);
        simd->gate(row, row_of(y, s), x.cols, modulation(gate, row_index, s));
        if (norm->none)
            memcpy(row_of(z, s), row, (size_t)x.cols * sizeof *row);
        else
            simd->norm(row_of(z, s), row, x.cols, norm->kind, norm->eps,
                       modulation(norm->scale, row_index, s),
                       modulation(norm->shift, row_index, s));
    }
}

void cpu_modulation(struct device *dev, struct mat y, const float *table, struct mat e)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
    for (int64_t row = 0; row < y.rows; row++) {
        int64_t kind = row / e.rows;
        const float *from = row_of(e, row % e.rows) + kind * y.cols % e.cols;
        simd->lincomb(row_of(y, row), 1.0f, table + kind * y.cols, 1.0f, from, y.cols);
    }
}

void cpu_gelu_gate(struct device *dev, struct mat y, struct mat a, struct mat b)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t s = 0; s < y.rows; s++)
        simd->gelu_gate(row_of(y, s), row_of(a, s), row_of(b, s), y.cols);
}

void cpu_silu(struct device *dev, struct mat y, struct mat x)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t s = 0; s < y.rows; s++) simd->silu(row_of(y, s), row_of(x, s), y.cols);
}

/* Flat arrays are cut into pieces for the threads. */
enum { PIECE = 16384 };

static int64_t piece_length(int64_t n, int64_t first)
{
    return n - first < PIECE ? n - first : PIECE;
}

void cpu_lincomb(struct device *dev, float *out, float a, const float *x, float b, const float *y,
                 int64_t n)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = 0; i < n; i += PIECE)
        simd->lincomb(out + i, a, x + i, b, y ? y + i : NULL, piece_length(n, i));
}

/* To bytes or to words, whichever are given. */
static void to_integers(struct device *dev, uint8_t *bytes, uint16_t *words, const float *y,
                        int64_t stride, int64_t n, int64_t rows)
{
    const struct rows_simd *simd = cpu_of(dev)->rows;
    int64_t each = (n + PIECE - 1) / PIECE; /* pieces of a row */
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = 0; i < rows * each; i++) {
        int64_t row = i / each, first = i % each * PIECE, count = piece_length(n, first);
        const float *from = y + row * stride + first;
        if (bytes)
            simd->to_bytes(bytes + row * n + first, from, count);
        else
            simd->to_words(words + row * n + first, from, count);
    }
}

void cpu_to_bytes(struct device *dev, uint8_t *bytes, const float *y, int64_t stride, int64_t n,
                  int64_t rows)
{
    to_integers(dev, bytes, NULL, y, stride, n, rows);
}

void cpu_to_words(struct device *dev, uint16_t *words, const float *y, int64_t stride, int64_t n,
                  int64_t rows)
{
    to_integers(dev, NULL, words, y, stride, n, rows);
}

void cpu_dot_tiles(struct device *dev, double *dots, const float *x, const float *y, int64_t n,
                   int64_t tile)
{
    int64_t tiles = (n + tile - 1) / tile;
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t t = 0; t < tiles; t++) {
        int64_t end = (t + 1) * tile < n ? (t + 1) * tile : n;
        double sum = 0;
        for (int64_t i = t * tile; i < end; i++) sum += y ? (double)x[i] * y[i] : x[i];
        dots[t] = sum;
    }
}
