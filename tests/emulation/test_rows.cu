/* kernels/cuda/rows.cu against the CPU backend. */
#include "tests/emulation/kernel_support.h"

struct Shape {
    int64_t rows, cols, steps; /* steps: distinct modulation rows */
};
/* One warp a row and several; vectors, 6k + 4 and odd widths; one row, and rows that do not fill a
 * block; the largest width. */
static const Shape SHAPES[] = {{1, 4, 1},    {7, 10, 3},   {5, 100, 2},  {3, 513, 1},
                               {3, 1540, 2}, {2, 2048, 2}, {1, 8192, 1}, {4, 77, 4}};

static const float EPS = 1e-5f;

static struct mat matrix(std::vector<float> &v, int64_t cols)
{
    return mat_f32(v.data(), static_cast<int64_t>(v.size()) / cols, cols);
}

/* A row has an infinity, another a NaN: the others must not notice. */
static std::vector<float> random_rows(const Shape &s)
{
    std::vector<float> v = random_values(s.rows * s.cols);
    for (float &x : v) x = 3 * x + 0.5f;
    if (s.rows >= 4) {
        v[static_cast<size_t>(s.cols * 2 - 1)] = INFINITE;
        v[static_cast<size_t>(s.cols * 2)] = NOT_A_NUMBER;
    }
    return v;
}

/* Two tables of modulations and which row of them each token has. */
struct Modulation {
    std::vector<float> shift, scale;
    std::vector<int32_t> index;
    explicit Modulation(const Shape &s)
        : shift(random_values(s.steps * s.cols)), scale(random_values(s.steps * s.cols)),
          index(random_numbers(s.rows, s.steps))
    {
    }
};

/* ---- norms ----------------------------------------------------------------------------------- */

static void check_norm(const Shape &s, enum norm kind, enum dtype to, enum dtype from,
                       bool modulated)
{
    Modulation m(s);
    std::vector<float> x = rounded(random_rows(s), from), want(x.size());
    OnDevice<int32_t> index(m.index);
    auto result = [&](const Way &way) {
        Values dx(from, x, way.lead), dy(to, std::vector<float>(x.size()), way.lead);
        Values shift(DTYPE_F32, m.shift, way.lead), scale(DTYPE_F32, m.scale, way.lead);
        each_part(way, [&](int64_t first, int64_t count) {
            EXPECT_LAUNCH(launch_norm_modulate(
                nullptr, dy.rows(first, count, s.cols), dx.rows(first, count, s.cols), kind, EPS,
                modulated ? shift.floats() : nullptr, modulated ? scale.floats() : nullptr,
                s.steps > 1 ? index + first : nullptr));
        });
        return dy.back();
    };
    struct mat none = {};
    op_norm_modulate(cpu(), matrix(want, s.cols), matrix(x, s.cols), kind, EPS,
                     modulated ? matrix(m.shift, s.cols) : none,
                     modulated ? matrix(m.scale, s.cols) : none,
                     s.steps > 1 ? m.index.data() : nullptr);
    expect_close(result_any_way(s.rows, result), want, tolerance(to), "norm_modulate");
}

static void test_norm_modulate()
{
    for (const Shape &s : SHAPES)
        for (enum norm kind : {NORM_RMS, NORM_LAYER}) {
            check_norm(s, kind, DTYPE_BF16, DTYPE_F32, true);
            check_norm(s, kind, DTYPE_F32, DTYPE_F32, s.cols % 4 != 0);
        }
    check_norm({3, 1096, 2}, NORM_LAYER, DTYPE_BF16, DTYPE_BF16, true);
    check_norm({3, 1095, 2}, NORM_RMS, DTYPE_F32, DTYPE_BF16, true);
}

