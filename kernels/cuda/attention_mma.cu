/* Attention block on mma.sync m16n8k16 (8.0 and later).
 *
 * A block of four warps has 128 query rows of one head, a warp 32 of them as two tiles of 16, so
 * that each fragment of keys or values read from shared memory serves two multiplications. Keys and
 * values come in tiles of 64 through a ring of stages that cp.async fills ahead; lines of shared
 * memory are 16 bytes longer than a row, which keeps the eight rows of a matrix of ldmatrix in
 * different banks. */
#include "kernels/cuda/attention_tile.h"

namespace
{

template <int D> struct Plan {
    static constexpr int WARPS = 4, TILES = 2, THREADS = 32 * WARPS, ROWS = 16 * TILES * WARPS;
    static constexpr int KEYS = 64, STAGES = D > 64 ? 2 : 3;
    static constexpr int LINE = D + 8, STAGE = 2 * KEYS * LINE; /* elements */
    static constexpr bool HOLD_QUERIES = D <= 64;               /* in registers */
    static constexpr size_t SHARED_BYTES = 2 * (ROWS * LINE + STAGES * STAGE);
};

template <int D>
TILE_FUNCTION void load_queries(__nv_bfloat16 *to, const AttentionTask &task, int head,
                                int64_t first)
{
    using P = Plan<D>;
    constexpr int CHUNKS = D / 8;
    for (int i = threadIdx.x; i < P::ROWS * CHUNKS; i += P::THREADS) {
        int64_t row = first + i / CHUNKS;
        uint4 eight = make_uint4(0, 0, 0, 0);
        if (row < task.queries)
            eight = eight_bf16(task.q, (row * task.heads + head) * D + i % CHUNKS * 8, task.q_bf16);
        *reinterpret_cast<uint4 *>(to + i / CHUNKS * P::LINE + i % CHUNKS * 8) = eight;
    }
}

/* Keys, then values, of whole groups of 16; lines beyond stay as they are and are not read. */
template <int D>
TILE_FUNCTION void fetch(__nv_bfloat16 *stage, const AttentionTask &task, int head,
                         const KeyTiles<Plan<D>::KEYS> &tile)
{
    using P = Plan<D>;
    constexpr int CHUNKS = D / 8;
    const __nv_bfloat16 *k =
        task.packed +
        ((tile.granule_index * task.heads + head) * 2 * task.granule + tile.first) * D;
    const __nv_bfloat16 *v = k + static_cast<int64_t>(task.granule) * D;
    int rows = (tile.keys + 15) / 16 * 16;
#pragma unroll
    for (int i = threadIdx.x; i < P::KEYS * CHUNKS; i += P::THREADS) {
        int row = i / CHUNKS, column = i % CHUNKS * 8;
        if (row >= rows) break;
        cp_async16(shared_address(stage + row * P::LINE + column), k + row * D + column);
        cp_async16(shared_address(stage + (P::KEYS + row) * P::LINE + column),
                   v + row * D + column);
    }
}

/* The 16x16 at (row, column) of a matrix in shared memory, as ldmatrix wants its rows: for operand
 * A and for transposed B of two tiles the second matrix lies below the first, for B to its right.
 */
template <int LINE> TILE_FUNCTION uint32_t below_first(const __nv_bfloat16 *m, int row, int column)
{
    int lane = threadIdx.x % 32;
    return shared_address(m + (row + lane % 16) * LINE + column + lane / 16 * 8);
}
template <int LINE> TILE_FUNCTION uint32_t right_first(const __nv_bfloat16 *m, int row, int column)
{
    int lane = threadIdx.x % 32;
    return shared_address(m + (row + lane % 8 + lane / 16 * 8) * LINE + column + lane / 8 % 2 * 8);
}

/* Eight columns of an accumulator */
TILE_FUNCTION float (&columns(float *c, int eight))[4]
{
    return *reinterpret_cast<float(*)[4]>(c + 4 * eight);
}

/* What a warp carries from tile to tile. */
template <int D> struct Warp {
    float o[Plan<D>::TILES][D / 2];
    RunningRows rows[Plan<D>::TILES];
    uint32_t q[Plan<D>::TILES][Plan<D>::HOLD_QUERIES ? D / 16 : 1][4];
    const __nv_bfloat16 *queries; /* the warp's, in shared memory */
};

/* FULL: all 64 keys are there. Else groups of 16 without any are passed over, which changes no bit:
 * weights of zero would be added. */
template <bool FULL, int D>
TILE_FUNCTION void attend_tile(Warp<D> &w, const __nv_bfloat16 *k, int keys, float scale)
{
    using P = Plan<D>;
    constexpr int GROUPS = P::KEYS / 16;
    const __nv_bfloat16 *v = k + P::KEYS * P::LINE;
    float s[P::TILES][P::KEYS / 2] = {};
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        int held = P::HOLD_QUERIES ? c : 0;
        if (!P::HOLD_QUERIES)
#pragma unroll
            for (int t = 0; t < P::TILES; t++)
                ldmatrix_x4(w.q[t][0], below_first<P::LINE>(w.queries, 16 * t, 16 * c));
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            if (!FULL && 16 * g >= keys) continue;
            uint32_t b[4];
            ldmatrix_x4(b, right_first<P::LINE>(k, 16 * g, 16 * c));
#pragma unroll
            for (int t = 0; t < P::TILES; t++) {
                mma_bf16(columns(s[t], 2 * g), w.q[t][held], b[0], b[1]);
                mma_bf16(columns(s[t], 2 * g + 1), w.q[t][held], b[2], b[3]);
            }
        }
    }
