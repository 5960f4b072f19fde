/* The CUDA kernels that are bound by memory, not arithmetic: norms, gates, elementwise functions,
 * conversions, and what the VAE does to a position or moves about. One launch function per kernel;
 * the CUDA backend calls them, and so do the tests, on the emulator as on a GPU.
 *
 * All pointers are device memory, aligned to their element; where pointers and widths are multiples
 * of 16 bytes accesses are vectors, and the results are the same bits either way. Each row's (and
 * each clip position's) result depends on that row alone, not on how many there are, how a launch
 * is split, or the grid: one warp or block per row, summed in fp32 in a tree that its width fixes.
 *
 * They do what the ops of the same name do (kernels/ops.h), and like those expect shapes that fit.
 * Activations are DTYPE_F32 or DTYPE_BF16, each operand its own where nothing else is said; tables,
 * weights of norms, scale, shift and gate are fp32. Arithmetic is fp32, rounded once when stored.
 *
 * The result is the launch's cudaError_t; cudaErrorInvalidValue also for a type or width that there
 * is no kernel for. Nothing is launched for no rows. */
#ifndef RINGREEL_CUDA_KERNELS_H
#define RINGREEL_CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/ops.h"

enum { ROW_COLUMNS_MOST = 8192 }; /* the widest row, or channels of a position, that is normed */

/* Blocks a launch has at most: each does more where they would not be enough. Tests make it small.
 */
extern int64_t launch_blocks_most;

/* ---- rows (rows.cu) -------------------------------------------------------------------------- */

/* y = norm(x) * (1 + scale[i]) + shift[i], i = row_index[row] or 0; scale, shift [T,D] or NULL; y
 * may be x. Before every product of a block, and at its end. */
int launch_norm_modulate(cudaStream_t stream, struct mat y, struct mat x, enum norm kind, float eps,
                         const float *shift, const float *scale, const int32_t *row_index);

/* y = x / sqrt(mean(x^2) + eps) * weight [D]; y may be x. T5, caption. */
int launch_rms_norm(cudaStream_t stream, struct mat y, struct mat x, float eps,
                    const float *weight);

/* Rows of queries or keys, `stride` values apart: they may be columns of a wider product. */
struct qk_rows {
    void *p; /* [rows][stride], the first D of each */
    int64_t stride;
    const float *weight; /* [D] */
};
/* In place on one or two of them (queries and keys in one launch: k.p may be NULL), which have
 * equal D and type: RMS norm over all D channels, then rotation; rope NULL: norm alone. Tables
 * (multiples of 8 bytes) and coordinates of rope are device memory, its n and pad as in struct
 * rope. */
int launch_qk_norm_rope(cudaStream_t stream, struct qk_rows q, struct qk_rows k, enum dtype type,
                        int64_t rows, int64_t cols, float eps, const struct rope *rope);

/* x (fp32) += gate[i] * y; gate [T,D] or NULL. After attention and feed-forward. */
int launch_gate_residual(cudaStream_t stream, struct mat x, struct mat y, const float *gate,
                         const int32_t *row_index);
/* The same, and z = norm(x) * (1 + scale[i]) + shift[i] of the new x, or z = x: the bits of
 * launch_gate_residual followed by launch_norm_modulate, with one pass less over x. */
int launch_gate_residual_norm(cudaStream_t stream, struct mat z, struct mat x, struct mat y,
                              const float *gate, const struct next_norm *norm,
                              const int32_t *row_index);

/* ---- flat arrays (flat.cu) ------------------------------------------------------------------- */

/* y = gelu_tanh(a) * b; a and b have one type; y may be a. T5's feed-forward. */
int launch_gelu_gate(cudaStream_t stream, struct mat y, struct mat a, struct mat b);
/* y = x * sigmoid(x); y may be x. The time embedding. */
int launch_silu(cudaStream_t stream, struct mat y, struct mat x);

/* y [K,T,D]: y[k][t] = table[k] + e[t][k], or + e[t] where e has D columns; fp32. Once a block. */
int launch_modulation(cudaStream_t stream, struct mat y, const float *table, struct mat e);

