/* Convolutions of kernels/cuda against a plain computation in whole numbers, where no order of
 * summation rounds; against the CPU backend; and bit for bit against themselves: spans, rows and
 * frames spread over launches differently, clips of other types. */
#include "kernels/cuda/conv.h"
#include "tests/emulation/test_support.h"

extern "C" {
#include "kernels/ops.h"
}

using Floats = std::vector<float>;

/* ---- clips ----------------------------------------------------------------------------------- */

/* A clip in host memory, everything fp32: what the plain computation and the CPU backend read. */
struct Clip {
    struct clip v;
    Floats values; /* with border and halo rows */
    Clip(int64_t t, int64_t h, int64_t w, int64_t c, int pad = 0, int above = 0, int below = 0)
        : v{nullptr, DTYPE_F32, t, h, w, c, pad, above, below},
          values(static_cast<size_t>(clip_count(&v)), 0.0f)
    {
    }
    size_t before() const { return static_cast<size_t>(v.above * clip_row(&v)); }
    struct clip look()
    {
        struct clip view = v;
        view.p = values.data() + before();
        return view;
    }
    float *at(int64_t t, int64_t y, int64_t x)
    {
        struct clip view = look();
        return static_cast<float *>(clip_at(&view, t, y, x));
    }
    /* Every position; `border` false: columns beyond the picture stay 0. */
    template <class Value> void fill(Value value, bool border = false)
    {
        size_t i = 0;
        for (int64_t t = 0; t < v.t; t++)
            for (int64_t y = -v.above; y < v.h + v.below; y++)
                for (int64_t x = border ? -v.pad : 0; x < v.w + (border ? v.pad : 0); x++)
                    for (int64_t c = 0; c < v.c; c++) at(t, y, x)[c] = value(i++);
    }
    /* Frames [first, first + t), rows [row, row + h) of this, with its neighbours as halo rows. */
    Clip part(int64_t first, int64_t t, int64_t row, int64_t h)
    {
        Clip to(t, h, v.w, v.c, v.pad, row > 0, row + h < v.h);
        for (int64_t f = 0; f < t; f++)
            for (int64_t y = -to.v.above; y < h + to.v.below; y++)
                memcpy(to.at(f, y, -v.pad), at(first + f, row + y, -v.pad),
                       sizeof(float) * static_cast<size_t>(clip_row(&v)));
        return to;
    }
};

/* The same on the device, in its type. */
class DeviceClip
{
  public:
    DeviceClip(const Clip &clip, enum dtype type)
        : memory_(stored(clip.values, type)), like_(clip), type_(type)
    {
    }
    operator struct clip()
    {
        struct clip v = like_.v;
        v.p = static_cast<uint8_t *>(memory_) + like_.before() * dtype_size(type_);
        v.dtype = type_;
        return v;
    }
    Clip back() const
    {
        Clip clip = like_;
        std::vector<uint8_t> bytes = memory_.back();
        for (size_t i = 0; i < clip.values.size(); i++) {
            uint16_t half;
            memcpy(&half, &bytes[type_ == DTYPE_F32 ? 0 : 2 * i], 2);
            clip.values[i] = bf16_value(half);
            if (type_ == DTYPE_F32) memcpy(&clip.values[i], &bytes[i * 4], 4);
        }
        return clip;
    }

  private:
    static std::vector<uint8_t> stored(const Floats &x, enum dtype type)
    {
        std::vector<uint8_t> bytes(x.size() * (type == DTYPE_F32 ? 4 : 2));
        for (size_t i = 0; i < x.size(); i++) {
            uint16_t half = bf16_bits(x[i]);
            if (type == DTYPE_F32)
                memcpy(&bytes[4 * i], &x[i], 4);
            else
                memcpy(&bytes[2 * i], &half, 2);
        }
        return bytes;
    }
    OnDevice<uint8_t> memory_;
    Clip like_;
    enum dtype type_;
};

/* ---- convolutions ---------------------------------------------------------------------------- */

struct Layer {
    conv_shape shape;
    Floats weight, bias;
    int64_t taps() const { return int64_t{shape.kernel} * shape.kernel * shape.kernel; }
};

