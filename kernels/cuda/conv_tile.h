/* The kernel of conv.h. A block computes 256 output positions x one panel of output channels. Its
 * positions are a box of powers of two (frames, rows, columns), so that what their taps read is a
 * box too, halo included. K runs over frames' taps and blocks of 32 input channels; at each the box
 * of x comes into shared memory once, and all taps within the picture (with a stride, those of one
 * row of taps) read it there: a tap is the same rows of shared memory, shifted. Weights follow tap
 * after tap through a ring of slots, by cp.async, two taps ahead. The next box of x arrives while
 * the taps of this one are multiplied, by conv_load.h.
 *
 * An operand's tile is rows of 64 bytes (32 channels), the four 16-byte chunks of row r in the
 * order chunk ^ (r / 2 % 4): eight rows in succession that ldmatrix reads, wherever the first is,
 * touch every bank once. */
#ifndef RINGREEL_CUDA_CONV_TILE_H
#define RINGREEL_CUDA_CONV_TILE_H

#include "kernels/cuda/ptx.h"

constexpr int CONV_POSITIONS = 256, CONV_INPUTS = 32, CONV_THREADS = 256;
constexpr int CONV_ROW_BYTES = 2 * CONV_INPUTS, CONV_CHUNKS = CONV_ROW_BYTES / 16;
constexpr int CONV_SLOTS = 3, CONV_AHEAD = CONV_SLOTS - 1; /* of weights */
constexpr int CONV_TILES = 2;                              /* of x */
constexpr int CONV_ROWS_MOST = 528;                        /* positions of x in a tile */

/* What the kernel needs to know. Strides of frames and rows are in positions. */
struct ConvParameters {
    const void *x;
    int64_t x_frame, x_row;
    int frames, top, bottom, left, right; /* rows and columns of x that are read; others are zero */
    int pad, in;
    bool vectors; /* x may be read 16 bytes at a time */
    /* Where x is normed as it is read: 1 / rms of every position, laid out as x is, and vectors. */
    const float *factor, *scale, *shift;
    bool modulated, norm_vectors;

    int kernel, stride_t, stride_s, front;
    int tile_taps;        /* rows of taps within the picture that a tile of x serves */
    int tile_steps, taps; /* tiles of x that a block goes through, products of each */
    const uint16_t *packed;
    const float *bias;

    void *y;
    const void *add;
    int64_t y_frame, y_row;
    int y_pad, out;
    bool y_bf16, y_pairs; /* channels of y may be written two at a time */

    int row, column, row_end, column_end, t_end; /* the span */
    int log_columns, log_rows;                   /* a block's box of y */
    int width, height, rows;                     /* its box of x: of a frame; positions in all */
    int chunks, chunks_each; /* a thread's of a tile, and of those at each tap */
    unsigned tiles_across, tiles_down, tiles, panels;
    bool panels_first; /* neighbouring blocks have one box and different panels */
};

constexpr uint32_t CONV_TWO_CHUNKS = 32; /* to the next 16 channels: flips this bit of an offset */
static __device__ __forceinline__ uint32_t conv_chunk_at(int row, int chunk)
{
    return row * CONV_ROW_BYTES + ((chunk ^ (row >> 1 & 3)) << 4);
}

/* ---- where ----------------------------------------------------------------------------------- */

/* The block's panel, and the first position of its box. */
struct ConvBox {
    unsigned panel;
    int t, row, column;
    __device__ explicit ConvBox(const ConvParameters &p)
    {
        unsigned tile = p.panels_first ? blockIdx.x / p.panels : blockIdx.x % p.tiles;
        panel = p.panels_first ? blockIdx.x % p.panels : blockIdx.x / p.tiles;
        column = p.column + static_cast<int>(tile % p.tiles_across << p.log_columns);
        tile /= p.tiles_across;
        row = p.row + static_cast<int>(tile % p.tiles_down << p.log_rows);
        t = static_cast<int>(tile / p.tiles_down * (CONV_POSITIONS >> p.log_columns >> p.log_rows));
    }
};

/* Output position number `index` of a box, counted from its first. */
struct ConvPlace {
    int t, row, column;
    __device__ ConvPlace(const ConvParameters &p, int index)
        : t(index >> p.log_columns >> p.log_rows),
          row(index >> p.log_columns & ((1 << p.log_rows) - 1)),
          column(index & ((1 << p.log_columns) - 1))
    {
    }
    /* The row of the tile of x that its first tap reads. */
    __device__ int tile_row(const ConvParameters &p) const
    {
        return (t * p.height + row) * p.width + column * p.stride_s;
    }
};

/* One tile of x: a tap of time, a block of inputs; ky is 0 where a tile serves all rows of taps. */
struct ConvStep {
    int kt = 0, ky = 0, input = 0;
    __device__ void advance(const ConvParameters &p)
    {
        if ((input += CONV_INPUTS) < p.in) return;
        input = 0;
        if ((ky += p.tile_taps) < p.kernel) return;
        ky = 0;
        kt++;
    }
};

/* ---- y --------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float conv_value(float x) { return x; }
static __device__ __forceinline__ float conv_value(__nv_bfloat16 x) { return __bfloat162float(x); }
static __device__ __forceinline__ void conv_set(float *to, float x) { *to = x; }
static __device__ __forceinline__ void conv_set(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}
static __device__ __forceinline__ float2 conv_pair(const float *from)
{
    return *reinterpret_cast<const float2 *>(from);
}
static __device__ __forceinline__ float2 conv_pair(const __nv_bfloat16 *from)
{
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(from));
}
static __device__ __forceinline__ void conv_set_pair(float *to, float2 v)
{
    *reinterpret_cast<float2 *>(to) = v;
}
static __device__ __forceinline__ void conv_set_pair(__nv_bfloat16 *to, float2 v)
{
    *reinterpret_cast<__nv_bfloat162 *>(to) = __floats2bfloat162_rn(v.x, v.y);
}

/* Two neighbouring channels of one position, the first of them even: + bias + add. `at` counts
 * elements from p.y. */
template <class T>
static __device__ __forceinline__ void conv_store(const ConvParameters &p, int64_t at, int channel,
                                                  float2 v)
{
    T *y = static_cast<T *>(p.y) + at;
    const T *add = p.add ? static_cast<const T *>(p.add) + at : nullptr;
    bool two = channel + 1 < p.out;
    if (p.bias) {
        v.x += __ldg(p.bias + channel);
        if (two) v.y += __ldg(p.bias + channel + 1);
    }
    if (p.y_pairs) { /* then there are always two */
        float2 more = add ? conv_pair(add) : make_float2(-0.0f, -0.0f); /* x + -0 is x */
        conv_set_pair(y, make_float2(v.x + more.x, v.y + more.y));
        return;
    }
    conv_set(y, add ? v.x + conv_value(add[0]) : v.x);
    if (two) conv_set(y + 1, add ? v.y + conv_value(add[1]) : v.y);
}

#endif
