/* The kernel of conv.h. A block computes 128 output positions x one panel of output channels; its K
 * runs over taps, and over blocks of 32 input channels within a tap. A ring of four slots in shared
 * memory holds both operands of a step: weights come by cp.async, three steps ahead; so does x, if
 * it is bf16 in whole vectors, else it passes through registers, one step ahead.
 *
 * An operand's tile is rows of 64 bytes (32 channels), the four 16-byte chunks of row r in the
 * order chunk ^ (r / 2 % 4): eight rows that ldmatrix reads, or eight neighbouring chunks that are
 * written, touch every bank once. */
#ifndef RINGREEL_CUDA_CONV_TILE_H
#define RINGREEL_CUDA_CONV_TILE_H

#include "kernels/cuda/ptx.h"

constexpr int CONV_POSITIONS = 128, CONV_INPUTS = 32, CONV_SLOTS = 4, CONV_THREADS = 256;
constexpr int CONV_ROW_BYTES = 2 * CONV_INPUTS, CONV_CHUNKS = CONV_ROW_BYTES / 16;
constexpr int CONV_X_BYTES = CONV_POSITIONS * CONV_ROW_BYTES;
constexpr int CONV_EACH = CONV_POSITIONS * CONV_CHUNKS / CONV_THREADS; /* chunks of x a thread */

template <int PANEL> constexpr int CONV_SLOT_BYTES = CONV_X_BYTES + PANEL *CONV_ROW_BYTES;

/* What the kernel needs to know. Strides of frames and rows are in positions. */
struct ConvParameters {
    const void *x;
    int64_t x_frame, x_row;
    int frames, top, bottom, right; /* of x there are rows [top, bottom), columns [-pad, right) */
    int pad, in;
    bool vectors; /* x may be read 16 bytes at a time */

    int kernel, stride_t, stride_s, front, steps;
    const uint16_t *packed;
    const float *bias;

    void *y;
    const void *add;
    int64_t y_frame, y_row;
    int y_pad, out;
    bool y_bf16, y_pairs; /* channels of y may be written two at a time */

    int row, column;
    unsigned columns, frame_positions; /* of the span */
    int64_t positions;
};

static __device__ __forceinline__ uint32_t conv_chunk_at(int row, int chunk)
{
    return row * CONV_ROW_BYTES + ((chunk ^ (row >> 1 & 3)) << 4);
}

/* ---- where ----------------------------------------------------------------------------------- */

/* Output position number `index` of this block. */
struct ConvPlace {
    int t, row, column;
    bool valid;
    __device__ ConvPlace(const ConvParameters &p, int index)
    {
        int64_t first = static_cast<int64_t>(blockIdx.x) * CONV_POSITIONS;
        unsigned in_frame = static_cast<unsigned>(first % p.frame_positions) + index;
        t = static_cast<int>(first / p.frame_positions) + in_frame / p.frame_positions;
        in_frame %= p.frame_positions;
        row = p.row + in_frame / p.columns;
        column = p.column + in_frame % p.columns;
        valid = first + index < p.positions;
    }
};

/* One tap, one block of inputs. */
struct ConvStep {
    int kt = 0, ky = 0, kx = 0, input = 0;
    __device__ void advance(const ConvParameters &p)
    {
        if ((input += CONV_INPUTS) < p.in) return;
        input = 0;
        if (++kx < p.kernel) return;
        kx = 0;
        if (++ky < p.kernel) return;
        ky = 0;
        kt++;
    }
};

/* The chunks of x that a thread loads: the same channels of every step's block, the same output
 * positions in all steps. */
class ConvSource
{
  public:
    __device__ explicit ConvSource(const ConvParameters &p) : chunk(threadIdx.x % CONV_CHUNKS)
    {
#pragma unroll
        for (int i = 0; i < CONV_EACH; i++) {
            ConvPlace place(p, row_of(i));
            t_[i] = place.t * p.stride_t - p.front;
            row_[i] = place.row * p.stride_s - p.kernel / 2;
            column_[i] = place.column * p.stride_s - p.kernel / 2;
            if (!place.valid) row_[i] = p.bottom; /* reads nothing */
        }
    }
    /* of the tile */
    __device__ static int row_of(int i)
    {
        return threadIdx.x / CONV_CHUNKS + i * (CONV_THREADS / CONV_CHUNKS);
    }
    /* The position of x that row i of the tile reads, negative rows of `above` included. */
    __device__ int64_t position(const ConvParameters &p, const ConvStep &step, int i,
                                bool *valid) const
    {
        int t = min(max(t_[i] + step.kt, 0), p.frames - 1);
        int row = row_[i] + step.ky, column = column_[i] + step.kx;
        *valid = row >= p.top && row < p.bottom && column >= -p.pad && column < p.right;
        return *valid ? t * p.x_frame + row * p.x_row + column + p.pad : 0;
    }

