/* Attention block on wgmma and TMA (9.0), after Shah et al. 2024.
 *
 * A block has 128 query rows of one head. One warpgroup gives its registers away and keeps a ring
 * of keys and one of values filled by TMA; two multiply, each for 64 rows. A multiplying warpgroup
 * starts the scores of tile t and, behind them, tile t - 1's product with the values, so that its
 * softmax of tile t runs beside the latter; and the two take turns at starting, so that softmax of
 * one runs beside the products of the other.
 *
 * In shared memory a row of 64 elements is 128 bytes, swizzled; wider heads are columns of such
 * boxes. A tile that reaches beyond its granule is filled up with zeros by TMA, and masked. */
#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/wgmma.h"

namespace
{

constexpr int GROUP = 128, MULTIPLYING = 2, THREADS = GROUP * (MULTIPLYING + 1);
constexpr int GROUP_ROWS = 64, ROWS = GROUP_ROWS * MULTIPLYING, WARPS = MULTIPLYING * GROUP / 32;
constexpr int BOX = 64, BOX_ROW_BYTES = 128, EIGHT_ROWS_BYTES = 8 * BOX_ROW_BYTES; /* elements … */
enum Named { QUERIES_READY = 1, TURN = QUERIES_READY + MULTIPLYING };              /* bar.sync */

template <int D, int KEYS> struct Plan {
    static constexpr int STAGES = D * KEYS == 128 * 128 ? 2 : D * KEYS == 64 * 64 ? 4 : 3;
    static constexpr uint32_t BOX_BYTES = KEYS * BOX_ROW_BYTES, TILE_BYTES = BOX_BYTES * (D / BOX);
    static constexpr uint32_t QUERY_BOX_BYTES = GROUP_ROWS * BOX_ROW_BYTES;
    static constexpr uint32_t QUERY_BYTES = QUERY_BOX_BYTES * (D / BOX); /* of a warpgroup */
    static constexpr uint32_t QUERIES_AT = 2 * STAGES * TILE_BYTES;
    static constexpr uint32_t BARRIERS_AT = QUERIES_AT + MULTIPLYING * QUERY_BYTES;
    static constexpr size_t SHARED_BYTES = BARRIERS_AT + 2 * 2 * STAGES * sizeof(uint64_t);
};

/* One of two rings of tiles in shared memory; a slot is full when its bytes have come, and empty
 * when all multiplying warps are done with it. */
template <int D, int KEYS> struct Ring {
    using P = Plan<D, KEYS>;
    uint32_t tiles, barriers; /* addresses */
    int slot;
    uint32_t parity;

    __device__ __forceinline__ Ring(uint32_t shared, int which)
        : tiles(shared + which * P::STAGES * P::TILE_BYTES),
          barriers(shared + P::BARRIERS_AT + which * 2 * P::STAGES * 8), slot(0), parity(0)
    {
    }
    __device__ __forceinline__ uint32_t full() const { return barriers + 8 * slot; }
    __device__ __forceinline__ uint32_t empty() const { return full() + 8 * P::STAGES; }
    __device__ __forceinline__ uint32_t tile() const { return tiles + slot * P::TILE_BYTES; }
    __device__ __forceinline__ void step()
    {
        if (++slot == P::STAGES) {
            slot = 0;
            parity ^= 1;
        }
    }
    __device__ __forceinline__ void initialize() const
    {
        for (int i = 0; i < P::STAGES; i++) {
            mbarrier_init(barriers + 8 * i, 1);
            mbarrier_init(barriers + 8 * (P::STAGES + i), WARPS);
        }
    }
    __device__ __forceinline__ void fill(const CUtensorMap *map, int first_key, int matrix)
    {
        mbarrier_wait(empty(), parity ^ 1);
        mbarrier_arrive_expect_tx(full(), P::TILE_BYTES);
        for (int i = 0; i < D / BOX; i++)
            tma_load_3d(tile() + i * P::BOX_BYTES, map, full(), i * BOX, first_key, matrix);
        step();
    }
    __device__ __forceinline__ void await() const { mbarrier_wait(full(), parity); }
    __device__ __forceinline__ void release()
    {
        __syncwarp(); /* lane 0 speaks for all */
        if (threadIdx.x % 32 == 0) mbarrier_arrive(empty());
        step();
    }
};

template <int D, int KEYS>
TILE_FUNCTION void produce(const CUtensorMap *map, const AttentionTask &task, int head,
                           Ring<D, KEYS> keys, Ring<D, KEYS> values)
{
    int64_t count = KeyTiles<KEYS>::count(task);
    KeyTiles<KEYS> tile(task);
    tma_prefetch(map);
    for (int64_t t = 0; t < count; t++) {
        int matrix = static_cast<int>(tile.granule_index * task.heads + head) * 2;
        keys.fill(map, tile.first, matrix);
        values.fill(map, tile.first, matrix + 1);
        tile.next(task);
    }
}

/* The 64 rows of a warpgroup, [D / 64][64][64], swizzled as TMA would. */
template <int D>
TILE_FUNCTION void load_queries(unsigned char *to, const AttentionTask &task, int head,
                                int64_t first)
{
    constexpr int CHUNKS = D / 8, BOX_CHUNKS = BOX / 8;
    for (int i = threadIdx.x % GROUP; i < GROUP_ROWS * CHUNKS; i += GROUP) {
        int row = i / CHUNKS, chunk = i % CHUNKS;
        uint4 eight = make_uint4(0, 0, 0, 0);
        if (first + row < task.queries)
            eight = eight_bf16(task.q, ((first + row) * task.heads + head) * D + chunk * 8,
                               task.q_bf16);
        int at = (chunk / BOX_CHUNKS * GROUP_ROWS + row) * BOX_ROW_BYTES;
        at += (chunk % BOX_CHUNKS ^ row % 8) * 16;
        *reinterpret_cast<uint4 *>(to + at) = eight;
    }
}

/* s [64,KEYS] = q k^T, started */
template <int D, int KEYS>
TILE_FUNCTION void start_scores(float (&s)[KEYS / 2], uint32_t q, uint32_t k)
{
    using P = Plan<D, KEYS>;
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        uint32_t column = c % 4 * 32;
        wgmma_ss<KEYS, 0, 0>(s,
                             wgmma_descriptor(q + c / 4 * P::QUERY_BOX_BYTES + column, 16,
                                              EIGHT_ROWS_BYTES, WGMMA_128_BYTES),
                             wgmma_descriptor(k + c / 4 * P::BOX_BYTES + column, 16,
                                              EIGHT_ROWS_BYTES, WGMMA_128_BYTES),
                             c > 0);
    }
    wgmma_commit();
}

