/* What the VAE does to a position and its channels, and what moves them about (kernels.h). */
#include "kernels/cuda/row_norm.h"
#include "kernels/cuda/silu.h"

/* A clip on the device; `at` is column 0 of row y. */
template <class T> struct View {
    T *p;
    int64_t frame, row, t, h, w, c;
    int pad;
    __device__ T *at(int64_t frame_number, int64_t y) const
    {
        return p + frame_number * frame + y * row + pad * c;
    }
    /* row number r of all frames' */
    __device__ T *at_row(int64_t r) const
    {
        int64_t frame_number = quotient(r, h);
        return at(frame_number, r - frame_number * h);
    }
};

template <class T> static View<T> view(const struct clip &v)
{
    int64_t row = (v.w + 2 * v.pad) * v.c;
    return {static_cast<T *>(v.p), (v.above + v.h + v.below) * row, row, v.t, v.h, v.w, v.c, v.pad};
}

/* Vectors of V values never lie across positions, and begin at multiples of 16 bytes, or of 8 in
 * bf16 when V is 4. */
static bool clip_aligned(const struct clip &v, int step)
{
    return aligned_16(v.p) && v.c % step == 0;
}

/* ---- norms over channels --------------------------------------------------------------------- */

constexpr float PIXEL_EPS = 1e-8f;

/* A position is a row of threads; those of the border write zeros. */
template <bool SILU, class Y, class X>
__global__ void __launch_bounds__(ROW_THREADS_MOST<VECTOR<X, Y>>)
    channel_norm_kernel(View<Y> y, View<X> x, RowNorm norm, bool aligned)
{
    constexpr int V = VECTOR<X, Y>;
    int64_t columns = y.w + 2 * y.pad, positions = y.t * y.h * columns;
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.y; first < positions;
         first += step) {
        int64_t position = first + threadIdx.y, r = 0, column = 0;
        bool present = position < positions;
        if (present) {
            r = quotient(position, columns);
            column = position - r * columns - y.pad;
        }
        bool inside = present && column >= 0 && column < y.w;
        float values[ROW_CHUNKS][V];
        int cols = static_cast<int>(x.c);
        row_load(values, x.at_row(r) + (inside ? column * x.c : 0), inside ? cols : 0, aligned);
        row_norm(values, cols, norm, 0);
#pragma unroll
        for (int k = 0; k < ROW_CHUNKS; k++)
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (SILU)
                    values[k][i] = sizeof(Y) == 2 ? silu_quick(values[k][i]) : silu(values[k][i]);
                if (!inside) values[k][i] = 0.0f;
            }
        row_store(y.at_row(r) + column * y.c, values, present ? cols : 0, aligned);
    }
}

template <bool SILU>
static int launch_channel_norm(cudaStream_t stream, const struct clip &y, const struct clip &x,
                               const RowNorm &norm)
{
    if (!row_fits(x.c)) return cudaErrorInvalidValue;
    return with_types(y.dtype, x.dtype, [&](auto to, auto from) {
        using Y = decltype(to);
        using X = decltype(from);
        constexpr int V = VECTOR<X, Y>;
        int64_t positions = y.t * y.h * (y.w + 2 * y.pad);
        if (positions == 0) return static_cast<int>(cudaSuccess);
        dim3 block = row_block<V>(x.c);
        return static_cast<int>(launch_kernel(blocks_for((positions + block.y - 1) / block.y),
                                              block, 0, stream, channel_norm_kernel<SILU, Y, X>,
                                              view<Y>(y), view<X>(x), norm,
                                              clip_aligned(x, V) && clip_aligned(y, V)));
    });
}

int launch_pixel_norm_silu(cudaStream_t stream, struct clip y, struct clip x, const float *scale,
                           const float *shift)
{
    RowNorm norm = {NORM_RMS, PIXEL_EPS, 1.0f, scale, shift, norm_aligned(x.c, scale, shift)};
    return launch_channel_norm<true>(stream, y, x, norm);
}

/* A position is a row of threads; `rectangle` counts rows and columns of the picture. */
template <class X>
__global__ void __launch_bounds__(ROW_THREADS_MOST<VECTOR<X>>)
    pixel_factor_kernel(float *factor, View<X> x, conv_span rectangle, int above, float eps,
                        bool aligned)
{
    constexpr int V = VECTOR<X>;
    int64_t positions = x.t * rectangle.rows * rectangle.columns;
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.y; first < positions;
         first += step) {
        int64_t position = first + threadIdx.y, at = 0;
        bool present = position < positions;
        if (present) {
            int64_t line = quotient(position, rectangle.columns),
                    t = quotient(line, rectangle.rows);
            at = t * x.frame + (rectangle.row + line - t * rectangle.rows) * x.row +
                 (rectangle.column + position - line * rectangle.columns + x.pad) * x.c;
        }
        float values[ROW_CHUNKS][V];
        int cols = static_cast<int>(x.c);
        row_load(values, x.p + at, present ? cols : 0, aligned);
        float value = row_normalise(values, cols, NORM_RMS, eps);
        if (present && threadIdx.x == 0) factor[(at + above * x.row) / x.c] = value;
    }
}

