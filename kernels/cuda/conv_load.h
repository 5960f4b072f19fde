/* How x and the weights of a convolution come into shared memory (conv_tile.h). Chunks of x, 8
 * channels of a position, that are bf16 in whole vectors and wanted as they are come by cp.async;
 * others pass through registers, one at a time and thread, for the length of a tap. */
#ifndef RINGREEL_CUDA_CONV_LOAD_H
#define RINGREEL_CUDA_CONV_LOAD_H

#include "kernels/cuda/conv_tile.h"
#include "kernels/cuda/silu.h"

/* ---- what a tile reads ----------------------------------------------------------------------- */

/* A row of the tile of x: a position, at tap 0 of time and of the rows that are not in the tile. */
struct ConvRow {
    int frame, row, column; /* -pad counts as column 0 */
};

static __device__ __forceinline__ void conv_find_rows(const ConvParameters &p, const ConvBox &box,
                                                      ConvRow *rows)
{
    int half = p.kernel / 2;
    for (int i = threadIdx.x; i < p.rows; i += CONV_THREADS) {
        int t = box.t + i / p.width / p.height;
        int row = box.row * p.stride_s - half + i / p.width % p.height * p.stride_s;
        int column = box.column * p.stride_s - half + i % p.width;
        bool read = t < p.t_end && column >= p.left && column < p.right;
        rows[i] = {t * p.stride_t - p.front, read ? row : p.bottom, column + p.pad};
    }
}

/* The position of x that a row is in a step, negative rows of `above` included; else zeros. */
struct ConvSource {
    bool valid;
    int64_t position;
    __device__ ConvSource(const ConvParameters &p, const ConvStep &step, ConvRow from)
    {
        int t = min(max(from.frame + step.kt, 0), p.frames - 1), row = from.row + step.ky;
        valid = row >= p.top && row < p.bottom;
        position = valid ? t * p.x_frame + row * p.x_row + from.column : 0;
    }
};

/* Where a chunk goes. */
struct ConvTarget {
    uint32_t address;
    unsigned char *memory;
    __device__ ConvTarget operator+(uint32_t bytes) const
    {
        return {address + bytes, memory + bytes};
    }
};

/* ---- chunks ---------------------------------------------------------------------------------- */

/* bf16, channels a multiple of 8 */
struct ConvCopy {
    __device__ void start(const ConvParameters &p, const ConvSource &source, int channel,
                          ConvTarget to)
    {
        bool valid = source.valid && channel < p.in;
        const uint16_t *from = static_cast<const uint16_t *>(p.x);
        if (valid) from += source.position * p.in + channel;
        cp_async16(to.address, from, valid);
    }
    __device__ void finish(ConvTarget) const {}
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

/* What becomes of the values on their way: nothing … */
struct ConvPlain {
    __device__ void start(const ConvParameters &, const ConvSource &, int) {}
    __device__ float operator()(float x, int) const { return x; }
};
/* … or PixelNorm, modulation and SiLU, by the operations of launch_pixel_norm_silu. What lies
 * outside of the picture stays zero. */
struct ConvNormed {
    ConvEight<uint32_t> scale, shift;
    float factor;
    bool valid;
    __device__ void start(const ConvParameters &p, const ConvSource &source, int channel)
    {
        int left = p.modulated ? p.in - channel : 0;
        valid = source.valid;
        factor = valid ? p.factor[source.position] : 0.0f;
        scale.load(reinterpret_cast<const uint32_t *>(p.scale) + channel, left, p.norm_vectors);
        shift.load(reinterpret_cast<const uint32_t *>(p.shift) + channel, left, p.norm_vectors);
    }
    __device__ float operator()(float x, int i) const
    {
        float y = silu_quick(fmaf(x * factor, 1.0f + scale.value(i), shift.value(i)));
        return valid ? y : 0.0f;
    }
};

/* T: uint32_t or uint16_t, the bits of an element of x; any number of channels. */
template <class T, class Function> struct ConvThrough {
    ConvEight<T> eight;
    Function function;

    __device__ void start(const ConvParameters &p, const ConvSource &source, int channel,
                          ConvTarget)
    {
        const T *from = static_cast<const T *>(p.x) + source.position * p.in + channel;
        eight.load(from, source.valid ? p.in - channel : 0, p.vectors);
        function.start(p, source, channel);
    }
    __device__ void finish(ConvTarget to) const
    {
        uint32_t pair[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float low = function(eight.value(2 * k), 2 * k),
                  high = function(eight.value(2 * k + 1), 2 * k + 1);
            __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
            pair[k] = *reinterpret_cast<uint32_t *>(&both);
        }
        *reinterpret_cast<uint4 *>(to.memory) = make_uint4(pair[0], pair[1], pair[2], pair[3]);
    }
};

/* ---- tiles ----------------------------------------------------------------------------------- */

/* A thread's chunks of a tile of x, the same channels of all its blocks of inputs: number n is in
 * row threadIdx.x / 4 + 64 n. A share of them is started before each tap of the tile before, the
 * last of the share is finished behind it. */
template <class Chunk> class ConvLoads
{
  public:
    __device__ explicit ConvLoads(const ConvRow *rows) : rows_(rows) {}

    __device__ void all(const ConvParameters &p, ConvTarget tile)
    {
        share(p, tile, 0, p.chunks);
        finish(p, tile, p.chunks - 1);
        step_.advance(p);
    }
    __device__ void before(const ConvParameters &p, ConvTarget tile, int tap)
    {
        share(p, tile, tap * p.chunks_each, min((tap + 1) * p.chunks_each, p.chunks));
    }
    __device__ void behind(const ConvParameters &p, ConvTarget tile, int tap)
    {
        int first = tap * p.chunks_each;
        if (first < p.chunks) finish(p, tile, min(first + p.chunks_each, p.chunks) - 1);
        if (tap + 1 == p.taps) step_.advance(p);
    }

  private:
    static constexpr int ROWS = CONV_THREADS / CONV_CHUNKS;
    const ConvRow *rows_;
    ConvStep step_;
    Chunk chunk_;

    __device__ static int row_of(int n) { return threadIdx.x / CONV_CHUNKS + n * ROWS; }

    __device__ void share(const ConvParameters &p, ConvTarget tile, int first, int end)
    {
        for (int n = first; n < end; n++) {
            if (n > first) finish(p, tile, n - 1);
            int row = row_of(n), chunk = threadIdx.x % CONV_CHUNKS;
            if (row < p.rows)
                chunk_.start(p, ConvSource(p, step_, rows_[row]), step_.input + 8 * chunk,
                             tile + conv_chunk_at(row, chunk));
        }
    }
    __device__ void finish(const ConvParameters &p, ConvTarget tile, int n) const
    {
        int row = row_of(n);
        if (row < p.rows) chunk_.finish(tile + conv_chunk_at(row, threadIdx.x % CONV_CHUNKS));
    }
};

/* One step of a panel's weights. */
template <int PANEL>
static __device__ __forceinline__ void conv_copy_weights(const ConvParameters &p, unsigned panel,
                                                         int step, uint32_t slot)
{
    int steps = p.tile_steps * p.taps;
    if (step >= steps) return;
    const uint16_t *from =
        p.packed + (static_cast<int64_t>(panel) * steps + step) * (PANEL * CONV_INPUTS);
    for (int i = threadIdx.x; i < PANEL * CONV_CHUNKS; i += CONV_THREADS)
        cp_async16(slot + conv_chunk_at(i / CONV_CHUNKS, i % CONV_CHUNKS), from + 8 * i);
}

#endif
