/* The front door: checks shapes once, then forwards to the backend's table. */
#include "backend.h"

#include "base/error.h"

#include <string.h>

static const char *const isa_names[] = {"generic", "avx2", "avx512", "avx512_bf16"};
enum { ISA_COUNT = sizeof isa_names / sizeof *isa_names };

const char *device_best_isa(void)
{
    __builtin_cpu_init();
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool bf16 = __builtin_cpu_supports("avx512bf16");
    return isa_names[avx2 ? (avx512 ? (bf16 ? 3 : 2) : 1) : 0];
}

int device_isa_level(const char *isa)
{
    for (int i = 0; i < ISA_COUNT; i++)
        if (strcmp(isa, isa_names[i]) == 0) return i;
    return -1;
}

const char *device_isa_name(int level)
{
    CHECK(level >= 0 && level < ISA_COUNT, "instruction set %d", level);
    return isa_names[level];
}

const char *device_name(const struct device *dev) { return dev->ops->name; }
const char *device_isa(const struct device *dev) { return dev->isa; }
int device_threads(const struct device *dev) { return dev->threads; }
enum precision device_precision(const struct device *dev) { return dev->precision; }
enum dtype device_activations(const struct device *dev) { return dev->activations; }
void device_close(struct device *dev)
{
    if (dev) dev->ops->close(dev);
}

void device_set_poll(struct device *dev, void (*poll)(void *), void *argument)
{
    dev->poll = poll;
    dev->poll_argument = argument;
}

void device_set_reading(struct device *dev, const struct reading *reading)
{
    dev->reading = reading;
}

const struct arena_memory *device_memory(const struct device *dev) { return dev->ops->memory; }
const struct arena_memory *device_staging(const struct device *dev) { return dev->ops->staging; }
bool device_memory_is_host(const struct device *dev) { return dev->ops->memory_is_host; }
const struct link_ops *device_links(const struct device *dev) { return dev->ops->links; }
void device_set_held_up(struct device *dev, bool held_up) { dev->held_up = held_up; }
bool device_has_memory(const struct device *dev) { return dev->ops->memory_left; }

void device_memory_left(const struct device *dev, int64_t *left, int64_t *all)
{
    CHECK(device_has_memory(dev), "the memory of device %s is the host's", device_name(dev));
    dev->ops->memory_left(dev, left, all);
}

int64_t device_scratch_bytes(const struct device *dev, const struct op_sizes *largest)
{
    return dev->ops->scratch_bytes ? dev->ops->scratch_bytes(largest) : largest->expanded;
}

struct device_facts device_describe(const struct device *dev)
{
    struct device_facts facts = {0};
    if (dev->ops->describe) dev->ops->describe(dev, &facts);
    return facts;
}

void device_set_timeout(struct device *dev, double timeout_s) { dev->timeout_s = timeout_s; }

void device_finish(struct device *dev)
{
    if (dev->ops->finish) dev->ops->finish(dev);
}

uint64_t device_mark(struct device *dev) { return dev->ops->mark ? dev->ops->mark(dev) : 0; }

void device_wait(struct device *dev, uint64_t mark)
{
    if (mark) dev->ops->wait(dev, mark);
}

bool device_records(const struct device *dev) { return dev->ops->record_begin; }

bool op_record_begin(struct device *dev)
{
    dev->told = 0;
    dev->recording = device_records(dev) && dev->ops->record_begin(dev);
    return dev->recording;
}

struct recording *op_record_end(struct device *dev)
{
    struct recording *r = dev->ops->record_end(dev);
    dev->recording = dev->muted = false;
    dev->told = 0;
    return r;
}

bool op_replay_begin(struct device *dev, struct recording *r)
{
    dev->told = 0;
    dev->asked = "replay";
    dev->muted = dev->ops->replay_begin(dev, r);
    return dev->muted;
}

void op_replay_end(struct device *dev)
{
    bool last = dev->ops->replay_next(dev);
    CHECK(last, "a replay asks for less than was recorded");
    dev->muted = false;
    dev->told = 0;
}

/* Where nothing has been asked for there is nothing to cut. */
bool op_cut(struct device *dev)
{
    if (dev->told && dev->recording)
        dev->muted = dev->muted || !dev->ops->record_cut(dev);
    else if (dev->told)
        dev->ops->replay_next(dev);
    dev->told = 0;
    return !dev->recording;
}

void op_recording_free(struct device *dev, struct recording *r)
{
    if (r) dev->ops->recording_free(dev, r);
}

/* What a recording and its replays are compared by: the names of ops, in their order. */
static bool passed_over(struct device *dev, const char *op)
{
    if (dev->recording || dev->muted)
        dev->told = (dev->told ^ (uint64_t)(uintptr_t)op) * 1099511628211u; /* FNV-1a */
    return dev->muted;
}

