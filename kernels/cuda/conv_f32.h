/* Convolution in fp32 (conv_f32.cu). */
#ifndef RINGREEL_CUDA_CONV_F32_H
#define RINGREEL_CUDA_CONV_F32_H

#include "kernels/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As in struct conv and op_conv3d. */
struct conv_shape {
    int kernel, stride_t, stride_s, front;
};

/* op_conv3d (kernels/ops.h) on device memory, all fp32: weight [out,in,k,k,k] as in a checkpoint, bias
 * [out] or NULL, add as y or NULL. Each number is one thread's sum: bias, kt, ky, kx, ci. */
int launch_conv_f32(cudaStream_t stream, struct device_clip y, struct device_clip x,
                    const float *weight, const float *bias, struct conv_shape shape,
                    const float *add, struct conv_span span);

#ifdef __cplusplus
}
#endif
#endif
