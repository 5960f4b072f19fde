/* Flat arrays: functions of one value, combinations, conversions, tile sums, normals (kernels.h).
 */
#include "kernels/cuda/values.h"

static int64_t count(struct mat m) { return m.rows * m.cols; }

/* ---- elementwise ----------------------------------------------------------------------------- */

template <class Y, class X> struct GeluGate {
    static constexpr int STEP = VECTOR<X, Y>;
    Y *y;
    const X *a, *b;
    bool aligned;
    __device__ void operator()(int64_t, int64_t at, int64_t left) const
    {
        float u[STEP], v[STEP];
        load_values(u, a + at, left, aligned);
        load_values(v, b + at, left, aligned);
#pragma unroll
        for (int i = 0; i < STEP; i++) u[i] = gelu(u[i]) * v[i];
        store_values(y + at, u, left, aligned);
    }
};

int launch_gelu_gate(cudaStream_t stream, struct mat y, struct mat a, struct mat b)
{
    if (a.dtype != b.dtype) return cudaErrorInvalidValue;
    return with_types(y.dtype, a.dtype, [&](auto to, auto from) {
        using Y = decltype(to);
        using X = decltype(from);
        bool aligned = aligned_16(y.p) && aligned_16(a.p) && aligned_16(b.p);
        return launch_each(stream,
                           GeluGate<Y, X>{static_cast<Y *>(y.p), static_cast<const X *>(a.p),
                                          static_cast<const X *>(b.p), aligned},
                           1, count(y));
    });
}

template <class Y, class X> struct Silu {
    static constexpr int STEP = VECTOR<X, Y>;
    Y *y;
    const X *x;
    bool aligned;
    __device__ void operator()(int64_t, int64_t at, int64_t left) const
    {
        float v[STEP];
        load_values(v, x + at, left, aligned);
#pragma unroll
        for (int i = 0; i < STEP; i++) v[i] = silu(v[i]);
        store_values(y + at, v, left, aligned);
    }
};

int launch_silu(cudaStream_t stream, struct mat y, struct mat x)
{
    return with_types(y.dtype, x.dtype, [&](auto to, auto from) {
        using Y = decltype(to);
        using X = decltype(from);
        return launch_each(stream,
                           Silu<Y, X>{static_cast<Y *>(y.p), static_cast<const X *>(x.p),
                                      aligned_16(y.p) && aligned_16(x.p)},
                           1, count(y));
    });
}

struct Modulation {
    static constexpr int STEP = VECTOR<float>;
    float *y;
    const float *table, *e;
    int64_t times, columns, width; /* T, columns of e, D */
    bool aligned;
    __device__ void operator()(int64_t row, int64_t column, int64_t left) const
    {
        int64_t kind = quotient(row, times), time = row - kind * times;
        int64_t from = columns == width ? 0 : kind * width;
        float u[STEP], v[STEP];
        load_values(u, table + kind * width + column, left, aligned);
        load_values(v, e + time * columns + from + column, left, aligned);
#pragma unroll
        for (int i = 0; i < STEP; i++) u[i] += v[i];
        store_values(y + row * width + column, u, left, aligned);
    }
};

int launch_modulation(cudaStream_t stream, struct mat y, const float *table, struct mat e)
{
    bool aligned =
        y.cols % Modulation::STEP == 0 && aligned_16(y.p) && aligned_16(table) && aligned_16(e.p);
    return launch_each(stream,
                       Modulation{static_cast<float *>(y.p), table, static_cast<const float *>(e.p),
                                  e.rows, e.cols, y.cols, aligned},
                       y.rows, y.cols);
}

struct Lincomb {
    static constexpr int STEP = VECTOR<float>;
    float *out;
    float a;
    const float *x;
    float b;
    const float *y; /* may be NULL */
    bool aligned;
    __device__ void operator()(int64_t, int64_t at, int64_t left) const
    {
        float u[STEP], v[STEP] = {};
        load_values(u, x + at, left, aligned);
        if (y) load_values(v, y + at, left, aligned);
#pragma unroll
        for (int i = 0; i < STEP; i++) u[i] = y ? fmaf(a, u[i], b * v[i]) : a * u[i];
        store_values(out + at, u, left, aligned);
    }
};