template <class Value> Layer make_layer(const conv_shape &shape, Value value)
{
    Layer layer = {shape, {}, {}};
    size_t count = static_cast<size_t>(shape.out * shape.in * layer.taps());
    for (size_t i = 0; i < count; i++) layer.weight.push_back(value(i));
    for (int64_t o = 0; o < shape.out; o++) layer.bias.push_back(value(count + o));
    return layer;
}

/* What a launch may be asked for besides a layer and a clip. */
struct Options {
    enum dtype x = DTYPE_F32, y = DTYPE_F32, weight = DTYPE_F32;
    int front = 1;
    conv_span span = {}; /* 0 rows: everywhere */
    bool add = false;    /* what y held before */
    /* x is normed as it is read, in which border columns are a neighbour's or not */
    bool normed = false, modulated = false, left = false, right = false;
    enum conv_kernel_kind kind = CONV_MMA;
};

/* What PixelNorm is modulated by. */
struct Modulation {
    OnDevice<float> scale, shift;
    explicit Modulation(int64_t channels) : scale(values(channels, 3)), shift(values(channels, 5))
    {
    }

  private:
    static Floats values(int64_t channels, size_t seed);
};

static std::vector<uint16_t> half_bits(const Floats &x)
{
    std::vector<uint16_t> bits;
    for (float v : x) bits.push_back(bf16_bits(v));
    return bits;
}

/* y, of which only the span changes */
static Clip convolve(const Layer &layer, const Clip &x, Clip y, const Options &o)
{
    OnDevice<float> weight(layer.weight), bias(layer.bias);
    OnDevice<uint16_t> weight16(half_bits(layer.weight));
    OnDevice<uint8_t> packed(conv_weights_bytes(&layer.shape));
    const void *from = weight;
    if (o.weight == DTYPE_BF16) from = weight16;
    EXPECT(conv_weights_pack(nullptr, packed, from, o.weight, &layer.shape) == cudaSuccess, "pack");
    DeviceClip dx(x, o.x), dy(y, o.y);
    conv_job job = {dy, dx, layer.shape, packed, bias, nullptr, o.front, o.span, {}, o.kind};
    if (o.add) job.add = job.y.p;
    if (!o.span.rows) job.span = {0, y.v.h, 0, y.v.w, 0, 0};
    OnDevice<float> factors(x.values.size() / static_cast<size_t>(x.v.c));
    Modulation modulation(x.v.c);
    if (o.normed) {
        conv_span all = {-x.v.above,
                         x.v.above + x.v.h + x.v.below,
                         -int64_t{o.left},
                         o.left + x.v.w + o.right,
                         0,
                         0};
        EXPECT(launch_pixel_factor(nullptr, factors, dx, &all) == cudaSuccess, "factors");
        job.norm = {factors + x.before() / static_cast<size_t>(x.v.c), nullptr, nullptr, o.left,
                    o.right};
        if (o.modulated) job.norm.scale = modulation.scale, job.norm.shift = modulation.shift;
    }
    EXPECT(conv_launch(nullptr, &job) == cudaSuccess, "launch");
    return dy.back();
}

static Clip output_of(const Layer &layer, const Clip &x, int64_t t)
{
    int s = layer.shape.stride_s;
    return Clip(t, (x.v.h - 1) / s + 1, (x.v.w - 1) / s + 1, layer.shape.out);
}

/* Definition, everywhere. */
static Clip plain(const Layer &layer, Clip x, Clip y, int front, bool add)
{
    const conv_shape &s = layer.shape;
    int kernel = s.kernel, half = kernel / 2;
    auto element = [&](int64_t t, int64_t h, int64_t w, int64_t o) {
        double sum = layer.bias[o];
        for (int64_t tap = 0; tap < layer.taps(); tap++) {
            int64_t kt = tap / (kernel * kernel), ky = tap / kernel % kernel, kx = tap % kernel;
            int64_t from = t * s.stride_t + kt - (kernel == 1 ? 0 : front);
            int64_t row = h * s.stride_s + ky - half, column = w * s.stride_s + kx - half;
            from = from < 0 ? 0 : from >= x.v.t ? x.v.t - 1 : from;
            if (row < -x.v.above || row >= x.v.h + x.v.below) continue;
            if (column < -x.v.pad || column >= x.v.w + x.v.pad) continue;
            for (int64_t c = 0; c < s.in; c++)
                sum += x.at(from, row, column)[c] *
                       static_cast<double>(layer.weight[(o * s.in + c) * layer.taps() + tap]);
        }
        return sum;
    };
    for (int64_t t = 0; t < y.v.t; t++)
        for (int64_t h = 0; h < y.v.h; h++)
            for (int64_t w = 0; w < y.v.w; w++)
                for (int64_t o = 0; o < s.out; o++) {
                    float *to = y.at(t, h, w) + o;
                    *to = static_cast<float>(element(t, h, w, o) + (add ? *to : 0));
                }
    return y;
}

