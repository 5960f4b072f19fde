/* The arithmetic: sums in float, over k in order, in chunks whose size the algorithm decides. A
 * value of D depends on its row of A, its column of B and the algorithm, and on nothing else. */
#include "tests/emulation/runtime/cublaslt_internal.h"

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace emulation::runtime
{

/* A tile of registers: 4 rows of op(A) times 8 columns of op(B). */
constexpr uint64_t tile_m = 4, tile_n = 8;
typedef float vec __attribute__((vector_size(tile_n * sizeof(float)), aligned(16)));

static float from_fp8(unsigned char bits)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}

static float load(const char *p, uint32_t type)
{
    if (type == CUDA_R_32F) {
        float value;
        memcpy(&value, p, sizeof value);
        return value;
    }
    if (type == CUDA_R_16BF) {
        uint16_t bits;
        memcpy(&bits, p, sizeof bits);
        uint32_t wide = (uint32_t)bits << 16;
        float value;
        memcpy(&value, &wide, sizeof value);
        return value;
    }
    static const std::vector<float> fp8 = [] {
        std::vector<float> values;
        for (int i = 0; i < 256; i++) values.push_back(from_fp8((unsigned char)i));
        return values;
    }();
    return fp8[(unsigned char)*p];
}

static void store(char *p, uint32_t type, float value)
{
    if (type == CUDA_R_32F) {
        memcpy(p, &value, sizeof value);
    } else if (type == CUDA_R_16BF) {
        __nv_bfloat16 narrow = __float2bfloat16_rn(value);
        memcpy(p, &narrow, sizeof narrow);
    } else {
        *p = (char)__nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
    }
}

static size_t offset(const Layout &l, uint64_t row, uint64_t col)
{
    uint64_t ld = (uint64_t)l.ld;
    return (l.order == CUBLASLT_ORDER_COL ? col * ld + row : row * ld + col) *
           element_bytes(l.type);
}

/* TF32 keeps ten bits of the fraction. */
static float to_tf32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x0fffu + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* [count, k] or its transpose, as floats in panels of `width`: [panel][k][width], zeros beyond. */
static std::vector<float> pack(const char *data, const Layout &l, bool count_is_rows,
                               uint64_t count, uint64_t k, uint64_t width, bool tf32)
{
    uint64_t panels = (count + width - 1) / width;
    std::vector<float> packed(panels * k * width);
    for (uint64_t i = 0; i < count; i++) {
        float *to = &packed[i / width * k * width + i % width];
        for (uint64_t j = 0; j < k; j++) {
            float x = load(data + (count_is_rows ? offset(l, i, j) : offset(l, j, i)), l.type);
            to[j * width] = tf32 ? to_tf32(x) : x;
        }
    }
    return packed;
}

/* sums[tile_m][tile_n] over k in [begin, end) */
static void multiply_tile(const float *a, const float *b, uint64_t begin, uint64_t end,
                          uint64_t chunk, vec sums[tile_m])
{
    for (uint64_t i = 0; i < tile_m; i++) sums[i] = vec{};
    for (uint64_t at = begin; at < end; at += chunk) {
        vec part[tile_m] = {};
        for (uint64_t j = at; j < std::min(end, at + chunk); j++) {
            vec columns;
            memcpy(&columns, b + j * tile_n, sizeof columns);
            for (uint64_t i = 0; i < tile_m; i++) part[i] += a[j * tile_m + i] * columns;
        }
        for (uint64_t i = 0; i < tile_m; i++) sums[i] += part[i];
    }
}

/* out[m][n], row-major */
static void multiply_range(const Problem &p, const std::vector<float> &a,
                           const std::vector<float> &b, uint64_t begin, uint64_t end,
                           uint64_t chunk, float *out)
{
    for (uint64_t i = 0; i < p.m; i += tile_m)
        for (uint64_t j = 0; j < p.n; j += tile_n) {
            vec sums[tile_m];
            multiply_tile(&a[i / tile_m * p.k * tile_m], &b[j / tile_n * p.k * tile_n], begin, end,
                          chunk, sums);
            for (uint64_t r = 0; r < std::min(tile_m, p.m - i); r++)
                memcpy(out + (i + r) * p.n + j, &sums[r],
                       std::min(tile_n, p.n - j) * sizeof(float));
        }
}

/* The parts of k lie in the workspace, as floats or in D's type, and are added up in order. */
static void add_parts(const Problem &p, const Algorithm &algorithm, const std::vector<float> &a,
                      const std::vector<float> &b, char *workspace, float *out)
{
    bool narrow = algorithm.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    uint32_t type = narrow ? p.d.type : (uint32_t)CUDA_R_32F;
    size_t bytes = element_bytes(type);
    uint64_t count = p.m * p.n, parts = (uint64_t)algorithm.split_k;
    for (uint64_t s = 0; s < parts; s++) {
        multiply_range(p, a, b, p.k * s / parts, p.k * (s + 1) / parts, chunk_of(algorithm), out);
        for (uint64_t i = 0; i < count; i++)
            store(workspace + (s * count + i) * bytes, type, out[i]);
    }
    std::fill(out, out + count, 0.f);
    for (uint64_t s = 0; s < parts; s++)
        for (uint64_t i = 0; i < count; i++)
            out[i] += load(workspace + (s * count + i) * bytes, type);
}

/* The tanh form. */
static float gelu(float x)
{
    return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

static void write_out(const Problem &p, const Operands &o, const float *sums, int64_t batch)
{
    uint32_t type = bias_type(p);
    const char *bias = o.bias + batch * p.product.bias_stride * (int64_t)element_bytes(type);
    const char *c = o.c + batch * p.c.stride * (int64_t)element_bytes(p.c.type);
    char *d = o.d + batch * p.d.stride * (int64_t)element_bytes(p.d.type);
    float scale = o.alpha * o.a_scale * o.b_scale, c_scale = o.beta * o.c_scale;
    for (uint64_t i = 0; i < p.m; i++)
        for (uint64_t j = 0; j < p.n; j++) {
            float x = scale * sums[i * p.n + j];
            if (o.beta != 0) x += c_scale * load(c + offset(p.c, i, j), p.c.type);
            if (p.product.epilogue & CUBLASLT_EPILOGUE_BIAS)
                x += load(bias + i * element_bytes(type), type);
            if (p.product.epilogue & CUBLASLT_EPILOGUE_GELU) x = gelu(x);
            store(d + offset(p.d, i, j), p.d.type, x * o.d_scale);
        }
}

void multiply(const Problem &p, const Algorithm &algorithm, const Operands &o)
{
    bool tf32 = p.product.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && p.a.type == CUDA_R_32F;
    std::vector<float> sums(p.m * p.n);
    for (int64_t batch = 0; batch < p.d.batch; batch++) {
        auto a = pack(o.a + batch * p.a.stride * (int64_t)element_bytes(p.a.type), p.a,
                      p.product.transpose_a == CUBLAS_OP_N, p.m, p.k, tile_m, tf32);
        auto b = pack(o.b + batch * p.b.stride * (int64_t)element_bytes(p.b.type), p.b,
                      p.product.transpose_b != CUBLAS_OP_N, p.n, p.k, tile_n, tf32);
        if (algorithm.split_k > 1)
            add_parts(p, algorithm, a, b, o.workspace, sums.data());
        else
            multiply_range(p, a, b, 0, p.k, chunk_of(algorithm), sums.data());
        write_out(p, o, sums.data(), batch);
    }
}

} // namespace emulation::runtime