int launch_lincomb(cudaStream_t stream, float *out, float a, const float *x, float b,
                   const float *y, int64_t n)
{
    bool aligned = aligned_16(out) && aligned_16(x) && aligned_16(y);
    return launch_each(stream, Lincomb{out, a, x, b, y, aligned}, 1, n);
}

/* ---- conversions ----------------------------------------------------------------------------- */

template <class Y, class X> struct Convert {
    static constexpr int STEP = VECTOR<X, Y>;
    Y *to;
    const X *from;
    bool aligned;
    __device__ void operator()(int64_t, int64_t at, int64_t left) const
    {
        float v[STEP];
        load_values(v, from + at, left, aligned);
        store_values(to + at, v, left, aligned);
    }
};

template <class X>
static int convert_from(cudaStream_t stream, void *to, enum dtype to_type, const void *from,
                        int64_t n)
{
    return with_type(to_type, [&](auto value) {
        using Y = decltype(value);
        return launch_each(stream,
                           Convert<Y, X>{static_cast<Y *>(to), static_cast<const X *>(from),
                                         aligned_16(to) && aligned_16(from)},
                           1, n);
    });
}

int launch_convert(cudaStream_t stream, void *to, enum dtype to_type, const void *from,
                   enum dtype from_type, int64_t n)
{
    switch (from_type) {
    case DTYPE_F32:
        return convert_from<float>(stream, to, to_type, from, n);
    case DTYPE_BF16:
        return convert_from<bf16>(stream, to, to_type, from, n);
    case DTYPE_F16:
        return convert_from<__half>(stream, to, to_type, from, n);
    case DTYPE_F8_E4M3:
        return convert_from<e4m3>(stream, to, to_type, from, n);
    default:
        return cudaErrorInvalidValue;
    }
}

/* ---- integers -------------------------------------------------------------------------------- */

/* The larger of NaN and 0 is 0. */
DEVICE_INLINE float brightness(float y) { return fminf(fmaxf(fmaf(0.5f, y, 0.5f), 0.0f), 1.0f); }
DEVICE_INLINE void quantise(uint8_t &to, float y)
{
    to = static_cast<uint8_t>(__float2int_rz(255.0f * brightness(y)));
}
DEVICE_INLINE void quantise(uint16_t &to, float y)
{
    to = static_cast<uint16_t>(__float2int_rz(fmaf(65535.0f, brightness(y), 0.5f)));
}

template <class T> struct Quantise {
    static constexpr int STEP = 4;
    T *to;
    const float *y;
    int64_t stride, n;
    bool aligned; /* all rows of both */
    __device__ void operator()(int64_t row, int64_t column, int64_t left) const
    {
        float v[STEP];
        load_values(v, y + row * stride + column, left, aligned);
        T *p = to + row * n + column;
        if (aligned && left >= STEP) {
            Neighbours<T, STEP> group;
            using Word = typename Neighbours<T, STEP>::Word;
#pragma unroll
            for (int i = 0; i < STEP; i++) quantise(group.value[i], v[i]);
            *reinterpret_cast<Word *>(p) = *reinterpret_cast<Word *>(&group);
        } else {
            for (int i = 0; i < STEP && i < left; i++) quantise(p[i], v[i]);
        }
    }
};

template <class T>
static int launch_quantise(cudaStream_t stream, T *to, const float *y, int64_t stride, int64_t n,
                           int64_t rows)
{
    if (stride == n) {
        stride = n *= rows;
        rows = 1;
    }
    bool aligned =
        aligned_16(to) && aligned_16(y) && (rows == 1 || (stride % 4 == 0 && n % 4 == 0));
    return launch_each(stream, Quantise<T>{to, y, stride, n, aligned}, rows, n);
}

int launch_to_bytes(cudaStream_t stream, uint8_t *bytes, const float *y, int64_t stride, int64_t n,
                    int64_t rows)
{
    return launch_quantise(stream, bytes, y, stride, n, rows);
}
int launch_to_words(cudaStream_t stream, uint16_t *words, const float *y, int64_t stride, int64_t n,
                    int64_t rows)
{
    return launch_quantise(stream, words, y, stride, n, rows);
}

/* ---- sums of tiles --------------------------------------------------------------------------- */

constexpr int DOT_THREADS = 256, DOT_STEP = 4;

/* Thread t sums the groups of four number t, t + 256, … in order, then the threads fold together.
 */