/* o [64,D] += p v, started */
template <int D, int KEYS>
TILE_FUNCTION void start_output(float (&o)[D / 2], const uint32_t (&p)[KEYS / 16][4], uint32_t v)
{
#pragma unroll
    for (int g = 0; g < KEYS / 16; g++)
        wgmma_rs<D, 1>(o, p[g],
                       wgmma_descriptor(v + g * 2 * EIGHT_ROWS_BYTES, Plan<D, KEYS>::BOX_BYTES,
                                        EIGHT_ROWS_BYTES, WGMMA_128_BYTES),
                       true);
    wgmma_commit();
}

template <int N> TILE_FUNCTION void pack_weights(uint32_t (&p)[N / 8][4], const float (&s)[N])
{
#pragma unroll
    for (int g = 0; g < N / 8; g++) weights_as_a(p[g], s, g);
}

template <int D, int KEYS>
TILE_FUNCTION void multiply(const AttentionTask &task, unsigned char *shared, int head,
                            Ring<D, KEYS> keys, Ring<D, KEYS> values)
{
    using P = Plan<D, KEYS>;
    int group = threadIdx.x / GROUP - 1, other = 1 - group;
    int64_t first = static_cast<int64_t>(blockIdx.x) * ROWS + group * GROUP_ROWS;
    int64_t mine = first + threadIdx.x % GROUP / 32 * 16, count = KeyTiles<KEYS>::count(task);
    unsigned char *queries = shared + P::QUERIES_AT + group * P::QUERY_BYTES;
    uint32_t q = shared_address(queries);

    load_queries<D>(queries, task, head, first);
    fence_proxy_async();
    barrier_sync(QUERIES_READY + group, GROUP);
    float o[D / 2], s[KEYS / 2], alpha[2];
    uint32_t p[KEYS / 16][4];
    RunningRows rows;
    load_state(o, rows, task, head, mine);
    KeyTiles<KEYS> tile(task);
    if (group == 1) barrier_arrive(TURN + other, MULTIPLYING * GROUP); /* group 0 begins */

    keys.await();
    barrier_sync(TURN + group, MULTIPLYING * GROUP);
    wgmma_fence();
    start_scores<D, KEYS>(s, q, keys.tile());
    if (group == 0 || count > 1) barrier_arrive(TURN + other, MULTIPLYING * GROUP);
    wgmma_wait<0>();
    wgmma_pin(s);
    keys.release();
    if (tile.keys < KEYS) mask_keys(s, tile.keys);
    soften(s, task.scale, rows, alpha);
    scale_rows(o, alpha);
    pack_weights(p, s);

    for (int64_t t = 1; t < count; t++) {
        tile.next(task);
        keys.await();
        values.await();
        barrier_sync(TURN + group, MULTIPLYING * GROUP);
        wgmma_pin(o);
        wgmma_fence();
        start_scores<D, KEYS>(s, q, keys.tile());
        wgmma_fence();
        start_output<D, KEYS>(o, p, values.tile());
        if (group == 0 || t + 1 < count) barrier_arrive(TURN + other, MULTIPLYING * GROUP);
        wgmma_wait<1>();
        wgmma_pin(s);
        keys.release();
        if (tile.keys < KEYS) mask_keys(s, tile.keys);
        soften(s, task.scale, rows, alpha);
        wgmma_wait<0>();
        wgmma_pin(o);
        values.release();
        scale_rows(o, alpha);
        pack_weights(p, s);
    }
    values.await();
    wgmma_pin(o);
    wgmma_fence();
    start_output<D, KEYS>(o, p, values.tile());
    wgmma_wait<0>();
    wgmma_pin(o);
    leave_state(o, rows, task, head, mine);
}

