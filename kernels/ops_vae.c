/* The front door of what the VAE alone needs: convolutions, clips, pixels. */
#include "checks.h"

#include "base/error.h"

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
