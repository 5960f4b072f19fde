/* The ops that only the VAE encoder uses, as test_kernels.c tests the others: strided convolutions,
 * space-to-depth, patchify. */
#include "tests/unit/kernel_helpers.h"

/* ---- strided convolutions -------------------------------------------------------------------- */

struct conv_case {
    int64_t t, h, w, in, out;
    int kernel, stride_t, stride_s;
    bool add;
};

/* Causal, zeros around the picture. */
static double naive_conv(const struct conv_case *c, const struct clip *x, const float *weight,
                         int64_t t, int64_t y, int64_t px, int64_t o)
{
    int k = c->kernel;
    double sum = 0.0;
    for (int tap = 0; tap < k * k * k; tap++) {
        int64_t ft = c->stride_t * t + tap / (k * k) - (k - 1);
        int64_t fy = c->stride_s * y + tap / k % k - k / 2, fx = c->stride_s * px + tap % k - k / 2;
        if (fy < 0 || fy >= c->h || fx < 0 || fx >= c->w) continue;
        for (int64_t i = 0; i < c->in; i++)
            sum += (double)at(x, ft < 0 ? 0 : ft, fy, fx)[i] *
                   weight[(o * c->in + i) * k * k * k + tap];
    }
    return sum;
}

static float *run_conv(struct device *dev, const void *argument, int64_t *n)
{
    const struct conv_case *c = argument;
    int64_t k = c->kernel;
    const float *weight = floats(c->out * c->in * k * k * k), *bias = floats(c->out);
    struct tensor w = {"w", DTYPE_F32, 5, {c->out, c->in, k, k, k}, weight, 0};
    struct tensor b = {"b", DTYPE_F32, 1, {c->out}, bias, 0};
    struct conv conv = conv_make(&w, &b);
    conv.stride_t = c->stride_t;
    conv.stride_s = c->stride_s;
    struct clip x = clip_of(c->t, c->h, c->w, c->in, 1);
    struct clip y =
        clip_of((c->t + c->stride_t - 1) / c->stride_t, (c->h + c->stride_s - 1) / c->stride_s,
                (c->w + c->stride_s - 1) / c->stride_s, c->out, 0);
    clear_border(&x);
    *n = clip_count(&y);
    float *before = copy_of(y.p, *n);
    op_conv_pack(dev, &conv);
    op_conv3d(dev, &y, &x, &conv, 2, c->add ? &y : NULL, NULL);
    op_conv_unpack(dev, &conv);
    double *want = doubles(*n);
    for (int64_t i = 0; i < *n; i++) {
        int64_t o = i % y.c, px = i / y.c % y.w, row = i / y.c / y.w;
        want[i] = naive_conv(c, &x, weight, row / y.h, row % y.h, px, o) + bias[o];
        if (c->add) want[i] += before[i];
    }
    expect_close("strided conv3d", y.p, want, *n, close_sum);
    return y.p;
}

