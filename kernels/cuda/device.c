/* Opens one CUDA device as a rank's backend: its memory, its streams, and the table of ops. */
#include "kernels/cuda/cuda.h"

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kernels.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---------------------------------------------------------------------------------- */

/* NULL where the device has too little; anything else that is wrong ends the job. */
static void *take_or_null(size_t bytes)
{
    void *p = NULL;
    cudaError_t error = cudaMalloc(&p, bytes ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* it is not sticky: forgotten here */
        return NULL;
    }
    CHECK_CUDA(error);
    return p;
}

/* In place of a reason where memory could not be taken. */
static void describe_memory(char *text, size_t room)
{
    size_t left = 0, all = 0;
    char left_text[32], all_text[32];
    cudaMemGetInfo(&left, &all);
    snprintf(text, room, "of CUDA device %d (%s at %s) %s of %s are free",
             cuda_of(cuda_opened)->index, cuda_of(cuda_opened)->facts.model,
             cuda_of(cuda_opened)->facts.place, memory_text((int64_t)left, left_text),
             memory_text((int64_t)all, all_text));
}

void *cuda_take(size_t bytes, const char *what)
{
    void *p = take_or_null(bytes);
    char reason[256];
    if (p) return p;
    describe_memory(reason, sizeof reason);
    CHECK(false, "out of device memory: %s needs %zu bytes, %s%s", what, bytes, reason,
          memory_planned());
}

void *cuda_scratch(struct cuda_scratch *s, size_t bytes, const char *what)
{
    if (s->bytes < bytes) {
        if (cuda_cannot_record("memory that has to grow")) return NULL;
        cuda_memory_moved();
        cuda_finish(cuda_opened); /* something may still use it */
        CHECK_CUDA(cudaFree(s->p));
        s->p = cuda_take(bytes, what);
        s->bytes = bytes;
    }
    return s->p;
}

static void *take_device(size_t bytes, const char *name)
{
    (void)name; /* arena_commit names it */
    void *p = take_or_null(bytes);
    if (!p) return NULL;
    CHECK_CUDA(cudaMemsetAsync(p, 0, bytes, cuda_of(cuda_opened)->stream));
    cuda_finish(cuda_opened); /* other streams may use it first */
    return p;
}

static void give_device(void *memory, size_t bytes)
{
    (void)bytes;
    cuda_finish(cuda_opened);
    CHECK_CUDA(cudaFree(memory));
}

static void *take_pinned(size_t bytes, const char *name)
{
    void *p = NULL;
    (void)name;
    if (cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocDefault) != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    return memset(p, 0, bytes);
}

static void give_pinned(void *memory, size_t bytes)
{
    (void)bytes;
    CHECK_CUDA(cudaFreeHost(memory));
}

static const struct arena_memory device_arena = {take_device, give_device, describe_memory},
                                 pinned_arena = {take_pinned, give_pinned, NULL};

static void memory_left(const struct device *dev, int64_t *left, int64_t *all)
{
    size_t left_bytes, all_bytes;
    (void)dev;
    CHECK_CUDA(cudaMemGetInfo(&left_bytes, &all_bytes));
    *left = (int64_t)left_bytes;
    *all = (int64_t)all_bytes;
}

/* ---- copies ---------------------------------------------------------------------------------- */

static void copy_rows(struct device *dev, void *to, size_t to_stride, const void *from,
                      size_t from_stride, size_t bytes, int64_t rows, enum cudaMemcpyKind kind)
{
    CHECK_CUDA(cudaMemcpy2DAsync(to, to_stride, from, from_stride, bytes, (size_t)rows, kind,
                                 cuda_of(dev)->stream));
}

static void download(struct device *dev, void *to, size_t to_stride, const void *from,
                     size_t from_stride, size_t bytes, int64_t rows)
{
    if (cuda_cannot_record("a download")) return;
    copy_rows(dev, to, to_stride, from, from_stride, bytes, rows, cudaMemcpyDeviceToHost);
}

static void copy(struct device *dev, void *to, size_t to_stride, const void *from,
                 size_t from_stride, size_t bytes, int64_t rows)
{
    copy_rows(dev, to, to_stride, from, from_stride, bytes, rows, cudaMemcpyDeviceToDevice);
}

static void zero(struct device *dev, void *to, size_t stride, size_t bytes, int64_t rows)
{
    CHECK_CUDA(cudaMemset2DAsync(to, stride, 0, bytes, (size_t)rows, cuda_of(dev)->stream));
}

/* ---- ops that are one kernel ----------------------------------------------------------------- */