/* out = a x + b y, fp32; out may be x or y; y NULL: a x. Guidance and the scheduler's step. */
int launch_lincomb(cudaStream_t stream, float *out, float a, const float *x, float b,
                   const float *y, int64_t n);

/* dots[i] = sum of x*y (y NULL: of x) over tile i of `tile` values, the last may be short: in
 * double, by one block each. Not the CPU's order of summation. */
int launch_dot_tiles(cudaStream_t stream, double *dots, const float *x, const float *y, int64_t n,
                     int64_t tile);

/* to [n] F32 or BF16 from F32, BF16, F16 or F8_E4M3: activations between types, weights of a
 * checkpoint. Exact where `to` has the value, else to the nearest, ties to even; NaN stays one.
 * `to` may be `from` if they have one size. */
int launch_convert(cudaStream_t stream, void *to, enum dtype to_type, const void *from,
                   enum dtype from_type, int64_t n);

/* `rows` rows of n values `stride` apart become integers without gaps: bytes = trunc(255 *
 * clamp(0.5 y + 0.5, 0, 1)); words = 65535 * clamp(…) to the nearest. NaN becomes 0. */
int launch_to_bytes(cudaStream_t stream, uint8_t *bytes, const float *y, int64_t stride, int64_t n,
                    int64_t rows);
int launch_to_words(cudaStream_t stream, uint16_t *words, const float *y, int64_t stride, int64_t n,
                    int64_t rows);

/* Standard normals number first … first + n - 1 of the endless sequence that `seed` names: Philox
 * 4x32-10 (Salmon et al. 2011) of the number divided by 4, then Box-Muller of words 0, 1 and 2, 3.
 * A number depends on seed and position alone, so that every rank draws its part. Not PyTorch's
 * numbers: those are drawn on the host (src/base/rng.h). */
int launch_normal(cudaStream_t stream, void *to, enum dtype type, uint64_t seed, int64_t first,
                  int64_t n);

/* ---- clips (clips.cu) ------------------------------------------------------------------------ */

/* y = silu(x / sqrt(mean_c(x^2) + 1e-8) * (1 + scale) + shift); scale, shift [c], both or neither.
 * y may be x, of the same pad. Here and below, border columns of y are written as zeros. */
int launch_pixel_norm_silu(cudaStream_t stream, struct clip y, struct clip x, const float *scale,
                           const float *shift);
/* factor[position] = 1 / sqrt(mean_c(x^2) + 1e-8), by the operations of the one above, of all frames
 * of x within the rectangle, which may reach into border columns (-1 is the left one) and halo rows.
 * Laid out as x is with a channel less: the first float is that of the first position of x's
 * memory. */
int launch_pixel_factor(cudaStream_t stream, float *factor, struct clip x,
                        const struct conv_span *rectangle);
/* y = (x - mean_c) / sqrt(variance_c + eps) * weight + bias; y may be x, of the same pad. */
int launch_channel_layer_norm(cudaStream_t stream, struct clip y, struct clip x, float eps,
                              const float *weight, const float *bias);
/* y = x, and of y's type */
int launch_copy_pad(cudaStream_t stream, struct clip y, struct clip x);
/* y[t][h][w][c] = x[t][h][w][c] + map[h][w] * per_channel[c] (+ add, of y's type, unless NULL); y
 * may be x or add, of the same pad; its border columns are left as they are. */
int launch_add_noise_map(cudaStream_t stream, struct clip y, struct clip x, const float *map,
                         const float *per_channel, const struct clip *add);

/* y and the residual (or NULL) have one type in these two. */
int launch_depth_to_space(cudaStream_t stream, struct clip y, struct clip x,
                          const struct clip *residual, int st, int ss, bool first);
int launch_space_to_depth(cudaStream_t stream, struct clip y, struct clip x,
                          const struct clip *residual, int st, int ss, bool first);

/* Pixels are fp32 [t][patch h][patch w][3]. */
int launch_patchify(cudaStream_t stream, struct clip y, const float *x, int patch);
int launch_unpatchify(cudaStream_t stream, float *y, struct clip x, int patch);

#ifdef __cplusplus
}
#endif
#endif