/* ---- whole numbers: equal, whatever the order -------------------------------------------------
 */

static uint32_t mixed(size_t i)
{
    uint32_t bits = static_cast<uint32_t>(i) * 2654435761u;
    bits ^= bits >> 15, bits *= 0x2C1B3C6Du, bits ^= bits >> 12;
    return bits;
}
/* -4 … 4, and no two channels of a layer alike */
static float whole(size_t i) { return static_cast<float>(mixed(i) % 9) - 4; }

struct Exact {
    int64_t t, h, w;
    int pad, above, below;
    conv_shape shape;
    int64_t frames; /* of y */
    int front;
};

static void check_exact(const Exact &e, enum dtype type, bool add, enum conv_kernel_kind kind)
{
    Layer layer = make_layer(e.shape, whole);
    Clip x(e.t, e.h, e.w, e.shape.in, e.pad, e.above, e.below);
    x.fill([](size_t i) { return whole(i + 77777); }, true); /* border columns of a neighbour */
    Clip y = output_of(layer, x, e.frames);
    y.fill([](size_t i) { return whole(i + 555); });
    Clip want = plain(layer, x, y, e.front, add);
    Options o;
    o.x = o.y = o.weight = type;
    o.front = e.front;
    o.add = add;
    o.kind = kind;
    if (type == DTYPE_BF16)
        for (float &v : want.values) v = bf16_value(bf16_bits(v));
    Clip got = convolve(layer, x, y, o);
    EXPECT(different(got.values, want.values) == 0, "in %d out %d kernel %d, type %d, kind %d: %zu",
           int(e.shape.in), int(e.shape.out), e.shape.kernel, int(type), int(kind),
           different(got.values, want.values));
}

/* wgmma is for 9.0, and for panels of 128. */
static bool has_wgmma(int64_t out) { return out > 64 && capability() == 90; }

static void test_exact()
{
    const Exact cases[] = {
        {2, 5, 6, 1, 0, 0, {32, 32, 3, 1, 1}, 2, 1},  /* whole blocks */
        {1, 2, 3, 1, 0, 0, {3, 48, 3, 1, 1}, 1, 1},   /* frames are copies; vectors of nothing */
        {4, 5, 4, 1, 1, 0, {24, 129, 3, 2, 2}, 2, 2}, /* causal, half of everything, two panels */
        {3, 4, 3, 1, 0, 1, {129, 3, 3, 1, 1}, 2, 0},  /* frames behind a clip's first */
        {6, 3, 4, 1, 0, 0, {8, 16, 3, 2, 1}, 2, -1},  /* causal, behind an odd number of frames */
        {2, 3, 23, 1, 1, 1, {12, 64, 3, 1, 1}, 2, 1}, /* boxes of several frames */
        {1,
         5,
         17,
         1,
         1,
         0,
         {40, 72, 3, 1, 1},
         1,
         1},                                         /* two boxes, two tiles for each tap of time */
        {3, 5, 4, 0, 0, 0, {20, 70, 1, 2, 2}, 2, 1}, /* kernel 1 */
        {2, 3, 5, 1, 0, 0, {72, 16, 1, 1, 1}, 2, 0}, /* kernel 1 of a clip with border */
        {2, 3, 2, 0, 0, 0, {16, 33, 3, 1, 1}, 2, 1}, /* no border: zeros beyond */
    };
    int number = 0;
    for (const Exact &e : cases) {
        bool odd = number++ % 2;
        check_exact(e, DTYPE_F32, !odd, CONV_MMA);
        check_exact(e, DTYPE_BF16, odd, CONV_MMA);
        if (has_wgmma(e.shape.out)) check_exact(e, odd ? DTYPE_BF16 : DTYPE_F32, odd, CONV_WGMMA);
    }
}

