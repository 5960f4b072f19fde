#include "kernels/cpu/cpu.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
void cpu_kv_pack(struct device *dev, float *packed, struct mat k, struct mat v, int64_t heads, int64_t granule)
{
    int64_t d = k.cols / heads, size = op_kv_granule_floats(granule, heads, d), per_head = size / heads;
    memset(packed, 0, sizeof(float) * (size_t)((k.rows + granule - 1) / granule * size));
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t s = 0; s < k.rows; s++)
        for (int64_t n = 0; n < heads; n++) {
            float *to = packed + s / granule * size + n * per_head + s % granule * d;
            memcpy(to, (float *)k.p + s * k.cols + n * d, sizeof(float) * (size_t)d);
            memcpy(to + granule * d, (float *)v.p + s * k.cols + n * d, sizeof(float) * (size_t)d);
        }
}
void cpu_attention_begin(struct device *dev, float *state, int64_t queries, int64_t heads, int64_t head_dim)
{
    (void)dev;
    int64_t n = queries * heads, o = n * head_dim_padded(head_dim);
    memset(state, 0, sizeof(float) * (size_t)(o + 2 * n));
    for (int64_t i = 0; i < n; i++) state[o + i] = -1e30f;
}
void cpu_attention_block(struct device *dev, float *state, struct mat q, const float *packed, int64_t keys,
                         int64_t granule, int64_t heads, float scale)
{
    int64_t d = q.cols / heads, size = op_kv_granule_floats(granule, heads, d), per_head = size / heads;
    int64_t dp = head_dim_padded(d), n = q.rows * heads;
    float s2 = scale * 1.44269504f;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = 0; i < n; i++) {
        int64_t head = i / q.rows, row = i % q.rows;
        const float *qr = (const float *)q.p + row * q.cols + head * d;
        float *o = state + i * dp, *m = state + n * dp + i, *l = m + n;
        for (int64_t j = 0; j < keys; j++) {
            const float *k = packed + j / granule * size + head * per_head + j % granule * d, *v = k + granule * d;
            float s = 0;
            for (int64_t c = 0; c < d; c++) s += qr[c] * k[c];
            s *= s2;
            float up = s > *m ? s : *m, old = exp2f(*m - up), w = exp2f(s - up);
            *l = *l * old + w;
            for (int64_t c = 0; c < d; c++) o[c] = o[c] * old + w * v[c];
            *m = up;
        }
    }
    device_poll(dev);
}
void cpu_attention_finish(struct device *dev, struct mat o, const float *state, int64_t heads)
{
    int64_t d = o.cols / heads, dp = head_dim_padded(d), n = o.rows * heads;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < d; c++)
            ((float *)o.p)[i % o.rows * o.cols + i / o.rows * d + c] = state[i * dp + c] / state[n * dp + n + i];
}
static int64_t t5_bucket(int64_t rel)
{
    static const int first[] = {8, 12, 16, 23, 32, 46, 64, 91};
    int64_t a = rel < 0 ? -rel : rel, b = a < 8 ? a : 7;
    if (a >= 8)
        for (int i = 0; i < 8; i++) b += a >= first[i];
    return b + (rel > 0 ? 16 : 0);
}
void cpu_attention_t5(struct device *dev, struct mat o, struct mat q, struct mat k, struct mat v, int64_t heads,
                      const float *bias)
{
    int64_t d = q.cols / heads, L = q.rows;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < heads; n++) {
        float *p = cpu_floats((size_t)L);
        for (int64_t i = 0; i < L; i++) {
            float top = -1e30f, sum = 0;
            for (int64_t j = 0; j < L; j++) {
                p[j] = bias[t5_bucket(j - i) * heads + n];
                for (int64_t c = 0; c < d; c++)
                    p[j] += ((float *)q.p)[i * q.cols + n * d + c] * ((float *)k.p)[j * q.cols + n * d + c];
                if (p[j] > top) top = p[j];
            }
            for (int64_t j = 0; j < L; j++) sum += p[j] = expf(p[j] - top);
            for (int64_t c = 0; c < d; c++) {
                float s = 0;
                for (int64_t j = 0; j < L; j++) s += p[j] * ((float *)v.p)[j * q.cols + n * d + c];
                ((float *)o.p)[i * q.cols + n * d + c] = s / sum;
            }
        }
        free(p);
    }
}