static void test_norm_in_place()
{
    Shape s = {3, 516, 1};
    std::vector<float> x = random_rows(s), want(x.size());
    Values dx(DTYPE_F32, x);
    struct mat rows = dx.rows(0, s.rows, s.cols), none = {};
    EXPECT_LAUNCH(
        launch_norm_modulate(nullptr, rows, rows, NORM_LAYER, EPS, nullptr, nullptr, nullptr));
    op_norm_modulate(cpu(), matrix(want, s.cols), matrix(x, s.cols), NORM_LAYER, EPS, none, none,
                     nullptr);
    expect_close(dx.back(), want, tolerance(DTYPE_F32), "in place");
}

static void test_rms_norm()
{
    for (const Shape &s : SHAPES)
        for (enum dtype to : BOTH_TYPES) {
            std::vector<float> weight = random_values(s.cols), x = random_rows(s), want(x.size());
            auto result = [&](const Way &way) {
                Values dx(DTYPE_F32, x, way.lead), dy(to, std::vector<float>(x.size()), way.lead);
                Values dw(DTYPE_F32, weight, way.lead);
                each_part(way, [&](int64_t first, int64_t count) {
                    EXPECT_LAUNCH(launch_rms_norm(nullptr, dy.rows(first, count, s.cols),
                                                  dx.rows(first, count, s.cols), EPS, dw.floats()));
                });
                return dy.back();
            };
            op_rms_norm(cpu(), matrix(want, s.cols), matrix(x, s.cols), EPS, weight.data());
            expect_close(result_any_way(s.rows, result), want, tolerance(to), "rms_norm");
        }
}

/* What there is no kernel for is refused, and no rows are nothing to do. */
static void test_refused()
{
    Values x(DTYPE_F32, std::vector<float>(8));
    struct mat wide = {x.at(0), 1, ROW_COLUMNS_MOST + 1, DTYPE_F32};
    struct mat half = {x.at(0), 1, 8, DTYPE_F16}, rows = x.rows(0, 1, 8), empty = x.rows(0, 0, 8);
    EXPECT(launch_rms_norm(nullptr, wide, wide, EPS, x.floats()) == cudaErrorInvalidValue, "wide");
    EXPECT(launch_rms_norm(nullptr, rows, half, EPS, x.floats()) == cudaErrorInvalidValue, "type");
    EXPECT(launch_gate_residual(nullptr, half, rows, nullptr, nullptr) == cudaErrorInvalidValue,
           "gate");
    EXPECT_LAUNCH(launch_rms_norm(nullptr, empty, empty, EPS, x.floats()));
    EXPECT_LAUNCH(launch_gate_residual(nullptr, empty, empty, nullptr, nullptr));
}

/* ---- queries and keys ------------------------------------------------------------------------ */

/* Tables and coordinates, on the host and on the device. */
struct Turns {
    static constexpr int64_t POSITIONS[3] = {5, 4, 3};
    struct rope host, device;
    std::vector<float> table[3];
    std::vector<int32_t> coord;
    std::unique_ptr<Values> device_table[3];
    std::unique_ptr<OnDevice<int32_t>> device_coord;

    explicit Turns(const Shape &s)
    {
        host = {};
        host.n = s.cols / 6;
        host.pad = static_cast<int>(s.cols % 6);
        for (int a = 0; a < 3; a++) {
            table[a] = random_values(POSITIONS[a] * host.n * 2);
            host.table[a] = table[a].data();
            host.positions[a] = POSITIONS[a];
        }
        for (int64_t i = 0; i < 3 * s.rows; i++)
            coord.push_back(random_numbers(1, POSITIONS[i % 3])[0]);
        host.coord = coord.data();
        device = host;
        for (int a = 0; a < 3; a++) {
            device_table[a] = std::make_unique<Values>(DTYPE_F32, table[a]);
            device.table[a] = device_table[a]->floats();
        }
        device_coord = std::make_unique<OnDevice<int32_t>>(coord);
        device.coord = *device_coord;
    }
};

