/* The VAE's convolution in fp32, one thread for one output number: for PRECISION_F32, where
 * products are not rounded and speed is not the question. conv.cu is the one that is fast. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/conv_f32.h"

namespace
{

enum { THREADS = 128, BLOCKS_MOST = 1 << 16 };

__device__ int64_t row_floats(const clip &v) { return (v.w + 2 * v.pad) * v.c; }

__device__ int64_t frame_floats(const clip &v) { return (v.above + v.h + v.below) * row_floats(v); }

__device__ int64_t clamp_frame(int64_t t, const clip &x)
{
    return t < 0 ? 0 : t >= x.t ? x.t - 1 : t;
}

/* kt, ky, kx, ci; rows outside of x and its neighbours' are zero. */
__device__ float sum_taps(const conv_job &job, int64_t t, int64_t row, int64_t column, int64_t out)
{
    const clip &x = job.x;
    int kernel = job.shape.kernel, half = kernel / 2;
    int64_t taps = static_cast<int64_t>(kernel) * kernel * kernel;
    const float *weights = static_cast<const float *>(job.packed) + out * x.c * taps;
    float sum = job.bias ? job.bias[out] : 0.0f;
    for (int kt = 0; kt < kernel; kt++) {
        int64_t from = clamp_frame(t * job.shape.stride_t + kt - job.front, x);
        for (int ky = 0; ky < kernel; ky++) {
            int64_t y = row * job.shape.stride_s + ky - half;
            if (y < -x.above || y >= x.h + x.below) continue;
            for (int kx = 0; kx < kernel; kx++) {
                const float *p = static_cast<const float *>(x.p) + from * frame_floats(x) +
                                 y * row_floats(x) +
                                 (column * job.shape.stride_s + kx - half + x.pad) * x.c;
                const float *w = weights + (kt * kernel + ky) * kernel + kx;
                for (int64_t i = 0; i < x.c; i++) sum += p[i] * w[i * taps];
            }
        }
    }
    return sum;
}

__global__ void __launch_bounds__(THREADS) convolve(conv_job job, int64_t numbers)
{
    const clip &y = job.y;
    int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < numbers;
         i += step) {
        int64_t out = i % y.c, at = i / y.c;
        int64_t column = job.span.column + at % job.span.columns;
        int64_t row = job.span.row + at / job.span.columns % job.span.rows;
        int64_t t = at / job.span.columns / job.span.rows;
        int64_t to = t * frame_floats(y) + row * row_floats(y) + (column + y.pad) * y.c + out;
        float sum = sum_taps(job, t, row, column, out);
        static_cast<float *>(y.p)[to] =
            job.add ? sum + static_cast<const float *>(job.add)[to] : sum;
    }
}

} // namespace

int conv_f32_launch(cudaStream_t stream, const struct conv_job *job)
{
    int64_t numbers = job->y.t * job->span.rows * job->span.columns * job->y.c;
    if (job->y.dtype != DTYPE_F32 || job->x.dtype != DTYPE_F32) return cudaErrorInvalidValue;
    if (numbers == 0) return cudaSuccess;
    int64_t blocks = (numbers + THREADS - 1) / THREADS;
    if (blocks > BLOCKS_MOST) blocks = BLOCKS_MOST;
    return launch_kernel(dim3(static_cast<unsigned>(blocks)), dim3(THREADS), 0, stream, convolve,
                         *job, numbers);
}