    const int chunk;

  private:
    int t_[CONV_EACH], row_[CONV_EACH], column_[CONV_EACH];
};

/* ---- x into shared memory -------------------------------------------------------------------- */

/* bf16, channels a multiple of 8 */
struct ConvCopies {
    static constexpr bool ASYNC = true;
    ConvSource source;
    __device__ explicit ConvCopies(const ConvParameters &p) : source(p) {}

    __device__ void copy(const ConvParameters &p, const ConvStep &step, uint32_t tile) const
    {
        int channel = step.input + 8 * source.chunk;
#pragma unroll
        for (int i = 0; i < CONV_EACH; i++) {
            bool valid;
            int64_t position = source.position(p, step, i, &valid);
            valid = valid && channel < p.in;
            const uint16_t *from = static_cast<const uint16_t *>(p.x);
            if (valid) from += position * p.in + channel;
            cp_async16(tile + conv_chunk_at(source.row_of(i), source.chunk), from, valid);
        }
    }
};

/* Eight values of T as they are in memory. */
template <class T> struct ConvEight {
    static constexpr int WORDS = 8 * sizeof(T) / 4, PER_WORD = 4 / sizeof(T);
    uint32_t word[WORDS];

    __device__ float value(int i) const
    {
        if (sizeof(T) == 4) return __uint_as_float(word[i]);
        uint32_t pair = word[i / PER_WORD];
        return __uint_as_float(i % 2 ? pair & 0xFFFF0000u : pair << 16);
    }
    /* the first `left` of them, zeros behind */
    __device__ void load(const T *from, int left, bool vectors)
    {
        constexpr int PER_VECTOR = 16 / sizeof(T);
#pragma unroll
        for (int v = 0; v < WORDS / 4; v++) {
            if (vectors && v * PER_VECTOR < left) {
                uint4 four = reinterpret_cast<const uint4 *>(from)[v];
                word[4 * v] = four.x, word[4 * v + 1] = four.y;
                word[4 * v + 2] = four.z, word[4 * v + 3] = four.w;
            } else {
#pragma unroll
                for (int i = 4 * v; i < 4 * v + 4; i++) word[i] = one_word(from, i, left);
            }
        }
    }

  private:
    __device__ static uint32_t one_word(const T *from, int i, int left)
    {
        uint32_t bits = 0;
#pragma unroll
        for (int k = 0; k < PER_WORD; k++)
            if (i * PER_WORD + k < left)
                bits |= static_cast<uint32_t>(from[i * PER_WORD + k]) << 16 * k;
        return bits;
    }
};

/* fp32, or bf16 of any number of channels. T: uint32_t or uint16_t, the bits of an element. */
template <class T> struct ConvRegisters {
    static constexpr bool ASYNC = false;
    ConvSource source;
    ConvEight<T> eight[CONV_EACH];

    __device__ explicit ConvRegisters(const ConvParameters &p) : source(p) {}

    __device__ void fetch(const ConvParameters &p, const ConvStep &step)
    {
        int channel = step.input + 8 * source.chunk;
#pragma unroll
        for (int i = 0; i < CONV_EACH; i++) {
            bool valid;
            int64_t position = source.position(p, step, i, &valid);
            const T *from = static_cast<const T *>(p.x) + position * p.in + channel;
            eight[i].load(from, valid ? p.in - channel : 0, p.vectors);
        }
    }

    __device__ void store(unsigned char *tile) const
    {
#pragma unroll
        for (int i = 0; i < CONV_EACH; i++) {
            uint32_t pair[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                __nv_bfloat162 both =
                    __floats2bfloat162_rn(eight[i].value(2 * k), eight[i].value(2 * k + 1));
                pair[k] = *reinterpret_cast<uint32_t *>(&both);
            }
            *reinterpret_cast<uint4 *>(tile + conv_chunk_at(source.row_of(i), source.chunk)) =
                make_uint4(pair[0], pair[1], pair[2], pair[3]);
        }
    }
};

/* ---- the product ----------------------------------------------------------------------------- */