int launch_pixel_factor(cudaStream_t stream, float *factor, struct clip x,
                        const struct conv_span *rectangle)
{
    if (!row_fits(x.c)) return cudaErrorInvalidValue;
    return with_type(x.dtype, [&](auto from) {
        using X = decltype(from);
        constexpr int V = VECTOR<X>;
        int64_t positions = x.t * rectangle->rows * rectangle->columns;
        if (positions <= 0) return static_cast<int>(cudaSuccess);
        dim3 block = row_block<V>(x.c);
        return static_cast<int>(launch_kernel(blocks_for((positions + block.y - 1) / block.y),
                                              block, 0, stream, pixel_factor_kernel<X>, factor,
                                              view<X>(x), *rectangle, x.above, PIXEL_EPS,
                                              clip_aligned(x, V)));
    });
}

int launch_channel_layer_norm(cudaStream_t stream, struct clip y, struct clip x, float eps,
                              const float *weight, const float *bias)
{
    RowNorm norm = {NORM_LAYER, eps, 0.0f, weight, bias, norm_aligned(x.c, weight, bias)};
    return launch_channel_norm<false>(stream, y, x, norm);
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* A row of y with its border columns; r is its number in all frames. */
template <class Y, class X> struct CopyPad {
    static constexpr int STEP = VECTOR<X, Y>;
    View<Y> y;
    View<X> x;
    bool aligned; /* a vector is then all border or all picture */
    __device__ void operator()(int64_t r, int64_t padded, int64_t left) const
    {
        int64_t at = padded - y.pad * y.c, picture = x.w * x.c;
        const X *from = x.at_row(r) + at;
        Y *to = y.at_row(r) + at;
        float v[STEP] = {};
        if (aligned) {
            if (at >= 0 && at < picture) load_values(v, from, picture - at, true);
        } else {
#pragma unroll
            for (int i = 0; i < STEP; i++)
                if (at + i >= 0 && at + i < picture) v[i] = value_of(from[i]);
        }
        store_values(to, v, left, aligned);
    }
};

int launch_copy_pad(cudaStream_t stream, struct clip y, struct clip x)
{
    return with_types(y.dtype, x.dtype, [&](auto to, auto from) {
        using Y = decltype(to);
        using X = decltype(from);
        constexpr int V = VECTOR<X, Y>;
        bool aligned = clip_aligned(x, V) && clip_aligned(y, V);
        return launch_each(stream, CopyPad<Y, X>{view<Y>(y), view<X>(x), aligned}, y.t * y.h,
                           (y.w + 2 * y.pad) * y.c);
    });
}

template <class T> struct ClearBorder {
    static constexpr int STEP = 1;
    View<T> y;
    __device__ void operator()(int64_t r, int64_t column, int64_t) const
    {
        int64_t right = column < y.c ? 0 : y.w * y.c; /* from the left border to the right one */
        set_value(y.at_row(r)[column - y.c + right], 0.0f);
    }
};

template <class T> static int clear_border(cudaStream_t stream, const struct clip &y)
{
    if (y.pad == 0) return cudaSuccess;
    return launch_each(stream, ClearBorder<T>{view<T>(y)}, y.t * y.h, 2 * y.c);
}

template <class Y, class X> struct AddNoiseMap {
    static constexpr int STEP = VECTOR<X, Y>;
    View<Y> y;
    View<X> x;
    View<Y> add; /* .p may be NULL */
    const float *map, *per_channel;
    bool aligned;
    /* Product and sums are rounded one by one, as on the CPU. */
    __device__ void operator()(int64_t r, int64_t column, int64_t left) const
    {
        int64_t row = r - quotient(r, y.h) * y.h, w = quotient(column, y.c), c = column - w * y.c;
        float v[STEP], more[STEP] = {};
        load_values(v, x.at_row(r) + column, left, aligned);
        if (add.p) load_values(more, add.at_row(r) + column, left, aligned);
#pragma unroll
        for (int i = 0; i < STEP; i++) {
            if (i < left) v[i] = __fadd_rn(v[i], __fmul_rn(map[row * y.w + w], per_channel[c]));
            if (add.p) v[i] = __fadd_rn(v[i], more[i]);
            if (++c == y.c) c = 0, w++;
        }
        store_values(y.at_row(r) + column, v, left, aligned);
    }
};

int launch_add_noise_map(cudaStream_t stream, struct clip y, struct clip x, const float *map,
                         const float *per_channel, const struct clip *add)
{
    if (add && add->dtype != y.dtype) return cudaErrorInvalidValue;
    return with_types(y.dtype, x.dtype, [&](auto to, auto from) {
        using Y = decltype(to);
        using X = decltype(from);
        constexpr int V = VECTOR<X, Y>;
        bool aligned = clip_aligned(y, V) && clip_aligned(x, V) && (!add || clip_aligned(*add, V));
        AddNoiseMap<Y, X> f = {view<Y>(y), view<X>(x),  add ? view<Y>(*add) : View<Y>{},
                               map,        per_channel, aligned};
        return launch_each(stream, f, y.t * y.h, y.w * y.c);
    });
}

/* ---- depth and space ------------------------------------------------------------------------- */

/* P = st * ss * ss fine pixels make a coarse position; a thread moves the P values of one channel,
 * which are neighbours in the coarse clip. Neighbouring threads have neighbouring channels, which
 * are neighbours in the fine one. */
template <int P> struct Strides {
    static constexpr int ST = P == 2 || P == 8 ? 2 : 1, SS = P >= 4 ? 2 : 1;
    int64_t drop;
    /* of fine pixel i: its place is (st t + this, …) */
    static __device__ int frame(int i) { return i / (SS * SS); }
    static __device__ int row(int i) { return i / SS % SS; }
    static __device__ int column(int i) { return i % SS; }
};

template <class Y, class X, int P> struct DepthToSpace {
    static constexpr int STEP = 1;
    using S = Strides<P>;
    View<Y> y, residual; /* residual.p may be NULL */
    View<X> x;
    S strides;
    bool aligned;
    /* r: row of x, of all frames; column: (w, channel of y) */
    __device__ void operator()(int64_t r, int64_t column, int64_t) const
    {
        int64_t t = quotient(r, x.h), h = r - t * x.h, w = quotient(column, y.c),
                o = column - w * y.c;
        float v[P];
        load_values(v, x.at(t, h) + w * x.c + o * P, P, aligned);
        if (residual.p) {
            int64_t distinct = residual.c / P; /* then they repeat */
            float more[P];
            o -= quotient(o, distinct) * distinct;
            load_values(more, residual.at(t, h) + w * residual.c + o * P, P, aligned);
#pragma unroll
            for (int i = 0; i < P; i++) v[i] += more[i];
        }
#pragma unroll
        for (int i = 0; i < P; i++) {
            int64_t frame = S::ST * t + S::frame(i) - strides.drop;
            if (frame < 0) continue;
            Y *to = y.at(frame, S::SS * h + S::row(i));
            set_value(to[(S::SS * w + S::column(i)) * y.c + column - w * y.c], v[i]);
        }
    }
};

template <class Y, class X, int P> struct SpaceToDepth {
    static constexpr int STEP = 1;
    using S = Strides<P>;
    View<Y> y, residual; /* residual.p may be NULL */
    View<X> x;
    S strides;
    int64_t group; /* consecutive interleaved channels of the residual that become one */
    bool aligned;
    /* channel c of fine pixel i of coarse position (t, h, w) */
    template <class T>
    __device__ float fine(const View<T> &from, int64_t t, int64_t h, int64_t w, int64_t c,
                          int i) const
    {
        int64_t frame = S::ST * t + S::frame(i) - strides.drop;
        const T *row = from.at(frame < 0 ? 0 : frame, S::SS * h + S::row(i));
        return value_of(row[(S::SS * w + S::column(i)) * from.c + c]);
    }
    /* r: row of y, of all frames; column: (w, channel of x) */
    __device__ void operator()(int64_t r, int64_t column, int64_t) const
    {
        int64_t t = quotient(r, y.h), h = r - t * y.h, w = quotient(column, x.c),
                c = column - w * x.c;
        float v[P];
#pragma unroll
        for (int i = 0; i < P; i++) v[i] = fine(x, t, h, w, c, i);
        if (residual.p) {
#pragma unroll
            for (int o = 0; o < P; o++) {
                float sum = 0;
                for (int64_t k = 0; k < group; k++) {
                    int64_t interleaved = (c * P + o) * group + k;
                    sum +=
                        fine(residual, t, h, w, interleaved / P, static_cast<int>(interleaved % P));
                }
                v[o] += sum / static_cast<float>(group);
            }
        }
        store_values(y.at(t, h) + w * y.c + c * P, v, P, aligned);
    }
};

/* f(P) for the P of these strides, as a type */
template <class F> static int with_strides(int st, int ss, F f)
{
    if (st == 1 && ss == 1) return f(std::integral_constant<int, 1>());
    if (st == 2 && ss == 1) return f(std::integral_constant<int, 2>());
    if (st == 1 && ss == 2) return f(std::integral_constant<int, 4>());
    if (st == 2 && ss == 2) return f(std::integral_constant<int, 8>());
    return cudaErrorInvalidValue;
}

/* The P values of a channel begin at a multiple of their size, or of 16 bytes. */
static bool coarse_aligned(const struct clip &coarse) { return aligned_16(coarse.p); }

/* launch(type of y, type of x, P of the strides), and then y's border */
template <class F>
static int move_depth(cudaStream_t stream, const struct clip &y, const struct clip &x,
                      const struct clip *residual, int st, int ss, F launch)
{
    if (residual && residual->dtype != y.dtype) return cudaErrorInvalidValue;
    return with_types(y.dtype, x.dtype, [&](auto to, auto from) {
        return with_strides(st, ss, [&](auto product) {
            int error = launch(to, from, product);
            return error ? error : clear_border<decltype(to)>(stream, y);
        });
    });
}

int launch_depth_to_space(cudaStream_t stream, struct clip y, struct clip x,
                          const struct clip *residual, int st, int ss, bool first)
{
    return move_depth(stream, y, x, residual, st, ss, [&](auto to, auto from, auto product) {
        using Y = decltype(to);
        using X = decltype(from);
        constexpr int P = decltype(product)::value;
        bool aligned = coarse_aligned(x) && (!residual || coarse_aligned(*residual));
        DepthToSpace<Y, X, P> f = {view<Y>(y),
                                   residual ? view<Y>(*residual) : View<Y>{},
                                   view<X>(x),
                                   {first ? st - 1 : 0},
                                   aligned};
        return launch_each(stream, f, x.t * x.h, x.w * y.c);
    });
}

int launch_space_to_depth(cudaStream_t stream, struct clip y, struct clip x,
                          const struct clip *residual, int st, int ss, bool first)
{
    return move_depth(stream, y, x, residual, st, ss, [&](auto to, auto from, auto product) {
        using Y = decltype(to);
        using X = decltype(from);
        constexpr int P = decltype(product)::value;
        SpaceToDepth<Y, X, P> f = {
            view<Y>(y),           residual ? view<Y>(*residual) : View<Y>{}, view<X>(x),
            {first ? st - 1 : 0}, residual ? residual->c * P / y.c : 0,      coarse_aligned(y)};
        return launch_each(stream, f, y.t * y.h, y.w * x.c);
    });
}

/* ---- pixels ---------------------------------------------------------------------------------- */

/* Channel (c * patch + column) * patch + row of a position is colour c of the pixel (row, column)
 * of its patch. */
template <class T> struct Patchify {
    static constexpr int STEP = 1;
    View<T> y;
    const float *x;
    int patch;
    __device__ void operator()(int64_t r, int64_t column, int64_t) const
    {
        int64_t w = quotient(column, y.c), width = y.w * patch;
        int channel = static_cast<int>(column - w * y.c), q = channel % patch;
        int along = channel / patch % patch, colour = channel / (patch * patch);
        float value = x[((r * patch + q) * width + w * patch + along) * 3 + colour];
        set_value(y.at_row(r)[column], value);
    }
};

int launch_patchify(cudaStream_t stream, struct clip y, const float *x, int patch)
{
    if (patch <= 0 || y.c != 3 * static_cast<int64_t>(patch) * patch) return cudaErrorInvalidValue;
    return with_type(y.dtype, [&](auto value) {
        using T = decltype(value);
        int error = launch_each(stream, Patchify<T>{view<T>(y), x, patch}, y.t * y.h, y.w * y.c);
        return error ? error : clear_border<T>(stream, y);
    });
}

template <class T> struct Unpatchify {
    static constexpr int STEP = 1;
    float *y;
    View<T> x;
    int patch;
    /* r: row of pixels, of all frames; column: (pixel, colour) */
    __device__ void operator()(int64_t r, int64_t column, int64_t left) const
    {
        int64_t row = quotient(r, patch), pixel = quotient(column, 3), w = quotient(pixel, patch);
        int64_t q = r - row * patch, along = pixel - w * patch, colour = column - 3 * pixel;
        const T *from = x.at_row(row) + w * x.c;
        y[r * (column + left) + column] = value_of(from[(colour * patch + along) * patch + q]);
    }
};

int launch_unpatchify(cudaStream_t stream, float *y, struct clip x, int patch)
{
    if (patch <= 0 || x.c != 3 * static_cast<int64_t>(patch) * patch) return cudaErrorInvalidValue;
    return with_type(x.dtype, [&](auto value) {
        using T = decltype(value);
        return launch_each(stream, Unpatchify<T>{y, view<T>(x), patch}, x.t * x.h * patch,
                           x.w * patch * 3);
    });
}
