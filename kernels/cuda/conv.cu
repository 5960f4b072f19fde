/* Convolutions: weights, and which kernel for which clip. */
#include "kernels/cuda/conv.h"
#include "kernels/cuda/conv_kernel.h"
#include "kernels/cuda/conv_mma.h"
#include "kernels/cuda/conv_wgmma.h"

#include <algorithm>

namespace
{

constexpr int64_t MOST = INT64_C(1) << 29; /* positions of a frame, frames, channels */
/* Where the weights of a layer are less than this, they stay in the second cache, and panels that
 * read one box of x run beside each other; else boxes do, that read one panel. */
constexpr size_t WEIGHTS_IN_CACHE = size_t{16} << 20;

int panel_of(int64_t out) { return out > 64 ? 128 : out > 32 ? 64 : 32; }
int64_t panels_of(int64_t out) { return (out + panel_of(out) - 1) / panel_of(out); }
int64_t blocks_of(int64_t in) { return (in + CONV_INPUTS - 1) / CONV_INPUTS; }
int64_t taps_of(const conv_shape &s) { return int64_t{s.kernel} * s.kernel * s.kernel; }
/* With a stride in the picture a box of x would be four times as large as that of y: then a tile
 * has what one row of taps reads. */
int tile_taps(const conv_shape &s) { return s.stride_s == 1 ? s.kernel : 1; }
int log_of(int power) { return power == 1 ? 0 : 1 + log_of(power / 2); }
int64_t row_of(const clip &v) { return v.w + 2 * v.pad; }
int64_t frame_of(const clip &v) { return (v.above + v.h + v.below) * row_of(v); }

bool good(const conv_shape &s)
{
    auto stride = [](int n) { return n == 1 || n == 2; };
    return s.in > 0 && s.in <= MOST && s.out > 0 && s.out <= MOST &&
           (s.kernel == 1 || s.kernel == 3) && stride(s.stride_t) && stride(s.stride_s) &&
           taps_of(s) * blocks_of(s.in) <= MOST && panels_of(s.out) <= 65535;
}

bool good(const clip &v)
{
    auto one = [](int n) { return n == 0 || n == 1; };
    return v.p && (v.dtype == DTYPE_F32 || v.dtype == DTYPE_BF16) && v.t > 0 && v.t <= MOST &&
           v.h > 0 && v.h <= MOST && v.w > 0 && v.w <= MOST && v.c > 0 && one(v.pad) &&
           one(v.above) && one(v.below) && v.h * v.w <= MOST;
}

bool multiple_of(const void *p, uintptr_t n) { return reinterpret_cast<uintptr_t>(p) % n == 0; }

/* ---- weights --------------------------------------------------------------------------------- */

__device__ float value_of(float x) { return x; }
__device__ float value_of(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ float value_of(__half x) { return __half2float(x); }

/* One packed element a thread. tile_taps: rows of taps that follow each other within a block of
 * inputs. */
template <class T>
__global__ void pack_kernel(__nv_bfloat16 *packed, const T *weight, int64_t in, int64_t out,
                            int kernel, int tile_taps, int panel, int64_t count)
{
    int64_t rest = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (rest >= count) return;
    __nv_bfloat16 *to = packed + rest;
    auto next = [&rest](int64_t n) { /* the innermost of what is left, of which there are n */
                                     int64_t digit = rest % n;
                                     rest /= n;
                                     return digit;
    };
    int64_t i = next(CONV_INPUTS), o = next(panel), kx = next(kernel), ky = next(tile_taps);
    i += next((in + CONV_INPUTS - 1) / CONV_INPUTS) * CONV_INPUTS;
    ky += next(kernel / tile_taps) * tile_taps;
    int64_t kt = next(kernel);
    o += rest * panel;
    bool there = i < in && o < out;
    int64_t at = (((o * in + i) * kernel + kt) * kernel + ky) * kernel + kx;
    *to = __float2bfloat16_rn(there ? value_of(weight[at]) : 0.0f);
}

template <class T>
cudaError_t pack(cudaStream_t stream, void *packed, const void *weight, const conv_shape &s)
{
    constexpr int THREADS = 256;
    int64_t count = static_cast<int64_t>(conv_weights_bytes(&s)) / 2;
    int64_t grid = (count + THREADS - 1) / THREADS;
    if (grid > INT32_MAX) return cudaErrorInvalidValue;
    return launch_kernel(dim3(static_cast<unsigned>(grid)), dim3(THREADS), 0, stream,
                         pack_kernel<T>, static_cast<__nv_bfloat16 *>(packed),
                         static_cast<const T *>(weight), s.in, s.out, s.kernel, tile_taps(s),
                         panel_of(s.out), count);
}

/* ---- boxes ------------------------------------------------------------------------------------
 */

/* How the span is cut into boxes of CONV_POSITIONS. */
struct Boxes {
    int log_columns, log_rows, rows; /* positions of x of one */
    int64_t across, down, count;
};

int64_t box_width(const conv_shape &s, int columns)
{
    return (columns - 1) * s.stride_s + s.kernel;
}
int64_t box_height(const conv_shape &s, int rows) { return rows + tile_taps(s) - 1; }

/* What a box costs: above all its products, which are as many in each, whether its positions are
 * there or not; loads of x; and ldmatrix, where its eight rows are not in succession. The weights
 * of this sum are guesses. */
int64_t box_cost(int64_t reads, int columns) { return (4096 + reads) * (columns < 8 ? 5 : 4); }

/* The cheapest. No bits depend on it. */
Boxes find_boxes(const conv_shape &s, int64_t t, int64_t rows, int64_t columns)
{
    Boxes best = {};
    int64_t least = 0;
    for (int w = 1; w <= CONV_POSITIONS; w *= 2)
        for (int h = 1; h * w <= CONV_POSITIONS; h *= 2) {
            int frames = CONV_POSITIONS / h / w;
            int64_t reads = frames * box_height(s, h) * box_width(s, w);
            int64_t across = (columns + w - 1) / w, down = (rows + h - 1) / h;
            int64_t count = (t + frames - 1) / frames * down * across;
            if (reads > CONV_ROWS_MOST || count > INT32_MAX) continue;
            int64_t cost = count * box_cost(reads, w);
            if (best.count && cost >= least) continue;
            least = cost;
            best = {log_of(w), log_of(h), static_cast<int>(reads), across, down, count};
        }
    return best;
}

/* ---- the convolution ------------------------------------------------------------------------- */

bool good(const conv_job &job)
{
    const clip &x = job.x, &y = job.y;
    const conv_shape &s = job.shape;
    const conv_span &span = job.span;
    if (!good(s) || !good(x) || !good(y) || !job.packed || x.c != s.in || y.c != s.out)
        return false;
    if (y.h != (x.h - 1) / s.stride_s + 1 || y.w != (x.w - 1) / s.stride_s + 1) return false;
    if (job.front < -MOST || job.front > MOST || y.p == x.p) return false;
    if (job.norm.factor && (x.dtype != DTYPE_BF16 || !job.norm.scale != !job.norm.shift))
        return false;
    return span.row >= 0 && span.rows > 0 && span.row <= y.h - span.rows && span.column >= 0 &&
           span.columns > 0 && span.column <= y.w - span.columns;
}

int number(int64_t n) { return static_cast<int>(n); }

/* What the span reads of x, and how. */
void read_x(ConvParameters *p, const conv_job &job)
{
    const clip &x = job.x;
    const conv_shape &s = job.shape;
    const conv_span &span = job.span;
    int64_t half = s.kernel / 2, left = x.pad, right = x.pad;
    if (job.norm.factor && !job.norm.left) left = 0; /* zeros, which are not normed */
    if (job.norm.factor && !job.norm.right) right = 0;
    auto first = [&](int64_t n) { return n * s.stride_s - half; };
    auto end = [&](int64_t n) { return (n - 1) * s.stride_s + half + 1; };
    p->x = x.p;
    p->x_frame = frame_of(x);
    p->x_row = row_of(x);
    p->frames = number(x.t);
    p->top = number(std::max<int64_t>(first(span.row), -x.above));
    p->bottom = number(std::min(end(span.row + span.rows), x.h + x.below));
    p->left = number(std::max(first(span.column), -left));
    p->right = number(std::min(end(span.column + span.columns), x.w + right));
    p->pad = x.pad;
    p->in = number(s.in);
    p->vectors = multiple_of(x.p, 16) && s.in % (x.dtype == DTYPE_F32 ? 4 : 8) == 0;
    p->modulated = job.norm.scale;
    p->factor = job.norm.factor;
    p->scale = job.norm.scale ? job.norm.scale : job.norm.factor;
    p->shift = job.norm.shift ? job.norm.shift : job.norm.factor;
    p->norm_vectors = s.in % 4 == 0 && multiple_of(p->scale, 16) && multiple_of(p->shift, 16);
}

void write_y(ConvParameters *p, const conv_job &job)
{
    const clip &y = job.y;
    p->bias = job.bias;
    p->y = y.p;
    p->add = job.add;
    p->y_frame = frame_of(y);
    p->y_row = row_of(y);
    p->y_pad = y.pad;
    p->out = number(y.c);
    p->y_bf16 = y.dtype == DTYPE_BF16;
    p->y_pairs = y.c % 2 == 0 && multiple_of(y.p, 8) && multiple_of(job.add, 8);
    p->row = number(job.span.row);
    p->column = number(job.span.column);
    p->row_end = number(job.span.row + job.span.rows);
    p->column_end = number(job.span.column + job.span.columns);
    p->t_end = number(y.t);
}

/* Tiles, taps, and a thread's share of loading them. */
void walk(ConvParameters *p, const conv_job &job, const Boxes &boxes)
{
    const conv_shape &s = job.shape;
    constexpr int ROWS = CONV_THREADS / CONV_CHUNKS;
    p->kernel = s.kernel;
    p->stride_t = s.stride_t;
    p->stride_s = s.stride_s;
    p->front = s.kernel == 1 ? 0 : job.front;
    p->packed = static_cast<const uint16_t *>(job.packed);
    p->tile_taps = tile_taps(s);
    p->taps = p->tile_taps * s.kernel;
    p->tile_steps = number(taps_of(s) / p->taps * blocks_of(s.in));
    p->log_columns = boxes.log_columns;
    p->log_rows = boxes.log_rows;
    p->width = number(box_width(s, 1 << boxes.log_columns));
    p->height = number(box_height(s, 1 << boxes.log_rows));
    p->rows = boxes.rows;
    /* the last tap's copies would come too late */
    int shares = p->taps > 1 ? p->taps + 1 - CONV_AHEAD : 1;
    p->chunks = (p->rows + ROWS - 1) / ROWS;
    p->chunks_each = (p->chunks + shares - 1) / shares;
    p->tiles_across = static_cast<unsigned>(boxes.across);
    p->tiles_down = static_cast<unsigned>(boxes.down);
    p->tiles = static_cast<unsigned>(boxes.count);
    p->panels = static_cast<unsigned>(panels_of(s.out));
    p->panels_first = conv_weights_bytes(&s) <= WEIGHTS_IN_CACHE;
}

template <class Product, class Chunk>
cudaError_t launch_product(cudaStream_t stream, const ConvParameters &p)
{
    return launch_kernel(dim3(p.tiles * p.panels), dim3(CONV_THREADS),
                         conv_shared_bytes<Product::PANEL>(p.rows), stream,
                         conv_kernel<Product, Chunk>, p);
}

template <class Chunk>
cudaError_t launch_chunks(cudaStream_t stream, const ConvParameters &p, bool wgmma)
{
    int panel = panel_of(p.out);
    if (panel == 128 && wgmma) return launch_product<ConvWgmma, Chunk>(stream, p);
    if (panel == 128) return launch_product<ConvMma<128>, Chunk>(stream, p);
    if (panel == 64) return launch_product<ConvMma<64>, Chunk>(stream, p);
    return launch_product<ConvMma<32>, Chunk>(stream, p);
}

} // namespace

size_t conv_weights_bytes(const conv_shape *s)
{
    return static_cast<size_t>(panels_of(s->out) * panel_of(s->out) * taps_of(*s) *
                               blocks_of(s->in)) *
           CONV_ROW_BYTES;
}

int conv_weights_pack(cudaStream_t stream, void *packed, const void *weight, enum dtype type,
                      const conv_shape *s)
{
    if (!good(*s) || !packed || !weight) return cudaErrorInvalidValue;
    if (type == DTYPE_F32) return pack<float>(stream, packed, weight, *s);
    if (type == DTYPE_BF16) return pack<__nv_bfloat16>(stream, packed, weight, *s);
    if (type == DTYPE_F16) return pack<__half>(stream, packed, weight, *s);
    return cudaErrorInvalidValue;
}

enum conv_kernel_kind conv_choose(int capability)
{
    return capability == 90 ? CONV_WGMMA : CONV_MMA;
}

int conv_norms(const conv_shape *s)
{
    return s->kernel == 3 && s->stride_t == 1 && s->stride_s == 1 && panels_of(s->out) == 1;
}

int conv_launch(cudaStream_t stream, const conv_job *job)
{
    if (!good(*job)) return cudaErrorInvalidValue;
    Boxes boxes = find_boxes(job->shape, job->y.t, job->span.rows, job->span.columns);
    if (boxes.count == 0 || boxes.count > INT32_MAX / panels_of(job->shape.out))
        return cudaErrorInvalidValue;
    ConvParameters p = {};
    read_x(&p, *job);
    write_y(&p, *job);
    walk(&p, *job, boxes);
    bool wgmma = job->kind == CONV_WGMMA;
    if (job->norm.factor) return launch_chunks<ConvThrough<uint16_t, ConvNormed>>(stream, p, wgmma);
    if (job->x.dtype == DTYPE_F32)
        return launch_chunks<ConvThrough<uint32_t, ConvPlain>>(stream, p, wgmma);
    return p.vectors ? launch_chunks<ConvCopy>(stream, p, wgmma)
                     : launch_chunks<ConvThrough<uint16_t, ConvPlain>>(stream, p, wgmma);
}