/* Queries and keys as the first two parts of rows that have a third, which stays. */
static void check_qk(const Shape &s, enum dtype type, bool turned)
{
    Turns turns(s);
    int64_t stride = 3 * s.cols;
    std::vector<float> weight[2] = {random_values(s.cols), random_values(s.cols)};
    std::vector<float> x = rounded(random_values(s.rows * stride), type), want = x;
    auto result = [&](const Way &way) {
        Values dx(type, x, way.lead);
        Values w0(DTYPE_F32, weight[0], way.lead), w1(DTYPE_F32, weight[1], way.lead);
        each_part(way, [&](int64_t first, int64_t count) {
            struct rope rope = turns.device;
            rope.coord += 3 * first;
            EXPECT_LAUNCH(launch_qk_norm_rope(nullptr, {dx.at(first * stride), stride, w0.floats()},
                                              {dx.at(first * stride + s.cols), stride, w1.floats()},
                                              type, count, s.cols, EPS, turned ? &rope : nullptr));
        });
        return dx.back();
    };
    for (int part = 0; part < 2; part++)
        for (int64_t row = 0; row < s.rows; row++) {
            struct rope rope = turns.host;
            rope.coord += 3 * row;
            op_qk_norm_rope(cpu(), mat_f32(&want[row * stride + part * s.cols], 1, s.cols), {}, EPS,
                            weight[part].data(), nullptr, turned ? &rope : nullptr);
        }
    expect_close(result_any_way(s.rows, result), want, tolerance(type), "qk_norm_rope");
}

static void test_qk_norm_rope()
{
    for (enum dtype type : BOTH_TYPES) {
        check_qk({5, 6, 1}, type, true);
        check_qk({5, 64, 1}, type, true);   /* 6k + 4 */
        check_qk({3, 1154, 1}, type, true); /* 6k + 2, no vectors */
        check_qk({2, 2048, 1}, type, true);
        check_qk({3, 33, 1}, type, false);
    }
}

static void test_queries_alone()
{
    Shape s = {3, 64, 1};
    Turns turns(s);
    std::vector<float> weight = random_values(s.cols), x = random_values(s.rows * s.cols), want = x;
    Values dx(DTYPE_F32, x), dw(DTYPE_F32, weight);
    EXPECT_LAUNCH(launch_qk_norm_rope(nullptr, {dx.at(0), s.cols, dw.floats()}, {}, DTYPE_F32,
                                      s.rows, s.cols, EPS, &turns.device));
    op_qk_norm_rope(cpu(), matrix(want, s.cols), {}, EPS, weight.data(), nullptr, &turns.host);
    expect_close(dx.back(), want, tolerance(DTYPE_F32), "queries");
}

/* ---- gates ----------------------------------------------------------------------------------- */

static void check_gate(const Shape &s, enum dtype from, bool gated)
{
    Modulation m(s);
    std::vector<float> x = random_rows(s), y = rounded(random_values(s.rows * s.cols), from);
    OnDevice<int32_t> index(m.index);
    const int32_t *picked = s.steps > 1 ? static_cast<int32_t *>(index) : nullptr;
    auto result = [&](const Way &way) {
        Values dx(DTYPE_F32, x, way.lead), dy(from, y, way.lead);
        Values gate(DTYPE_F32, m.scale, way.lead);
        each_part(way, [&](int64_t first, int64_t count) {
            EXPECT_LAUNCH(launch_gate_residual(
                nullptr, dx.rows(first, count, s.cols), dy.rows(first, count, s.cols),
                gated ? gate.floats() : nullptr, picked ? picked + first : nullptr));
        });
        return dx.back();
    };
    std::vector<float> got = result_any_way(s.rows, result);
    struct mat none = {};
    op_gate_residual(cpu(), matrix(x, s.cols), matrix(y, s.cols),
                     gated ? matrix(m.scale, s.cols) : none,
                     s.steps > 1 ? m.index.data() : nullptr);
    expect_close(got, x, 1e-6, "gate_residual"); /* the CPU may round the product */
}

static void test_gate_residual()
{
    for (const Shape &s : SHAPES) {
        check_gate(s, DTYPE_BF16, true);
        check_gate(s, DTYPE_F32, s.cols % 4 == 0);
    }
}

