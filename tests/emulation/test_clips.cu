/* kernels/cuda/clips.cu against the CPU backend: the whole memory of a clip is compared, so that
 * border columns must be written as zeros, and neighbours' rows not at all. */
#include "tests/emulation/kernel_support.h"

/* A clip of values that its type has. */
struct HostClip {
    struct clip shape; /* p is set by `clip` */
    enum dtype type;
    std::vector<float> values;

    HostClip(enum dtype of, struct clip extents)
        : shape(extents), type(of), values(rounded(random_values(clip_count(&extents)), of))
    {
    }
    struct clip clip()
    {
        struct clip c = shape;
        c.p = values.data() + shape.above * clip_row(&shape);
        return c;
    }
};
static struct clip extents(int64_t t, int64_t h, int64_t w, int64_t c, int pad = 0, int above = 0,
                           int below = 0)
{
    return {nullptr, DTYPE_F32, t, h, w, c, pad, above, below};
}

class DeviceClip
{
  public:
    DeviceClip(const HostClip &from, int lead)
        : shape_(from.shape), type_(from.type), values_(from.type, from.values, lead)
    {
    }
    /* `count` frames from `first` on */
    struct clip frames(int64_t first, int64_t count)
    {
        struct clip v = shape_;
        v.p = values_.at(shape_.above * clip_row(&shape_));
        v.dtype = type_;
        return clip_frames(&v, first, count);
    }
    struct clip all() { return frames(0, shape_.t); }
    std::vector<float> back() { return values_.back(); }

  private:
    struct clip shape_;
    enum dtype type_;
    Values values_;
};

/* launch(y, x, first, count) on frames, the result in y */
template <class Launch>
static std::vector<float> moved(const HostClip &y, const HostClip &x, const Launch &launch)
{
    return result_any_way(y.shape.t, [&](const Way &way) {
        DeviceClip dy(y, way.lead), dx(x, way.lead);
        each_part(way, [&](int64_t first, int64_t count) {
            EXPECT_LAUNCH(launch(dy.frames(first, count), dx.frames(first, count)));
        });
        return dy.back();
    });
}

static const enum dtype F32 = DTYPE_F32, BF16 = DTYPE_BF16;

/* ---- norms ----------------------------------------------------------------------------------- */

static const struct {
    int64_t t, h, w, c;
} SIZES[] = {{1, 1, 1, 3}, {2, 3, 5, 20}, {3, 2, 3, 128}, {1, 2, 2, 1028}, {2, 1, 3, 37}};

static void check_pixel_norm(HostClip y, HostClip x, bool modulated)
{
    std::vector<float> scale = random_values(x.shape.c), shift = random_values(x.shape.c);
    OnDevice<float> dscale(scale), dshift(shift);
    auto launch = [&](struct clip to, struct clip from) {
        return launch_pixel_norm_silu(nullptr, to, from,
                                      modulated ? static_cast<float *>(dscale) : nullptr,
                                      modulated ? static_cast<float *>(dshift) : nullptr);
    };
    std::vector<float> got = moved(y, x, launch);
    struct clip to = y.clip(), from = x.clip();
    op_pixel_norm_silu(cpu(), &to, &from, modulated ? scale.data() : nullptr,
                       modulated ? shift.data() : nullptr);
    expect_close(got, y.values, tolerance(y.type), "pixel_norm_silu");
}

static void check_layer_norm(HostClip y, HostClip x)
{
    std::vector<float> weight = random_values(x.shape.c), bias = random_values(x.shape.c);
    OnDevice<float> dweight(weight), dbias(bias);
    auto launch = [&](struct clip to, struct clip from) {
        return launch_channel_layer_norm(nullptr, to, from, 1e-6f, dweight, dbias);
    };
    std::vector<float> got = moved(y, x, launch);
    struct clip to = y.clip(), from = x.clip();
    op_channel_layer_norm(cpu(), &to, &from, 1e-6f, weight.data(), bias.data());
    expect_close(got, y.values, tolerance(y.type), "channel_layer_norm");
}

static void test_norms()
{
    for (const auto &s : SIZES)
        for (int pad = 0; pad < 2; pad++) {
            struct clip plain = extents(s.t, s.h, s.w, s.c),
                        wide = extents(s.t, s.h, s.w, s.c, 1, 1, 0);
            struct clip to = pad ? wide : plain;
            check_pixel_norm({F32, to}, {F32, plain}, true);
            check_pixel_norm({BF16, to}, {F32, wide}, pad == 0);
            check_pixel_norm({BF16, to}, {BF16, plain}, false);
            check_layer_norm({F32, to}, {BF16, extents(s.t, s.h, s.w, s.c, 0, 0, 1)});
            check_layer_norm({BF16, to}, {F32, plain});
        }
}

/* An infinity and a NaN stay where they are; y is x. */
static void test_norm_in_place()
{
    HostClip x(F32, extents(2, 2, 3, 24, 1));
    x.values[24 + 5] = INFINITE;
    x.values[2 * 24] = NOT_A_NUMBER;
    DeviceClip dx(x, 0);
    EXPECT_LAUNCH(launch_pixel_norm_silu(nullptr, dx.all(), dx.all(), nullptr, nullptr));
    struct clip c = x.clip();
    op_pixel_norm_silu(cpu(), &c, &c, nullptr, nullptr);
    expect_close(dx.back(), x.values, tolerance(F32), "in place");
}

