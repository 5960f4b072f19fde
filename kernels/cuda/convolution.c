/* The VAE's convolutions on the device. */
#include "kernels/cuda/conv.h"
#include "kernels/cuda/conv_f32.h"
#include "kernels/cuda/cuda.h"

static struct conv_shape shape_of(const struct conv *c)
{
    return (struct conv_shape){.in = c->in,
                               .out = c->out,
                               .kernel = c->kernel,
                               .stride_t = c->stride_t,
                               .stride_s = c->stride_s};
}

/* In bf16 for the tensor cores, or as it is. */
static size_t weight_bytes(const struct device *dev, const struct conv *c)
{
    struct conv_shape shape = shape_of(c);
    return dev->precision == PRECISION_F32 ? (size_t)tensor_count(c->weight) * sizeof(float)
                                           : conv_weights_bytes(&shape);
}

size_t cuda_conv_packed_bytes(const struct device *dev, const struct conv *c)
{
    return weight_bytes(dev, c) + (c->bias ? (size_t)c->out * sizeof(float) : 0);
}

static void pack_weight(struct device *dev, struct conv *c)
{
    struct cuda *cuda = cuda_of(dev);
    struct conv_shape shape = shape_of(c);
    size_t bytes = (size_t)tensor_count(c->weight) * sizeof(float);
    c->packed = cuda_take(weight_bytes(dev, c), c->weight->name);
    if (dev->precision == PRECISION_F32) {
        cuda_load_tensor(dev, c->packed, DTYPE_F32, c->weight);
        return;
    }
    void *plain = cuda_scratch(&cuda->weights, bytes, c->weight->name);
    cuda_load_tensor(dev, plain, DTYPE_F32, c->weight);
    CHECK_CUDA(conv_weights_pack(cuda->stream, c->packed, plain, DTYPE_F32, &shape));
}

void cuda_conv_pack(struct device *dev, struct conv *c)
{
    pack_weight(dev, c);
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
    cudaStream_t stream = cuda_of(dev)->stream;
    struct conv_job job = {.y = *y,
                           .x = *x,
                           .shape = shape_of(c),
                           .packed = c->packed,
                           .bias = c->bias_f32,
                           .add = add ? add->p : NULL,
                           .front = c->kernel == 1 ? 0 : front,
                           .span = *span};
    bool exact = dev->precision == PRECISION_F32;
    CHECK_CUDA(exact ? conv_f32_launch(stream, &job) : conv_launch(stream, &job));
    cuda_long_op(dev);
}
