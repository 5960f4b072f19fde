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
const char *device_isa(const struct device *dev) { return device_isa_name(dev->isa_level); }
int device_threads(const struct device *dev) { return dev->threads; }
enum precision device_precision(const struct device *dev) { return dev->precision; }
void device_close(struct device *dev)
{
    if (dev) dev->ops->close(dev);
}

void device_set_poll(struct device *dev, void (*poll)(void *), void *argument)
{
    dev->poll = poll;
    dev->poll_argument = argument;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static void check_mat(const char *op, const char *name, struct mat m)
{
    CHECK(m.rows >= 0 && m.cols > 0 && (m.p || m.rows == 0), "%s: %s is [%lld,%lld] at %p", op,
          name, (long long)m.rows, (long long)m.cols, m.p);
    CHECK(m.dtype == DTYPE_F32, "%s: %s is %s, this backend computes in F32", op, name,
          dtype_name(m.dtype));
}

static void check_same(const char *op, struct mat a, struct mat b)
{
    check_mat(op, "first operand", a);
    check_mat(op, "second operand", b);
    CHECK(a.rows == b.rows && a.cols == b.cols, "%s: [%lld,%lld] against [%lld,%lld]", op,
          (long long)a.rows, (long long)a.cols, (long long)b.rows, (long long)b.cols);
}

/* Modulation rows [T,cols], picked by row_index; without an index row 0 serves all. */
static void check_rows(const char *op, struct mat rows, int64_t cols)
{
    if (!rows.p) return;
    check_mat(op, "modulation", rows);
    CHECK(rows.cols == cols && rows.rows >= 1, "%s: modulation [%lld,%lld] for %lld channels", op,
          (long long)rows.rows, (long long)rows.cols, (long long)cols);
}

static void check_clip(const char *op, const char *name, const struct clip *v)
{
    CHECK(v->p && v->t > 0 && v->h > 0 && v->w > 0 && v->c > 0 && (v->pad == 0 || v->pad == 1),
          "%s: %s is [%lld,%lld,%lld,%lld] pad %d at %p", op, name, (long long)v->t,
          (long long)v->h, (long long)v->w, (long long)v->c, v->pad, (void *)v->p);
}

static void check_same_clip(const char *op, const struct clip *y, const struct clip *x)
{
    check_clip(op, "output", y);
    check_clip(op, "input", x);
    CHECK(y->t == x->t && y->h == x->h && y->w == x->w && y->c == x->c,
          "%s: output [%lld,%lld,%lld,%lld], input [%lld,%lld,%lld,%lld]", op, (long long)y->t,
          (long long)y->h, (long long)y->w, (long long)y->c, (long long)x->t, (long long)x->h,
          (long long)x->w, (long long)x->c);
    CHECK(y->p != x->p || y->pad == x->pad, "%s: in place needs equal pads", op);
}

static void check_bias(const char *op, const struct tensor *bias, int64_t out)
{
    if (!bias) return;
    CHECK(tensor_count(bias) == out && dtype_is_float(bias->dtype),
          "%s: bias %s does not fit %lld outputs", op, bias->name, (long long)out);
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
    return sizeof(float) * out * (row + 1);
}

void op_linear(struct device *dev, struct mat y, struct mat x, const struct linear *l,
               enum epilogue e, int64_t tile)
{
    check_mat("linear", "y", y);
    check_mat("linear", "x", x);
    CHECK(x.rows == y.rows && x.cols == l->in && y.cols == l->out && x.p != y.p && tile > 0,
          "linear %s [%lld,%lld]: x [%lld,%lld], y [%lld,%lld], tile %lld", l->weight->name,
          (long long)l->out, (long long)l->in, (long long)x.rows, (long long)x.cols,
          (long long)y.rows, (long long)y.cols, (long long)tile);
    if (y.rows > 0) dev->ops->linear(dev, y, x, l, e, tile);
}

/* ---- per token ------------------------------------------------------------------------------- */

void op_norm_modulate(struct device *dev, struct mat y, struct mat x, enum norm kind, float eps,
                      struct mat shift, struct mat scale, const int32_t *row_index)
{
    check_same("norm_modulate", y, x);
    check_rows("norm_modulate", shift, x.cols);
    check_rows("norm_modulate", scale, x.cols);
    dev->ops->norm_modulate(dev, y, x, kind, eps, shift, scale, row_index);
}

void op_rms_norm(struct device *dev, struct mat y, struct mat x, float eps, const float *weight)
{
    check_same("rms_norm", y, x);
    CHECK(weight, "rms_norm: no weight");
    dev->ops->rms_norm(dev, y, x, eps, weight);
}

void op_qk_norm_rope(struct device *dev, struct mat x, float eps, const float *weight,
                     const struct rope *rope)
{
    check_mat("qk_norm_rope", "x", x);
    CHECK(weight, "qk_norm_rope: no weight");
    if (rope)
        CHECK(rope->n == x.cols / 6 && rope->pad == x.cols % 6 && rope->pad % 2 == 0 &&
                  (rope->coord || !x.rows),
              "qk_norm_rope: %lld frequencies and pad %d for width %lld", (long long)rope->n,
              rope->pad, (long long)x.cols);
    dev->ops->qk_norm_rope(dev, x, eps, weight, rope);
}

void op_gate_residual(struct device *dev, struct mat x, struct mat y, struct mat gate,
                      const int32_t *row_index)
{
    check_same("gate_residual", x, y);
    check_rows("gate_residual", gate, x.cols);
    dev->ops->gate_residual(dev, x, y, gate, row_index);
}

void op_gelu_gate(struct device *dev, struct mat y, struct mat a, struct mat b)
{
    check_same("gelu_gate", y, a);
    check_same("gelu_gate", y, b);
    dev->ops->gelu_gate(dev, y, a, b);
}

void op_silu(struct device *dev, struct mat y, struct mat x)
{
    check_same("silu", y, x);
    dev->ops->silu(dev, y, x);
}

void op_lincomb(struct device *dev, float *out, float a, const float *x, float b, const float *y,
                int64_t n)
{
    CHECK(n >= 0 && (n == 0 || (out && x)) && (y || b == 0.0f), "lincomb: n %lld, b %g without y",
          (long long)n, (double)b);
    dev->ops->lincomb(dev, out, a, x, b, y, n);
}

void op_dot_tiles(struct device *dev, double *dots, const float *x, const float *y, int64_t n,
                  int64_t tile)
{
    CHECK(n >= 0 && tile > 0 && (n == 0 || (dots && x)), "dot_tiles: n %lld, tile %lld",
          (long long)n, (long long)tile);
    dev->ops->dot_tiles(dev, dots, x, y, n, tile);
}

/* ---- attention ------------------------------------------------------------------------------- */

int64_t op_kv_granule_floats(int64_t granule, int64_t heads, int64_t head_dim)
{
    return granule * heads * (head_dim + whole_panels(head_dim));
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
    check_same("kv_pack", k, v);
    check_heads("kv_pack", k.cols, heads);
    CHECK(granule > 0 && granule % PANEL == 0, "kv_pack: granule %lld", (long long)granule);
    dev->ops->kv_pack(dev, packed, k, v, heads, granule);
}

void op_attention_begin(struct device *dev, float *state, int64_t queries, int64_t heads,
                        int64_t head_dim)
{
    dev->ops->attention_begin(dev, state, queries, heads, head_dim);
}

void op_attention_block(struct device *dev, float *state, struct mat q, const float *packed,
                        int64_t keys, int64_t granule, int64_t heads, float scale)
{
    check_mat("attention", "q", q);
    check_heads("attention", q.cols, heads);
    CHECK(granule > 0 && granule % PANEL == 0 && keys >= 0, "attention: granule %lld, %lld keys",
          (long long)granule, (long long)keys);
    if (keys > 0 && q.rows > 0)
        dev->ops->attention_block(dev, state, q, packed, keys, granule, heads, scale);
}

void op_attention_finish(struct device *dev, struct mat o, const float *state, int64_t heads)
{
    check_mat("attention", "o", o);
    check_heads("attention", o.cols, heads);
    dev->ops->attention_finish(dev, o, state, heads);
}

void op_attention_t5(struct device *dev, struct mat o, struct mat q, struct mat k, struct mat v,
                     int64_t heads, const float *bias)
{
    check_same("attention_t5", o, q);
    check_same("attention_t5", k, v);
    check_same("attention_t5", q, k);
    check_heads("attention_t5", q.cols, heads);
    CHECK(bias, "attention_t5: no bias table");
    if (q.rows > 0) dev->ops->attention_t5(dev, o, q, k, v, heads, bias);
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
    if (!c->packed) dev->ops->conv_pack(dev, c);
}

void op_conv_unpack(struct device *dev, struct conv *c)
{
    if (c->packed) dev->ops->conv_unpack(dev, c);
}

size_t op_conv_packed_bytes(const struct conv *c)
{
    size_t out = (size_t)whole_panels(c->out), taps = (size_t)(c->kernel * c->kernel * c->kernel);
    return sizeof(float) * (out * taps * (size_t)c->in + out);
}

void op_conv3d(struct device *dev, const struct clip *y, const struct clip *x, const struct conv *c,
               int front, const struct clip *add, const struct conv_span *span)
{
    check_clip("conv3d", "x", x);
    check_clip("conv3d", "y", y);
    CHECK(c->packed, "conv3d: %s is not packed", c->weight->name);
    int st = c->stride_t, ss = c->stride_s;
    CHECK((st == 1 || st == 2) && (ss == 1 || ss == 2), "conv3d %s: strides %d, %d",
          c->weight->name, st, ss);
    CHECK(x->c == c->in && y->c == c->out && y->h == (x->h - 1) / ss + 1 &&
              y->w == (x->w - 1) / ss + 1 && y->pad == 0,
          "conv3d %s: x [%lld,%lld,%lld,%lld], y [%lld,%lld,%lld,%lld], strides %d, %d",
          c->weight->name, (long long)x->t, (long long)x->h, (long long)x->w, (long long)x->c,
          (long long)y->t, (long long)y->h, (long long)y->w, (long long)y->c, st, ss);
    CHECK(c->kernel == 1 || x->pad == 1, "conv3d %s: x needs border columns", c->weight->name);
    CHECK(x->p != y->p, "conv3d %s: in place", c->weight->name);
    if (add) {
        check_same_clip("conv3d add", y, add);
        CHECK(add->pad == 0, "conv3d %s: add has border columns", c->weight->name);
    }
    struct conv_span all = {.rows = y->h, .columns = y->w};
    if (!span) span = &all;
    CHECK(span->row >= 0 && span->rows > 0 && span->row + span->rows <= y->h && span->column >= 0 &&
              span->columns > 0 && span->column + span->columns <= y->w,
          "conv3d %s: rows %lld + %lld, columns %lld + %lld of %lldx%lld", c->weight->name,
          (long long)span->row, (long long)span->rows, (long long)span->column,
          (long long)span->columns, (long long)y->h, (long long)y->w);
    dev->ops->conv3d(dev, y, x, c, front, add, span);
}

void op_pixel_norm_silu(struct device *dev, const struct clip *y, const struct clip *x,
                        const float *scale, const float *shift)
{
    check_same_clip("pixel_norm_silu", y, x);
    CHECK(!scale == !shift, "pixel_norm_silu: scale and shift come together");
    dev->ops->pixel_norm_silu(dev, y, x, scale, shift);
}

void op_channel_layer_norm(struct device *dev, const struct clip *y, const struct clip *x,
                           float eps, const float *weight, const float *bias)
{
    check_same_clip("channel_layer_norm", y, x);
    CHECK(weight && bias, "channel_layer_norm: weight and bias are needed");
    dev->ops->channel_layer_norm(dev, y, x, eps, weight, bias);
}

void op_copy_pad(struct device *dev, const struct clip *y, const struct clip *x)
{
    check_same_clip("copy_pad", y, x);
    if (y->p != x->p) dev->ops->copy_pad(dev, y, x);
}

void op_add_noise_map(struct device *dev, const struct clip *y, const float *map,
                      const float *per_channel)
{
    check_clip("add_noise_map", "y", y);
    CHECK(map && per_channel, "add_noise_map: map and scale are needed");
    dev->ops->add_noise_map(dev, y, map, per_channel);
}

void op_depth_to_space(struct device *dev, const struct clip *y, const struct clip *x,
                       const struct clip *residual, int st, int ss, bool first)
{
    check_clip("depth_to_space", "x", x);
    check_clip("depth_to_space", "y", y);
    CHECK((st == 1 || st == 2) && (ss == 1 || ss == 2), "depth_to_space: strides %d, %d", st, ss);
    int64_t p = (int64_t)st * ss * ss;
    CHECK(x->c == y->c * p && y->t == st * x->t - (first ? st - 1 : 0) && y->h == ss * x->h &&
              y->w == ss * x->w,
          "depth_to_space: x [%lld,%lld,%lld,%lld], y [%lld,%lld,%lld,%lld]", (long long)x->t,
          (long long)x->h, (long long)x->w, (long long)x->c, (long long)y->t, (long long)y->h,
          (long long)y->w, (long long)y->c);
    if (residual) {
        check_clip("depth_to_space", "residual", residual);
        CHECK(residual->t == x->t && residual->h == x->h && residual->w == x->w &&
                  residual->c % p == 0,
              "depth_to_space: residual [%lld,%lld,%lld,%lld]", (long long)residual->t,
              (long long)residual->h, (long long)residual->w, (long long)residual->c);
    }
    dev->ops->depth_to_space(dev, y, x, residual, st, ss, first);
}

void op_space_to_depth(struct device *dev, const struct clip *y, const struct clip *x,
                       const struct clip *residual, int st, int ss, bool first)
{
    check_clip("space_to_depth", "x", x);
    check_clip("space_to_depth", "y", y);
    CHECK((st == 1 || st == 2) && (ss == 1 || ss == 2), "space_to_depth: strides %d, %d", st, ss);
    int64_t p = (int64_t)st * ss * ss;
    CHECK(y->c == x->c * p && st * y->t == x->t + (first ? st - 1 : 0) && ss * y->h == x->h &&
              ss * y->w == x->w && x->p != y->p,
          "space_to_depth: x [%lld,%lld,%lld,%lld], y [%lld,%lld,%lld,%lld]", (long long)x->t,
          (long long)x->h, (long long)x->w, (long long)x->c, (long long)y->t, (long long)y->h,
          (long long)y->w, (long long)y->c);
    if (residual) {
        check_clip("space_to_depth", "residual", residual);
        CHECK(residual->t == x->t && residual->h == x->h && residual->w == x->w &&
                  residual->c * p % y->c == 0 && residual->p != y->p,
              "space_to_depth: residual [%lld,%lld,%lld,%lld] for %lld channels",
              (long long)residual->t, (long long)residual->h, (long long)residual->w,
              (long long)residual->c, (long long)y->c);
    }
    dev->ops->space_to_depth(dev, y, x, residual, st, ss, first);
}

void op_patchify(struct device *dev, const struct clip *y, const float *x, int patch)
{
    check_clip("patchify", "y", y);
    CHECK(x && patch > 0 && y->c == 3 * (int64_t)patch * patch, "patchify: %lld channels, patch %d",
          (long long)y->c, patch);
    dev->ops->patchify(dev, y, x, patch);
}

void op_unpatchify(struct device *dev, float *y, const struct clip *x, int patch)
{
    check_clip("unpatchify", "x", x);
    CHECK(y && patch > 0 && x->c == 3 * (int64_t)patch * patch,
          "unpatchify: %lld channels, patch %d", (long long)x->c, patch);
    dev->ops->unpatchify(dev, y, x, patch);
}

void op_to_bytes(struct device *dev, uint8_t *bytes, const float *y, int64_t n)
{
    CHECK(n >= 0 && (n == 0 || (bytes && y)), "to_bytes: n %lld", (long long)n);
    dev->ops->to_bytes(dev, bytes, y, n);
}

void op_to_words(struct device *dev, uint16_t *words, const float *y, int64_t n)
{
    CHECK(n >= 0 && (n == 0 || (words && y)), "to_words: n %lld", (long long)n);
    dev->ops->to_words(dev, words, y, n);
}
