/* SiLU where its result is rounded to bf16: in a pass of its own (clips.cu) or on x's way into a
 * convolution (conv_load.h), the same bits in both. */
#ifndef RINGREEL_CUDA_SILU_H
#define RINGREEL_CUDA_SILU_H

#include "kernels/cuda/ptx.h"

/* Wrong by some millionths of itself; two instructions of the special-function unit. NaN stays. */
static __device__ __forceinline__ float silu_quick(float x)
{
    return __fdividef(x, 1.0f + exp2_approx(-1.44269504f * fmaxf(x, -87.0f)));
}

#endif
