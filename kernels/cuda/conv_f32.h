/* Convolution in fp32 (conv_f32.cu). */
#ifndef RINGREEL_CUDA_CONV_F32_H
#define RINGREEL_CUDA_CONV_F32_H

#include "kernels/cuda/conv.h"

#ifdef __cplusplus
extern "C" {
#endif

/* conv_launch (conv.h) where nothing is rounded: clips are F32, job->packed is the weight in fp32
 * as in a checkpoint, [out,in,k,k,k]. Each number is one thread's sum: bias, kt, ky, kx, ci. */
int conv_f32_launch(cudaStream_t stream, const struct conv_job *job);

#ifdef __cplusplus
}
#endif
#endif
