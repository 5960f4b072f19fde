/* Norms of a row that stays in the registers of its threads: blockDim.x of them, chosen by the
 * row's width alone; threadIdx.y counts the rows of a block. Rows of tokens and positions of clips.
 */
#ifndef RINGREEL_CUDA_ROW_NORM_H
#define RINGREEL_CUDA_ROW_NORM_H

#include "kernels/cuda/values.h"

/* A thread holds ROW_CHUNKS times V neighbours; chunk k of thread t is number k * blockDim.x + t.
 */
constexpr int ROW_CHUNKS = 4, ROW_BLOCK_THREADS = 128;
template <int V> constexpr int ROW_THREADS_MOST = ROW_COLUMNS_MOST / (ROW_CHUNKS * V);
constexpr int ROW_WARPS_MOST = ROW_THREADS_MOST<4> / 32;

/* Threads of a row, rows of a block. */
template <int V> dim3 row_block(int64_t cols)
{
    constexpr int64_t WARP_COLUMNS = 32 * ROW_CHUNKS * V;
    unsigned threads = static_cast<unsigned>(32 * ((cols + WARP_COLUMNS - 1) / WARP_COLUMNS));
    return dim3(threads, threads < ROW_BLOCK_THREADS ? ROW_BLOCK_THREADS / threads : 1);
}
inline bool row_fits(int64_t cols) { return cols > 0 && cols <= ROW_COLUMNS_MOST; }

/* `n` is how many values of the row are there for this block: its width, or 0 beyond the last row.
 */
DEVICE_INLINE int row_column(int chunk, int v) { return (chunk * blockDim.x + threadIdx.x) * v; }

template <int V, class T>
DEVICE_INLINE void row_load(float (&x)[ROW_CHUNKS][V], const T *p, int n, bool aligned)
{
#pragma unroll
    for (int k = 0; k < ROW_CHUNKS; k++) {
        int column = row_column(k, V);
        load_values(x[k], p + column, n - column, aligned);
    }
}
template <int V, class T>
DEVICE_INLINE void row_store(T *p, const float (&x)[ROW_CHUNKS][V], int n, bool aligned)
{
#pragma unroll
    for (int k = 0; k < ROW_CHUNKS; k++) {
        int column = row_column(k, V);
        store_values(p + column, x[k], n - column, aligned);
    }
}

/* The sum over a row's threads, the same bits in all of them. All threads of the block come. */
DEVICE_INLINE float row_sum(float x)
{
    SMEM_STATIC(float, sums, [ROW_WARPS_MOST]);
#pragma unroll
    for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(~0u, x, distance);
    int warps = blockDim.x / 32;
    if (warps == 1) return x;
    float *own = sums + threadIdx.y * warps;
    if (threadIdx.x % 32 == 0) own[threadIdx.x / 32] = x;
    __syncthreads();
    x = own[0];
    for (int w = 1; w < warps; w++) x += own[w];
    __syncthreads(); /* before the next sum is written */
    return x;
}

/* norm(x) * (one + scale) + shift: `one` is 1 for a modulation and 0 for a weight; scale and shift
 * [cols] may be NULL. */
struct RowNorm {
    enum norm kind;
    float eps, one;
    const float *scale, *shift;
    bool aligned; /* of scale and shift */
};

/* x -> (x - centre) * factor, which is given back */
template <int V>
DEVICE_INLINE float row_normalise(float (&x)[ROW_CHUNKS][V], int cols, enum norm kind, float eps)
{
    float centre = 0;
    if (kind == NORM_LAYER) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < ROW_CHUNKS; k++)
#pragma unroll
            for (int i = 0; i < V; i++) sum += x[k][i];
        centre = row_sum(sum) / static_cast<float>(cols);
    }
    float squares = 0;
#pragma unroll
    for (int k = 0; k < ROW_CHUNKS; k++)
#pragma unroll
        for (int i = 0; i < V; i++) {
            x[k][i] = row_column(k, V) + i < cols ? x[k][i] - centre : 0.0f;
            squares = fmaf(x[k][i], x[k][i], squares);
        }
    float factor = 1.0f / sqrtf(row_sum(squares) / static_cast<float>(cols) + eps);
#pragma unroll
    for (int k = 0; k < ROW_CHUNKS; k++)
#pragma unroll
        for (int i = 0; i < V; i++) x[k][i] *= factor;
    return factor;
}

/* `modulation`: which row of scale and shift */
template <int V>
DEVICE_INLINE void row_norm(float (&x)[ROW_CHUNKS][V], int cols, const RowNorm &norm,
                            int64_t modulation)
{
    row_normalise(x, cols, norm.kind, norm.eps);
    if (!norm.scale && !norm.shift) return;
#pragma unroll
    for (int k = 0; k < ROW_CHUNKS; k++) {
        int column = row_column(k, V);
        int64_t at = modulation * cols + column;
        float scale[V] = {}, shift[V] = {};
        if (norm.scale) load_values(scale, norm.scale + at, cols - column, norm.aligned);
        if (norm.shift) load_values(shift, norm.shift + at, cols - column, norm.aligned);
#pragma unroll
        for (int i = 0; i < V; i++)
            x[k][i] = fmaf(x[k][i], norm.scale ? norm.one + scale[i] : 1.0f, shift[i]);
    }
}

inline bool norm_aligned(int64_t cols, const float *scale, const float *shift)
{
    return cols % 4 == 0 && aligned_16(scale) && aligned_16(shift);
}

#endif