/* ---- copies, exact --------------------------------------------------------------------------- */

static void check_copy(HostClip y, HostClip x)
{
    auto launch = [](struct clip to, struct clip from) {
        return launch_copy_pad(nullptr, to, from);
    };
    std::vector<float> got = moved(y, x, launch);
    struct clip to = y.clip(), from = x.clip();
    op_copy_pad(cpu(), &to, &from);
    expect_same(got, rounded(y.values, y.type), "copy_pad");
}

static void test_copy_pad()
{
    for (enum dtype to : BOTH_TYPES)
        for (enum dtype from : BOTH_TYPES) {
            check_copy({to, extents(2, 3, 5, 8, 1)}, {from, extents(2, 3, 5, 8)});
            check_copy({to, extents(3, 2, 5, 7, 1, 1, 1)}, {from, extents(3, 2, 5, 7, 0, 1, 0)});
            check_copy({to, extents(1, 2, 130, 24)}, {from, extents(1, 2, 130, 24, 1, 0, 1)});
            check_copy({to, extents(1, 1, 1, 1, 1)}, {from, extents(1, 1, 1, 1, 1)});
        }
}

/* y = x with noise (+ what y holds) */
static void check_noise(HostClip y, HostClip x, bool accumulate)
{
    std::vector<float> map = random_values(y.shape.h * y.shape.w), scale = random_values(y.shape.c);
    OnDevice<float> dmap(map), dscale(scale);
    auto launch = [&](struct clip to, struct clip from) {
        return launch_add_noise_map(nullptr, to, from, dmap, dscale, accumulate ? &to : nullptr);
    };
    std::vector<float> got = moved(y, x, launch);
    struct clip to = y.clip(), from = x.clip();
    op_add_noise_map(cpu(), &to, &from, map.data(), scale.data(), accumulate ? &to : nullptr);
    expect_same(got, rounded(y.values, y.type), "add_noise_map");
}

static void test_add_noise_map()
{
    for (enum dtype to : BOTH_TYPES)
        for (enum dtype from : BOTH_TYPES) {
            check_noise({to, extents(2, 3, 4, 24)}, {from, extents(2, 3, 4, 24)}, true);
            check_noise({to, extents(3, 2, 70, 17, 1, 1, 1)}, {from, extents(3, 2, 70, 17)}, false);
            check_noise({to, extents(1, 1, 1, 1)}, {from, extents(1, 1, 1, 1, 1, 0, 1)}, true);
        }
    HostClip y(BF16, extents(2, 2, 3, 16)); /* in place */
    std::vector<float> map = random_values(6), scale = random_values(16);
    OnDevice<float> dmap(map), dscale(scale);
    DeviceClip dy(y, 0);
    EXPECT_LAUNCH(launch_add_noise_map(nullptr, dy.all(), dy.all(), dmap, dscale, nullptr));
    struct clip c = y.clip();
    op_add_noise_map(cpu(), &c, &c, map.data(), scale.data(), nullptr);
    expect_same(dy.back(), rounded(y.values, BF16), "add_noise_map in place");
}

/* ---- depth and space, exact ------------------------------------------------------------------ */

/* The way of a launch, for moves that cannot be cut by frames: with and without vectors, and by one
 * block. */
template <class Launch>
static std::vector<float> moved_whole(const HostClip &y, const HostClip &x,
                                      const HostClip *residual, const Launch &launch)
{
    return result_any_way(1, [&](const Way &way) {
        DeviceClip dy(y, way.lead), dx(x, way.lead), dr(residual ? *residual : x, way.lead);
        struct clip r = dr.all();
        EXPECT_LAUNCH(launch(dy.all(), dx.all(), residual ? &r : nullptr));
        return dy.back();
    });
}

struct Move {
    enum dtype type, from; /* of y and the residual; of x */
    int st, ss;
    bool first;
    int64_t channels,
        shared; /* of the fine clip; residual: how many the tiled or grouped has, or 0 */
    int pad, above;
};

static void check_depth_to_space(const Move &m)
{
    int64_t p = m.st * m.ss * m.ss, t = 3, h = 2, w = 3;
    HostClip x(m.from, extents(t, h, w, m.channels * p, m.pad, 0, 1));
    HostClip y(m.type, extents(m.st * t - (m.first ? m.st - 1 : 0), m.ss * h, m.ss * w, m.channels,
                               m.pad, m.above));
    HostClip residual(m.type, extents(t, h, w, (m.shared ? m.shared : 1) * p, 1 - m.pad));
    auto launch = [&](struct clip to, struct clip from, const struct clip *r) {
        return launch_depth_to_space(nullptr, to, from, r, m.st, m.ss, m.first);
    };
    std::vector<float> got = moved_whole(y, x, m.shared ? &residual : nullptr, launch);
    struct clip to = y.clip(), from = x.clip(), r = residual.clip();
    op_depth_to_space(cpu(), &to, &from, m.shared ? &r : nullptr, m.st, m.ss, m.first);
    expect_same(got, rounded(y.values, m.type), "depth_to_space");
}