#pragma unroll
    for (int t = 0; t < P::TILES; t++) {
        float alpha[2];
        if (!FULL) mask_keys(s[t], keys);
        soften(s[t], scale, w.rows[t], alpha);
        scale_rows(w.o[t], alpha);
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        if (!FULL && 16 * g >= keys) continue;
        uint32_t a[P::TILES][4];
#pragma unroll
        for (int t = 0; t < P::TILES; t++) weights_as_a(a[t], s[t], g);
#pragma unroll
        for (int c = 0; c < D / 16; c++) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, below_first<P::LINE>(v, 16 * g, 16 * c));
#pragma unroll
            for (int t = 0; t < P::TILES; t++) {
                mma_bf16(columns(w.o[t], 2 * c), a[t], b[0], b[1]);
                mma_bf16(columns(w.o[t], 2 * c + 1), a[t], b[2], b[3]);
            }
        }
    }
}

template <int D> __global__ void __launch_bounds__(Plan<D>::THREADS) attend_mma(AttentionTask task)
{
    using P = Plan<D>;
    SMEM_DYN(__nv_bfloat16,
             queries); /* [ROWS][LINE], then the stages: [keys, values][KEYS][LINE] */
    __nv_bfloat16 *stages = queries + P::ROWS * P::LINE;
    int head = blockIdx.y, warp = threadIdx.x / 32;
    int64_t first = static_cast<int64_t>(blockIdx.x) * P::ROWS;
    int64_t mine = first + warp * 16 * P::TILES, count = KeyTiles<P::KEYS>::count(task);

    KeyTiles<P::KEYS> tile(task), coming(task);
    for (int t = 0; t < P::STAGES - 1; t++) {
        if (t < count) fetch<D>(stages + t * P::STAGE, task, head, coming);
        cp_async_commit();
        coming.next(task);
    }
    load_queries<D>(queries, task, head, first);
    Warp<D> w;
    w.queries = queries + warp * 16 * P::TILES * P::LINE;
    for (int t = 0; t < P::TILES; t++) load_state(w.o[t], w.rows[t], task, head, mine + 16 * t);

    for (int64_t t = 0; t < count; t++) {
        cp_async_wait<P::STAGES - 2>();
        __syncthreads(); /* tile t is here for all, and all are done with tile t - 1 */
        if (t + P::STAGES - 1 < count) {
            fetch<D>(stages + (t + P::STAGES - 1) % P::STAGES * P::STAGE, task, head, coming);
            coming.next(task);
        }
        cp_async_commit();
        if (P::HOLD_QUERIES && t == 0)
#pragma unroll
            for (int i = 0; i < P::TILES * D / 16; i++)
                ldmatrix_x4(w.q[i % P::TILES][i / P::TILES],
                            below_first<P::LINE>(w.queries, i % P::TILES * 16, i / P::TILES * 16));
        if (mine < task.queries) {
            const __nv_bfloat16 *stage = stages + t % P::STAGES * P::STAGE;
            if (tile.keys == P::KEYS)
                attend_tile<true>(w, stage, P::KEYS, task.scale);
            else
                attend_tile<false>(w, stage, tile.keys, task.scale);
        }
        tile.next(task);
    }
    for (int t = 0; t < P::TILES; t++) leave_state(w.o[t], w.rows[t], task, head, mine + 16 * t);
}

template <int D> cudaError_t launch(cudaStream_t stream, const AttentionTask &task)
{
    using P = Plan<D>;
    dim3 grid(static_cast<unsigned>((task.queries + P::ROWS - 1) / P::ROWS),
              static_cast<unsigned>(task.heads));
    return launch_kernel(grid, dim3(P::THREADS), P::SHARED_BYTES, stream, attend_mma<D>, task);
}

} // namespace

cudaError_t attention_block_mma(cudaStream_t stream, const AttentionTask &task, int head_dim)
{
    switch (head_dim) {
    case 32:
        return launch<32>(stream, task);
    case 64:
        return launch<64>(stream, task);
    case 128:
        return launch<128>(stream, task);
    default:
        return cudaErrorInvalidValue;
    }
}
