/* The VAE's convolutions on the device. */
#include "kernels/cuda/conv_f32.h"
#include "kernels/cuda/cuda.h"

void cuda_conv_pack(struct device *dev, struct conv *c)
{
    size_t count = (size_t)tensor_count(c->weight);
    c->packed = cuda_take(count * sizeof(float), c->weight->name);
    cuda_load_tensor(dev, c->packed, DTYPE_F32, c->weight);
    if (!c->bias) return;
    c->bias_f32 = cuda_take((size_t)c->out * sizeof(float), c->bias->name);
    cuda_load_tensor(dev, c->bias_f32, DTYPE_F32, c->bias);
}

void cuda_conv_unpack(struct device *dev, struct conv *c)
{
    (void)dev;
    CHECK_CUDA(cudaFree(c->packed));
    CHECK_CUDA(cudaFree(c->bias_f32));
    c->packed = NULL;
    c->bias_f32 = NULL;
}

void cuda_conv3d(struct device *dev, const struct clip *y, const struct clip *x,
                 const struct conv *c, int front, const struct clip *add,
                 const struct conv_span *span)
{
    struct conv_shape shape = {.kernel = c->kernel,
                               .stride_t = c->stride_t,
                               .stride_s = c->stride_s,
                               .front = c->kernel == 1 ? 0 : front};
    CHECK_CUDA(launch_conv_f32(cuda_of(dev)->stream, device_clip_of(y), device_clip_of(x),
                               c->packed, c->bias_f32, shape, add ? add->p : NULL, *span));
    device_poll(dev);
}
