/* Norms and elementwise work on one row; the loops over channels are vectorised by the compiler. */
#include "kernels/cpu/simd_inline.h"

#include <math.h>

static float mean(const float *x, int64_t n)
{
    vf a = {0}, b = {0};
    int64_t i = 0;
    for (; i + 2 * SIMD_WIDTH <= n; i += 2 * SIMD_WIDTH) {
        a += vf_load(x + i);
        b += vf_load(x + i + SIMD_WIDTH);
    }
    float rest = 0.0f;
    for (; i < n; i++) rest += x[i];
    return (vf_sum(a + b) + rest) / (float)n;
}

static float mean_square(const float *x, int64_t n, float about)
{
    vf a = {0}, b = {0};
    int64_t i = 0;
    for (; i + 2 * SIMD_WIDTH <= n; i += 2 * SIMD_WIDTH) {
        vf p = vf_load(x + i) - about, q = vf_load(x + i + SIMD_WIDTH) - about;
        a += p * p;
        b += q * q;
    }
    float rest = 0.0f;
    for (; i < n; i++) rest += (x[i] - about) * (x[i] - about);
    return (vf_sum(a + b) + rest) / (float)n;
}

/* x -> (x - centre) * factor is the norm of this row */
SIMD_INLINE void moments(const float *x, int64_t n, enum norm kind, float eps, float *centre,
                         float *factor)
{
    *centre = kind == NORM_LAYER ? mean(x, n) : 0.0f;
    *factor = 1.0f / sqrtf(mean_square(x, n, *centre) + eps);
}

static void rows_norm(float *y, const float *x, int64_t n, enum norm kind, float eps,
                      const float *scale, const float *shift)
{
    float centre, factor;
    moments(x, n, kind, eps, &centre, &factor);
    if (scale && shift)
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - centre) * factor * (1.0f + scale[i]) + shift[i];
    else if (scale)
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - centre) * factor * (1.0f + scale[i]);
    else if (shift)
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - centre) * factor + shift[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - centre) * factor;
}

static void rows_norm_weight(float *y, const float *x, int64_t n, enum norm kind, float eps,
                             const float *weight, const float *bias)
{
    float centre, factor;
    moments(x, n, kind, eps, &centre, &factor);
    if (bias)
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - centre) * factor * weight[i] + bias[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - centre) * factor * weight[i];
}

/* Channel pad + 6j + 2a belongs to frequency j and axis a. */
static void rows_rotate(float *restrict x, const struct rope *rope, const int32_t *coord)
{
    const float *restrict at[3];
    for (int a = 0; a < 3; a++) at[a] = rope->table[a] + 2 * rope->n * coord[a];
    float *restrict pair = x + rope->pad;
    for (int64_t j = 0; j < rope->n; j++)
        for (int a = 0; a < 3; a++, pair += 2) {
            float c = at[a][2 * j], s = at[a][2 * j + 1], even = pair[0], odd = pair[1];
            pair[0] = even * c - odd * s;
            pair[1] = odd * c + even * s;
        }
}

static void rows_gate(float *restrict x, const float *restrict y, int64_t n,
                      const float *restrict gate)
{
    if (gate)
        for (int64_t i = 0; i < n; i++) x[i] += gate[i] * y[i];
    else
        for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

/* One function over a row; what is left at the end goes through the same instructions in a part of
 * a register. */
#define MAP(i, n, to, full, part)                                                                  \
    do {                                                                                           \
        int64_t i = 0;                                                                             \
        for (; i + SIMD_WIDTH <= (n); i += SIMD_WIDTH) vf_store((to) + i, full);                   \
        if (i < (n)) vf_store_part((to) + i, part, (n)-i);                                         \
    } while (0)

static void rows_gelu_gate(float *y, const float *a, const float *b, int64_t n)
{
    MAP(i, n, y, vf_gelu(vf_load(a + i)) * vf_load(b + i),
        vf_gelu(vf_load_part(a + i, n - i)) * vf_load_part(b + i, n - i));
}

static void rows_gelu(float *x, int64_t n)
{
    MAP(i, n, x, vf_gelu(vf_load(x + i)), vf_gelu(vf_load_part(x + i, n - i)));
}

static void rows_silu(float *y, const float *x, int64_t n)
{
    MAP(i, n, y, vf_silu(vf_load(x + i)), vf_silu(vf_load_part(x + i, n - i)));
}

SIMD_INLINE vf lincomb(float a, vf x, float b, vf y) { return a * x + b * y; }

/* A shard may end anywhere: an element must get the same instructions at the end of an array as in
 * its middle. */
static void rows_lincomb(float *out, float a, const float *x, float b, const float *y, int64_t n)
{
    if (y)
        MAP(i, n, out, lincomb(a, vf_load(x + i), b, vf_load(y + i)),
            lincomb(a, vf_load_part(x + i, n - i), b, vf_load_part(y + i, n - i)));
    else
        MAP(i, n, out, a * vf_load(x + i), a * vf_load_part(x + i, n - i));
}

/* NaN becomes 0: the maximum of NaN and a number is its second operand. */
SIMD_INLINE vf clamped(vf y)
{
    return SIMD_MIN(SIMD_MAX(0.5f * y + 0.5f, vf_all(0.0f)), vf_all(1.0f));
}

SIMD_INLINE void bytes_of(uint8_t *bytes, vf y, int64_t n)
{
    vi whole = __builtin_convertvector(255.0f * clamped(y), vi);
    for (int64_t i = 0; i < n; i++) bytes[i] = (uint8_t)whole[i];
}

static void rows_to_bytes(uint8_t *bytes, const float *y, int64_t n)
{
    int64_t i = 0;
    for (; i + SIMD_WIDTH <= n; i += SIMD_WIDTH) bytes_of(bytes + i, vf_load(y + i), SIMD_WIDTH);
    if (i < n) bytes_of(bytes + i, vf_load_part(y + i, n - i), n - i);
}

SIMD_INLINE void words_of(uint16_t *words, vf y, int64_t n)
{
    vi whole = __builtin_convertvector(65535.0f * clamped(y) + 0.5f, vi);
    for (int64_t i = 0; i < n; i++) words[i] = (uint16_t)whole[i];
}

static void rows_to_words(uint16_t *words, const float *y, int64_t n)
{
    int64_t i = 0;
    for (; i + SIMD_WIDTH <= n; i += SIMD_WIDTH) words_of(words + i, vf_load(y + i), SIMD_WIDTH);
    if (i < n) words_of(words + i, vf_load_part(y + i, n - i), n - i);
}

/* Half a unit of the last kept place, less one when that place is even, is added and carries. */
static void rows_to_bf16(uint16_t *restrict y, const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
        y[i] = (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded); /* NaN */
    }
}

const struct rows_simd SIMD_NAME(rows) = {
    .norm = rows_norm,
    .norm_weight = rows_norm_weight,
    .rotate = rows_rotate,
    .gate = rows_gate,
    .gelu_gate = rows_gelu_gate,
    .gelu = rows_gelu,
    .silu = rows_silu,
    .lincomb = rows_lincomb,
    .to_bytes = rows_to_bytes,
    .to_words = rows_to_words,
    .to_bf16 = rows_to_bf16,
};
