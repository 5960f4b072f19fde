/* Convolutions: weights, and which kernel for which clip. */
#include "kernels/cuda/conv.h"
#include "kernels/cuda/conv_tile.h"

namespace
{

constexpr int64_t MOST = INT64_C(1) << 30; /* positions of a frame, frames, channels */

int panel_of(int64_t out) { return out > 64 ? 128 : out > 32 ? 64 : 32; }
int64_t panels_of(int64_t out) { return (out + panel_of(out) - 1) / panel_of(out); }
int64_t blocks_of(int64_t in) { return (in + CONV_INPUTS - 1) / CONV_INPUTS; }
int64_t taps_of(const conv_shape &s) { return int64_t{s.kernel} * s.kernel * s.kernel; }
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

/* One packed element a thread. */
template <class T>
__global__ void pack_kernel(__nv_bfloat16 *packed, const T *weight, int64_t in, int64_t out,
                            int64_t taps, int panel, int64_t count)
{
    int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= count) return;
    int64_t blocks = (in + CONV_INPUTS - 1) / CONV_INPUTS, rest = at / CONV_INPUTS;
    int64_t o = rest % panel;
    rest /= panel;
    int64_t i = rest % blocks * CONV_INPUTS + at % CONV_INPUTS;
    rest /= blocks;
    int64_t tap = rest % taps;
    o += rest / taps * panel;
    bool there = i < in && o < out;
    packed[at] = __float2bfloat16_rn(there ? value_of(weight[(o * in + i) * taps + tap]) : 0.0f);
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
                         static_cast<const T *>(weight), s.in, s.out, taps_of(s), panel_of(s.out),
                         count);
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
    return span.row >= 0 && span.rows > 0 && span.row <= y.h - span.rows && span.column >= 0 &&
           span.columns > 0 && span.column <= y.w - span.columns;
}

ConvParameters parameters_of(const conv_job &job)
{
    const clip &x = job.x, &y = job.y;
    const conv_shape &s = job.shape;
    auto number = [](int64_t n) { return static_cast<int>(n); };
    ConvParameters p = {};
    p.x = x.p;
    p.x_frame = frame_of(x);
    p.x_row = row_of(x);
    p.frames = number(x.t);
    p.top = -x.above;
    p.bottom = number(x.h + x.below);
    p.right = number(x.w + x.pad);
    p.pad = x.pad;
    p.in = number(s.in);
    p.vectors = multiple_of(x.p, 16) && s.in % (x.dtype == DTYPE_F32 ? 4 : 8) == 0;
    p.kernel = s.kernel;
    p.stride_t = s.stride_t;
    p.stride_s = s.stride_s;
    p.front = s.kernel == 1 ? 0 : job.front;
    p.steps = number(taps_of(s) * blocks_of(s.in));
    p.packed = static_cast<const uint16_t *>(job.packed);
    p.bias = job.bias;
    p.y = y.p;
    p.add = job.add;
    p.y_frame = frame_of(y);
    p.y_row = row_of(y);
    p.y_pad = y.pad;
    p.out = number(s.out);
    p.y_bf16 = y.dtype == DTYPE_BF16;
    p.y_pairs = s.out % 2 == 0 && multiple_of(y.p, 8) && multiple_of(job.add, 8);
    p.row = number(job.span.row);
    p.column = number(job.span.column);
    p.columns = static_cast<unsigned>(job.span.columns);
    p.frame_positions = static_cast<unsigned>(job.span.rows * job.span.columns);
    p.positions = y.t * p.frame_positions;
    return p;
}

template <int PANEL, class Loader>
cudaError_t launch_panels(cudaStream_t stream, const ConvParameters &p)
{
    int64_t tiles = (p.positions + CONV_POSITIONS - 1) / CONV_POSITIONS;
    if (tiles > INT32_MAX) return cudaErrorInvalidValue;
    return launch_kernel(dim3(static_cast<unsigned>(tiles), (p.out + PANEL - 1) / PANEL),
                         dim3(CONV_THREADS), CONV_SLOTS * CONV_SLOT_BYTES<PANEL>, stream,
                         conv_kernel<PANEL, Loader>, p);
}

template <class Loader> cudaError_t launch_loader(cudaStream_t stream, const ConvParameters &p)
{
    switch (panel_of(p.out)) {
    case 128:
        return launch_panels<128, Loader>(stream, p);
    case 64:
        return launch_panels<64, Loader>(stream, p);
    default:
        return launch_panels<32, Loader>(stream, p);
    }
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

int conv_launch(cudaStream_t stream, const conv_job *job)
{
    if (!good(*job)) return cudaErrorInvalidValue;
    ConvParameters p = parameters_of(*job);
    if (job->x.dtype == DTYPE_F32) return launch_loader<ConvRegisters<uint32_t>>(stream, p);
    return p.vectors ? launch_loader<ConvCopies>(stream, p)
                     : launch_loader<ConvRegisters<uint16_t>>(stream, p);
}