template <int D, int KEYS>
__global__ void __launch_bounds__(THREADS, 1)
    attend_wgmma(const __grid_constant__ CUtensorMap packed, AttentionTask task)
{
    SMEM_DYN(unsigned char, shared); /* keys, values: [STAGES] tiles; queries; barriers */
    uint32_t base = shared_address(shared);
    Ring<D, KEYS> keys(base, 0), values(base, 1);
    if (threadIdx.x == 0) {
        keys.initialize();
        values.initialize();
        mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < GROUP) {
        registers_decrease<24>();
        if (threadIdx.x == 0) produce(&packed, task, blockIdx.y, keys, values);
    } else {
        registers_increase<240>();
        multiply(task, shared, blockIdx.y, keys, values);
    }
}

/* ---- host ------------------------------------------------------------------------------------ */

/* The driver's function, found without linking the driver's library. */
cudaError_t find_encoder(decltype(&cuTensorMapEncodeTiled) *encode)
{
#ifdef CUDA_EMULATION
    *encode = cuTensorMapEncodeTiled;
    return cudaSuccess;
#else
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                         cudaEnableDefault, &result);
    if (error != cudaSuccess) return error;
    *encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
    return found ? cudaSuccess : cudaErrorNotSupported;
#endif
}

/* packed as [granule, head, keys or values][G][d], in boxes of [keys][64] */
cudaError_t encode_packed(CUtensorMap *map, const AttentionTask &task, int head_dim, int keys)
{
    decltype(&cuTensorMapEncodeTiled) encode;
    cudaError_t error = find_encoder(&encode);
    if (error != cudaSuccess) return error;
    cuuint64_t d = static_cast<cuuint64_t>(head_dim), g = static_cast<cuuint64_t>(task.granule);
    cuuint64_t granules = (static_cast<cuuint64_t>(task.keys) + g - 1) / g;
    const cuuint64_t extent[3] = {d, g, granules * static_cast<cuuint64_t>(task.heads) * 2};
    const cuuint64_t stride[2] = {d * 2, g * d * 2};
    const cuuint32_t box[3] = {BOX, static_cast<cuuint32_t>(keys), 1}, step[3] = {1, 1, 1};
    CUresult result =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<__nv_bfloat16 *>(task.packed),
               extent, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <int D, int KEYS> cudaError_t launch(cudaStream_t stream, const AttentionTask &task)
{
    CUtensorMap map;
    cudaError_t error = encode_packed(&map, task, D, KEYS);
    if (error != cudaSuccess) return error;
    constexpr size_t shared_bytes = Plan<D, KEYS>::SHARED_BYTES;
    dim3 grid(static_cast<unsigned>((task.queries + ROWS - 1) / ROWS),
              static_cast<unsigned>(task.heads));
    return launch_kernel(grid, dim3(THREADS), shared_bytes, stream, attend_wgmma<D, KEYS>, map,
                         task);
}

/* Tiles of 128 keys where they cover a granule with no more waste than tiles of 64. */
bool wide_tiles(int granule) { return (granule + 127) / 128 * 2 == (granule + 63) / 64; }

} // namespace

cudaError_t attention_block_wgmma(cudaStream_t stream, const AttentionTask &task, int head_dim)
{
    bool wide = wide_tiles(task.granule);
    if (head_dim == 64) return wide ? launch<64, 128>(stream, task) : launch<64, 64>(stream, task);
    if (head_dim == 128)
        return wide ? launch<128, 128>(stream, task) : launch<128, 64>(stream, task);
    return cudaErrorInvalidValue;
}
