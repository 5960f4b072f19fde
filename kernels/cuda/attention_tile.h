/* What the attention kernels share: softmax of a tile of scores, and the running state, of the 16
 * query rows that a warp holds as accumulators of mma.sync or wgmma. Both spread a [16,N] matrix
 * over the lanes alike: element i of lane t is row t / 4 + 8 (i / 2 % 2), column i / 4 * 8 +
 * 2 (t % 4) + i % 2. So a lane has values of two rows, and four neighbours share each row. */
#ifndef RINGREEL_CUDA_ATTENTION_TILE_H
#define RINGREEL_CUDA_ATTENTION_TILE_H

#include "kernels/cuda/attention.h"
#include "kernels/cuda/ptx.h"

#define TILE_FUNCTION static __device__ __forceinline__

/* One launch: `queries` rows of q against `keys` keys. */
struct AttentionTask {
    float *state;
    const void *q;
    const __nv_bfloat16 *packed;
    int64_t queries, keys;
    int heads, granule, q_bf16;
    float scale; /* of base-2 scores */
    bool fresh;  /* the state begins here, whatever its memory holds */
    void *o;     /* [queries, heads * d], not NULL: the state ends here, in its output divided */
    int o_bf16;
};

/* Maximum and sum of a lane's two rows. */
struct RunningRows {
    float m[2], l[2];
};

/* Not infinity: the difference of two of them must be a number. */
constexpr float NO_MAXIMUM = -1e30f;

TILE_FUNCTION uint32_t bf16_pair(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

/* Eight neighbours, fp32 or bf16, as bf16 */
TILE_FUNCTION uint4 eight_bf16(const void *p, int64_t first, bool bf16)
{
    if (bf16) return *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(p) + first);
    const float4 *x = reinterpret_cast<const float4 *>(static_cast<const float *>(p) + first);
    float4 a = x[0], b = x[1];
    return make_uint4(bf16_pair(a.x, a.y), bf16_pair(a.z, a.w), bf16_pair(b.x, b.y),
                      bf16_pair(b.z, b.w));
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* Of four lanes that share a row; all get the same bits, as addition commutes. */
TILE_FUNCTION float row_maximum(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
TILE_FUNCTION float row_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* Columns from `keys` on weigh nothing. */
template <int N> TILE_FUNCTION void mask_keys(float (&s)[N], int keys)
{
    int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (i / 4 * 8 + i % 2 + column >= keys) s[i] = -INFINITY;
}

/* Scores become weights, at least one of each row being finite; `alpha` is what the rows' old
 * output is to be scaled by. */
template <int N>
TILE_FUNCTION void soften(float (&s)[N], float scale, RunningRows &rows, float (&alpha)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 2 * h; i < N; i += 4) top = fmaxf(fmaxf(top, s[i]), s[i + 1]);
        float largest = fmaxf(rows.m[h], row_maximum(top) * scale);
#pragma unroll
        for (int i = 2 * h; i < N; i += 4) {
            s[i] = exp2_approx(fmaf(s[i], scale, -largest));
            s[i + 1] = exp2_approx(fmaf(s[i + 1], scale, -largest));
            sum += s[i] + s[i + 1];
        }
        alpha[h] = exp2_approx(rows.m[h] - largest);
        rows.m[h] = largest;
        rows.l[h] = fmaf(rows.l[h], alpha[h], row_sum(sum));
    }
}

template <int N> TILE_FUNCTION void scale_rows(float (&o)[N], const float (&alpha)[2])
{
#pragma unroll
    for (int i = 0; i < N; i++) o[i] *= alpha[i / 2 % 2];
}

/* Weights of keys 16 k … 16 k + 15 as operand A of the product with the values. */
template <int N> TILE_FUNCTION void weights_as_a(uint32_t (&a)[4], const float (&p)[N], int k)
{
#pragma unroll
    for (int r = 0; r < 4; r++) a[r] = bf16_pair(p[8 * k + 2 * r], p[8 * k + 2 * r + 1]);
}

/* ---- running state --------------------------------------------------------------------------- */

/* Rows first … first + 15 of the head; those that do not exist come as zeros, and stay unwritten. A
 * fresh state is attention_begin's. */