#define LAUNCH(kernel, ...) CHECK_CUDA(launch_##kernel(cuda_of(dev)->stream, __VA_ARGS__))

static void norm_modulate(struct device *dev, struct mat y, struct mat x, enum norm kind, float eps,
                          struct mat shift, struct mat scale, const int32_t *row_index)
{
    LAUNCH(norm_modulate, y, x, kind, eps, shift.p, scale.p, row_index);
}

static void rms_norm(struct device *dev, struct mat y, struct mat x, float eps, const float *weight)
{
    LAUNCH(rms_norm, y, x, eps, weight);
}

static void qk_norm_rope(struct device *dev, struct mat q, struct mat k, float eps,
                         const float *q_weight, const float *k_weight, const struct rope *rope)
{
    struct qk_rows queries = {.p = q.p, .stride = q.cols, .weight = q_weight};
    struct qk_rows keys = {.p = k.p, .stride = k.cols, .weight = k_weight};
    LAUNCH(qk_norm_rope, queries, keys, q.dtype, q.rows, q.cols, eps, rope);
}

static void gate_residual(struct device *dev, struct mat x, struct mat y, struct mat gate,
                          const int32_t *row_index)
{
    LAUNCH(gate_residual, x, y, gate.p, row_index);
}

static void gate_residual_norm(struct device *dev, struct mat z, struct mat x, struct mat y,
                               struct mat gate, const struct next_norm *norm,
                               const int32_t *row_index)
{
    LAUNCH(gate_residual_norm, z, x, y, gate.p, norm, row_index);
}

static void modulation(struct device *dev, struct mat y, const float *table, struct mat e)
{
    LAUNCH(modulation, y, table, e);
}

static void gelu_gate(struct device *dev, struct mat y, struct mat a, struct mat b)
{
    LAUNCH(gelu_gate, y, a, b);
}

static void silu(struct device *dev, struct mat y, struct mat x) { LAUNCH(silu, y, x); }

static void lincomb(struct device *dev, float *out, float a, const float *x, float b,
                    const float *y, int64_t n)
{
    LAUNCH(lincomb, out, a, x, b, y, n);
}

/* The results are small, and the host goes on with them at once. */
static void dot_tiles(struct device *dev, double *dots, const float *x, const float *y, int64_t n,
                      int64_t tile)
{
    size_t bytes = (size_t)((n + tile - 1) / tile) * sizeof *dots;
    if (cuda_cannot_record("sums for the host")) return;
    double *results = cuda_scratch(&cuda_of(dev)->results, bytes, "sums over tiles");
    LAUNCH(dot_tiles, results, x, y, n, tile);
    download(dev, dots, bytes, results, bytes, bytes, 1);
}

static void pixel_norm_silu(struct device *dev, const struct clip *y, const struct clip *x,
                            const float *scale, const float *shift)
{
    LAUNCH(pixel_norm_silu, *y, *x, scale, shift);
}

static void channel_layer_norm(struct device *dev, const struct clip *y, const struct clip *x,
                               float eps, const float *weight, const float *bias)
{
    LAUNCH(channel_layer_norm, *y, *x, eps, weight, bias);
}

static void copy_pad(struct device *dev, const struct clip *y, const struct clip *x)
{
    LAUNCH(copy_pad, *y, *x);
}

static void add_noise_map(struct device *dev, const struct clip *y, const struct clip *x,
                          const float *map, const float *per_channel, const struct clip *add)
{
    LAUNCH(add_noise_map, *y, *x, map, per_channel, add);
}

static void depth_to_space(struct device *dev, const struct clip *y, const struct clip *x,
                           const struct clip *residual, int st, int ss, bool first)
{
    LAUNCH(depth_to_space, *y, *x, residual, st, ss, first);
}

static void space_to_depth(struct device *dev, const struct clip *y, const struct clip *x,
                           const struct clip *residual, int st, int ss, bool first)
{
    LAUNCH(space_to_depth, *y, *x, residual, st, ss, first);
}

static void patchify(struct device *dev, const struct clip *y, const float *x, int patch)
{
    LAUNCH(patchify, *y, x, patch);
}

static void unpatchify(struct device *dev, float *y, const struct clip *x, int patch)
{
    LAUNCH(unpatchify, y, *x, patch);
}

