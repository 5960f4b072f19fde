/* Inside the CPU backend: what its files share. */
#ifndef RINGREEL_CPU_H
#define RINGREEL_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/simd.h"

/* Grows to the largest request and stays: after the first step nothing grows any more. */
struct scratch {
    float *p;
    size_t floats;
};

struct cpu {
    const struct rows_simd *rows;
    const struct gemm_simd *gemm;      /* fp32 */
    const struct gemm_simd *gemm_bf16; /* of linear layers at PRECISION_BF16 */
    const struct winograd_simd *winograd;
    const struct attention_simd *attention;
    struct scratch shared;   /* what all threads read during one op */
    struct scratch *threads; /* [threads] a thread's own */
};

static inline struct cpu *cpu_of(struct device *dev) { return dev->backend; }

float *cpu_floats(
    size_t count); /* 64-byte aligned; free() releases it. CHECK-fails when there is no memory. */
float *cpu_scratch(struct scratch *s, size_t floats);

/* Called by every thread after each task of a long op: lets thread 0, the one that entered the op,
 * poll up to 512 times over its share of `tasks`. `done` counts the caller's own tasks. */
void cpu_task_done(const struct device *dev, int64_t *done, int64_t tasks);

/* guard.c: memory that only ops may touch. */
extern const struct arena_memory guard_memory;
void guard_start(void); /* faults are explained from here on */
void guard_enter(void);
void guard_leave(void);
bool guard_owns(const void *p, size_t bytes);

/* rows.c */
void cpu_norm_modulate(struct device *dev, struct mat y, struct mat x, enum norm kind, float eps,
                       struct mat shift, struct mat scale, const int32_t *row_index);
void cpu_rms_norm(struct device *dev, struct mat y, struct mat x, float eps, const float *weight);
void cpu_qk_norm_rope(struct device *dev, struct mat q, struct mat k, float eps,
                      const float *q_weight, const float *k_weight, const struct rope *rope);
void cpu_gate_residual(struct device *dev, struct mat x, struct mat y, struct mat gate,
                       const int32_t *row_index);
void cpu_gate_residual_norm(struct device *dev, struct mat z, struct mat x, struct mat y,
                            struct mat gate, const struct next_norm *norm,
                            const int32_t *row_index);
void cpu_modulation(struct device *dev, struct mat y, const float *table, struct mat e);
void cpu_gelu_gate(struct device *dev, struct mat y, struct mat a, struct mat b);
void cpu_silu(struct device *dev, struct mat y, struct mat x);
void cpu_lincomb(struct device *dev, float *out, float a, const float *x, float b, const float *y,
                 int64_t n);
void cpu_dot_tiles(struct device *dev, double *dots, const float *x, const float *y, int64_t n,
                   int64_t tile);
void cpu_to_bytes(struct device *dev, uint8_t *bytes, const float *y, int64_t stride, int64_t n,
                  int64_t rows);
void cpu_to_words(struct device *dev, uint16_t *words, const float *y, int64_t stride, int64_t n,
                  int64_t rows);

/* clips.c */
void cpu_pixel_norm_silu(struct device *dev, const struct clip *y, const struct clip *x,
                         const float *scale, const float *shift);
void cpu_channel_layer_norm(struct device *dev, const struct clip *y, const struct clip *x,
                            float eps, const float *weight, const float *bias);
void cpu_copy_pad(struct device *dev, const struct clip *y, const struct clip *x);
void cpu_add_noise_map(struct device *dev, const struct clip *y, const struct clip *x,
                       const float *map, const float *per_channel, const struct clip *add);
void cpu_depth_to_space(struct device *dev, const struct clip *y, const struct clip *x,
                        const struct clip *residual, int st, int ss, bool first);
void cpu_space_to_depth(struct device *dev, const struct clip *y, const struct clip *x,
                        const struct clip *residual, int st, int ss, bool first);
void cpu_patchify(struct device *dev, const struct clip *y, const float *x, int patch);
void cpu_unpatchify(struct device *dev, float *y, const struct clip *x, int patch);

/* linear.c */
void cpu_linear_pack(struct device *dev, struct linear *l);
void cpu_linear_unpack(struct device *dev, struct linear *l);
void cpu_linear(struct device *dev, struct mat y, struct mat x, const struct linear *l,
                enum epilogue e, int64_t tile);

/* conv.c */
void cpu_conv_pack(struct device *dev, struct conv *c);
void cpu_conv_unpack(struct device *dev, struct conv *c);
void cpu_conv3d(struct device *dev, const struct clip *y, const struct clip *x,
                const struct conv *c, int front, const struct clip *add,
                const struct conv_span *span);

/* attention.c */
int64_t cpu_kv_granule_floats(int64_t granule, int64_t heads, int64_t head_dim);
void cpu_kv_pack(struct device *dev, float *packed, struct mat k, struct mat v, int64_t heads,
                 int64_t granule);
void cpu_attention_begin(struct device *dev, float *state, int64_t queries, int64_t heads,
                         int64_t head_dim);
void cpu_attention_block(struct device *dev, float *state, struct mat q, const float *packed,
                         int64_t keys, int64_t granule, int64_t heads, float scale);
void cpu_attention_finish(struct device *dev, struct mat o, const float *state, int64_t heads);
void cpu_attention_part(struct device *dev, struct mat o, float *state, struct mat q,
                        const float *packed, int64_t keys, int64_t granule, int64_t heads,
                        float scale, bool first, bool last);
void cpu_attention_t5(struct device *dev, struct mat o, struct mat q, struct mat k, struct mat v,
                      int64_t heads, const float *bias);

#endif
