/* What a backend provides: one function per op of ops.h. Shapes have been checked before. */
#ifndef RINGREEL_BACKEND_H
#define RINGREEL_BACKEND_H

#include "ops.h"

#include <string.h>

struct ops {
    const char *name;
    void (*close)(struct device *dev);
    const struct arena_memory *memory, *staging;
    bool memory_is_host;
    void (*finish)(struct device *dev); /* NULL: ops are done when they return */
    uint64_t (*mark)(struct device *dev);
    void (*wait)(struct device *dev, uint64_t mark); /* mark 0: nothing to wait for */

    /* NULL: nothing can be recorded */
    bool (*record_begin)(struct device *dev);
    bool (*record_cut)(struct device *dev); /* false: they cannot be recorded, no more follow */
    struct recording *(*record_end)(struct device *dev);
    bool (*replay_begin)(struct device *dev, struct recording *r);
    bool (*replay_next)(struct device *dev); /* the part up to a cut; true: it was the last */
    void (*recording_free)(struct device *dev, struct recording *r);
    const struct link_ops *links; /* messages between devices; NULL: by way of the host */

    /* Of a device with memory of its own; NULL: it is a CPU. */
    void (*memory_left)(const struct device *dev, int64_t *left, int64_t *all);
    void (*describe)(const struct device *dev, struct device_facts *facts);
    /* NULL: one expanded weight. */
    int64_t (*scratch_bytes)(const struct op_sizes *largest);

    /* Around every op, and whether an op may be given this memory; NULL: nothing to do, nothing is
     * asked. */
    void (*enter)(void);
    void (*leave)(void);
    bool (*owns)(const void *p, size_t bytes);

    void (*upload)(struct device *dev, void *to, size_t to_stride, const void *from,
                   size_t from_stride, size_t bytes, int64_t rows);
    void (*download)(struct device *dev, void *to, size_t to_stride, const void *from,
                     size_t from_stride, size_t bytes, int64_t rows);
    void (*copy)(struct device *dev, void *to, size_t to_stride, const void *from,
                 size_t from_stride, size_t bytes, int64_t rows);
    void (*zero)(struct device *dev, void *to, size_t stride, size_t bytes, int64_t rows);

    void (*linear_pack)(struct device *dev, struct linear *l);
    void (*linear_unpack)(struct device *dev, struct linear *l);
    void (*linear)(struct device *dev, struct mat y, struct mat x, const struct linear *l,
                   enum epilogue e, int64_t tile);

    void (*norm_modulate)(struct device *dev, struct mat y, struct mat x, enum norm kind, float eps,
                          struct mat shift, struct mat scale, const int32_t *row_index);
    void (*rms_norm)(struct device *dev, struct mat y, struct mat x, float eps,
                     const float *weight);
    void (*qk_norm_rope)(struct device *dev, struct mat q, struct mat k, float eps,
                         const float *q_weight, const float *k_weight, const struct rope *rope);
    void (*gate_residual)(struct device *dev, struct mat x, struct mat y, struct mat gate,
                          const int32_t *row_index);
    void (*gate_residual_norm)(struct device *dev, struct mat z, struct mat x, struct mat y,
                               struct mat gate, const struct next_norm *norm,
                               const int32_t *row_index);
    void (*modulation)(struct device *dev, struct mat y, const float *table, struct mat e);
    void (*gelu_gate)(struct device *dev, struct mat y, struct mat a, struct mat b);
    void (*silu)(struct device *dev, struct mat y, struct mat x);
    void (*lincomb)(struct device *dev, float *out, float a, const float *x, float b,
                    const float *y, int64_t n);
    void (*dot_tiles)(struct device *dev, double *dots, const float *x, const float *y, int64_t n,
                      int64_t tile);

    int64_t (*kv_granule_floats)(int64_t granule, int64_t heads, int64_t head_dim);
    void (*kv_pack)(struct device *dev, float *packed, struct mat k, struct mat v, int64_t heads,
                    int64_t granule);
    void (*attention_begin)(struct device *dev, float *state, int64_t queries, int64_t heads,
                            int64_t head_dim);
    void (*attention_block)(struct device *dev, float *state, struct mat q, const float *packed,
                            int64_t keys, int64_t granule, int64_t heads, float scale);
    void (*attention_finish)(struct device *dev, struct mat o, const float *state, int64_t heads);
    void (*attention_part)(struct device *dev, struct mat o, float *state, struct mat q,
                           const float *packed, int64_t keys, int64_t granule, int64_t heads,
                           float scale, bool first, bool last);
    void (*attention_t5)(struct device *dev, struct mat o, struct mat q, struct mat k, struct mat v,
                         int64_t heads, const float *bias);