/* To bytes or to words, whichever are given; the device's own lie in a relay until they are sent. */
static void to_integers(struct device *dev, uint8_t *bytes, uint16_t *words, const float *y,
                        int64_t stride, int64_t n, int64_t rows)
{
    size_t size = (size_t)n * (size_t)rows * (bytes ? sizeof *bytes : sizeof *words);
    struct relay *frame = cuda_frame_take(dev, size, "frames as integers");
    if (!frame) return;
    if (bytes)
        LAUNCH(to_bytes, frame->memory.p, y, stride, n, rows);
    else
        LAUNCH(to_words, frame->memory.p, y, stride, n, rows);
    cuda_frame_send(dev, frame, bytes ? (void *)bytes : words, size);
}

static void to_bytes(struct device *dev, uint8_t *bytes, const float *y, int64_t stride, int64_t n,
                     int64_t rows)
{
    to_integers(dev, bytes, NULL, y, stride, n, rows);
}

static void to_words(struct device *dev, uint16_t *words, const float *y, int64_t stride, int64_t n,
                     int64_t rows)
{
    to_integers(dev, NULL, words, y, stride, n, rows);
}

/* ---- attention ------------------------------------------------------------------------------- */

static struct attention_rows rows_of(struct mat m)
{
    return (struct attention_rows){m.p, m.rows, m.cols, m.dtype == DTYPE_BF16};
}

static void kv_pack(struct device *dev, float *packed, struct mat k, struct mat v, int64_t heads,
                    int64_t granule)
{
    if (k.rows == 0) return; /* a rank that has no granule of a short shot */
    CHECK_CUDA(
        attention_kv_pack(cuda_of(dev)->stream, packed, rows_of(k), rows_of(v), heads, granule));
}

static void begin(struct device *dev, float *state, int64_t queries, int64_t heads,
                  int64_t head_dim)
{
    if (queries == 0) return;
    CHECK_CUDA(attention_begin(cuda_of(dev)->stream, state, queries, heads, head_dim));
}

static void part(struct device *dev, struct mat o, float *state, struct mat q, const float *packed,
                 int64_t keys, int64_t granule, int64_t heads, float scale, bool first, bool last)
{
    struct cuda *cuda = cuda_of(dev);
    enum attention_kernel kernel = attention_choose(cuda->capability, q.cols / heads);
    CHECK_CUDA(attention_part(cuda->stream, kernel, rows_of(o), state, rows_of(q), packed, keys,
                              granule, heads, scale, first, last));
    cuda_long_op(dev);
}

static void block(struct device *dev, float *state, struct mat q, const float *packed, int64_t keys,
                  int64_t granule, int64_t heads, float scale)
{
    part(dev, (struct mat){0}, state, q, packed, keys, granule, heads, scale, false, false);
}

static void end(struct device *dev, struct mat o, const float *state, int64_t heads)
{
    if (o.rows == 0) return;
    CHECK_CUDA(attention_finish(cuda_of(dev)->stream, rows_of(o), state, heads));
}

static void t5(struct device *dev, struct mat o, struct mat q, struct mat k, struct mat v,
               int64_t heads, const float *bias)
{
    CHECK_CUDA(attention_t5(cuda_of(dev)->stream, rows_of(o), rows_of(q), rows_of(k), rows_of(v),
                            heads, bias));
}

/* ---- opening --------------------------------------------------------------------------------- */

static void close_cuda(struct device *dev)
{
    struct cuda *cuda = cuda_of(dev);
    struct cuda_scratch *scratch[] = {&cuda->rounded, &cuda->weights, &cuda->results};
    cuda_finish(dev);
    cuda_copies_close(cuda);
    for (size_t i = 0; i < sizeof scratch / sizeof *scratch; i++)
        CHECK_CUDA(cudaFree(scratch[i]->p));
    CHECK_CUDA(cudaFree(cuda->workspace));
    cublasLtDestroy(cuda->blas);
    cuda_watch_close(&cuda->watch);
    CHECK_CUDA(cudaStreamDestroy(cuda->stream));
    cuda_opened = NULL;
    free(cuda->products);
    free(cuda);
    free(dev);
}

static void describe(const struct device *dev, struct device_facts *facts)
{
    *facts = ((const struct cuda *)dev->backend)->facts;
}