__global__ void __launch_bounds__(DOT_THREADS)
    dot_kernel(double *dots, const float *x, const float *y, int64_t n, int64_t tile, bool aligned)
{
    SMEM_STATIC(double, sums, [DOT_THREADS / 32]);
    for (int64_t t = blockIdx.x; t * tile < n; t += gridDim.x) {
        int64_t first = t * tile, length = n - first < tile ? n - first : tile;
        double sum = 0;
        for (int64_t at = threadIdx.x * DOT_STEP; at < length; at += DOT_THREADS * DOT_STEP) {
            float u[DOT_STEP], v[DOT_STEP] = {};
            load_values(u, x + first + at, length - at, aligned);
            if (y) load_values(v, y + first + at, length - at, aligned);
#pragma unroll
            for (int i = 0; i < DOT_STEP; i++)
                sum += y ? static_cast<double>(u[i]) * v[i] : static_cast<double>(u[i]);
        }
        for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
        if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int w = 1; w < DOT_THREADS / 32; w++) sum += sums[w];
            dots[t] = sum;
        }
        __syncthreads(); /* before the next tile's sums are written */
    }
}

int launch_dot_tiles(cudaStream_t stream, double *dots, const float *x, const float *y, int64_t n,
                     int64_t tile)
{
    if (tile <= 0) return cudaErrorInvalidValue;
    if (n <= 0) return cudaSuccess;
    bool aligned = aligned_16(x) && aligned_16(y) && (tile % DOT_STEP == 0 || n <= tile);
    return launch_kernel(blocks_for((n + tile - 1) / tile), dim3(DOT_THREADS), 0, stream,
                         dot_kernel, dots, x, y, n, tile, aligned);
}

/* ---- normals --------------------------------------------------------------------------------- */

struct Words4 {
    uint32_t word[4];
};

/* Philox 4x32-10: rounds of two 32-bit products, whose key grows by Weyl's constants. */
DEVICE_INLINE Words4 philox(uint64_t counter, uint64_t seed)
{
    uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
    uint32_t c2 = 0, c3 = 0;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint64_t p = uint64_t{0xD2511F53u} * c0, q = uint64_t{0xCD9E8D57u} * c2;
        c0 = static_cast<uint32_t>(q >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(q);
        c2 = static_cast<uint32_t>(p >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

/* Two normals of two words: the first word, never 0, gives the radius. */
DEVICE_INLINE void box_muller(float &a, float &b, uint32_t first, uint32_t second)
{
    float radius = sqrtf(-2.0f * logf(fmaf(static_cast<float>(first), 0x1p-32f, 0x1p-33f)));
    float sine, cosine;
    sincosf(static_cast<float>(second) * (6.28318531f * 0x1p-32f), &sine, &cosine);
    a = radius * cosine;
    b = radius * sine;
}

template <class T> struct Normal {
    static constexpr int STEP = 4; /* one call of Philox */
    T *to;
    uint64_t seed;
    int64_t first, n;
    bool aligned;
    /* column counts from the last multiple of 4 before `first`, or at it */
    __device__ void operator()(int64_t, int64_t column, int64_t) const
    {
        int64_t group = first / STEP + column / STEP, at = group * STEP - first;
        Words4 words = philox(static_cast<uint64_t>(group), seed);
        float v[STEP];
        box_muller(v[0], v[1], words.word[0], words.word[1]);
        box_muller(v[2], v[3], words.word[2], words.word[3]);
        if (at >= 0) {
            store_values(to + at, v, n - at, aligned);
        } else {
#pragma unroll
            for (int i = 0; i < STEP; i++)
                if (at + i >= 0 && at + i < n) set_value(to[at + i], v[i]);
        }
    }
};

int launch_normal(cudaStream_t stream, void *to, enum dtype type, uint64_t seed, int64_t first,
                  int64_t n)
{
    if (first < 0) return cudaErrorInvalidValue;
    return with_type(type, [&](auto value) {
        using T = decltype(value);
        bool aligned = first % Normal<T>::STEP == 0 && aligned_16(to);
        return launch_each(stream, Normal<T>{static_cast<T *>(to), seed, first, n, aligned}, 1,
                           n > 0 ? n + first % Normal<T>::STEP : 0);
    });
}