static void check_space_to_depth(const Move &m)
{
    int64_t p = m.st * m.ss * m.ss, t = 3, h = 2, w = 3, drop = m.first ? m.st - 1 : 0;
    struct clip fine = extents(m.st * t - drop, m.ss * h, m.ss * w, m.channels, m.pad, m.above);
    HostClip x(m.from, fine), y(m.type, extents(t, h, w, m.channels * p, m.pad, 0, 1));
    fine.c *= m.shared ? m.shared : 1; /* groups of so many */
    HostClip residual(m.type, fine);
    auto launch = [&](struct clip to, struct clip from, const struct clip *r) {
        return launch_space_to_depth(nullptr, to, from, r, m.st, m.ss, m.first);
    };
    std::vector<float> got = moved_whole(y, x, m.shared ? &residual : nullptr, launch);
    struct clip to = y.clip(), from = x.clip(), r = residual.clip();
    op_space_to_depth(cpu(), &to, &from, m.shared ? &r : nullptr, m.st, m.ss, m.first);
    expect_same(got, rounded(y.values, m.type), "space_to_depth");
}

template <class Check> static void each_move(const Check &check)
{
    for (enum dtype to : BOTH_TYPES)
        for (int st = 1; st <= 2; st++)
            for (int ss = 1; ss <= 2; ss++) {
                check(Move{to, to, st, ss, true, 5, 0, 1, 1});
                check(Move{to, F32, st, ss, false, 8, 3, 0, 0});
                check(Move{to, BF16, st, ss, true, 6, 2, 1, 0});
            }
}
static void test_depth_to_space() { each_move(check_depth_to_space); }
static void test_space_to_depth() { each_move(check_space_to_depth); }

/* ---- pixels, exact --------------------------------------------------------------------------- */

static void check_pixels(enum dtype type, struct clip shape, int patch)
{
    int64_t pixels = shape.t * shape.h * shape.w * patch * patch * 3;
    std::vector<float> x = random_values(pixels), back(x.size());
    HostClip y(type, shape);
    std::vector<float> got = result_any_way(shape.t, [&](const Way &way) {
        DeviceClip dy(y, way.lead);
        Values dx(F32, x, way.lead);
        each_part(way, [&](int64_t first, int64_t count) {
            EXPECT_LAUNCH(launch_patchify(nullptr, dy.frames(first, count),
                                          dx.floats() + first * (pixels / shape.t), patch));
        });
        return dy.back();
    });
    struct clip c = y.clip();
    op_patchify(cpu(), &c, x.data(), patch);
    expect_same(got, rounded(y.values, type), "patchify");

    HostClip z(type, shape);
    got = result_any_way(shape.t, [&](const Way &way) {
        DeviceClip dz(z, way.lead);
        Values dx(F32, back, way.lead);
        each_part(way, [&](int64_t first, int64_t count) {
            EXPECT_LAUNCH(launch_unpatchify(nullptr, dx.floats() + first * (pixels / shape.t),
                                            dz.frames(first, count), patch));
        });
        return dx.back();
    });
    c = z.clip();
    op_unpatchify(cpu(), back.data(), &c, patch);
    expect_same(got, back, "unpatchify");
}

static void test_pixels()
{
    for (enum dtype type : BOTH_TYPES) {
        check_pixels(type, extents(2, 2, 3, 48, 1, 1, 0), 4);
        check_pixels(type, extents(3, 1, 2, 12), 2);
        check_pixels(type, extents(1, 2, 30, 48, 0, 0, 1), 4);
    }
}

static void test_refused()
{
    HostClip x(F32, extents(1, 2, 2, 8)), y(BF16, extents(2, 4, 4, 1));
    DeviceClip dx(x, 0), dy(y, 0);
    struct clip of_x = dx.all();
    EXPECT(launch_depth_to_space(nullptr, dy.all(), of_x, &of_x, 2, 2, false) ==
               cudaErrorInvalidValue,
           "a residual of another type");
    EXPECT(launch_add_noise_map(nullptr, dy.all(), dy.all(), nullptr, nullptr, &of_x) ==
               cudaErrorInvalidValue,
           "a sum of two types");
    EXPECT(launch_depth_to_space(nullptr, dx.all(), dx.all(), nullptr, 3, 1, false) ==
               cudaErrorInvalidValue,
           "stride 3");
    EXPECT(launch_patchify(nullptr, dx.all(), nullptr, 4) == cudaErrorInvalidValue, "channels");
}

int main()
{
    const Case cases[] = {{"norms over channels", test_norms},
                          {"pixel norm in place", test_norm_in_place},
                          {"copy_pad", test_copy_pad},
                          {"add_noise_map", test_add_noise_map},
                          {"depth_to_space", test_depth_to_space},
                          {"space_to_depth", test_space_to_depth},
                          {"patchify and unpatchify", test_pixels},
                          {"what is refused", test_refused}};
    return run_cases(cases);
}