/* ---- against the CPU backend ------------------------------------------------------------------
 */

/* Uniform within [-1, 1]; not bf16 numbers. */
static float real(size_t i)
{
    return static_cast<float>(static_cast<int32_t>(mixed(i))) * 0x1p-31f;
}

Floats Modulation::values(int64_t channels, size_t seed)
{
    Floats values;
    for (int64_t i = 0; i < channels; i++) values.push_back(real(seed * 1000 + i));
    return values;
}

/* sqrt(sum of squared differences / sum of squares) */
static double distance(const Floats &x, const Floats &y)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < x.size(); i++) {
        error += (x[i] - double{y[i]}) * (x[i] - double{y[i]});
        size += double{y[i]} * y[i];
    }
    return sqrt(error / size);
}

class Cpu
{
  public:
    Cpu() : device_(device_open_cpu(1, "generic", PRECISION_F32)) {}
    ~Cpu() { device_close(device_); }
    Clip convolve(const Layer &layer, Clip x, Clip y, int front, bool add)
    {
        const conv_shape &s = layer.shape;
        tensor weight = {"weight",
                         DTYPE_F32,
                         5,
                         {s.out, s.in, s.kernel, s.kernel, s.kernel},
                         layer.weight.data(),
                         layer.weight.size() * 4};
        tensor bias = {"bias", DTYPE_F32, 1, {s.out}, layer.bias.data(), layer.bias.size() * 4};
        struct conv c = conv_make(&weight, &bias);
        c.stride_t = s.stride_t, c.stride_s = s.stride_s;
        op_conv_pack(device_, &c);
        struct clip from = x.look(), to = y.look();
        op_conv3d(device_, &to, &from, &c, front, add ? &to : nullptr, nullptr);
        op_conv_unpack(device_, &c);
        return y;
    }

  private:
    struct device *device_;
};

/* Both factors of a product are rounded to bf16, by at most 2^-8 of themselves and in the mean of
 * squares by 0.42 of that: sums of independent products are wrong by 0.6 * 2^-8 of themselves, and
 * by 0.9 * 2^-8 where one of them is cut off instead. */
constexpr double ROUNDED = 0.72 * 0x1p-8;

static void test_cpu()
{
    Cpu cpu;
    const Exact cases[] = {
        {2, 5, 6, 1, 1, 1, {24, 40, 3, 1, 1}, 2, 1},
        {3, 4, 5, 1, 0, 1, {33, 16, 3, 2, 1}, 2, 2},
        {2, 5, 4, 1, 1, 0, {16, 33, 3, 1, 2}, 2, 0},
        {3, 3, 5, 0, 0, 0, {64, 48, 1, 1, 1}, 3, 1},
    };
    for (const Exact &e : cases) {
        Layer layer = make_layer(e.shape, real);
        Clip x(e.t, e.h, e.w, e.shape.in, e.pad, e.above, e.below),
            y = output_of(layer, x, e.frames);
        x.fill([](size_t i) { return real(i + 123456); }, true);
        y.fill([](size_t i) { return real(i + 999); });
        Options o;
        o.front = e.front;
        o.add = true;
        double apart = distance(convolve(layer, x, y, o).values,
                                cpu.convolve(layer, x, y, e.front, true).values);
        EXPECT(apart < ROUNDED, "in %d: %g", int(e.shape.in), apart);
        EXPECT(apart > 0x1p-14, "in %d: %g is less than bf16 must cost", int(e.shape.in), apart);
    }
}

/* ---- the same bits ----------------------------------------------------------------------------
 */

static const conv_shape ROUGH = {24, 18, 3, 1, 1};

static Clip rough_clip(int64_t t, int64_t h, int64_t w)
{
    Clip x(t, h, w, ROUGH.in, 1);
    x.fill([](size_t i) { return bf16_value(bf16_bits(real(i + 31))); }, true);
    return x;
}