/* Runs an op of the backend. */
#define RUN(dev, op, ...)                                                                          \
    do {                                                                                           \
        if (passed_over(dev, #op)) break;                                                          \
        (dev)->asked = #op;                                                                        \
        if ((dev)->ops->enter) (dev)->ops->enter();                                                \
        (dev)->ops->op(dev, __VA_ARGS__);                                                          \
        if ((dev)->ops->leave) (dev)->ops->leave();                                                \
    } while (0)

/* ---- checks ---------------------------------------------------------------------------------- */

static void check_device(const struct device *dev, const char *op, const char *name, const void *p,
                         int64_t bytes)
{
    if (!dev->ops->owns || !p || bytes == 0) return;
    CHECK(dev->ops->owns(p, (size_t)bytes), "%s: %s, %lld bytes at %p, is not device memory", op,
          name, (long long)bytes, p);
}

static void check_host(const struct device *dev, const char *op, const char *name, const void *p)
{
    CHECK(!dev->ops->owns || !dev->ops->owns(p, 1), "%s: %s at %p is not host memory", op, name, p);
}

static void check_floats(const struct device *dev, const char *op, const char *name, const float *p,
                         int64_t count)
{
    check_device(dev, op, name, p, count * (int64_t)sizeof *p);
}

static void check_mat(const struct device *dev, const char *op, const char *name, struct mat m)
{
    CHECK(m.rows >= 0 && m.cols > 0 && (m.p || m.rows == 0), "%s: %s is [%lld,%lld] at %p", op,
          name, (long long)m.rows, (long long)m.cols, m.p);
    CHECK(m.dtype == DTYPE_F32 || m.dtype == dev->activations,
          "%s: %s is %s, this device computes in F32 and %s", op, name, dtype_name(m.dtype),
          dtype_name(dev->activations));
    check_device(dev, op, name, m.p, m.rows * m.cols * (int64_t)dtype_size(m.dtype));
}

static void check_f32(const struct device *dev, const char *op, const char *name, struct mat m)
{
    check_mat(dev, op, name, m);
    CHECK(m.dtype == DTYPE_F32, "%s: %s is %s, not F32", op, name, dtype_name(m.dtype));
}

static void check_same(const struct device *dev, const char *op, struct mat a, struct mat b)
{
    check_mat(dev, op, "first operand", a);
    check_mat(dev, op, "second operand", b);
    CHECK(a.rows == b.rows && a.cols == b.cols, "%s: [%lld,%lld] against [%lld,%lld]", op,
          (long long)a.rows, (long long)a.cols, (long long)b.rows, (long long)b.cols);
    CHECK(a.p != b.p || a.dtype == b.dtype || a.rows == 0, "%s: in place, from %s to %s", op,
          dtype_name(b.dtype), dtype_name(a.dtype));
}

static void check_same_type(const struct device *dev, const char *op, struct mat a, struct mat b)
{
    check_same(dev, op, a, b);
    CHECK(a.dtype == b.dtype, "%s: %s against %s", op, dtype_name(a.dtype), dtype_name(b.dtype));
}

/* Modulation rows [T,cols], picked by row_index; without an index row 0 serves all. */
static void check_rows(const struct device *dev, const char *op, struct mat rows, int64_t cols)
{
    if (!rows.p) return;
    check_f32(dev, op, "modulation", rows);
    CHECK(rows.cols == cols && rows.rows >= 1, "%s: modulation [%lld,%lld] for %lld channels", op,
          (long long)rows.rows, (long long)rows.cols, (long long)cols);
}

static void check_row_index(const struct device *dev, const char *op, const int32_t *row_index,
                            int64_t rows)
{
    check_device(dev, op, "row_index", row_index, rows * (int64_t)sizeof *row_index);
}

static void check_clip(const struct device *dev, const char *op, const char *name,
                       const struct clip *v)
{
    CHECK(v->p && v->t > 0 && v->h > 0 && v->w > 0 && v->c > 0 && (v->pad == 0 || v->pad == 1),
          "%s: %s is [%lld,%lld,%lld,%lld] pad %d at %p", op, name, (long long)v->t,
          (long long)v->h, (long long)v->w, (long long)v->c, v->pad, v->p);
    CHECK(v->dtype == DTYPE_F32 || v->dtype == dev->activations,
          "%s: %s is %s, clips here are F32 or %s", op, name, dtype_name(v->dtype),
          dtype_name(dev->activations));
    check_device(dev, op, name, clip_at(v, 0, -v->above, -v->pad), (int64_t)clip_bytes(v));
}

static void check_same_clip(const struct device *dev, const char *op, const struct clip *y,
                            const struct clip *x)
{
    check_clip(dev, op, "output", y);
    check_clip(dev, op, "input", x);
    CHECK(y->t == x->t && y->h == x->h && y->w == x->w && y->c == x->c,
          "%s: output [%lld,%lld,%lld,%lld], input [%lld,%lld,%lld,%lld]", op, (long long)y->t,
          (long long)y->h, (long long)y->w, (long long)y->c, (long long)x->t, (long long)x->h,
          (long long)x->w, (long long)x->c);
    CHECK(y->p != x->p || (y->pad == x->pad && y->dtype == x->dtype),
          "%s: in place needs equal pads and types", op);
}

/* What is added to y on its way to memory. */
static void check_added(const struct device *dev, const char *op, const struct clip *y,
                        const struct clip *add)
{
    check_same_clip(dev, op, y, add);
    CHECK(y->dtype == add->dtype, "%s: %s is added to %s", op, dtype_name(add->dtype),
          dtype_name(y->dtype));
}

static void check_bias(const char *op, const struct tensor *bias, int64_t out)
{
    if (!bias) return;
    CHECK(tensor_count(bias) == out && dtype_is_float(bias->dtype),
          "%s: bias %s does not fit %lld outputs", op, bias->name, (long long)out);
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* From the first byte of the first row to the last of the last. */
static int64_t extent_of(size_t stride, size_t bytes, int64_t rows)
{
    return rows > 0 ? (rows - 1) * (int64_t)stride + (int64_t)bytes : 0;
}

static void check_strides(const char *op, size_t a, size_t b, size_t bytes, int64_t rows)
{
    CHECK(rows >= 0 && a >= bytes && b >= bytes, "%s: %lld rows of %zu bytes, strides %zu and %zu",
          op, (long long)rows, bytes, a, b);
}

void op_upload_rows(struct device *dev, void *to, size_t to_stride, const void *from,
                    size_t from_stride, size_t bytes, int64_t rows)
{
    check_strides("upload", to_stride, from_stride, bytes, rows);
    if (bytes == 0 || rows == 0) return;
    check_host(dev, "upload", "source", from);
    check_device(dev, "upload", "target", to, extent_of(to_stride, bytes, rows));
    RUN(dev, upload, to, to_stride, from, from_stride, bytes, rows);
}

void op_copy_rows(struct device *dev, void *to, size_t to_stride, const void *from,
                  size_t from_stride, size_t bytes, int64_t rows)
{
    int64_t written = extent_of(to_stride, bytes, rows), read = extent_of(from_stride, bytes, rows);
    check_strides("copy", to_stride, from_stride, bytes, rows);
    if (bytes == 0 || rows == 0) return;
    check_device(dev, "copy", "source", from, read);
    check_device(dev, "copy", "target", to, written);
    RUN(dev, copy, to, to_stride, from, from_stride, bytes, rows);
}

void op_zero_rows(struct device *dev, void *to, size_t stride, size_t bytes, int64_t rows)
{
    check_strides("zero", stride, stride, bytes, rows);
    if (bytes == 0 || rows == 0) return;
    check_device(dev, "zero", "target", to, extent_of(stride, bytes, rows));
    RUN(dev, zero, to, stride, bytes, rows);
}

void op_upload(struct device *dev, void *to, const void *from, size_t bytes)
{
    op_upload_rows(dev, to, bytes, from, bytes, bytes, 1);
}

void op_copy(struct device *dev, void *to, const void *from, size_t bytes)
{
    const char *a = to, *b = from;
    CHECK(a + bytes <= b || b + bytes <= a, "copy: %zu bytes onto themselves", bytes);
    op_copy_rows(dev, to, bytes, from, bytes, bytes, 1);
}

void op_download(struct device *dev, void *to, const void *from, size_t bytes)
{
    if (bytes == 0) return;
    check_host(dev, "download", "target", to);
    check_device(dev, "download", "source", from, (int64_t)bytes);
    RUN(dev, download, to, bytes, from, bytes, bytes, 1);
}

static void upload_tensor(struct device *dev, float *to, const struct tensor *t)
{
    float piece[1024];
    int64_t count = tensor_count(t), most = sizeof piece / sizeof *piece;
    for (int64_t at = 0; at < count; at += most) {
        int64_t n = count - at < most ? count - at : most;
        dtype_to_f32(piece, (const char *)t->data + (size_t)at * dtype_size(t->dtype), t->dtype,
                     (size_t)n);
        op_upload(dev, to + at, piece, (size_t)n * sizeof *piece);
    }
}

void op_upload_tensor(struct device *dev, float *to, const struct tensor *t)
{
    if (device_reads(dev, t)) upload_tensor(dev, to, t);
    device_pass_on(dev, to, (size_t)tensor_count(t) * sizeof *to);
}

/* ---- linear ---------------------------------------------------------------------------------- */

struct linear linear_make(const struct tensor *weight, const struct tensor *bias)
{
    CHECK(weight->rank == 2 && dtype_is_float(weight->dtype), "linear: %s is not a float matrix",
          weight->name);
    check_bias("linear", bias, weight->shape[0]);
    return (struct linear){
        .weight = weight, .bias = bias, .in = weight->shape[1], .out = weight->shape[0]};
}

void op_linear_pack(struct device *dev, struct linear *l)
{
    dev->asked = "linear_pack";
    if (!l->packed) dev->ops->linear_pack(dev, l);
}

void op_linear_unpack(struct device *dev, struct linear *l)
{
    if (l->packed) dev->ops->linear_unpack(dev, l);
}

size_t op_linear_packed_bytes(const struct device *dev, const struct linear *l)
{
    size_t out = (size_t)whole_panels(l->out), in = (size_t)l->in;
    size_t row = dev->precision == PRECISION_BF16 ? (in + 1) / 2 : in; /* pairs, or floats */
    size_t biases = sizeof(float) + (dev->activations == DTYPE_F32 ? 0 : sizeof(uint16_t));
    return out * (sizeof(float) * row + biases);
}

void op_linear(struct device *dev, struct mat y, struct mat x, const struct linear *l,
               enum epilogue e, int64_t tile)
{
    check_mat(dev, "linear", "y", y);
    check_mat(dev, "linear", "x", x);
    CHECK(x.rows == y.rows && x.cols == l->in && y.cols == l->out && x.p != y.p && tile > 0,
          "linear %s [%lld,%lld]: x [%lld,%lld], y [%lld,%lld], tile %lld", l->weight->name,
          (long long)l->out, (long long)l->in, (long long)x.rows, (long long)x.cols,
          (long long)y.rows, (long long)y.cols, (long long)tile);
    if (y.rows > 0) RUN(dev, linear, y, x, l, e, tile);
}

/* ---- per token ------------------------------------------------------------------------------- */

void op_norm_modulate(struct device *dev, struct mat y, struct mat x, enum norm kind, float eps,
                      struct mat shift, struct mat scale, const int32_t *row_index)
{
    check_same(dev, "norm_modulate", y, x);
    check_rows(dev, "norm_modulate", shift, x.cols);
    check_rows(dev, "norm_modulate", scale, x.cols);
    check_row_index(dev, "norm_modulate", row_index, x.rows);
    RUN(dev, norm_modulate, y, x, kind, eps, shift, scale, row_index);
}

void op_rms_norm(struct device *dev, struct mat y, struct mat x, float eps, const float *weight)
{
    check_same(dev, "rms_norm", y, x);
    CHECK(weight, "rms_norm: no weight");
    check_floats(dev, "rms_norm", "weight", weight, x.cols);
    RUN(dev, rms_norm, y, x, eps, weight);
}

static void check_rope(const struct device *dev, const struct rope *rope, struct mat x)
{
    CHECK(rope->n == x.cols / 6 && rope->pad == x.cols % 6 && rope->pad % 2 == 0 &&
              (rope->coord || !x.rows),
          "qk_norm_rope: %lld frequencies and pad %d for width %lld", (long long)rope->n, rope->pad,
          (long long)x.cols);
    for (int axis = 0; axis < 3; axis++)
        check_floats(dev, "qk_norm_rope", "table", rope->table[axis],
                     rope->positions[axis] * rope->n * 2);
    check_device(dev, "qk_norm_rope", "coord", rope->coord,
                 x.rows * 3 * (int64_t)sizeof *rope->coord);
}

void op_qk_norm_rope(struct device *dev, struct mat q, struct mat k, float eps,
                     const float *q_weight, const float *k_weight, const struct rope *rope)
{
    check_mat(dev, "qk_norm_rope", "q", q);
    if (k.p) check_same_type(dev, "qk_norm_rope", q, k);
    CHECK(q_weight && !k.p == !k_weight, "qk_norm_rope: a weight for each of them");
    check_floats(dev, "qk_norm_rope", "weight", q_weight, q.cols);
    check_floats(dev, "qk_norm_rope", "weight", k_weight, q.cols);
    if (rope) check_rope(dev, rope, q);
    RUN(dev, qk_norm_rope, q, k, eps, q_weight, k_weight, rope);
}

void op_gate_residual(struct device *dev, struct mat x, struct mat y, struct mat gate,
                      const int32_t *row_index)
{
    check_same(dev, "gate_residual", x, y);
    check_f32(dev, "gate_residual", "x", x);
    check_rows(dev, "gate_residual", gate, x.cols);
    check_row_index(dev, "gate_residual", row_index, x.rows);
    RUN(dev, gate_residual, x, y, gate, row_index);
}

void op_gate_residual_norm(struct device *dev, struct mat z, struct mat x, struct mat y,
                           struct mat gate, const struct next_norm *norm, const int32_t *row_index)
{
    check_same(dev, "gate_residual_norm", x, y);
    check_same(dev, "gate_residual_norm", z, x);
    check_f32(dev, "gate_residual_norm", "x", x);
    CHECK(x.rows == 0 || (z.p != x.p && z.p != y.p), "gate_residual_norm: in place");
    check_rows(dev, "gate_residual_norm", gate, x.cols);
    if (!norm->none) check_rows(dev, "gate_residual_norm", norm->shift, x.cols);
    if (!norm->none) check_rows(dev, "gate_residual_norm", norm->scale, x.cols);
    check_row_index(dev, "gate_residual_norm", row_index, x.rows);
    RUN(dev, gate_residual_norm, z, x, y, gate, norm, row_index);
}

void op_modulation(struct device *dev, struct mat y, const float *table, struct mat e)
{
    check_f32(dev, "modulation", "y", y);
    check_f32(dev, "modulation", "e", e);
    CHECK(e.rows > 0 && y.rows % e.rows == 0 &&
              (e.cols == y.cols || e.cols == y.rows / e.rows * y.cols),
          "modulation: y [%lld,%lld], e [%lld,%lld]", (long long)y.rows, (long long)y.cols,
          (long long)e.rows, (long long)e.cols);
    CHECK(table, "modulation: no table");
    check_floats(dev, "modulation", "table", table, y.rows / e.rows * y.cols);
    RUN(dev, modulation, y, table, e);
}

void op_gelu_gate(struct device *dev, struct mat y, struct mat a, struct mat b)
{
    check_same(dev, "gelu_gate", y, a);
    check_same_type(dev, "gelu_gate", a, b);
    RUN(dev, gelu_gate, y, a, b);
}

void op_silu(struct device *dev, struct mat y, struct mat x)
{
    check_same(dev, "silu", y, x);
    RUN(dev, silu, y, x);
}

void op_lincomb(struct device *dev, float *out, float a, const float *x, float b, const float *y,
                int64_t n)
{
    CHECK(n >= 0 && (n == 0 || (out && x)) && (y || b == 0.0f), "lincomb: n %lld, b %g without y",
          (long long)n, (double)b);
    check_floats(dev, "lincomb", "out", out, n);
    check_floats(dev, "lincomb", "x", x, n);
    check_floats(dev, "lincomb", "y", y, n);
    RUN(dev, lincomb, out, a, x, b, y, n);
}

void op_dot_tiles(struct device *dev, double *dots, const float *x, const float *y, int64_t n,
                  int64_t tile)
{
    CHECK(n >= 0 && tile > 0 && (n == 0 || (dots && x)), "dot_tiles: n %lld, tile %lld",
          (long long)n, (long long)tile);
    check_host(dev, "dot_tiles", "dots", dots);
    check_floats(dev, "dot_tiles", "x", x, n);
    check_floats(dev, "dot_tiles", "y", y, n);
    RUN(dev, dot_tiles, dots, x, y, n, tile);
}

/* ---- attention ------------------------------------------------------------------------------- */

int64_t op_kv_granule_floats(const struct device *dev, int64_t granule, int64_t heads,
                             int64_t head_dim)
{
    return dev->ops->kv_granule_floats(granule, heads, head_dim);
}

int64_t op_attention_state_floats(int64_t queries, int64_t heads, int64_t head_dim)
{
    return queries * heads * (whole_panels(head_dim) + 2); /* output, then maximum and sum */
}

static void check_heads(const char *op, int64_t cols, int64_t heads)
{
    CHECK(heads > 0 && cols % heads == 0 && cols / heads % 2 == 0,
          "%s: %lld channels for %lld heads", op, (long long)cols, (long long)heads);
}

void op_kv_pack(struct device *dev, float *packed, struct mat k, struct mat v, int64_t heads,
                int64_t granule)
{
    check_same(dev, "kv_pack", k, v);
    check_heads("kv_pack", k.cols, heads);
    CHECK(granule > 0 && granule % PANEL == 0, "kv_pack: granule %lld", (long long)granule);
    check_floats(dev, "kv_pack", "packed", packed,
                 (k.rows + granule - 1) / granule *
                     op_kv_granule_floats(dev, granule, heads, k.cols / heads));
    RUN(dev, kv_pack, packed, k, v, heads, granule);
}

void op_attention_begin(struct device *dev, float *state, int64_t queries, int64_t heads,
                        int64_t head_dim)
{
    check_floats(dev, "attention", "state", state,
                 op_attention_state_floats(queries, heads, head_dim));
    RUN(dev, attention_begin, state, queries, heads, head_dim);
}

static void check_block(const struct device *dev, const float *state, struct mat q,
                        const float *packed, int64_t keys, int64_t granule, int64_t heads)
{
    check_mat(dev, "attention", "q", q);
    check_heads("attention", q.cols, heads);
    CHECK(granule > 0 && granule % PANEL == 0 && keys >= 0, "attention: granule %lld, %lld keys",
          (long long)granule, (long long)keys);
    check_floats(dev, "attention", "state", state,
                 op_attention_state_floats(q.rows, heads, q.cols / heads));
    check_floats(dev, "attention", "packed", packed,
                 (keys + granule - 1) / granule *
                     op_kv_granule_floats(dev, granule, heads, q.cols / heads));
}

void op_attention_block(struct device *dev, float *state, struct mat q, const float *packed,
                        int64_t keys, int64_t granule, int64_t heads, float scale)
{
    check_block(dev, state, q, packed, keys, granule, heads);
    if (keys > 0 && q.rows > 0)
        RUN(dev, attention_block, state, q, packed, keys, granule, heads, scale);
}

void op_attention_finish(struct device *dev, struct mat o, const float *state, int64_t heads)
{
    check_mat(dev, "attention", "o", o);
    check_heads("attention", o.cols, heads);
    check_floats(dev, "attention", "state", state,
                 op_attention_state_floats(o.rows, heads, o.cols / heads));
    RUN(dev, attention_finish, o, state, heads);
}

void op_attention_part(struct device *dev, struct mat o, float *state, struct mat q,
                       const float *packed, int64_t keys, int64_t granule, int64_t heads,
                       float scale, bool first, bool last)
{
    check_block(dev, state, q, packed, keys, granule, heads);
    if (last) check_same(dev, "attention", o, q);
    if (keys > 0 && q.rows > 0)
        RUN(dev, attention_part, o, state, q, packed, keys, granule, heads, scale, first, last);
    if (keys == 0 && first) op_attention_begin(dev, state, q.rows, heads, q.cols / heads);
    if (keys == 0 && last) op_attention_finish(dev, o, state, heads);
}

void op_attention_t5(struct device *dev, struct mat o, struct mat q, struct mat k, struct mat v,
                     int64_t heads, const float *bias)
{
    check_same(dev, "attention_t5", o, q);
    check_same(dev, "attention_t5", k, v);
    check_same(dev, "attention_t5", q, k);
    check_heads("attention_t5", q.cols, heads);
    CHECK(bias, "attention_t5: no bias table");
    check_floats(dev, "attention_t5", "bias", bias, 32 * heads);
    if (q.rows > 0) RUN(dev, attention_t5, o, q, k, v, heads, bias);
}

/* ---- VAE ------------------------------------------------------------------------------------- */

struct conv conv_make(const struct tensor *weight, const struct tensor *bias)
{
    CHECK(weight->rank == 5 && dtype_is_float(weight->dtype), "conv: %s is not a 3-D float kernel",
          weight->name);
    int64_t k = weight->shape[2];
    CHECK((k == 1 || k == 3) && weight->shape[3] == k && weight->shape[4] == k,
          "conv: %s: kernels are 1x1x1 or 3x3x3", weight->name);
    check_bias("conv", bias, weight->shape[0]);
    return (struct conv){.weight = weight,
                         .bias = bias,
                         .in = weight->shape[1],
                         .out = weight->shape[0],
                         .kernel = (int)k,
                         .stride_t = 1,
                         .stride_s = 1};
}

void op_conv_pack(struct device *dev, struct conv *c)
{
    dev->asked = "conv_pack";
    if (!c->packed) dev->ops->conv_pack(dev, c);
}

void op_conv_unpack(struct device *dev, struct conv *c)
{
    if (c->packed) dev->ops->conv_unpack(dev, c);
}

size_t op_conv_packed_bytes(const struct device *dev, const struct conv *c)
{
    if (dev->ops->conv_packed_bytes) return dev->ops->conv_packed_bytes(dev, c);
    size_t out = (size_t)whole_panels(c->out), taps = (size_t)(c->kernel * c->kernel * c->kernel);
    return sizeof(float) * (out * taps * (size_t)c->in + out);
}

static void check_conv(const struct device *dev, const struct clip *y, const struct clip *x,
                       const struct conv *c, const struct clip *add, const struct conv_span *span)
{
    check_clip(dev, "conv3d", "x", x);
    check_clip(dev, "conv3d", "y", y);
    CHECK(c->packed, "conv3d: %s is not packed", c->weight->name);
    int st = c->stride_t, ss = c->stride_s;
    CHECK((st == 1 || st == 2) && (ss == 1 || ss == 2), "conv3d %s: strides %d, %d",
          c->weight->name, st, ss);
    CHECK(x->c == c->in && y->c == c->out && y->h == (x->h - 1) / ss + 1 &&
              y->w == (x->w - 1) / ss + 1 && (y->pad == 0 || dev->ops->conv_norms),
          "conv3d %s: x [%lld,%lld,%lld,%lld], y [%lld,%lld,%lld,%lld], strides %d, %d",
          c->weight->name, (long long)x->t, (long long)x->h, (long long)x->w, (long long)x->c,
          (long long)y->t, (long long)y->h, (long long)y->w, (long long)y->c, st, ss);
    CHECK(c->kernel == 1 || x->pad == 1, "conv3d %s: x needs border columns", c->weight->name);
    CHECK(x->p != y->p, "conv3d %s: in place", c->weight->name);
    if (add) {
        check_added(dev, "conv3d add", y, add);
        CHECK(add->pad == y->pad, "conv3d %s: add has other border columns", c->weight->name);
    }
    CHECK(span->top >= 0 && span->left >= 0, "conv3d %s: y begins at row %lld, column %lld",
          c->weight->name, (long long)span->top, (long long)span->left);
    CHECK(span->row >= 0 && span->rows > 0 && span->row + span->rows <= y->h && span->column >= 0 &&
              span->columns > 0 && span->column + span->columns <= y->w,
          "conv3d %s: rows %lld + %lld, columns %lld + %lld of %lldx%lld", c->weight->name,
          (long long)span->row, (long long)span->rows, (long long)span->column,
          (long long)span->columns, (long long)y->h, (long long)y->w);
}

void op_conv3d(struct device *dev, const struct clip *y, const struct clip *x, const struct conv *c,
               int front, const struct clip *add, const struct conv_span *span)
{
    struct conv_span all = {.rows = y->h, .columns = y->w};
    if (!span) span = &all;
    check_conv(dev, y, x, c, add, span);
    RUN(dev, conv3d, y, x, c, front, add, span);
}

bool op_conv_norms(const struct device *dev, const struct conv *c)
{
    return dev->ops->conv_norms && dev->ops->conv_norms(dev, c);
}

void op_conv3d_normed(struct device *dev, const struct clip *y, const struct clip *x,
                      const struct conv *c, int front, const struct clip *add,
                      const struct conv_span *span, const struct conv_norm *norm)
{
    struct conv_span all = {.rows = y->h, .columns = y->w};
    if (!span) span = &all;
    check_conv(dev, y, x, c, add, span);
    CHECK(op_conv_norms(dev, c) && x->dtype == dev->activations, "conv3d %s does not norm %s here",
          c->weight->name, dtype_name(x->dtype));
    CHECK(!norm->scale == !norm->shift && norm->room, "conv3d %s: scale and shift come together",
          c->weight->name);
    check_floats(dev, "conv3d", "scale", norm->scale, x->c);
    check_floats(dev, "conv3d", "shift", norm->shift, x->c);
    check_floats(dev, "conv3d", "room", norm->room, clip_count(x) / x->c);
    RUN(dev, conv3d_normed, y, x, c, front, add, span, norm);
}

void op_pixel_norm_silu(struct device *dev, const struct clip *y, const struct clip *x,
                        const float *scale, const float *shift)
{
    check_same_clip(dev, "pixel_norm_silu", y, x);
    CHECK(!scale == !shift, "pixel_norm_silu: scale and shift come together");
    check_floats(dev, "pixel_norm_silu", "scale", scale, x->c);
    check_floats(dev, "pixel_norm_silu", "shift", shift, x->c);
    RUN(dev, pixel_norm_silu, y, x, scale, shift);
}

void op_channel_layer_norm(struct device *dev, const struct clip *y, const struct clip *x,
                           float eps, const float *weight, const float *bias)
{
    check_same_clip(dev, "channel_layer_norm", y, x);
    CHECK(weight && bias, "channel_layer_norm: weight and bias are needed");
    check_floats(dev, "channel_layer_norm", "weight", weight, x->c);
    check_floats(dev, "channel_layer_norm", "bias", bias, x->c);
    RUN(dev, channel_layer_norm, y, x, eps, weight, bias);
}

void op_copy_pad(struct device *dev, const struct clip *y, const struct clip *x)
{
    check_same_clip(dev, "copy_pad", y, x);
    if (y->p != x->p) RUN(dev, copy_pad, y, x);
}

void op_add_noise_map(struct device *dev, const struct clip *y, const struct clip *x,
                      const float *map, const float *per_channel, const struct clip *add)
{
    check_same_clip(dev, "add_noise_map", y, x);
    if (add) check_added(dev, "add_noise_map", y, add);
    CHECK(map && per_channel, "add_noise_map: map and scale are needed");
    check_floats(dev, "add_noise_map", "map", map, y->h * y->w);
    check_floats(dev, "add_noise_map", "scale", per_channel, y->c);
    RUN(dev, add_noise_map, y, x, map, per_channel, add);
}

void op_depth_to_space(struct device *dev, const struct clip *y, const struct clip *x,
                       const struct clip *residual, int st, int ss, bool first)
{
    check_clip(dev, "depth_to_space", "x", x);
    check_clip(dev, "depth_to_space", "y", y);
    CHECK((st == 1 || st == 2) && (ss == 1 || ss == 2), "depth_to_space: strides %d, %d", st, ss);
    int64_t p = (int64_t)st * ss * ss;
    CHECK(x->c == y->c * p && y->t == st * x->t - (first ? st - 1 : 0) && y->h == ss * x->h &&
              y->w == ss * x->w,
          "depth_to_space: x [%lld,%lld,%lld,%lld], y [%lld,%lld,%lld,%lld]", (long long)x->t,
          (long long)x->h, (long long)x->w, (long long)x->c, (long long)y->t, (long long)y->h,
          (long long)y->w, (long long)y->c);
    if (residual) {
        check_clip(dev, "depth_to_space", "residual", residual);
        CHECK(residual->t == x->t && residual->h == x->h && residual->w == x->w &&
                  residual->c % p == 0 && residual->dtype == y->dtype,
              "depth_to_space: residual [%lld,%lld,%lld,%lld]", (long long)residual->t,
              (long long)residual->h, (long long)residual->w, (long long)residual->c);
    }
    RUN(dev, depth_to_space, y, x, residual, st, ss, first);
}

void op_space_to_depth(struct device *dev, const struct clip *y, const struct clip *x,
                       const struct clip *residual, int st, int ss, bool first)
{
    check_clip(dev, "space_to_depth", "x", x);
    check_clip(dev, "space_to_depth", "y", y);
    CHECK((st == 1 || st == 2) && (ss == 1 || ss == 2), "space_to_depth: strides %d, %d", st, ss);
    int64_t p = (int64_t)st * ss * ss;
    CHECK(y->c == x->c * p && st * y->t == x->t + (first ? st - 1 : 0) && ss * y->h == x->h &&
              ss * y->w == x->w && x->p != y->p,
          "space_to_depth: x [%lld,%lld,%lld,%lld], y [%lld,%lld,%lld,%lld]", (long long)x->t,
          (long long)x->h, (long long)x->w, (long long)x->c, (long long)y->t, (long long)y->h,
          (long long)y->w, (long long)y->c);
    if (residual) {
        check_clip(dev, "space_to_depth", "residual", residual);
        CHECK(residual->t == x->t && residual->h == x->h && residual->w == x->w &&
                  residual->c * p % y->c == 0 && residual->p != y->p && residual->dtype == y->dtype,
              "space_to_depth: residual [%lld,%lld,%lld,%lld] for %lld channels",
              (long long)residual->t, (long long)residual->h, (long long)residual->w,
              (long long)residual->c, (long long)y->c);
    }
    RUN(dev, space_to_depth, y, x, residual, st, ss, first);
}

void op_patchify(struct device *dev, const struct clip *y, const float *x, int patch)
{
    check_clip(dev, "patchify", "y", y);
    CHECK(x && patch > 0 && y->c == 3 * (int64_t)patch * patch, "patchify: %lld channels, patch %d",
          (long long)y->c, patch);
    check_floats(dev, "patchify", "x", x, y->t * y->h * y->w * y->c);
    RUN(dev, patchify, y, x, patch);
}

void op_unpatchify(struct device *dev, float *y, const struct clip *x, int patch)
{
    check_clip(dev, "unpatchify", "x", x);
    CHECK(y && patch > 0 && x->c == 3 * (int64_t)patch * patch,
          "unpatchify: %lld channels, patch %d", (long long)x->c, patch);
    check_floats(dev, "unpatchify", "y", y, clip_count(x));
    RUN(dev, unpatchify, y, x, patch);
}

static void check_pixels(const struct device *dev, const char *op, const void *out, const float *y,
                         int64_t stride, int64_t n, int64_t rows)
{
    CHECK(n >= 0 && rows >= 0 && stride >= n && (n * rows == 0 || (out && y)),
          "%s: %lld rows of %lld, stride %lld", op, (long long)rows, (long long)n,
          (long long)stride);
    if (n * rows == 0) return;
    check_host(dev, op, "output", out);
    check_floats(dev, op, "y", y, (rows - 1) * stride + n);
}

void op_to_bytes(struct device *dev, uint8_t *bytes, const float *y, int64_t stride, int64_t n,
                 int64_t rows)
{
    check_pixels(dev, "to_bytes", bytes, y, stride, n, rows);
    if (n * rows > 0) RUN(dev, to_bytes, bytes, y, stride, n, rows);
}

void op_to_words(struct device *dev, uint16_t *words, const float *y, int64_t stride, int64_t n,
                 int64_t rows)
{
    check_pixels(dev, "to_words", words, y, stride, n, rows);
    if (n * rows > 0) RUN(dev, to_words, words, y, stride, n, rows);
}
