/* A panel's products on wgmma, 9.0 alone (conv_kernel.h). Two warpgroups have 128 positions each
 * and all 128 channels: x comes by ldmatrix, as A in registers, from the rows that a tap names; the
 * weights' slots are what wgmma's 64-byte swizzle expects of B. A tap's products run while the
 * group goes on with loading x, and are waited for before the next. */
#ifndef RINGREEL_CUDA_CONV_WGMMA_H
#define RINGREEL_CUDA_CONV_WGMMA_H

#include "kernels/cuda/conv_tile.h"
#include "kernels/cuda/wgmma.h"

struct ConvWgmma {
    static constexpr int PANEL = 128, BLOCKS = 1, GROUP = 128,
                         EIGHT_ROWS_BYTES = 8 * CONV_ROW_BYTES;
    static constexpr int STEP = 64, DOWN = 2, EIGHTS = PANEL / 8, KS = CONV_INPUTS / 16;
    int lane, position, channel; /* the warp's first; others are STEP apart, and 8 */
    int tile_row[DOWN];
    float sum[DOWN][EIGHTS * 4] = {};

    __device__ explicit ConvWgmma(const ConvParameters &p)
        : lane(threadIdx.x % 32),
          position(threadIdx.x / GROUP * (DOWN * STEP) + threadIdx.x % GROUP / 32 * 16), channel(0)
    {
#pragma unroll
        for (int i = 0; i < DOWN; i++)
            tile_row[i] = ConvPlace(p, position + i * STEP + lane % 16).tile_row(p);
    }

    /* cp.async wrote what wgmma will read */
    __device__ static void arrived() { fence_proxy_async(); }
    __device__ void multiply(uint32_t x, int shift, uint32_t weights)
    {
        uint32_t a[DOWN][KS][4];
#pragma unroll
        for (int i = 0; i < DOWN; i++) {
            uint32_t at = conv_chunk_at(tile_row[i] + shift, lane / 16);
#pragma unroll
            for (int k = 0; k < KS; k++) ldmatrix_x4(a[i][k], x + (at ^ k * CONV_TWO_CHUNKS));
        }
        pin();
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < KS; k++) {
            uint64_t b = wgmma_descriptor(weights + k * CONV_TWO_CHUNKS, 16, EIGHT_ROWS_BYTES,
                                          WGMMA_64_BYTES);
#pragma unroll
            for (int i = 0; i < DOWN; i++) wgmma_rs<PANEL, 0>(sum[i], a[i][k], b, true);
        }
        wgmma_commit();
    }
    __device__ void wait()
    {
        wgmma_wait<0>();
        pin();
    }
    __device__ float2 pair(int i, int g, int half) const
    {
        return make_float2(sum[i][4 * g + 2 * half], sum[i][4 * g + 2 * half + 1]);
    }

  private:
    __device__ void pin()
    {
#pragma unroll
        for (int i = 0; i < DOWN; i++) wgmma_pin(sum[i]);
    }
};

#endif