/* Eight warps: PANEL / 32 side by side, each 32 channels wide. */
template <int PANEL> struct ConvWarp {
    static constexpr int ACROSS = PANEL / 32, FRAGMENTS = ACROSS; /* of 16 positions */
    int lane, position, channel;                                  /* the warp's first */
    float sum[FRAGMENTS][4][4] = {};

    __device__ ConvWarp()
        : lane(threadIdx.x % 32), position(threadIdx.x / 32 / ACROSS * FRAGMENTS * 16),
          channel(threadIdx.x / 32 % ACROSS * 32)
    {
    }

    __device__ void multiply(uint32_t x, uint32_t weights)
    {
#pragma unroll
        for (int k = 0; k < CONV_INPUTS / 16; k++) {
            uint32_t b[2][4];
#pragma unroll
            for (int g = 0; g < 2; g++)
                ldmatrix_x4(b[g],
                            weights + conv_chunk_at(channel + g * 16 + lane / 16 * 8 + lane % 8,
                                                    2 * k + lane / 8 % 2));
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++) {
                uint32_t a[4];
                ldmatrix_x4(a, x + conv_chunk_at(position + f * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
                for (int g = 0; g < 4; g++)
                    mma_bf16(sum[f][g], a, b[g / 2][g % 2 * 2], b[g / 2][g % 2 * 2 + 1]);
            }
        }
    }

    __device__ void store(const ConvParameters &p) const;
};

/* ---- y ----------------------------------------------------------------------------------------
 */

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

template <int PANEL> __device__ void ConvWarp<PANEL>::store(const ConvParameters &p) const
{
    int first = blockIdx.y * PANEL + channel + lane % 4 * 2;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            ConvPlace place(p, position + f * 16 + half * 8 + lane / 4);
            if (!place.valid) continue;
            int64_t at =
                (place.t * p.y_frame + place.row * p.y_row + place.column + p.y_pad) * p.out;
#pragma unroll
            for (int g = 0; g < 4; g++) {
                int c = first + g * 8;
                float2 v = make_float2(sum[f][g][2 * half], sum[f][g][2 * half + 1]);
                if (c >= p.out) continue;
                if (p.y_bf16)
                    conv_store<__nv_bfloat16>(p, at + c, c, v);
                else
                    conv_store<float>(p, at + c, c, v);
            }
        }
}

template <int PANEL>
static __device__ __forceinline__ void conv_copy_weights(const ConvParameters &p, int step,
                                                         uint32_t tile)
{
    const uint16_t *from =
        p.packed + (static_cast<int64_t>(blockIdx.y) * p.steps + step) * (PANEL * CONV_INPUTS);
    for (int i = threadIdx.x; i < PANEL * CONV_CHUNKS; i += CONV_THREADS)
        cp_async16(tile + conv_chunk_at(i / CONV_CHUNKS, i % CONV_CHUNKS), from + 8 * i);
}

template <int PANEL, class Loader>
__global__ void __launch_bounds__(CONV_THREADS, 2) conv_kernel(const ConvParameters p)
{
    constexpr int SLOT = CONV_SLOT_BYTES<PANEL>, AHEAD = CONV_SLOTS - 1;
    SMEM_DYN(unsigned char, memory);
    uint32_t base = shared_address(memory);
    Loader loader(p);
    ConvWarp<PANEL> warp;
    ConvStep next; /* of x to load */

    auto copy = [&](int step) {
        uint32_t slot = base + step % CONV_SLOTS * SLOT;
        if (step < p.steps) {
            conv_copy_weights<PANEL>(p, step, slot + CONV_X_BYTES);
            if constexpr (Loader::ASYNC) {
                loader.copy(p, next, slot);
                next.advance(p);
            }
        }
        cp_async_commit();
    };
    auto fetch = [&] {
        if constexpr (!Loader::ASYNC) {
            loader.fetch(p, next);
            next.advance(p);
        }
    };
    auto store = [&](int step) {
        if constexpr (!Loader::ASYNC) loader.store(memory + step % CONV_SLOTS * SLOT);
    };

    for (int step = 0; step < AHEAD; step++) copy(step);
    fetch();
    store(0);
    for (int step = 0; step < p.steps; step++) {
        cp_async_wait<AHEAD - 1>();
        __syncthreads(); /* this step has arrived, and nobody reads the one before any more */
        copy(step + AHEAD);
        bool more = step + 1 < p.steps;
        if (more) fetch();
        uint32_t slot = base + step % CONV_SLOTS * SLOT;
        warp.multiply(slot, slot + CONV_X_BYTES);
        if (more) store(step + 1);
    }
    cp_async_wait<0>();
    warp.store(p);
}

#endif