static void test_strided_conv(void **state)
{
    (void)state;
    static const struct conv_case cases[] = {
        {1, 2, 2, 3, 5, 3, 2, 2, false},    {9, 6, 10, 20, 33, 3, 2, 2, false},
        {5, 3, 7, 70, 16, 3, 2, 1, true},   {3, 8, 26, 16, 48, 3, 1, 2, false},
        {4, 5, 7, 8, 17, 3, 2, 2, true}, /* extents of the other parity */
        {3, 2, 820, 4, 16, 3, 1, 2, false}, {5, 4, 6, 40, 20, 1, 2, 2, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        on_all_devices("strided conv3d", run_conv, cases + i);
}

/* ---- space to depth -------------------------------------------------------------------------- */

struct shuffle_case {
    int st, ss, pad;
    int64_t channels, residual; /* of x; of the residual, 0 = none */
};

/* Channel `index` of the space-to-depth of x with its first frame doubled. */
static double folded(const struct clip *x, const struct shuffle_case *c, int64_t t, int64_t h,
                     int64_t w, int64_t index)
{
    int64_t i3 = index % c->ss, i2 = index / c->ss % c->ss, i1 = index / (c->ss * c->ss) % c->st;
    int64_t frame = c->st * t + i1; /* of the clip with the doubled frame */
    if (c->st == 2 && frame > 0) frame--;
    return at(x, frame, c->ss * h + i2, c->ss * w + i3)[index / (c->st * c->ss * c->ss)];
}

static float *run_shuffle(struct device *dev, const void *argument, int64_t *n)
{
    const struct shuffle_case *c = argument;
    enum { T = 5, H = 4, W = 6 };
    int64_t p = c->st * c->ss * c->ss;
    struct clip x = clip_of(T, H, W, c->channels, 1 - c->pad);
    struct clip r = clip_of(T, H, W, c->residual ? c->residual : 1, 0);
    struct clip y = clip_of((T + c->st - 1) / c->st, H / c->ss, W / c->ss, c->channels * p, c->pad);
    op_space_to_depth(dev, &y, &x, c->residual ? &r : NULL, c->st, c->ss, true);
    for (int64_t i = 0; i < y.t * y.h * y.w; i++) {
        int64_t t = i / (y.h * y.w), h = i / y.w % y.h, w = i % y.w;
        int64_t group = c->residual * p / y.c;
        double *want = doubles(y.c);
        for (int64_t o = 0; o < y.c; o++) {
            double sum = 0;
            for (int64_t k = 0; k < group; k++) sum += folded(&r, c, t, h, w, o * group + k);
            want[o] = folded(&x, c, t, h, w, o) + (c->residual ? sum / (double)group : 0);
        }
        expect_close("space_to_depth", at(&y, t, h, w), want, y.c, c->residual ? close_enough : 0);
        free(blocks[--block_count]);
    }
    expect_clear_border("space_to_depth", &y);
    *n = clip_count(&y);
    return y.p;
}

static void test_shuffle(void **state)
{
    (void)state;
    static const struct shuffle_case cases[] = {
        {2, 2, 1, 6, 0}, {1, 2, 0, 8, 16}, {2, 1, 1, 16, 16}, {2, 1, 0, 4, 8},
        {2, 2, 0, 2, 8}, {2, 2, 1, 9, 27}, {1, 1, 0, 3, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        on_all_devices("space_to_depth", run_shuffle, cases + i);
}

/* Depth to space undoes it. */
static float *run_round_trip(struct device *dev, const void *argument, int64_t *n)
{
    const struct shuffle_case *c = argument;
    struct clip x = clip_of(5, 4, 6, c->channels, 0), back = clip_of(5, 4, 6, c->channels, 0);
    struct clip y = clip_of((5 + c->st - 1) / c->st, 4 / c->ss, 6 / c->ss,
                            c->channels * c->st * c->ss * c->ss, c->pad);
    op_space_to_depth(dev, &y, &x, NULL, c->st, c->ss, true);
    op_depth_to_space(dev, &back, &y, NULL, c->st, c->ss, true);
    *n = clip_count(&x);
    expect_same("space to depth and back", x.p, back.p, *n);
    return back.p;
}

static float *run_patchify(struct device *dev, const void *argument, int64_t *n)
{
    int pad = *(const int *)argument;
    struct clip y = clip_of(2, 2, 3, 48, pad);
    float *pixels = floats(2 * 8 * 12 * 3), *back = floats(2 * 8 * 12 * 3);
    op_patchify(dev, &y, pixels, 4);
    for (int64_t i = 0; i < 2 * 6 * 48;
         i++) { /* P[(c*4 + r)*4 + q, t, y, x] = V[c, t, 4y+q, 4x+r] */
        int64_t to = i % 48, t = i / (6 * 48), h = i / 48 / 3 % 2, w = i / 48 % 3;
        int64_t c = to / 16, r = to / 4 % 4, q = to % 4;
        assert_true(at(&y, t, h, w)[to] == pixels[((t * 8 + 4 * h + q) * 12 + 4 * w + r) * 3 + c]);
    }
    expect_clear_border("patchify", &y);
    op_unpatchify(dev, back, &y, 4);
    expect_same("patchify and back", pixels, back, 2 * 8 * 12 * 3);
    *n = clip_count(&y);
    return y.p;
}

static void test_round_trips(void **state)
{
    (void)state;
    static const struct shuffle_case cases[] = {
        {2, 2, 1, 6, 0}, {1, 2, 0, 5, 0}, {2, 1, 1, 3, 0}, {1, 1, 0, 3, 0}};
    static const int pads[] = {0, 1};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        on_all_devices("space to depth and back", run_round_trip, cases + i);
    for (int i = 0; i < 2; i++) on_all_devices("patchify", run_patchify, pads + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_strided_conv, teardown),
        cmocka_unit_test_teardown(test_shuffle, teardown),
        cmocka_unit_test_teardown(test_round_trips, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
