/* c [M,N] = a [M,K] b [N,K]^T in bf16: a producer warp loads tiles by TMA into a ring, a warpgroup
 * multiplies them, the result leaves by TMA. Whole tiles of 64 only. Some of its variants have a
 * mistake in them that a test must find. */
#ifndef RINGREEL_TEST_GEMM_H
#define RINGREEL_TEST_GEMM_H

#include "tests/emulation/test_support.h"

enum GemmVariant {
    GEMM_RIGHT,
    GEMM_SLOT_NOT_EMPTY, /* the producer does not wait until a slot has been read */
    GEMM_RELEASED_EARLY, /* a slot is given back before wgmma has read it */
    GEMM_RESULT_EARLY,   /* the accumulators are used before wgmma_wait */
    GEMM_WRONG_STRIDE    /* of a descriptor */
};

constexpr int GEMM_TILE = 64, GEMM_SLOTS = 3, GEMM_TILE_BYTES = GEMM_TILE * GEMM_TILE * 2;
constexpr size_t GEMM_SHARED = GEMM_SLOTS * 2 * GEMM_TILE_BYTES + GEMM_TILE_BYTES + 16 * GEMM_SLOTS;

struct GemmMaps {
    CUtensorMap a, b, c;
};

struct GemmShared {
    uint32_t tiles, result, full, empty;
    __device__ explicit GemmShared(uint32_t base)
        : tiles(base), result(base + GEMM_SLOTS * 2 * GEMM_TILE_BYTES),
          full(result + GEMM_TILE_BYTES), empty(full + 8 * GEMM_SLOTS)
    {
    }
};

template <GemmVariant VARIANT>
__device__ void gemm_produce(const GemmMaps &maps, GemmShared s, int tiles, int m, int n)
{
    for (int k = 0; k < tiles; k++) {
        uint32_t slot = k % GEMM_SLOTS, full = s.full + 8 * slot;
        uint32_t to = s.tiles + slot * 2 * GEMM_TILE_BYTES;
        if (VARIANT != GEMM_SLOT_NOT_EMPTY)
            mbarrier_wait(s.empty + 8 * slot, (k / GEMM_SLOTS & 1) ^ 1);
        mbarrier_arrive_expect_tx(full, 2 * GEMM_TILE_BYTES);
        tma_load_2d(to, &maps.a, full, k * GEMM_TILE, m);
        tma_load_2d(to + GEMM_TILE_BYTES, &maps.b, full, k * GEMM_TILE, n);
    }
}

/* One thread of each warp, for all that have waited. */
__device__ inline void gemm_release(uint32_t empty)
{
    if (threadIdx.x % 32 == 0) mbarrier_arrive(empty);
}

template <GemmVariant VARIANT>
__device__ void gemm_consume(GemmShared s, int tiles, float (&d)[GEMM_TILE / 2])
{
    constexpr uint32_t stride = VARIANT == GEMM_WRONG_STRIDE ? 512 : 1024;
    for (int k = 0; k < tiles; k++) {
        uint32_t slot = k % GEMM_SLOTS, a = s.tiles + slot * 2 * GEMM_TILE_BYTES;
        mbarrier_wait(s.full + 8 * slot, k / GEMM_SLOTS & 1);
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < GEMM_TILE / 16; step++)
            wgmma_ss<GEMM_TILE, 0, 0>(
                d, wgmma_descriptor(a + step * 32, 16, stride, WGMMA_128_BYTES),
                wgmma_descriptor(a + GEMM_TILE_BYTES + step * 32, 16, 1024, WGMMA_128_BYTES),
                k + step > 0);
        wgmma_commit();
        if (VARIANT == GEMM_RELEASED_EARLY) gemm_release(s.empty + 8 * slot);
        if (VARIANT != GEMM_RESULT_EARLY) wgmma_wait<0>();
        if (VARIANT != GEMM_RELEASED_EARLY) gemm_release(s.empty + 8 * slot);
    }
    wgmma_pin(d);
}

template <GemmVariant VARIANT>
__global__ void __launch_bounds__(256, 1)
    gemm_kernel(const __grid_constant__ GemmMaps maps, int tiles)
{
    SMEM_DYN(unsigned char, memory);
    GemmShared s(shared_address(memory));
    int t = threadIdx.x, m = blockIdx.y * GEMM_TILE, n = blockIdx.x * GEMM_TILE;
    if (t == 0) {
        for (int i = 0; i < GEMM_SLOTS; i++) {
            mbarrier_init(s.full + 8 * i, 1);
            mbarrier_init(s.empty + 8 * i, 4);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (t >= 128) {
        registers_decrease<40>();
        if (t == 128) gemm_produce<VARIANT>(maps, s, tiles, m, n);
        return;
    }
    registers_increase<232>();
    float d[GEMM_TILE / 2];
    gemm_consume<VARIANT>(s, tiles, d);
    for (int i = 0; i < GEMM_TILE / 2; i += 2) {
        uint32_t row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + t % 4 * 2;
        uint32_t at = row * 128 + column * 2;
        __nv_bfloat162 pair = __floats2bfloat162_rn(d[i], d[i + 1]);
        *reinterpret_cast<__nv_bfloat162 *>(memory + (s.result - s.tiles) +
                                            (at ^ (at >> 7 & 7) << 4)) = pair;
    }
    if (VARIANT == GEMM_RESULT_EARLY) wgmma_wait<0>();
    fence_proxy_async();
    barrier_sync(1, 128);
    if (t == 0) {
        tma_store_2d(&maps.c, s.result, n, m);
        tma_commit();
        tma_wait<0>();
    }
}

inline CUtensorMap gemm_map(uint16_t *base, int rows, int columns)
{
    const cuuint64_t extent[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
    const cuuint64_t stride[1] = {2 * extent[0]};
    const cuuint32_t box[2] = {GEMM_TILE, GEMM_TILE};
    CUtensorMap map;
    EXPECT(encode_tiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, base, extent, stride, box,
                        CU_TENSOR_MAP_SWIZZLE_128B) == CUDA_SUCCESS,
           "encoding");
    return map;
}

/* How many elements of the product are wrong. */
template <GemmVariant VARIANT> size_t gemm_errors(int m, int n, int k)
{
    std::vector<uint16_t> a = small_bf16(static_cast<size_t>(m) * k),
                          b = small_bf16(static_cast<size_t>(n) * k), want;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float sum = 0;
            for (int l = 0; l < k; l++)
                sum += bf16_value(a[static_cast<size_t>(i) * k + l]) *
                       bf16_value(b[static_cast<size_t>(j) * k + l]);
            want.push_back(bf16_bits(sum));
        }
    OnDevice<uint16_t> da(a), db(b), dc(want.size());
    GemmMaps maps = {gemm_map(da, m, k), gemm_map(db, n, k), gemm_map(dc, m, n)};
    EXPECT(launch_kernel(dim3(n / GEMM_TILE, m / GEMM_TILE), dim3(256), GEMM_SHARED, nullptr,
                         gemm_kernel<VARIANT>, maps, k / GEMM_TILE) == cudaSuccess,
           "launch");
    return different(dc.back(), want);
}

#endif
