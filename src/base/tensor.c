#include "base/tensor.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
    bool is_float;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", 4, true},    [DTYPE_BF16] = {"BF16", 2, true},
    [DTYPE_F16] = {"F16", 2, true},    [DTYPE_F8_E4M3] = {"F8_E4M3", 1, true},
    [DTYPE_F64] = {"F64", 8, true},    [DTYPE_I64] = {"I64", 8, false},
    [DTYPE_I32] = {"I32", 4, false},   [DTYPE_U8] = {"U8", 1, false},
    [DTYPE_BOOL] = {"BOOL", 1, false},
};

/* DTYPE_COUNT stands for a dtype that a file may hold and we cannot compute with. */
size_t dtype_size(enum dtype d) { return d < DTYPE_COUNT ? dtypes[d].size : 0; }
const char *dtype_name(enum dtype d) { return d < DTYPE_COUNT ? dtypes[d].name : "?"; }
bool dtype_is_float(enum dtype d) { return d < DTYPE_COUNT && dtypes[d].is_float; }

bool dtype_from_name(const char *name, enum dtype *out)
{
    for (int d = 0; d < DTYPE_COUNT; d++) {
        if (strcmp(name, dtypes[d].name) == 0) {
            *out = (enum dtype)d;
            return true;
        }
    }
    return false;
}

int64_t tensor_count(const struct tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

char *tensor_shape_text(const struct tensor *t, char out[96])
{
    size_t at = 0;
    out[at++] = '[';
    for (int i = 0; i < t->rank && at < 80; i++)
        at += (size_t)snprintf(out + at, 96 - at, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    if (at > 94) at = 94;
    out[at++] = ']';
    out[at] = '\0';
    return out;
}

struct mat mat_rows(struct mat m, int64_t first, int64_t count)
{
    CHECK(first >= 0 && count >= 0 && first + count <= m.rows,
          "rows %lld..%lld of a matrix of %lld rows", (long long)first, (long long)(first + count),
          (long long)m.rows);
    char *p = (char *)m.p + (size_t)(first * m.cols) * dtype_size(m.dtype);
    return (struct mat){p, count, m.cols, m.dtype};
}

size_t clip_bytes(const struct clip *v) { return (size_t)clip_count(v) * dtype_size(v->dtype); }

void *clip_at(const struct clip *v, int64_t t, int64_t row, int64_t column)
{
    int64_t at = t * clip_frame(v) + row * clip_row(v) + (column + v->pad) * v->c;
    return (char *)v->p + at * (int64_t)dtype_size(v->dtype);
}

struct clip clip_frames(const struct clip *v, int64_t first, int64_t count)
{
    struct clip part = *v;
    part.p = clip_at(v, first, 0, -v->pad);
    part.t = count;
    return part;
}

static float float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float f32_from_bf16(uint16_t x) { return float_from_bits((uint32_t)x << 16); }

uint16_t bf16_from_f32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) >
        0x7f800000u) /* NaN stays NaN, whatever rounding would do to its payload */
        return (uint16_t)(bits >> 16 | 0x0040u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static float f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu,
             mantissa = h & 0x3ffu;
    if (exponent == 31) return float_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return float_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f; /* zero and subnormals */
    return sign ? -value : value;
}

/* The code's bits in fp32's places, its exponent moved by 120. A subnormal m is read as 1.m * 2^-6,
 * from which 2^-6 is taken away; the NaN comes out as 480 = 0x43f00000. All exact. Without
 * branches, so that a loop over it is vectorised, and without fp32 subnormals, which are slow. */
static float f32_from_e4m3(uint8_t b)
{
    uint32_t magnitude = b & 0x7fu, sign = (uint32_t)(b & 0x80u) << 24, bits;
    uint32_t subnormal = (magnitude - 8) >> 31, nan = (magnitude + 1) >> 7; /* 1 or 0 */
    float value = float_from_bits((magnitude << 20) + ((120 + subnormal) << 23)) -
                  float_from_bits(subnormal * 0x3c800000u);
    memcpy(&bits, &value, sizeof bits);
    return float_from_bits(bits + nan * (0x7fc00000u - 0x43f00000u) + sign);
}

void dtype_to_f32(float *to, const void *from, enum dtype d, size_t n)
{
    const unsigned char *p = from;
    uint16_t half;
    double wide;
    switch (d) {
    case DTYPE_F32:
        memcpy(to, from, n * sizeof *to);
        return;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, p + 2 * i, sizeof half);
            to[i] = f32_from_bf16(half);
        }
        return;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, p + 2 * i, sizeof half);
            to[i] = f32_from_f16(half);
        }
        return;
    case DTYPE_F8_E4M3:
        for (size_t i = 0; i < n; i++) to[i] = f32_from_e4m3(p[i]);
        return;
    case DTYPE_F64:
        for (size_t i = 0; i < n; i++) {
            memcpy(&wide, p + 8 * i, sizeof wide);
            to[i] = (float)wide;
        }
        return;
    default:
        CHECK(false, "dtype %s is not a float type", dtype_name(d));
    }
}
