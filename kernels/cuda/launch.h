/* What every .cu file includes, so that the same source is compiled by nvcc for GPUs and by g++ for
 * the emulator (tests/emulation/README.md). Kernels keep to three rules:
 *
 *   launch_kernel(grid, block, shared_bytes, stream, kernel, arguments…)   in place of <<<…>>>
 *   SMEM_STATIC(float, tile, [16][17]);  SMEM_DYN(uint4, stage);           in place of __shared__
 *   inline PTX only in kernels/cuda/ptx.h and wgmma.h
 *
 *     __global__ void scale(float *x, float factor, int n)
 *     {
 *         int i = blockIdx.x * blockDim.x + threadIdx.x;
 *         if (i < n) x[i] *= factor;
 *     }
 *     error = launch_kernel(dim3((n + 255) / 256), dim3(256), 0, stream, scale, x, 2.0f, n);
 */
#ifndef RINGREEL_CUDA_LAUNCH_H
#define RINGREEL_CUDA_LAUNCH_H

#ifdef CUDA_EMULATION
#include "device.h"
#else

#include <cuda.h> /* CUtensorMap */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stddef.h>
#include <stdint.h>
#include <utility>

#define SMEM_STATIC(T, name, ...) __shared__ T name __VA_ARGS__
/* The dynamic shared memory; begins on a multiple of 1024 bytes, as 128-byte swizzles ask. */
#define SMEM_DYN(T, name)                                                                          \
    extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];                       \
    T *const name = reinterpret_cast<T *>(dynamic_shared_memory)

template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                          void (*kernel)(Parameters...), Arguments &&...arguments)
{
    constexpr size_t without_asking = 48 * 1024;
    if (shared_bytes > without_asking) {
        cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
        if (error != cudaSuccess) return error;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

#endif
#endif