static const struct ops cuda_ops = {
    .name = "cuda",
    .close = close_cuda,
    .memory = &device_arena,
    .staging = &pinned_arena,
    .memory_is_host = false,
    .finish = cuda_finish,
    .mark = cuda_mark,
    .wait = cuda_wait,
    .record_begin = cuda_record_begin,
    .record_cut = cuda_record_cut,
    .record_end = cuda_record_end,
    .replay_begin = cuda_replay_begin,
    .replay_next = cuda_replay_next,
    .recording_free = cuda_recording_free,
    .links = &cuda_links,
    .memory_left = memory_left,
    .describe = describe,
    .scratch_bytes = cuda_scratch_bytes,
    .upload = cuda_upload,
    .download = download,
    .copy = copy,
    .zero = zero,
    .linear_pack = cuda_linear_pack,
    .linear_unpack = cuda_linear_unpack,
    .linear = cuda_linear,
    .norm_modulate = norm_modulate,
    .rms_norm = rms_norm,
    .qk_norm_rope = qk_norm_rope,
    .gate_residual = gate_residual,
    .gate_residual_norm = gate_residual_norm,
    .modulation = modulation,
    .gelu_gate = gelu_gate,
    .silu = silu,
    .lincomb = lincomb,
    .dot_tiles = dot_tiles,
    .kv_granule_floats = attention_kv_granule_floats,
    .kv_pack = kv_pack,
    .attention_begin = begin,
    .attention_block = block,
    .attention_finish = end,
    .attention_part = part,
    .attention_t5 = t5,
    .conv_pack = cuda_conv_pack,
    .conv_unpack = cuda_conv_unpack,
    .conv_packed_bytes = cuda_conv_packed_bytes,
    .conv3d = cuda_conv3d,
    .conv_norms = cuda_conv_norms,
    .conv3d_normed = cuda_conv3d_normed,
    .pixel_norm_silu = pixel_norm_silu,
    .channel_layer_norm = channel_layer_norm,
    .copy_pad = copy_pad,
    .add_noise_map = add_noise_map,
    .depth_to_space = depth_to_space,
    .space_to_depth = space_to_depth,
    .patchify = patchify,
    .unpatchify = unpatchify,
    .to_bytes = to_bytes,
    .to_words = to_words,
};

static int count_devices(char *why, size_t room)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return count;
    snprintf(why, room, "%s", error == cudaSuccess ? "no CUDA device" : cudaGetErrorString(error));
    return 0;
}

static void find_facts(struct cuda *cuda)
{
    struct cudaDeviceProp about;
    struct device_facts *facts = &cuda->facts;
    int runtime;
    size_t blas = cublasLtGetVersion();
    CHECK_CUDA(cudaGetDeviceProperties(&about, cuda->index));
    CHECK_CUDA(cudaDeviceGetPCIBusId(facts->place, sizeof facts->place, cuda->index));
    CHECK_CUDA(cudaRuntimeGetVersion(&runtime));
    snprintf(facts->model, sizeof facts->model, "%.95s", about.name);
    for (size_t i = 0; i < sizeof about.uuid.bytes; i++)
        snprintf(facts->identity + 2 * i, 3, "%02x", (unsigned char)about.uuid.bytes[i]);
    snprintf(facts->libraries, sizeof facts->libraries, "CUDA %d.%d, cuBLASLt %zu.%zu.%zu",
             runtime / 1000, runtime % 1000 / 10, blas / 10000, blas / 100 % 100, blas % 100);
    cuda->capability = 10 * about.major + about.minor;
    CHECK(cuda->capability >= 80, "CUDA device %d (%s) has compute capability %d.%d, 8.0 is needed",
          cuda->index, about.name, about.major, about.minor);
}

static struct device *open_cuda(int index, int threads, enum precision precision)
{
    struct cuda *cuda = xcalloc(1, sizeof *cuda);
    struct device *dev = cuda_opened = xcalloc(1, sizeof *dev);
    *dev = (struct device){.ops = &cuda_ops,
                           .threads = threads,
                           .precision = precision,
                           .activations = cuda_activations(precision),
                           .timeout_s = 600,
                           .backend = cuda};
    cuda->index = index;
    CHECK_CUDA(cudaSetDevice(index));
    find_facts(cuda);
    CHECK_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    cuda_copies_open(cuda);
    cuda_watch_open(&cuda->watch);
    CHECK(cublasLtCreate(&cuda->blas) == CUBLAS_STATUS_SUCCESS, "cuBLASLt on CUDA device %d",
          index);
    cuda->workspace = cuda_take(CUBLASLT_WORKSPACE_BYTES, "workspace of cuBLASLt");
    snprintf(dev->isa, sizeof dev->isa, "sm_%d", cuda->capability);
    return dev;
}

const struct backend_library ringreel_cuda = {
    .version = BACKEND_VERSION,
    .ops_bytes = sizeof(struct ops),
    .count_devices = count_devices,
    .open = open_cuda,
    .open_plan = cuda_open_plan,
};
