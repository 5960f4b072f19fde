/* What ops will take, and the backend's sizes without a device, for plans made on machines that
 * have none: its memory is the host's, so that models can be opened; there are no ops. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One of each scratch memory of struct cuda, and its relays. */
int64_t cuda_scratch_bytes(const struct op_sizes *largest)
{
    return largest->input + RAW_RELAYS * largest->stored + largest->expanded +
           FRAME_RELAYS * largest->picture;
}

static void close_plan(struct device *dev) { free(dev); }

static void upload(struct device *dev, void *to, size_t to_stride, const void *from,
                   size_t from_stride, size_t bytes, int64_t rows)
{
    (void)dev;
    copy_host_rows(to, to_stride, from, from_stride, bytes, rows);
}

static void memory_left(const struct device *dev, int64_t *left, int64_t *all)
{
    (void)dev;
    *left = *all = INT64_MAX;
}

static const struct ops plan_ops = {
    .name = "cuda",
    .close = close_plan,
    .memory = &arena_host,
    .staging = &arena_host,
    .memory_is_host = false,
    .memory_left = memory_left,
    .scratch_bytes = cuda_scratch_bytes,
    .upload = upload,
    .conv_packed_bytes = cuda_conv_packed_bytes,
    .conv_norms = cuda_conv_norms,
    .kv_granule_floats = attention_kv_granule_floats,
};

struct device *cuda_open_plan(int threads, enum precision precision)
{
    struct device *dev = xcalloc(1, sizeof *dev);
    *dev = (struct device){.ops = &plan_ops,
                           .threads = threads,
                           .precision = precision,
                           .activations = cuda_activations(precision)};
    snprintf(dev->isa, sizeof dev->isa, "not here");
    return dev;
}