    void (*conv_pack)(struct device *dev, struct conv *c);
    void (*conv_unpack)(struct device *dev, struct conv *c);
    /* What conv_pack takes; NULL: panels of fp32. */
    size_t (*conv_packed_bytes)(const struct device *dev, const struct conv *c);
    void (*conv3d)(struct device *dev, const struct clip *y, const struct clip *x,
                   const struct conv *c, int front, const struct clip *add,
                   const struct conv_span *span);
    /* NULL: of no layer */
    bool (*conv_norms)(const struct device *dev, const struct conv *c);
    void (*conv3d_normed)(struct device *dev, const struct clip *y, const struct clip *x,
                          const struct conv *c, int front, const struct clip *add,
                          const struct conv_span *span, const struct conv_norm *norm);
    void (*pixel_norm_silu)(struct device *dev, const struct clip *y, const struct clip *x,
                            const float *scale, const float *shift);
    void (*channel_layer_norm)(struct device *dev, const struct clip *y, const struct clip *x,
                               float eps, const float *weight, const float *bias);
    void (*copy_pad)(struct device *dev, const struct clip *y, const struct clip *x);
    void (*add_noise_map)(struct device *dev, const struct clip *y, const struct clip *x,
                          const float *map, const float *per_channel, const struct clip *add);
    void (*depth_to_space)(struct device *dev, const struct clip *y, const struct clip *x,
                           const struct clip *residual, int st, int ss, bool first);
    void (*space_to_depth)(struct device *dev, const struct clip *y, const struct clip *x,
                           const struct clip *residual, int st, int ss, bool first);
    void (*patchify)(struct device *dev, const struct clip *y, const float *x, int patch);
    void (*unpatchify)(struct device *dev, float *y, const struct clip *x, int patch);
    void (*to_bytes)(struct device *dev, uint8_t *bytes, const float *y, int64_t stride, int64_t n,
                     int64_t rows);
    void (*to_words)(struct device *dev, uint16_t *words, const float *y, int64_t stride, int64_t n,
                     int64_t rows);
};

struct device {
    const struct ops *ops;
    int threads;
    char isa[16]; /* what the kernels were compiled for: device_isa_name, or "sm_90" */
    enum precision precision;
    enum dtype activations; /* device_activations */
    void (*poll)(void *argument);
    void *poll_argument;
    double timeout_s;  /* of a wait for the device in which it finishes nothing */
    const char *asked; /* the op that was asked for last; NULL: none yet */
    bool recording;    /* nothing else may be asked of it meanwhile, so nobody is polled */
    bool muted;        /* ops are passed over: they are replayed, or cannot be recorded */
    uint64_t told;     /* which ops have been since the last cut of a recording or a replay */
    bool held_up;      /* by another rank: whoever said so has a deadline for it (ops.h) */
    void *backend;     /* the backend's own */
    const struct reading *reading; /* who reads tensors of the checkpoint (ops.h) */
};

/* What a backend in a library of its own (libringreel_NAME.so) exports under the name
 * ringreel_NAME. Both numbers must be those of the program: tables of another version are not
 * called. */
enum { BACKEND_VERSION = 6 };
struct backend_library {
    int version;
    size_t ops_bytes; /* sizeof(struct ops) */
    /* How many devices this process may use; for 0 the reason in `why`. Never fails. */
    int (*count_devices)(char *why, size_t room);
    /* index below count_devices; CHECK-fails, naming the device */
    struct device *(*open)(int index, int threads, enum precision precision);
    /* One that has the sizes of this backend and computes nothing: works without a device. */
    struct device *(*open_plan)(int threads, enum precision precision);
};

/* Outputs of a linear or a convolution, keys and channels of a head are laid out in panels of 16;
 * both sides of a transfer must agree on it. */
enum { PANEL = 16 };
static inline int64_t whole_panels(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

/* Between memories that the host reaches. */
static inline void copy_host_rows(void *to, size_t to_stride, const void *from, size_t from_stride,
                                  size_t bytes, int64_t rows)
{
    if (to_stride == bytes && from_stride == bytes) {
        memcpy(to, from, bytes * (size_t)rows);
        return;
    }
    for (size_t i = 0; i < (size_t)rows; i++)
        memcpy((char *)to + i * to_stride, (const char *)from + i * from_stride, bytes);
}

static inline void device_poll(const struct device *dev)
{
    if (dev->poll && !dev->recording) dev->poll(dev->poll_argument);
}

/* Before a tensor of the checkpoint is brought to the device: is it this rank that reads it? */
static inline bool device_reads(const struct device *dev, const struct tensor *t)
{
    return !dev->reading || dev->reading->reads(dev->reading->argument, t);
}

/* And behind it. `bytes` is rounded up: what has no whole number of floats has room behind it. */
static inline void device_pass_on(const struct device *dev, void *memory, size_t bytes)
{
    if (dev->reading)
        dev->reading->pass_on(dev->reading->argument, memory,
                              (int64_t)((bytes + sizeof(float) - 1) / sizeof(float)));
}

#endif
