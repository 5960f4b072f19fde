/* A panel's products on mma.sync, 8.0 and later (conv_kernel.h). */
#ifndef RINGREEL_CUDA_CONV_MMA_H
#define RINGREEL_CUDA_CONV_MMA_H

#include "kernels/cuda/conv_tile.h"

/* Eight warps: ACROSS of them share positions, the others channels. */
template <int PANEL_CHANNELS> struct ConvMma {
    static constexpr int PANEL = PANEL_CHANNELS, BLOCKS = PANEL == 128 ? 1 : 2;
    static constexpr int CHANNELS = PANEL < 64 ? PANEL : 64, ACROSS = PANEL / CHANNELS;
    static constexpr int POSITIONS = CONV_POSITIONS / (CONV_THREADS / 32 / ACROSS);
    static constexpr int STEP = 16, DOWN = POSITIONS / STEP, EIGHTS = CHANNELS / 8;
    int lane, position, channel; /* the warp's first; others are STEP apart, and 8 */
    int tile_row[DOWN];          /* of x, that this lane names */
    uint32_t weights_at;
    float sum[DOWN][EIGHTS][4] = {};

    __device__ explicit ConvMma(const ConvParameters &p)
        : lane(threadIdx.x % 32), position(threadIdx.x / 32 / ACROSS * POSITIONS),
          channel(threadIdx.x / 32 % ACROSS * CHANNELS),
          weights_at(conv_chunk_at(channel + lane / 16 * 8 + lane % 8, lane / 8 % 2))
    {
#pragma unroll
        for (int i = 0; i < DOWN; i++)
            tile_row[i] = ConvPlace(p, position + i * STEP + lane % 16).tile_row(p);
    }

    __device__ static void arrived() {}
    /* A tap: the rows of x are `shift` further on. */
    __device__ void multiply(uint32_t x, int shift, uint32_t weights)
    {
        uint32_t x_at[DOWN];
#pragma unroll
        for (int i = 0; i < DOWN; i++) x_at[i] = conv_chunk_at(tile_row[i] + shift, lane / 16);
#pragma unroll
        for (int k = 0; k < CONV_INPUTS / 16; k++) {
            uint32_t b[EIGHTS / 2][4];
#pragma unroll
            for (int g = 0; g < EIGHTS / 2; g++)
                ldmatrix_x4(b[g],
                            weights + (weights_at ^ k * CONV_TWO_CHUNKS) + g * 16 * CONV_ROW_BYTES);
#pragma unroll
            for (int i = 0; i < DOWN; i++) {
                uint32_t a[4];
                ldmatrix_x4(a, x + (x_at[i] ^ k * CONV_TWO_CHUNKS));
#pragma unroll
                for (int g = 0; g < EIGHTS; g++)
                    mma_bf16(sum[i][g], a, b[g / 2][g % 2 * 2], b[g / 2][g % 2 * 2 + 1]);
            }
        }
    }
    __device__ void wait() {}
    __device__ float2 pair(int i, int g, int half) const
    {
        return make_float2(sum[i][g][2 * half], sum[i][g][2 * half + 1]);
    }
};

#endif
