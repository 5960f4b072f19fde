/* The convolution's kernel on mma.sync, 8.0 and later (conv_tile.h). */
#ifndef RINGREEL_CUDA_CONV_MMA_H
#define RINGREEL_CUDA_CONV_MMA_H

#include "kernels/cuda/conv_load.h"

/* Eight warps: ACROSS of them share positions, the others channels. */
template <int PANEL> struct ConvWarp {
    static constexpr int CHANNELS = PANEL < 64 ? PANEL : 64, ACROSS = PANEL / CHANNELS;
    static constexpr int POSITIONS = CONV_POSITIONS / (CONV_THREADS / 32 / ACROSS);
    static constexpr int DOWN = POSITIONS / 16, EIGHTS = CHANNELS / 8; /* products of mma_bf16 */
    int lane, position, channel;                                       /* the warp's first */
    int tile_row[DOWN]; /* of x, that this lane names */
    uint32_t weights_at;
    float sum[DOWN][EIGHTS][4] = {};

    __device__ explicit ConvWarp(const ConvParameters &p)
        : lane(threadIdx.x % 32), position(threadIdx.x / 32 / ACROSS * POSITIONS),
          channel(threadIdx.x / 32 % ACROSS * CHANNELS),
          weights_at(conv_chunk_at(channel + lane / 16 * 8 + lane % 8, lane / 8 % 2))
    {
#pragma unroll
        for (int i = 0; i < DOWN; i++)
            tile_row[i] = ConvPlace(p, position + i * 16 + lane % 16).tile_row(p);
    }

    /* A tap: the rows of x are `shift` further on. */
    __device__ void multiply(uint32_t x, int shift, uint32_t weights)
    {
        uint32_t x_at[DOWN];
#pragma unroll
        for (int i = 0; i < DOWN; i++) x_at[i] = conv_chunk_at(tile_row[i] + shift, lane / 16);
#pragma unroll
        for (int k = 0; k < CONV_INPUTS / 16; k++) {
            constexpr uint32_t TWO_CHUNKS = 32; /* of swizzled rows: the next 16 channels */
            uint32_t b[EIGHTS / 2][4];
#pragma unroll
            for (int g = 0; g < EIGHTS / 2; g++)
                ldmatrix_x4(b[g],
                            weights + (weights_at ^ k * TWO_CHUNKS) + g * 16 * CONV_ROW_BYTES);
#pragma unroll
            for (int i = 0; i < DOWN; i++) {
                uint32_t a[4];
                ldmatrix_x4(a, x + (x_at[i] ^ k * TWO_CHUNKS));
#pragma unroll
                for (int g = 0; g < EIGHTS; g++)
                    mma_bf16(sum[i][g], a, b[g / 2][g % 2 * 2], b[g / 2][g % 2 * 2 + 1]);
            }
        }
    }

    __device__ void store(const ConvParameters &p, const ConvBox &box) const;
};

template <int PANEL>
__device__ void ConvWarp<PANEL>::store(const ConvParameters &p, const ConvBox &box) const
{
    int first = box.panel * PANEL + channel + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            ConvPlace place(p, position + i * 16 + half * 8 + lane / 4);
            int t = box.t + place.t, row = box.row + place.row, column = box.column + place.column;
            if (t >= p.t_end || row >= p.row_end || column >= p.column_end) continue;
            int64_t at = (t * p.y_frame + row * p.y_row + column + p.y_pad) * p.out;
#pragma unroll
            for (int g = 0; g < EIGHTS; g++) {
                int c = first + g * 8;
                float2 v = make_float2(sum[i][g][2 * half], sum[i][g][2 * half + 1]);
                if (c >= p.out) continue;
                if (p.y_bf16)
                    conv_store<__nv_bfloat16>(p, at + c, c, v);
                else
                    conv_store<float>(p, at + c, c, v);
            }
        }
}

/* In dynamic shared memory: slots of weights, tiles of x, what the rows of a tile are. */
template <int PANEL> constexpr int CONV_SLOT_BYTES = PANEL *CONV_ROW_BYTES;
template <int PANEL> size_t conv_shared_bytes(int rows)
{
    return CONV_SLOTS * CONV_SLOT_BYTES<PANEL> +
           rows * (CONV_TILES * CONV_ROW_BYTES + sizeof(ConvRow));
}

template <int PANEL, class Chunk>
__global__ void __launch_bounds__(CONV_THREADS, PANEL == 128 ? 1 : 2)
    conv_kernel(const ConvParameters p)
{
    constexpr int SLOT = CONV_SLOT_BYTES<PANEL>, SLOTS = CONV_SLOTS * SLOT;
    SMEM_DYN(unsigned char, memory);
    const ConvTarget slots = {shared_address(memory), memory}, tiles = slots + SLOTS;
    const int tile_bytes = p.rows * CONV_ROW_BYTES;
    ConvRow *rows = reinterpret_cast<ConvRow *>(tiles.memory + CONV_TILES * tile_bytes);
    ConvBox box(p);
    conv_find_rows(p, box, rows);
    __syncthreads();
    ConvLoads<Chunk> loads(rows);
    ConvWarp<PANEL> warp(p);

    loads.all(p, tiles);
    for (int step = 0; step < CONV_AHEAD; step++) {
        conv_copy_weights<PANEL>(p, box.panel, step, slots.address + step * SLOT);
        cp_async_commit();
    }
    int slot = 0, step = 0;
    for (int t = 0; t < p.tile_steps; t++) {
        ConvTarget tile = tiles + t % CONV_TILES * tile_bytes;
        ConvTarget next = tiles + (t + 1) % CONV_TILES * tile_bytes;
        bool more = t + 1 < p.tile_steps;
        int shift = 0, kx = 0;
        for (int tap = 0; tap < p.taps; tap++, step++) {
            if (p.taps > 1)
                cp_async_wait<CONV_AHEAD - 1>();
            else
                cp_async_wait<0>(); /* the tile came with the weights that are still ahead */
            __syncthreads();        /* all has arrived, and nobody reads the step before any more */
            int last = slot == 0 ? SLOTS - SLOT : slot - SLOT;
            conv_copy_weights<PANEL>(p, box.panel, step + CONV_AHEAD, slots.address + last);
            if (more) loads.before(p, next, tap);
            cp_async_commit();
            warp.multiply(tile.address, shift, slots.address + slot);
            if (more) loads.behind(p, next, tap);
            slot = slot == SLOTS - SLOT ? 0 : slot + SLOT;
            shift++;
            if (++kx == p.kernel) kx = 0, shift += p.width - p.kernel;
        }
    }
    cp_async_wait<0>();
    warp.store(p, box);
}

#endif
