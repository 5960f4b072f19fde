#include "base/rng.h"

#include <math.h>
#include <string.h>

/* ---- MT19937 (Matsumoto and Nishimura 1998) -------------------------------------------------- */

enum { N = 624, M = 397 };

void rng_seed(struct rng *r, uint64_t seed)
{
    r->state[0] = (uint32_t)seed;
    for (int j = 1; j < N; j++)
        r->state[j] = 1812433253u * (r->state[j - 1] ^ r->state[j - 1] >> 30) + (uint32_t)j;
    r->next = N;
    r->has_cached_normal = false;
    r->cached_normal = 0;
}

static void twist(uint32_t s[N])
{
    for (int j = 0; j < N; j++) {
        uint32_t y = (s[j] & 0x80000000u) | (s[(j + 1) % N] & 0x7fffffffu);
        s[j] = s[(j + M) % N] ^ y >> 1 ^ (y & 1u ? 0x9908b0dfu : 0u);
    }
}

uint32_t rng_u32(struct rng *r)
{
    if (r->next == N) {
        twist(r->state);
        r->next = 0;
    }
    uint32_t y = r->state[r->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t high = rng_u32(r);
    return high << 32 | rng_u32(r);
}

/* ---- normals, vector path: Box-Muller in single precision on Cephes polynomials -------------- */

/* The polynomials and the places where a multiply and an add are fused follow what x86-64 builds of
 * PyTorch compute; the bits depend on both. Constants are rounded to float. */

static float ln(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    float e = (float)((int)(bits >> 23) - 126);
    bits = (bits & 0x007fffffu) | 0x3f000000u; /* mantissa in [0.5, 1) */
    float m, w;
    memcpy(&m, &bits, sizeof m);
    if (m < 0.707106781186547524f) {
        e -= 1.0f;
        w = (m - 1.0f) + m;
    } else {
        w = m - 1.0f;
    }
    float z = w * w;
    static const float p[] = {-1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f,
                              1.4249322787e-1f,  -1.6668057665e-1f, 2.0000714765e-1f,
                              -2.4999993993e-1f, 3.3333331174e-1f};
    float y = 7.0376836292e-2f;
    for (int i = 0; i < 8; i++) y = fmaf(y, w, p[i]);
    y = y * w;
    float low = e * -2.12194440e-4f;
    y = fmaf(y, z, low);
    y = fmaf(-z, 0.5f, y);
    float sum = w + y;
    return fmaf(e, 0.693359375f, sum);
}

static void sine_cosine(float theta, float *sine, float *cosine)
{
    int j = (int)(theta * 1.27323954473516f);
    j = (j + 1) & ~1;
    float f = (float)j;
    float a = fmaf(f, -0.78515625f, theta);
    a = fmaf(f, -2.4187564849853515625e-4f, a);
    a = fmaf(f, -3.77489497744594108e-8f, a);
    float z = a * a;

    float c = 2.443315711809948e-5f;
    c = fmaf(c, z, -1.388731625493765e-3f);
    c = fmaf(c, z, 4.166664568298827e-2f);
    c = c * z;
    float half = z * 0.5f;
    c = fmaf(c, z, -half);
    c = c + 1.0f;

    float s = -1.9515295891e-4f;
    s = fmaf(s, z, 8.3321608736e-3f);
    s = fmaf(s, z, -1.6666654611e-1f);
    s = s * z;
    s = fmaf(s, a, a);

    bool swap = j & 2;
    *sine = swap ? c : s;
    *cosine = swap ? s : c;
    if (j & 4) *sine = -*sine;
    if (((j - 2) & 4) == 0) *cosine = -*cosine;
}

static void normals_from_uniforms(float block[16])
{
    for (int j = 0; j < 8; j++) {
        float u1 = 1.0f - block[j], u2 = block[j + 8];
        float radius = sqrtf(-2.0f * ln(u1));
        float sine, cosine;
        sine_cosine(6.283185307179586f * u2, &sine, &cosine);
        block[j] = radius * cosine;
        block[j + 8] = radius * sine;
    }
}

static float uniform(struct rng *r) { return (float)(rng_u32(r) & 0xffffffu) * 0x1p-24f; }

/* ---- normals, scalar path: Box-Muller in double, in pairs ------------------------------------ */

static double uniform_double(struct rng *r)
{
    return (double)(rng_u64(r) & ((1ull << 53) - 1)) * 0x1p-53;
}

static double scalar_normal(struct rng *r)
{
    if (r->has_cached_normal) {
        r->has_cached_normal = false;
        return r->cached_normal;
    }
    double u1 = uniform_double(r), u2 = uniform_double(r);
    double radius = sqrt(-2.0 * log1p(-u2)), theta = 2.0 * 3.14159265358979323846 * u1;
    r->cached_normal = radius * sin(theta);
    r->has_cached_normal = true;
    return radius * cos(theta);
}

void rng_randn_strided(struct rng *r, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)scalar_normal(r);
}

void rng_randn(struct rng *r, float *out, size_t n)
{
    if (n < 16) {
        rng_randn_strided(r, out, n);
        return;
    }
    for (size_t i = 0; i < n; i++) out[i] = uniform(r);
    for (size_t i = 0; i + 16 <= n; i += 16) normals_from_uniforms(out + i);
    if (n % 16) { /* the tail block is drawn anew and overwrites finished values, as the reference
                     does */
        float *tail = out + n - 16;
        for (int i = 0; i < 16; i++) tail[i] = uniform(r);
        normals_from_uniforms(tail);
    }
}
