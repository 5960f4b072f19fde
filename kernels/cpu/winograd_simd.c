/* The transforms of Winograd's minimal filtering F(2x2, 3x3) (winograd.c). */
#include "kernels/cpu/simd_inline.h"

#include "kernels/backend.h"

/* Four values of a line as the four that are multiplied. Only the first is made of d[0], only the
 * last of d[3]. */
SIMD_INLINE void spread(vf *d, const int step)
{
    vf a = d[0] - d[2 * step], b = d[step] + d[2 * step], c = d[2 * step] - d[step];
    d[3 * step] = d[step] - d[3 * step];
    d[0] = a, d[step] = b, d[2 * step] = c;
}

static void input(float *to, int64_t step, const float *const from[16], int64_t n)
{
    for (int64_t i = 0; i < n; i += SIMD_WIDTH) {
        vf d[16];
#pragma GCC unroll 16
        for (int e = 0; e < 16; e++) d[e] = vf_load(from[e] + i);
#pragma GCC unroll 4
        for (int line = 0; line < 4; line++) spread(d + 4 * line, 1);
#pragma GCC unroll 4
        for (int line = 0; line < 4; line++) spread(d + line, 4);
#pragma GCC unroll 16
        for (int e = 0; e < 16; e++) vf_store(to + e * step + i, d[e]);
    }
}

/* to[0], to[step] ... from three weights of a line */
SIMD_INLINE void spread_weights(vf *to, const int step, vf g0, vf g1, vf g2)
{
    vf outer = g0 + g2;
    to[0] = g0;
    to[step] = 0.5f * (outer + g1);
    to[2 * step] = 0.5f * (outer - g1);
    to[3 * step] = g2;
}

static void weights(float *to, int64_t step, const float *from, int64_t tap, int64_t n)
{
    for (int64_t i = 0; i < n; i += SIMD_WIDTH) {
        vf half[12], u[16]; /* [4][3], [4][4] */
#pragma GCC unroll 3
        for (int x = 0; x < 3; x++)
            spread_weights(half + x, 3, vf_load(from + x * tap + i),
                           vf_load(from + (3 + x) * tap + i), vf_load(from + (6 + x) * tap + i));
#pragma GCC unroll 4
        for (int y = 0; y < 4; y++)
            spread_weights(u + 4 * y, 1, half[3 * y], half[3 * y + 1], half[3 * y + 2]);
#pragma GCC unroll 16
        for (int e = 0; e < 16; e++) vf_store(to + e * step + i, u[e]);
    }
}

static void output(float *const to[4], const float *const add[4], const float *from, int64_t step)
{
    for (int64_t i = 0; i < PANEL; i += SIMD_WIDTH) {
        vf m[16], y[4];
#pragma GCC unroll 16
        for (int e = 0; e < 16; e++) m[e] = vf_load(from + e * step + i);
#pragma GCC unroll 4
        for (int x = 0; x < 4; x++) {
            vf top = m[x] + m[4 + x] + m[8 + x];
            m[4 + x] = m[4 + x] - m[8 + x] - m[12 + x];
            m[x] = top;
        }
#pragma GCC unroll 2
        for (int line = 0; line < 2; line++) {
            const vf *t = m + 4 * line;
            y[2 * line] = t[0] + t[1] + t[2];
            y[2 * line + 1] = t[1] - t[2] - t[3];
        }
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++)
            if (to[p]) vf_store(to[p] + i, add[p] ? y[p] + vf_load(add[p] + i) : y[p]);
    }
}

const struct winograd_simd SIMD_NAME(winograd) = {
    .input = input,
    .weights = weights,
    .output = output,
};
