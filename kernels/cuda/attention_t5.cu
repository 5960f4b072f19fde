/* T5's attention in fp32 without tensor cores: a warp has two query rows, whose scores against all
 * keys fit into shared memory, so that softmax is taken at once over the whole row. A lane sums one
 * score, or every 32nd channel of the output, in the order of the channels or of the keys. */
#include "kernels/cuda/attention_tile.h"

namespace
{

constexpr int WARPS = 8, THREADS = 32 * WARPS, WARP_ROWS = 2, ROWS = WARPS * WARP_ROWS;
constexpr int KEYS = 32, WIDEST = 128; /* of a tile in shared memory; head width */

struct Task {
    attention_rows o, q, k, v;
    const float *bias;
    int heads, d;
};

/* relative_position_bucket, bidirectional, 32 buckets, maximum distance 128 */
TILE_FUNCTION int bucket_of(int distance)
{
    constexpr int beyond[] = {8, 12, 16, 23, 32, 46, 64, 91}; /* where buckets 8 … 15 begin */
    int a = distance < 0 ? -distance : distance, bucket = a < 8 ? a : 7;
#pragma unroll
    for (int i = 0; i < 8; i++) bucket += a >= beyond[i];
    return bucket + (distance > 0 ? 16 : 0);
}

TILE_FUNCTION float warp_maximum(float x)
{
    for (int flip = 16; flip; flip /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, flip));
    return x;
}
TILE_FUNCTION float warp_sum(float x)
{
    for (int flip = 16; flip; flip /= 2) x += __shfl_xor_sync(~0u, x, flip);
    return x;
}

TILE_FUNCTION float element(const attention_rows &x, int row, int column)
{
    int64_t at = row * x.cols + column;
    return x.bf16 ? __bfloat162float(static_cast<const __nv_bfloat16 *>(x.p)[at])
                  : static_cast<const float *>(x.p)[at];
}

/* Rows first … of one head; those that do not exist are zeros. Lines are d + 1 long: lanes that
 * read one below the other meet different banks. */
TILE_FUNCTION void load_rows(float *to, const attention_rows &x, int first, int rows, int head,
                             int d)
{
    for (int i = threadIdx.x; i < rows * d; i += THREADS) {
        int row = first + i / d;
        to[i / d * (d + 1) + i % d] = row < x.rows ? element(x, row, head * d + i % d) : 0;
    }
}

/* s [WARP_ROWS][length] of the warp: scores become weights; returns 1 / sum of each row. */
TILE_FUNCTION void soften_rows(float *s, int length, float (&factor)[WARP_ROWS])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        float top = -INFINITY, sum = 0;
        for (int j = lane; j < length; j += 32) top = fmaxf(top, s[r * length + j]);
        top = warp_maximum(top);
        for (int j = lane; j < length; j += 32) {
            s[r * length + j] = expf(s[r * length + j] - top);
            sum += s[r * length + j];
        }
        factor[r] = 1.0f / warp_sum(sum);
    }
}

__global__ void __launch_bounds__(THREADS) t5_kernel(Task t)
{
    SMEM_DYN(float, queries); /* [ROWS][d + 1], tile [KEYS][d + 1], scores [ROWS][length] */
    int d = t.d, line = d + 1, length = static_cast<int>(t.q.rows), head = blockIdx.y;
    float *tile = queries + ROWS * line;
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * WARP_ROWS, first = blockIdx.x * ROWS;
    float *s = tile + KEYS * line + mine * length;
    const float *q = queries + mine * line;

    load_rows(queries, t.q, first, ROWS, head, d);
    for (int key = 0; key < length; key += KEYS) {
        __syncthreads();
        load_rows(tile, t.k, key, KEYS, head, d);
        __syncthreads();
        int j = key + lane;
        if (j >= length) continue;
        float sum[WARP_ROWS] = {};
        for (int c = 0; c < d; c++)
#pragma unroll
            for (int r = 0; r < WARP_ROWS; r++)
                sum[r] = fmaf(q[r * line + c], tile[lane * line + c], sum[r]);
#pragma unroll
        for (int r = 0; r < WARP_ROWS; r++)
            s[r * length + j] = sum[r] + t.bias[bucket_of(j - (first + mine + r)) * t.heads + head];
    }
    __syncwarp();
    float factor[WARP_ROWS], o[WARP_ROWS][WIDEST / 32] = {};
    soften_rows(s, length, factor);

    for (int key = 0; key < length; key += KEYS) {
        __syncthreads();
        load_rows(tile, t.v, key, KEYS, head, d);
        __syncthreads();
        int keys = min(KEYS, length - key);
        for (int j = 0; j < keys; j++)
#pragma unroll
            for (int c = 0; c < WIDEST / 32; c++) {
                if (c * 32 + lane >= d) continue;
#pragma unroll
                for (int r = 0; r < WARP_ROWS; r++)
                    o[r][c] =
                        fmaf(s[r * length + key + j], tile[j * line + c * 32 + lane], o[r][c]);
            }
    }
    for (int r = 0; r < WARP_ROWS && first + mine + r < length; r++)
#pragma unroll
        for (int c = 0; c < WIDEST / 32; c++) {
            if (c * 32 + lane >= d) continue;
            int64_t at = (first + mine + r) * t.o.cols + head * d + c * 32 + lane;
            if (t.o.bf16)
                static_cast<__nv_bfloat16 *>(t.o.p)[at] = __float2bfloat16(o[r][c] * factor[r]);
            else
                static_cast<float *>(t.o.p)[at] = o[r][c] * factor[r];
        }
}

bool same_shape(const attention_rows &x, const attention_rows &y)
{
    return x.rows == y.rows && x.cols == y.cols;
}

} // namespace

int attention_t5(cudaStream_t stream, struct attention_rows o, struct attention_rows q,
                 struct attention_rows k, struct attention_rows v, int64_t heads, const float *bias)
{
    if (heads <= 0 || heads >= 65536 || q.rows <= 0 || q.rows > ATTENTION_T5_LENGTH ||
        q.cols % heads || q.cols / heads > WIDEST || !same_shape(q, k) || !same_shape(q, v) ||
        !same_shape(q, o))
        return cudaErrorInvalidValue;
    int length = static_cast<int>(q.rows), d = static_cast<int>(q.cols / heads);
    size_t floats = static_cast<size_t>((ROWS + KEYS) * (d + 1) + ROWS * length);
    dim3 grid(static_cast<unsigned>((length + ROWS - 1) / ROWS), static_cast<unsigned>(heads));
    return launch_kernel(grid, dim3(THREADS), floats * sizeof(float), stream, t5_kernel,
                         Task{o, q, k, v, bias, static_cast<int>(heads), d});
}