static void test_types()
{
    Layer layer = make_layer(ROUGH, [](size_t i) { return bf16_value(bf16_bits(real(i))); });
    Clip x = rough_clip(2, 4, 5), y = output_of(layer, x, 2);
    Options f32, bf16;
    bf16.x = bf16.weight = DTYPE_BF16;
    Clip want = convolve(layer, x, y, f32);
    EXPECT_SAME(convolve(layer, x, y, bf16).values, want.values);
    /* the first 20 channels, which are no whole vectors of bf16, of a layer that ignores the rest
     */
    Layer narrow = {{20, ROUGH.out, 3, 1, 1}, {}, layer.bias}, wide = layer;
    Clip thin(2, 4, 5, 20, 1);
    for (size_t i = 0; i < layer.weight.size(); i++)
        if (i / 27 % 24 < 20)
            narrow.weight.push_back(layer.weight[i]);
        else
            wide.weight[i] = 0.0f;
    for (size_t i = 0; i < thin.values.size(); i++) thin.values[i] = x.values[i / 20 * 24 + i % 20];
    EXPECT_SAME(convolve(narrow, thin, y, bf16).values, convolve(wide, x, y, bf16).values);
    EXPECT_SAME(convolve(narrow, thin, y, f32).values, convolve(wide, x, y, f32).values);
}

static void test_spans()
{
    Layer layer = make_layer(ROUGH, real);
    Clip x = rough_clip(2, 7, 11), y = output_of(layer, x, 2);
    y.fill(whole);
    Options o;
    o.x = DTYPE_BF16;
    o.add = true;
    Clip all = convolve(layer, x, y, o), parts = y;
    const conv_span spans[] = {{0, 7, 0, 1, 0, 0},
                               {0, 1, 1, 10, 0, 0},
                               {1, 6, 10, 1, 0, 0},
                               {1, 5, 1, 9, 0, 0},
                               {6, 1, 1, 9, 0, 0}};
    for (const conv_span &span : spans) {
        o.span = span;
        parts = convolve(layer, x, parts, o);
    }
    EXPECT_SAME(parts.values, all.values);
}

/* What a rank with some of the rows, and a segment with some of the frames, computes. */
static void test_splits()
{
    for (enum dtype type : {DTYPE_F32, DTYPE_BF16}) {
        Layer layer = make_layer(ROUGH, real);
        Clip x = rough_clip(5, 6, 3), y = output_of(layer, x, 5);
        Options o;
        o.x = type;
        Clip all = convolve(layer, x, y, o);
        const int64_t rows[] = {0, 1, 4, 6};
        for (int r = 0; r < 3; r++) {
            Clip part = x.part(0, 5, rows[r], rows[r + 1] - rows[r]);
            Clip got = convolve(layer, part, output_of(layer, part, 5), o);
            Clip want = all.part(0, 5, rows[r], part.v.h); /* with halo rows, which go */
            Clip bare(5, part.v.h, 3, ROUGH.out);
            for (int64_t t = 0; t < 5; t++)
                for (int64_t h = 0; h < part.v.h; h++)
                    memcpy(bare.at(t, h, 0), want.at(t, h, 0), sizeof(float) * 3 * ROUGH.out);
            EXPECT_SAME(got.values, bare.values);
        }
        Clip first = x.part(0, 3, 0, 6), last = x.part(1, 4, 0, 6); /* frames 0, 1; 2, 3, 4 */
        Clip got = convolve(layer, first, output_of(layer, first, 2), o);
        EXPECT_SAME(got.values, all.part(0, 2, 0, 6).values);
        o.front = 0;
        got = convolve(layer, last, output_of(layer, last, 3), o);
        EXPECT_SAME(got.values, all.part(2, 3, 0, 6).values);
    }
}

/* Columns [first, first + w), between the neighbours' as borders. */
static Clip columns_of(Clip x, int64_t first, int64_t w)
{
    Clip to(x.v.t, x.v.h, w, x.v.c, x.v.pad);
    for (int64_t t = 0; t < x.v.t; t++)
        for (int64_t y = 0; y < x.v.h; y++)
            memcpy(to.at(t, y, -x.v.pad), x.at(t, y, first - x.v.pad),
                   sizeof(float) * static_cast<size_t>(clip_row(&to.v)));
    return to;
}

