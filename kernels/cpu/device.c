/* Opens the CPU backend: chooses the instruction set once and owns the threads' scratch. */
#include "kernels/cpu/cpu.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVERY_ISA(name)                                                                            \
    {                                                                                              \
        &name##_generic, &name##_avx2, &name##_avx512, &name##_avx512_bf16                         \
    }
static const struct rows_simd *const rows_tables[] = EVERY_ISA(rows);
static const struct gemm_simd *const gemm_tables[] = EVERY_ISA(gemm);
static const struct gemm_simd *const gemm_bf16_tables[] = EVERY_ISA(gemm_bf16);
static const struct winograd_simd *const winograd_tables[] = EVERY_ISA(winograd);
static const struct attention_simd *const attention_tables[] = EVERY_ISA(attention);

float *cpu_floats(size_t count)
{
    size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
    float *p = aligned_alloc(64, bytes ? bytes : 64);
    CHECK(p, "no memory for %zu bytes of weights or scratch", bytes);
    return p;
}

float *cpu_scratch(struct scratch *s, size_t floats)
{
    if (s->floats < floats) {
        free(s->p);
        s->p = cpu_floats(floats);
        s->floats = floats;
    }
    return s->p;
}

enum { POLLS = 512 }; /* of a long op; what is polled limits its own rate */

void cpu_task_done(const struct device *dev, int64_t *done, int64_t tasks)
{
    int64_t every = tasks / dev->threads / POLLS + 1;
    if (++*done % every == 0) device_poll(dev);
}

static void cpu_close(struct device *dev)
{
    struct cpu *cpu = cpu_of(dev);
    for (int i = 0; i < dev->threads; i++) free(cpu->threads[i].p);
    free(cpu->threads);
    free(cpu->shared.p);
    free(cpu);
    free(dev);
}

static void cpu_copy(struct device *dev, void *to, size_t to_stride, const void *from,
                     size_t from_stride, size_t bytes, int64_t rows)
{
    (void)dev;
    copy_host_rows(to, to_stride, from, from_stride, bytes, rows);
}

static void cpu_zero(struct device *dev, void *to, size_t stride, size_t bytes, int64_t rows)
{
    (void)dev;
    for (size_t i = 0; i < (size_t)rows; i++) memset((char *)to + i * stride, 0, bytes);
}

static const struct ops cpu_ops = {
    .name = "cpu",
    .close = cpu_close,
    .memory = &arena_host,
    .staging = &arena_host,
    .memory_is_host = true,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .linear_pack = cpu_linear_pack,
    .linear_unpack = cpu_linear_unpack,
    .linear = cpu_linear,
    .norm_modulate = cpu_norm_modulate,
    .rms_norm = cpu_rms_norm,
    .qk_norm_rope = cpu_qk_norm_rope,
    .gate_residual = cpu_gate_residual,
    .gate_residual_norm = cpu_gate_residual_norm,
    .modulation = cpu_modulation,
    .gelu_gate = cpu_gelu_gate,
    .silu = cpu_silu,
    .lincomb = cpu_lincomb,
    .dot_tiles = cpu_dot_tiles,
    .kv_granule_floats = cpu_kv_granule_floats,
    .kv_pack = cpu_kv_pack,
    .attention_begin = cpu_attention_begin,
    .attention_block = cpu_attention_block,
    .attention_finish = cpu_attention_finish,
    .attention_part = cpu_attention_part,
    .attention_t5 = cpu_attention_t5,
    .conv_pack = cpu_conv_pack,
    .conv_unpack = cpu_conv_unpack,
    .conv3d = cpu_conv3d,
    .pixel_norm_silu = cpu_pixel_norm_silu,
    .channel_layer_norm = cpu_channel_layer_norm,
    .copy_pad = cpu_copy_pad,
    .add_noise_map = cpu_add_noise_map,
    .depth_to_space = cpu_depth_to_space,
    .space_to_depth = cpu_space_to_depth,
    .patchify = cpu_patchify,
    .unpatchify = cpu_unpatchify,
    .to_bytes = cpu_to_bytes,
    .to_words = cpu_to_words,
};

/* The same ops in memory that nobody else may touch. */
static const struct ops *guarded_ops(void)
{
    static struct ops ops;
    ops = cpu_ops;
    ops.name = "guarded cpu";
    ops.memory = &guard_memory;
    ops.memory_is_host = false;
    ops.enter = guard_enter;
    ops.leave = guard_leave;
    ops.owns = guard_owns;
    guard_start();
    return &ops;
}

static bool wants_guard(void)
{
    const char *word = getenv("RINGREEL_GUARD");
    return word && strcmp(word, "1") == 0;
}

struct device *device_open_cpu(int threads, const char *isa, enum precision precision)
{
    int best = device_isa_level(device_best_isa()), level = isa ? device_isa_level(isa) : best;
    CHECK(threads >= 1, "%d threads", threads);
    CHECK(level >= 0 && level <= best, "instruction set %s: this CPU has %s", isa,
          device_best_isa());
    struct cpu *cpu = xcalloc(1, sizeof *cpu);
    cpu->rows = rows_tables[level];
    cpu->gemm = gemm_tables[level];
    cpu->gemm_bf16 = gemm_bf16_tables[level];
    cpu->winograd = winograd_tables[level];
    cpu->attention = attention_tables[level];
    cpu->threads = xcalloc((size_t)threads, sizeof *cpu->threads);
    struct device *dev = xcalloc(1, sizeof *dev);
    *dev = (struct device){.ops = wants_guard() ? guarded_ops() : &cpu_ops,
                           .threads = threads,
                           .precision = precision,
                           .activations = DTYPE_F32,
                           .backend = cpu};
    snprintf(dev->isa, sizeof dev->isa, "%s", device_isa_name(level));
    return dev;
}
