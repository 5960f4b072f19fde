/* Inside the CUDA backend (libringreel_cuda.so): what its files share. Host code in C; kernels are in
 * the .cu files, declared in kernels.h, attention.h and conv.h.
 *
 * One device, one stream: ops are queued in the order they were asked for, on the stream that every
 * copy uses too. At PRECISION_BF16 activations may be bf16 in memory, and those that are fp32 are rounded
 * on their way into a product; sums are fp32. At PRECISION_F32 nothing is rounded but in attention. */
#ifndef RINGREEL_CUDA_H
#define RINGREEL_CUDA_H

#include "kernels/backend.h"
#include "kernels/cuda/kernels.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

enum { CUBLASLT_WORKSPACE_BYTES = 32 << 20 };

/* Grows to the largest request and stays: after the first step nothing grows any more. */
struct cuda_scratch {
    void *p;
    size_t bytes;
};

/* A matrix product of one shape of weights: the algorithm is chosen once, for any number of rows. */
struct product {
    int64_t in, out, tile;
    enum dtype type; /* of the output, and of the bias */
    cublasLtEpilogue_t epilogue;
    cublasLtMatmulAlgo_t algo;
};

/* Events behind every so many of the long ops, a ring of them: what the device has done so far. */
enum { MILESTONES = 256, OPS_PER_MILESTONE = 8 };
struct cuda_watch {
    cudaEvent_t milestone[MILESTONES];
    uint64_t ops, recorded, passed; /* long ops asked for; milestones */
};

struct cuda {
    int index, capability; /* 10 * major + minor */
    struct device_facts facts;
    struct cuda_watch watch;
    cudaStream_t stream;
    cublasLtHandle_t blas;
    void *workspace;
    struct cuda_scratch rounded; /* a product's input in bf16 */
    struct cuda_scratch weights; /* of a layer that is not resident */
    struct cuda_scratch raw;     /* a tensor as it stands in the file */
    struct cuda_scratch results; /* what goes on to the host */
    struct product *products;
    int product_count;
};

static inline struct cuda *cuda_of(struct device *dev) { return dev->backend; }

static inline enum dtype cuda_activations(enum precision precision)
{
    return precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

extern struct device *cuda_opened; /* the one of this process */

/* A call of the CUDA runtime, or a kernel's launch: failure ends the job, naming the device. */
void cuda_check(const char *file, int line, const char *call, int error);
#define CHECK_CUDA(call) cuda_check(__FILE__, __LINE__, #call, (int)(call))

void *cuda_take(size_t bytes, const char *what); /* CHECK-fails when there is none */
void *cuda_scratch(struct cuda_scratch *s, size_t bytes, const char *what);
/* Uploads a tensor of the checkpoint and widens or rounds it there: to [tensor_count], F32 or BF16. */
void cuda_load_tensor(struct device *dev, void *to, enum dtype type, const struct tensor *t);

/* watch.c: at the end of a long op; polls */
void cuda_long_op(struct device *dev);
/* All that was asked of the device's stream is done. */
void cuda_finish(struct device *dev);
/* In a loop that looks whether the device has got to somewhere: polls and pauses, and past the
 * deadline CHECK-fails. Zero-initialise. */
struct cuda_patience {
    double looked_s, quiet_s; /* for so long the device has passed no milestone */
    uint64_t passed;
};
void cuda_keep_waiting(struct device *dev, struct cuda_patience *p);
void cuda_watch_open(struct cuda_watch *w);
void cuda_watch_close(struct cuda_watch *w);

/* plan.c */
int64_t cuda_scratch_bytes(const struct op_sizes *largest);
struct device *cuda_open_plan(int threads, enum precision precision);

/* nccl.c */
extern const struct link_ops cuda_links;

/* linear.c */
void cuda_linear_pack(struct device *dev, struct linear *l);
void cuda_linear_unpack(struct device *dev, struct linear *l);
void cuda_linear(struct device *dev, struct mat y, struct mat x, const struct linear *l,
                 enum epilogue e, int64_t tile);

/* convolution.c */
void cuda_conv_pack(struct device *dev, struct conv *c);
void cuda_conv_unpack(struct device *dev, struct conv *c);
size_t cuda_conv_packed_bytes(const struct device *dev, const struct conv *c);
void cuda_conv3d(struct device *dev, const struct clip *y, const struct clip *x,
                 const struct conv *c, int front, const struct clip *add,
                 const struct conv_span *span);

#endif
