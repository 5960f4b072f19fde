/* The VAE's convolutions on the device. */
#include "kernels/cuda/conv.h"
#include "kernels/cuda/conv_f32.h"
#include "kernels/cuda/cuda.h"

#include "base/numbers.h"

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

static void launch(struct device *dev, const struct clip *y, const struct clip *x,
                   const struct conv *c, int front, const struct clip *add,
                   const struct conv_span *span, const struct conv_factors *norm)
{
    cudaStream_t stream = cuda_of(dev)->stream;
    struct conv_job job = {.y = *y,
                           .x = *x,
                           .shape = shape_of(c),
                           .packed = c->packed,
                           .bias = c->bias_f32,
                           .add = add ? add->p : NULL,
                           .front = c->kernel == 1 ? 0 : front,
                           .span = *span,
                           .norm = *norm,
                           .kind = conv_choose(cuda_of(dev)->capability)};
    bool exact = dev->precision == PRECISION_F32;
    CHECK_CUDA(exact ? conv_f32_launch(stream, &job) : conv_launch(stream, &job));
    cuda_long_op(dev);
}

void cuda_conv3d(struct device *dev, const struct clip *y, const struct clip *x,
                 const struct conv *c, int front, const struct clip *add,
                 const struct conv_span *span)
{
    launch(dev, y, x, c, front, add, span, &(struct conv_factors){0});
}

bool cuda_conv_norms(const struct device *dev, const struct conv *c)
{
    struct conv_shape shape = shape_of(c);
    return dev->precision == PRECISION_BF16 && conv_norms(&shape);
}

/* What a span of y reads of x, but for columns that are no neighbour's. */
static struct conv_span reach(const struct clip *x, const struct conv_span *span,
                              const struct conv_norm *norm)
{
    int64_t top = span->row - (span->row > 0 || x->above);
    int64_t left = span->column - (span->column > 0 || norm->left);
    return (struct conv_span){
        .row = top,
        .rows = smaller(span->row + span->rows + 1, x->h + x->below) - top,
        .column = left,
        .columns = smaller(span->column + span->columns + 1, x->w + norm->right) - left};
}

void cuda_conv3d_normed(struct device *dev, const struct clip *y, const struct clip *x,
                        const struct conv *c, int front, const struct clip *add,
                        const struct conv_span *span, const struct conv_norm *norm)
{
    struct conv_span rectangle = reach(x, span, norm);
    struct conv_factors factors = {.factor = norm->room + x->above * (x->w + 2 * x->pad),
                                   .scale = norm->scale,
                                   .shift = norm->shift,
                                   .left = norm->left,
                                   .right = norm->right};
    CHECK_CUDA(launch_pixel_factor(cuda_of(dev)->stream, norm->room, *x, &rectangle));
    launch(dev, y, x, c, front, add, span, &factors);
}