/* A norm in the convolution's load, against a pass before it: everywhere, and in parts. */
static void check_normed(int64_t channels, int64_t out, bool modulated, enum conv_kernel_kind kind)
{
    Layer layer = make_layer({channels, out, 3, 1, 1}, real);
    Clip x(3, 6, 7, channels, 1), y = output_of(layer, x, 3);
    x.fill([](size_t i) { return bf16_value(bf16_bits(2 * real(i + 31))); }, true);
    Modulation modulation(channels);
    const float *scale = modulated ? modulation.scale : static_cast<float *>(nullptr);
    const float *shift = modulated ? modulation.shift : static_cast<float *>(nullptr);
    DeviceClip raw(x, DTYPE_BF16), normed(x, DTYPE_BF16);
    EXPECT(launch_pixel_norm_silu(nullptr, normed, raw, scale, shift) == cudaSuccess, "a pass");
    Options o;
    o.x = DTYPE_BF16;
    o.kind = kind;
    Clip all = convolve(layer, normed.back(), y, o);
    o.normed = true, o.modulated = modulated;
    EXPECT_SAME(convolve(layer, x, y, o).values, all.values);

    Clip part = x.part(0, 3, 2, 3), within = all.part(0, 3, 2, 3), bare(3, 3, 7, out);
    for (int64_t t = 0; t < 3; t++)
        for (int64_t h = 0; h < 3; h++)
            memcpy(bare.at(t, h, 0), within.at(t, h, 0),
                   sizeof(float) * 7 * static_cast<size_t>(out));
    EXPECT_SAME(convolve(layer, part, bare, o).values, bare.values);

    Clip inner = columns_of(x, 2, 3);
    o.left = o.right = true;
    EXPECT_SAME(convolve(layer, inner, Clip(3, 6, 3, out), o).values, columns_of(all, 2, 3).values);
    o.left = false;
    Clip first = columns_of(x, 0, 4);
    EXPECT_SAME(convolve(layer, first, Clip(3, 6, 4, out), o).values, columns_of(all, 0, 4).values);
}

static void test_normed()
{
    check_normed(40, 18, true, CONV_MMA); /* vectors, a block of inputs that is not full */
    check_normed(20, 18, true, CONV_MMA);
    check_normed(33, 18, false, CONV_MMA);
    if (has_wgmma(66)) check_normed(24, 66, true, CONV_WGMMA);
}

/* ---- what does not fit ------------------------------------------------------------------------
 */

static void test_refused()
{
    Layer layer = make_layer(ROUGH, whole);
    Clip x = rough_clip(1, 2, 3);
    DeviceClip dx(x, DTYPE_F32), dy(output_of(layer, x, 1), DTYPE_F32);
    OnDevice<uint8_t> packed(conv_weights_bytes(&ROUGH));
    const conv_job good = {dy, dx,      ROUGH, packed, nullptr, nullptr, 1, {0, 2, 0, 3, 0, 0},
                           {}, CONV_MMA};
    conv_job jobs[] = {good, good, good, good, good, good, good};
    jobs[0].shape.kernel = 2;
    jobs[1].shape.in = 32;
    jobs[2].span.rows = 3;
    jobs[3].x.dtype = DTYPE_F16;
    jobs[4].shape.stride_s = 2;
    jobs[5].y.p = jobs[5].x.p;
    jobs[6].norm.factor =
        reinterpret_cast<const float *>(static_cast<uint8_t *>(packed)); /* fp32 */
    EXPECT(conv_launch(nullptr, &good) == cudaSuccess, "a good one");
    for (const conv_job &job : jobs)
        EXPECT(conv_launch(nullptr, &job) == cudaErrorInvalidValue, "job %d", int(&job - jobs));
    EXPECT(conv_weights_pack(nullptr, packed, packed, DTYPE_I32, &ROUGH) == cudaErrorInvalidValue,
           "type of weights");
}

int main()
{
    const Case cases[] = {{"whole numbers", test_exact},
                          {"against the CPU backend", test_cpu},
                          {"types of clips and weights", test_types},
                          {"spans", test_spans},
                          {"rows and frames", test_splits},
                          {"normed on the way", test_normed},
                          {"refusals", test_refused}};
    return run_cases(cases);
}
