#include "checks.h"

#include "base/error.h"

void check_device(const struct device *dev, const char *op, const char *name, const void *p,
                  int64_t bytes)
{
    if (!dev->ops->owns || !p || bytes == 0) return;
    CHECK(dev->ops->owns(p, (size_t)bytes), "%s: %s, %lld bytes at %p, is not device memory", op,
          name, (long long)bytes, p);
}

void check_host(const struct device *dev, const char *op, const char *name, const void *p)
{
    CHECK(!dev->ops->owns || !dev->ops->owns(p, 1), "%s: %s at %p is not host memory", op, name, p);
}

void check_floats(const struct device *dev, const char *op, const char *name, const float *p,
                  int64_t count)
{
    check_device(dev, op, name, p, count * (int64_t)sizeof *p);
}

void check_mat(const struct device *dev, const char *op, const char *name, struct mat m)
{
    CHECK(m.rows >= 0 && m.cols > 0 && (m.p || m.rows == 0), "%s: %s is [%lld,%lld] at %p", op,
          name, (long long)m.rows, (long long)m.cols, m.p);
    CHECK(m.dtype == DTYPE_F32 || m.dtype == dev->activations,
          "%s: %s is %s, this device computes in F32 and %s", op, name, dtype_name(m.dtype),
          dtype_name(dev->activations));
    check_device(dev, op, name, m.p, m.rows * m.cols * (int64_t)dtype_size(m.dtype));
}

void check_f32(const struct device *dev, const char *op, const char *name, struct mat m)
{
    check_mat(dev, op, name, m);
    CHECK(m.dtype == DTYPE_F32, "%s: %s is %s, not F32", op, name, dtype_name(m.dtype));
}

void check_same(const struct device *dev, const char *op, struct mat a, struct mat b)
{
    check_mat(dev, op, "first operand", a);
    check_mat(dev, op, "second operand", b);
    CHECK(a.rows == b.rows && a.cols == b.cols, "%s: [%lld,%lld] against [%lld,%lld]", op,
          (long long)a.rows, (long long)a.cols, (long long)b.rows, (long long)b.cols);
    CHECK(a.p != b.p || a.dtype == b.dtype || a.rows == 0, "%s: in place, from %s to %s", op,
          dtype_name(b.dtype), dtype_name(a.dtype));
}

void check_same_type(const struct device *dev, const char *op, struct mat a, struct mat b)
{
    check_same(dev, op, a, b);
    CHECK(a.dtype == b.dtype, "%s: %s against %s", op, dtype_name(a.dtype), dtype_name(b.dtype));
}

void check_rows(const struct device *dev, const char *op, struct mat rows, int64_t cols)
{
    if (!rows.p) return;
    check_f32(dev, op, "modulation", rows);
    CHECK(rows.cols == cols && rows.rows >= 1, "%s: modulation [%lld,%lld] for %lld channels", op,
          (long long)rows.rows, (long long)rows.cols, (long long)cols);
}

void check_row_index(const struct device *dev, const char *op, const int32_t *row_index,
                     int64_t rows)
{
    check_device(dev, op, "row_index", row_index, rows * (int64_t)sizeof *row_index);
}

void check_clip(const struct device *dev, const char *op, const char *name, const struct clip *v)
{
    CHECK(v->p && v->t > 0 && v->h > 0 && v->w > 0 && v->c > 0 && (v->pad == 0 || v->pad == 1),
          "%s: %s is [%lld,%lld,%lld,%lld] pad %d at %p", op, name, (long long)v->t,
          (long long)v->h, (long long)v->w, (long long)v->c, v->pad, v->p);
    CHECK(v->dtype == DTYPE_F32 || v->dtype == dev->activations,
          "%s: %s is %s, clips here are F32 or %s", op, name, dtype_name(v->dtype),
          dtype_name(dev->activations));
    check_device(dev, op, name, clip_at(v, 0, -v->above, -v->pad), (int64_t)clip_bytes(v));
}

void check_same_clip(const struct device *dev, const char *op, const struct clip *y,
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

void check_added(const struct device *dev, const char *op, const struct clip *y,
                 const struct clip *add)
{
    check_same_clip(dev, op, y, add);
    CHECK(y->dtype == add->dtype, "%s: %s is added to %s", op, dtype_name(add->dtype),
          dtype_name(y->dtype));
}

void check_bias(const char *op, const struct tensor *bias, int64_t out)
{
    if (!bias) return;
    CHECK(tensor_count(bias) == out && dtype_is_float(bias->dtype),
          "%s: bias %s does not fit %lld outputs", op, bias->name, (long long)out);
}