/* One pass gives the bits of two, and what the CPU's one pass gives. */
static void check_gate_norm(const Shape &s, enum dtype from, enum dtype to, struct next_norm norm)
{
    Modulation m(s), gates(s);
    std::vector<float> x = random_rows(s), y = rounded(random_values(s.rows * s.cols), from);
    std::vector<float> want(x.size());
    OnDevice<int32_t> index(m.index);
    Values gate(DTYPE_F32, gates.scale), shift(DTYPE_F32, m.shift), scale(DTYPE_F32, m.scale);
    Values x2(DTYPE_F32, x), z2(to, std::vector<float>(x.size())), dy(from, y);
    struct mat b = x2.rows(0, s.rows, s.cols);
    struct next_norm device = norm, host = norm;
    device.eps = host.eps = EPS;
    device.shift = shift.rows(0, s.steps, s.cols), host.shift = matrix(m.shift, s.cols);
    device.scale = scale.rows(0, s.steps, s.cols), host.scale = matrix(m.scale, s.cols);

    EXPECT_LAUNCH(
        launch_gate_residual(nullptr, b, dy.rows(0, s.rows, s.cols), gate.floats(), index));
    if (norm.none)
        EXPECT_LAUNCH(launch_convert(nullptr, z2.at(0), to, x2.at(0), DTYPE_F32, s.rows * s.cols));
    else
        EXPECT_LAUNCH(launch_norm_modulate(nullptr, z2.rows(0, s.rows, s.cols), b, norm.kind, EPS,
                                           shift.floats(), scale.floats(), index));
    auto result = [&](const Way &way) {
        Values x1(DTYPE_F32, x, way.lead), z1(to, std::vector<float>(x.size()), way.lead);
        Values y1(from, y, way.lead);
        each_part(way, [&](int64_t first, int64_t count) {
            EXPECT_LAUNCH(launch_gate_residual_norm(
                nullptr, z1.rows(first, count, s.cols), x1.rows(first, count, s.cols),
                y1.rows(first, count, s.cols), gate.floats(), &device, index + first));
        });
        expect_same(x1.back(), x2.back(), "gate_residual_norm: x");
        return z1.back();
    };
    std::vector<float> got = result_any_way(s.rows, result);
    expect_same(got, z2.back(), "gate_residual_norm: z");
    op_gate_residual_norm(cpu(), matrix(want, s.cols), matrix(x, s.cols), matrix(y, s.cols),
                          matrix(gates.scale, s.cols), &host, m.index.data());
    expect_close(got, want, tolerance(to) + 3e-6, "gate_residual_norm"); /* x is off by roundings */
}

static void test_gate_residual_norm()
{
    struct next_norm copy = {}, rms = {}, layer = {};
    copy.none = true;
    rms.kind = NORM_RMS;
    layer.kind = NORM_LAYER;
    for (const Shape &s : SHAPES) {
        check_gate_norm(s, DTYPE_BF16, DTYPE_BF16, rms);
        check_gate_norm(s, DTYPE_BF16, DTYPE_BF16, copy);
        check_gate_norm(s, DTYPE_F32, DTYPE_F32, layer);
    }
    check_gate_norm({3, 516, 2}, DTYPE_F32, DTYPE_BF16, layer);
    check_gate_norm({3, 516, 2}, DTYPE_BF16, DTYPE_F32, rms);
    check_gate_norm({3, 516, 2}, DTYPE_F32, DTYPE_F32, copy);
}

int main()
{
    const Case cases[] = {
        {"norm_modulate", test_norm_modulate}, {"norm_modulate in place", test_norm_in_place},
        {"rms_norm", test_rms_norm},           {"what is refused", test_refused},
        {"qk_norm_rope", test_qk_norm_rope},   {"queries without keys", test_queries_alone},
        {"gate_residual", test_gate_residual}, {"gate_residual_norm", test_gate_residual_norm}};
    return run_cases(cases);
}
