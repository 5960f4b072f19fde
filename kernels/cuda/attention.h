/* Flash attention on GPUs: the running state of ops.h, keys and values as they travel, T5.
 *
 *     attention_kv_pack(stream, packed, k, v, heads, granule);            on the rank that owns them
 *     attention_begin(stream, state, S, heads, d);
 *     attention_block(stream, kernel, state, q, packed, keys, granule, heads, scale);   any number
 *     attention_finish(stream, o, state, heads);
 *
 * The output is kept unnormalised beside each row's maximum and sum, and every call goes on from
 * there, so that blocks of keys are never merged afterwards (Dao et al. 2022; the loop over keys
 * inside the one over queries: Dao 2023; the kernel of 9.0: Shah et al. 2024). Products are of bf16
 * with fp32 sums; softmax is fp32.
 *
 * Keys are taken granule by granule in order, and within a granule in tiles whose width depends on
 * the granule alone; a row's sum is closed at the end of each tile. So the bits of a query row do
 * not depend on the other rows, on where it stands, or on how granules are spread over calls. They
 * do depend on the kernel: the ranks of a job must agree on one.
 *
 * Layouts, head width d of 32, 64 or 128:
 *   packed  bf16 [granule][head][keys, values][G][d]: one (granule, head) is K [G,d], then V [G,d].
 *           The same for all kernels. Rows beyond the last key are zeros, so whole granules travel.
 *   state   fp32: output [head][query][d], then maximum of base-2 scaled scores [head][query], then
 *           sum [head][query].
 *   rows    of q, k, v, o: [S, heads * d], fp32 or bf16
 * All pointers are of device memory, multiples of 16. Functions return a cudaError_t; work is
 * queued on `stream`. */
#ifndef RINGREEL_CUDA_ATTENTION_H
#define RINGREEL_CUDA_ATTENTION_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* [rows, cols] without gaps between rows */
struct attention_rows {
    void *p;
    int64_t rows, cols;
    int bf16; /* 1: bf16, 0: fp32 */
};

enum attention_kernel {
    ATTENTION_MMA,  /* mma.sync and cp.async: 8.0 and later */
    ATTENTION_WGMMA /* wgmma and TMA: 9.0, head widths 64 and 128 */
};
/* For a compute capability as 10 * major + minor: 80, 90, 100 … */
enum attention_kernel attention_choose(int capability, int64_t head_dim);

/* Room in floats; the second never more than op_attention_state_floats. The first is linear in
 * granule. */
int64_t attention_kv_granule_floats(int64_t granule, int64_t heads, int64_t head_dim);
int64_t attention_state_floats(int64_t queries, int64_t heads, int64_t head_dim);

/* k, v [S, heads * d] become ceil(S / granule) granules; granule is a multiple of 16. */
int attention_kv_pack(cudaStream_t stream, float *packed, struct attention_rows k,
                      struct attention_rows v, int64_t heads, int64_t granule);

int attention_begin(cudaStream_t stream, float *state, int64_t queries, int64_t heads,
                    int64_t head_dim);
/* Continues `state` with the first `keys` > 0 keys of packed granules; scale > 0. */
int attention_block(cudaStream_t stream, enum attention_kernel kernel, float *state,
                    struct attention_rows q, const float *packed, int64_t keys, int64_t granule,
                    int64_t heads, float scale);
/* The bits of these three, begin and finish where `first` and `last` say so, in one launch: neither
 * a state that is begun here is read, nor one that is finished here written. o may be q. */
int attention_part(cudaStream_t stream, enum attention_kernel kernel, struct attention_rows o,
                   float *state, struct attention_rows q, const float *packed, int64_t keys,
                   int64_t granule, int64_t heads, float scale, int first, int last);
/* o = output / sum */
int attention_finish(cudaStream_t stream, struct attention_rows o, const float *state,
                     int64_t heads);

/* o = softmax(q k^T + bias[bucket(j - i)]) v, no scale, all in fp32: T5's scores are not scaled
 * down and would lose more in bf16 than those above, and it runs once a prompt. At most
 * ATTENTION_T5_LENGTH rows; head width a multiple of 4, at most 128; bias fp32 [32][heads]. */
enum { ATTENTION_T5_LENGTH = 512 };
int attention_t5(cudaStream_t stream, struct attention_rows o, struct attention_rows q,
                 struct attention_rows k, struct attention_rows v, int64_t heads,
                 const float *bias);

#ifdef __cplusplus
}
#endif
#endif
