/* 3x3x3 and 1x1x1 convolutions of clips on tensor cores: implicit GEMM, in two versions: mma.sync
 * (8.0 and later) and, for more than 64 outputs, wgmma (9.0).
 *
 *     conv_weights_pack(stream, packed, weight, type, shape);               once
 *     conv_launch(stream, &job);
 *
 * Products are of bf16 (fp32 clips are rounded as they are read), sums fp32. An output element is
 * one chain over kt, blocks of 32 input channels, ky, kx and, 16 at a time, these channels (with a
 * stride in the picture ky comes before the blocks), then + bias, then + add: its bits depend on
 * what it reads alone, not on the span, the rows and frames of the launch, or the types of the
 * clips. Taps outside the picture are products with zero.
 *
 * Layouts, out-channel panels of P = 128 (out > 64), 64 (out > 32) or 32:
 *   clips    struct clip of base/tensor.h, fp32 or bf16
 *   packed   bf16 [panel][kt][block of 32 inputs][ky][kx][P][32], with a stride in the picture
 *            [panel][kt][ky][block][kx][P][32]; zeros where there is no channel
 * All pointers are device memory, packed and the clips' memory multiples of 16. Clips whose
 * channels are multiples of 8 (bf16) or 4 (fp32) are read as vectors, others an element at a time.
 * Functions return a cudaError_t, cudaErrorInvalidValue for shapes that do not fit; work is queued.
 */
#ifndef RINGREEL_CUDA_CONV_H
#define RINGREEL_CUDA_CONV_H

#include "kernels/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

struct conv_shape {
    int64_t in, out;
    int kernel;             /* 3 or 1 */
    int stride_t, stride_s; /* 1 or 2 */
};

size_t conv_weights_bytes(const struct conv_shape *shape);
/* weight [out,in,k,k,k] of F32, BF16 or F16 in device memory, rounded to the nearest bf16 */
int conv_weights_pack(cudaStream_t stream, void *packed, const void *weight, enum dtype type,
                      const struct conv_shape *shape);

enum conv_kernel_kind { CONV_MMA, CONV_WGMMA };
enum conv_kernel_kind conv_choose(int capability); /* 10 * major + minor */

/* Where x, which is bf16 then, is normed as it is read: the products are of silu(x * factor *
 * (1 + scale) + shift), the bits that launch_pixel_norm_silu would have left in bf16. Rows and
 * columns beyond x are zero as ever, and so is a border column, unless it is a neighbour's. */
struct conv_factors {
    const float *factor;        /* 1 / rms of every position of x (launch_pixel_factor), or NULL */
    const float *scale, *shift; /* [in], both or neither */
    bool left, right;           /* there is a neighbour */
};

/* y = conv(x) + bias (+ add), see op_conv3d, within the span. Here x.pad may be 0 with a kernel of
 * 3: the columns beyond are zero. y may have a border and halo rows, which are not written. */
struct conv_job {
    struct clip y, x;
    struct conv_shape shape;
    const void *packed;
    const float *bias; /* [out] or NULL */
    const void *add;   /* a clip like y, may be y.p; or NULL */
    int front;
    struct conv_span span;
    struct conv_factors norm;
    enum conv_kernel_kind kind;
};
/* Whether a layer's x is to be normed as it is read: one panel of outputs, so that no more is
 * normed again than a box's halo and the taps of time, and no stride. docs/SPEED.md counts. */
int conv_norms(const struct conv_shape *shape);
int conv_launch(cudaStream_t stream, const struct conv_job *job);

#ifdef __cplusplus
}
#endif
#endif
