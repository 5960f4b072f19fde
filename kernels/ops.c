/* The front door: checks shapes once, then forwards to the backend's table. The ops of the VAE are
 * in ops_vae.c. */
#include "checks.h"

#include "base/error.h"

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