template <int N>
TILE_FUNCTION void load_state(float (&o)[N], RunningRows &rows, const AttentionTask &task, int head,
                              int64_t first)
{
    int64_t all = task.queries * task.heads;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = first + threadIdx.x % 32 / 4 + 8 * h, at = head * task.queries + row;
        bool there = row < task.queries && !task.fresh;
        const float *from = task.state + at * (2 * N) + 2 * (threadIdx.x % 4);
#pragma unroll
        for (int i = 2 * h; i < N; i += 4) {
            float2 two =
                there ? *reinterpret_cast<const float2 *>(from + i / 4 * 8) : make_float2(0, 0);
            o[i] = two.x;
            o[i + 1] = two.y;
        }
        rows.m[h] = there ? task.state[all * (2 * N) + at] : NO_MAXIMUM;
        rows.l[h] = there ? task.state[all * (2 * N + 1) + at] : 0;
    }
}

template <int N>
TILE_FUNCTION void store_state(const float (&o)[N], const RunningRows &rows,
                               const AttentionTask &task, int head, int64_t first)
{
    int64_t all = task.queries * task.heads;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = first + threadIdx.x % 32 / 4 + 8 * h, at = head * task.queries + row;
        if (row >= task.queries) continue;
        float *to = task.state + at * (2 * N) + 2 * (threadIdx.x % 4);
#pragma unroll
        for (int i = 2 * h; i < N; i += 4)
            *reinterpret_cast<float2 *>(to + i / 4 * 8) = make_float2(o[i], o[i + 1]);
        if (threadIdx.x % 4) continue;
        task.state[all * (2 * N) + at] = rows.m[h];
        task.state[all * (2 * N + 1) + at] = rows.l[h];
    }
}

/* attention_finish's arithmetic, on what is in registers still */
template <int N>
TILE_FUNCTION void store_output(const float (&o)[N], const RunningRows &rows,
                                const AttentionTask &task, int head, int64_t first)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = first + threadIdx.x % 32 / 4 + 8 * h;
        if (row >= task.queries) continue;
        int64_t at = (row * task.heads + head) * (2 * N) + 2 * (threadIdx.x % 4);
        float factor = 1.0f / rows.l[h];
#pragma unroll
        for (int i = 2 * h; i < N; i += 4) {
            float low = o[i] * factor, high = o[i + 1] * factor;
            int64_t two = at + i / 4 * 8;
            if (task.o_bf16)
                *reinterpret_cast<uint32_t *>(static_cast<uint16_t *>(task.o) + two) =
                    bf16_pair(low, high);
            else
                *reinterpret_cast<float2 *>(static_cast<float *>(task.o) + two) =
                    make_float2(low, high);
        }
    }
}

template <int N>
TILE_FUNCTION void leave_state(const float (&o)[N], const RunningRows &rows,
                               const AttentionTask &task, int head, int64_t first)
{
    if (task.o)
        store_output(o, rows, task, head, first);
    else
        store_state(o, rows, task, head, first);
}

/* ---- tiles of keys --------------------------------------------------------------------------- */

/* The keys of a task in order: granule after granule, each in tiles of WIDTH, the last one short.
 */
template <int WIDTH> struct KeyTiles {
    int64_t granule_index; /* of the task's block */
    int first, keys;       /* within the granule; keys is 1 … WIDTH */

    static __device__ __forceinline__ int64_t count(const AttentionTask &task)
    {
        int64_t whole = task.keys / task.granule, rest = task.keys % task.granule;
        return whole * ((task.granule + WIDTH - 1) / WIDTH) + (rest + WIDTH - 1) / WIDTH;
    }
    __device__ __forceinline__ KeyTiles(const AttentionTask &task)
        : granule_index(0), first(-WIDTH), keys(0)
    {
        next(task);
    }
    /* Behind the last one `keys` means nothing. */
    __device__ __forceinline__ void next(const AttentionTask &task)
    {
        first += WIDTH;
        if (first >= task.granule) {
            first = 0;
            granule_index++;
        }
        int64_t left = task.keys - granule_index * task.granule - first;
        int in_granule = task.granule - first;
        keys = left < in_granule ? static_cast<int>(left) : in_granule;
        if (keys > WIDTH) keys = WIDTH;
    }
};

/* The two kernels; `task` has been checked. */
cudaError_t attention_block_mma(cudaStream_t stream, const AttentionTask &task, int head_dim);
cudaError_t attention_block_wgmma(cudaStream_t stream, const AttentionTask &task, int head_dim);

#endif
