/* Inside the CUDA backend (libringreel_cuda.so): what its files share. Host code in C; kernels are
 * in the .cu files, declared in kernels.h, attention.h and conv.h.
 *
 * Ops are queued in the order they were asked for on one stream; copies.c: what moves beside it. At
 * PRECISION_BF16 activations may be bf16 in memory, and those that are fp32 are rounded on their
 * way into a product; sums are fp32. At PRECISION_F32 nothing is rounded but in attention. */
#ifndef RINGREEL_CUDA_H
#define RINGREEL_CUDA_H

#include "kernels/backend.h"
#include "kernels/cuda/kernels.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

enum {
    CUBLASLT_WORKSPACE_BYTES = 32 << 20,
    STAGING_SLOTS = 4,
    STAGING_BYTES = 4 << 20, /* of a slot */
    RAW_RELAYS = 2,
    FRAME_RELAYS = 4,
    MARKS = 4,
};

/* Grows to the largest request and stays: after the first step nothing grows any more. */
struct cuda_scratch {
    void *p;
    size_t bytes;
};

/* Pinned memory by way of which the host's goes to the device on one stream. */
struct staging {
    cudaStream_t stream;
    char *memory; /* [STAGING_SLOTS][STAGING_BYTES] */
    cudaEvent_t done[STAGING_SLOTS];
    int slot; /* that is being filled */
    size_t filled;
};

/* Memory that one stream fills and another empties. */
struct relay {
    struct cuda_scratch memory;
    cudaEvent_t filled, emptied;
};
struct relays {
    struct relay relay[FRAME_RELAYS]; /* the first `count` by turns */
    unsigned count, turn;
};

/* How far both streams had come when it was made. */
struct mark {
    cudaEvent_t computed, copied;
};

/* A matrix product of one shape of weights: the algorithm is chosen once, for any number of rows.
 */
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
    cudaStream_t stream; /* ops, and what of copies goes in their order */
    cudaStream_t copies; /* weights on their way in, frames on their way out */
    cublasLtHandle_t blas;
    void *workspace;
    struct cuda_scratch rounded; /* a product's input in bf16 */
    struct cuda_scratch weights; /* of a layer that is not resident */
    struct cuda_scratch results; /* sums, on their way to the host */
    struct relays raw;           /* tensors as they stand in the file */
    struct relays frames;        /* as integers */
    struct staging uploads, loads;
    struct mark marks[MARKS];
    uint64_t last_mark;
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
/* NULL where it would have to grow while ops are recorded: they will not be; leave them out. */
void *cuda_scratch(struct cuda_scratch *s, size_t bytes, const char *what);

/* copies.c */
void cuda_copies_open(struct cuda *cuda); /* behind cuda->stream */
void cuda_copies_close(struct cuda *cuda);
uint64_t cuda_mark(struct device *dev);
void cuda_wait(struct device *dev, uint64_t mark);
void cuda_upload(struct device *dev, void *to, size_t to_stride, const void *from,
                 size_t from_stride, size_t bytes, int64_t rows);
/* Uploads a tensor of the checkpoint and widens or rounds it there: to [tensor_count], F32 or BF16;
 * of an odd number of BF16 there is room for one more. Another rank may be the one that reads it
 * (device_set_reading). */
void cuda_load_tensor(struct device *dev, void *to, enum dtype type, const struct tensor *t);
/* Memory for ops to write to, of which `bytes` then go on to the host beside later ops. NULL: as
 * cuda_scratch. */
struct relay *cuda_frame_take(struct device *dev, size_t bytes, const char *what);
void cuda_frame_send(struct device *dev, struct relay *frame, void *to, size_t bytes);

/* recording.c */
bool cuda_record_begin(struct device *dev);
bool cuda_record_cut(struct device *dev);
struct recording *cuda_record_end(struct device *dev);
bool cuda_replay_begin(struct device *dev, struct recording *r);
bool cuda_replay_next(struct device *dev);
void cuda_recording_free(struct device *dev, struct recording *r);
/* Ops are being recorded and `what` cannot be: the caller leaves it out. */
bool cuda_cannot_record(const char *what);
bool cuda_breaks_recording(int error); /* an error of CUDA that says the same */
void cuda_memory_moved(void);          /* recordings that were made before are of no use */

/* watch.c: at the end of a long op; polls */
void cuda_long_op(struct device *dev);
/* All that was asked of the device's streams is done. */
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
bool cuda_conv_norms(const struct device *dev, const struct conv *c);
void cuda_conv3d_normed(struct device *dev, const struct clip *y, const struct clip *x,
                        const struct conv *c, int front, const struct clip *add,
                        const struct conv_span *span, const struct conv_norm *norm);

#endif
