/* The convolution's kernel (conv_tile.h). A Product is how a block multiplies a tap: ConvMma or
 * ConvWgmma. */
#ifndef RINGREEL_CUDA_CONV_KERNEL_H
#define RINGREEL_CUDA_CONV_KERNEL_H

#include "kernels/cuda/conv_load.h"

/* pair(i, g, half) of a warp's lane t is position i * STEP + 8 half + t / 4, channels 8 g +
 * 2 (t % 4) and the next, of the warp's first ones. */
template <class Product>
static __device__ __forceinline__ void conv_store_all(const ConvParameters &p, const ConvBox &box,
                                                      const Product &product)
{
    int first = box.panel * Product::PANEL + product.channel + product.lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < Product::DOWN; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            ConvPlace place(p, product.position + i * Product::STEP + half * 8 + product.lane / 4);
            int t = box.t + place.t, row = box.row + place.row, column = box.column + place.column;
            if (t >= p.t_end || row >= p.row_end || column >= p.column_end) continue;
            int64_t at = (t * p.y_frame + row * p.y_row + column + p.y_pad) * p.out;
#pragma unroll
            for (int g = 0; g < Product::EIGHTS; g++) {
                int c = first + g * 8;
                float2 pair = product.pair(i, g, half);
                if (c >= p.out) continue;
                if (p.y_bf16)
                    conv_store<__nv_bfloat16>(p, at + c, c, pair);
                else
                    conv_store<float>(p, at + c, c, pair);
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

template <class Product, class Chunk>
__global__ void __launch_bounds__(CONV_THREADS, Product::BLOCKS) conv_kernel(const ConvParameters p)
{
    constexpr int PANEL = Product::PANEL;
    constexpr int SLOT = CONV_SLOT_BYTES<PANEL>, SLOTS = CONV_SLOTS * SLOT;
    SMEM_DYN(unsigned char, memory);
    const ConvTarget slots = {shared_address(memory), memory}, tiles = slots + SLOTS;
    const int tile_bytes = p.rows * CONV_ROW_BYTES;
    ConvRow *rows = reinterpret_cast<ConvRow *>(tiles.memory + CONV_TILES * tile_bytes);
    ConvBox box(p);
    conv_find_rows(p, box, rows);
    __syncthreads();
    ConvLoads<Chunk> loads(rows);
    Product product(p);

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
            Product::arrived();
            __syncthreads(); /* all has arrived, and nobody reads the step before any more */
            int last = slot == 0 ? SLOTS - SLOT : slot - SLOT;
            conv_copy_weights<PANEL>(p, box.panel, step + CONV_AHEAD, slots.address + last);
            if (more) loads.before(p, next, tap);
            cp_async_commit();
            product.multiply(tile.address, shift, slots.address + slot);
            if (more) loads.behind(p, next, tap);
            product.wait();
            slot = slot == SLOTS - SLOT ? 0 : slot + SLOT;
            shift++;
            if (++kx == p.kernel) kx = 0, shift += p.width - p.kernel;
        }
    }
    cp_async_wait<0>();
    conv_store_all(p, box, product);
}

#endif
