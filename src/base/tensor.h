/* Tensors only look: they never own memory (arenas and mapped files do). Row-major, contiguous. */
#ifndef RINGREEL_TENSOR_H
#define RINGREEL_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_F8_E4M3,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_U8,
    DTYPE_BOOL,
    DTYPE_COUNT
};

enum { TENSOR_MAX_RANK = 8 };

/* A named n-d array, usually a tensor inside a mapped safetensors file (data may be unaligned: read
 * it through dtype_to_f32). */
struct tensor {
    const char *name; /* owned by the file it came from */
    enum dtype dtype;
    int rank;
    int64_t shape[TENSOR_MAX_RANK];
    const void *data;
    size_t bytes;
};

int64_t tensor_count(const struct tensor *t); /* product of shape; 1 for a scalar */

/* Formats "[2048,128]" into `out` and returns it. */
char *tensor_shape_text(const struct tensor *t, char out[96]);

/* A matrix of activations in the memory of the device that computes: rows x cols, contiguous.
 * On the CPU backend dtype is F32 and p is an ordinary pointer; others may also compute in what
 * device_activations says. */
struct mat {
    void *p;
    int64_t rows, cols;
    enum dtype dtype;
};

static inline struct mat mat_f32(float *p, int64_t rows, int64_t cols)
{
    return (struct mat){p, rows, cols, DTYPE_F32};
}
static inline struct mat mat_of(void *p, int64_t rows, int64_t cols, enum dtype dtype)
{
    return (struct mat){p, rows, cols, dtype};
}
struct mat mat_rows(struct mat m, int64_t first,
                    int64_t count); /* a view of rows [first, first+count) */

/* A clip of activations, channels last: [t][above + h + below][w + 2*pad][c] in the memory of the
 * device that computes, F32 or BF16 there (device_activations in kernels/ops.h), F32 on the CPU; p
 * is column -pad of row 0. `pad` is 0 or 1: one column on each side, zeros or a neighbouring
 * rank's, so that a 3x3x3 convolution never tests for the picture's left and right border. `above`
 * and `below`, 0 or 1: a row of a neighbouring rank; where there is none, the picture ends. */
struct clip {
    void *p;
    enum dtype dtype;
    int64_t t, h, w, c;
    int pad, above, below;
};
static inline int64_t clip_row(const struct clip *v)
{
    return (v->w + 2 * v->pad) * v->c;
} /* values a row */
static inline int64_t clip_frame(const struct clip *v)
{
    return (v->above + v->h + v->below) * clip_row(v);
} /* values a frame */
static inline int64_t clip_count(const struct clip *v) { return v->t * clip_frame(v); }
size_t clip_bytes(const struct clip *v);
/* Channel 0 of a position, of frames, rows and columns beside the picture, too. */
void *clip_at(const struct clip *v, int64_t t, int64_t row, int64_t column);
/* A view of frames [first, first + count), which may lie outside of v. */
struct clip clip_frames(const struct clip *v, int64_t first, int64_t count);

size_t dtype_size(enum dtype d); /* bytes per element */
const char *dtype_name(
    enum dtype d); /* safetensors spelling: "F32", "BF16", "F16", "F8_E4M3", ... */
bool dtype_from_name(const char *name, enum dtype *out);
bool dtype_is_float(enum dtype d);

/* Converts n elements from a possibly unaligned source to fp32. Exact for BF16, F16 and F8_E4M3
 * (e4m3fn). */
void dtype_to_f32(float *to, const void *from, enum dtype d, size_t n);
/* Rounds to nearest even. */
uint16_t bf16_from_f32(float x);
float f32_from_bf16(uint16_t x);

#endif
