/* kernels/cuda/flat.cu against the CPU backend and src/base/tensor.h. */
#include "tests/emulation/kernel_support.h"

static const int64_t LENGTHS[] = {1, 7, 1024, 2051};

/* Random ones between -12 and 12, then what is out of the ordinary. */
static std::vector<float> wide_values(int64_t n)
{
    std::vector<float> v = random_values(n);
    for (float &x : v) x *= 12;
    const float special[] = {0.0f,   -0.0f,    90.0f,     -90.0f,      1e30f,
                             -1e30f, INFINITE, -INFINITE, NOT_A_NUMBER};
    if (v.size() > 64) std::copy(std::begin(special), std::end(special), v.begin() + 40);
    return v;
}

static struct mat row(std::vector<float> &v)
{
    return mat_f32(v.data(), 1, static_cast<int64_t>(v.size()));
}

/* ---- elementwise ----------------------------------------------------------------------------- */

static void test_gelu_gate()
{
    for (int64_t n : LENGTHS)
        for (enum dtype to : BOTH_TYPES)
            for (enum dtype from : BOTH_TYPES) {
                std::vector<float> a = rounded(wide_values(n), from), want(a.size());
                std::vector<float> b = rounded(random_values(n), from);
                auto result = [&](const Way &way) {
                    Values da(from, a, way.lead), db(from, b, way.lead);
                    Values y(to, std::vector<float>(a.size()), way.lead);
                    each_part(way, [&](int64_t first, int64_t count) {
                        EXPECT_LAUNCH(launch_gelu_gate(nullptr, y.rows(first, count, 1),
                                                       da.rows(first, count, 1),
                                                       db.rows(first, count, 1)));
                    });
                    return y.back();
                };
                op_gelu_gate(cpu(), row(want), row(a), row(b));
                expect_close(result_any_way(n, result), want, tolerance(to), "gelu_gate");
            }
}

static void test_silu()
{
    for (int64_t n : LENGTHS)
        for (enum dtype to : BOTH_TYPES)
            for (enum dtype from : BOTH_TYPES) {
                std::vector<float> x = rounded(wide_values(n), from), want(x.size());
                auto result = [&](const Way &way) {
                    Values dx(from, x, way.lead), y(to, std::vector<float>(x.size()), way.lead);
                    each_part(way, [&](int64_t first, int64_t count) {
                        EXPECT_LAUNCH(launch_silu(nullptr, y.rows(first, count, 1),
                                                  dx.rows(first, count, 1)));
                    });
                    return y.back();
                };
                op_silu(cpu(), row(want), row(x));
                expect_close(result_any_way(n, result), want, tolerance(to), "silu");
            }
}

static void test_lincomb()
{
    for (int64_t n : LENGTHS)
        for (bool both : {true, false}) {
            std::vector<float> x = random_values(n), y = random_values(n), want(x.size());
            auto result = [&](const Way &way) {
                Values dx(DTYPE_F32, x, way.lead), dy(DTYPE_F32, y, way.lead);
                each_part(way, [&](int64_t first, int64_t count) {
                    float *out = dx.floats() + first;
                    EXPECT_LAUNCH(launch_lincomb(nullptr, out, 0.7f, out, both ? -1.3f : 0.0f,
                                                 both ? dy.floats() + first : nullptr, count));
                });
                return dx.back();
            };
            op_lincomb(cpu(), want.data(), 0.7f, x.data(), both ? -1.3f : 0.0f,
                       both ? y.data() : nullptr, n);
            std::vector<float> got = result_any_way(n, result);
            if (both)
                expect_close(got, want, 3e-7, "lincomb"); /* the CPU may round both products */
            else
                expect_same(got, want, "lincomb of one");
        }
}

/* Sums of two numbers: nothing to round differently. */
static void test_modulation()
{
    for (int64_t width : {4, 7, 1032})
        for (int64_t times : {1, 3})
            for (bool one_for_all : {false, true}) {
                int64_t kinds = 6, cols = one_for_all ? width : kinds * width;
                std::vector<float> table = random_values(kinds * width);
                std::vector<float> e = random_values(times * cols);
                std::vector<float> want(static_cast<size_t>(kinds * times * width));
                auto result = [&](const Way &way) {
                    Values dt(DTYPE_F32, table, way.lead), de(DTYPE_F32, e, way.lead);
                    Values y(DTYPE_F32, std::vector<float>(want.size()), way.lead);
                    EXPECT_LAUNCH(launch_modulation(nullptr, y.rows(0, kinds * times, width),
                                                    dt.floats(), de.rows(0, times, cols)));
                    return y.back();
                };
                op_modulation(cpu(), mat_f32(want.data(), kinds * times, width), table.data(),
                              mat_f32(e.data(), times, cols));
                expect_same(result_any_way(1, result), want, "modulation");
            }
}

/* ---- sums of tiles --------------------------------------------------------------------------- */

static void check_dots(int64_t n, int64_t tile, bool squares)
{
    std::vector<float> x = random_values(n), y = random_values(n);
    int64_t tiles = (n + tile - 1) / tile;
    std::vector<double> want(static_cast<size_t>(tiles)), first;
    op_dot_tiles(cpu(), want.data(), x.data(), squares ? y.data() : nullptr, n, tile);
    for (int way = 0; way < 4; way++) { /* all at once, no vectors, one block, tiles one by one */
        Values dx(DTYPE_F32, x, way == 1), dy(DTYPE_F32, y, way == 1);
        OnDevice<double> dots(static_cast<size_t>(tiles));
        int64_t most = launch_blocks_most, part = way == 3 ? tile : n;
        if (way == 2) launch_blocks_most = 1;
        for (int64_t at = 0; at < n; at += part)
            EXPECT_LAUNCH(launch_dot_tiles(nullptr, dots + at / tile, dx.floats() + at,
                                           squares ? dy.floats() + at : nullptr,
                                           n - at < part ? n - at : part, tile));
        launch_blocks_most = most;
        std::vector<double> got = dots.back();
        if (way == 0) first = got;
        EXPECT_SAME(got, first);
        for (int64_t t = 0; t < tiles; t++) /* sums in double of fp32's products, which are exact */
            EXPECT(fabs(got[t] - want[t]) <= 1e-12 * static_cast<double>(tile),
                   "tile %lld: %.17g, %.17g", static_cast<long long>(t), got[t], want[t]);
    }
}

static void test_dot_tiles()
{
    check_dots(1, 1, true);
    check_dots(10, 3, true);
    check_dots(5000, 1536, true);
    check_dots(5001, 5001, true);
    check_dots(2600, 1300, false);
}

/* ---- conversions ----------------------------------------------------------------------------- */

/* All codes of a type, or of fp32 those with each upper half and these lower ones: ties, and what
 * lies beside them. */
static std::vector<unsigned char> all_codes(enum dtype type, int64_t *n)
{
    const uint32_t lower[] = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
    std::vector<unsigned char> codes;
    uint32_t count = type == DTYPE_F8_E4M3 ? 256 : type == DTYPE_F32 ? 3 * 0x10000 : 0x10000;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t code = type == DTYPE_F32 ? i / 3 << 16 | lower[i % 3 + (i / 3 & 1) * 3] : i;
        for (size_t byte = 0; byte < dtype_size(type); byte++)
            codes.push_back(static_cast<unsigned char>(code >> 8 * byte));
    }
    *n = count;
    return codes;
}

static void test_convert()
{
    for (enum dtype from : {DTYPE_F8_E4M3, DTYPE_F16, DTYPE_BF16, DTYPE_F32})
        for (enum dtype to : BOTH_TYPES) {
            int64_t n;
            std::vector<unsigned char> codes = all_codes(from, &n);
            std::vector<float> want(static_cast<size_t>(n));
            dtype_to_f32(want.data(), codes.data(), from, want.size());
            OnDevice<unsigned char> x(codes);
            Values y(to, std::vector<float>(want.size()));
            EXPECT_LAUNCH(launch_convert(nullptr, y.at(0), to, x, from, n));
            expect_same(y.back(), rounded(want, to), dtype_name(from));
        }
}

/* Pieces of any length and place; what there is no kernel for. */
static void test_convert_pieces()
{
    int64_t n;
    std::vector<unsigned char> codes = all_codes(DTYPE_F8_E4M3, &n);
    std::vector<float> want(static_cast<size_t>(n));
    dtype_to_f32(want.data(), codes.data(), DTYPE_F8_E4M3, want.size());
    OnDevice<unsigned char> x(codes);
    for (enum dtype to : BOTH_TYPES) {
        Values y(to, std::vector<float>(want.size()));
        for (int64_t at = 0, length = 1; at < n; at += length, length += 5) {
            int64_t count = n - at < length ? n - at : length;
            EXPECT_LAUNCH(launch_convert(nullptr, y.at(at), to, x + at, DTYPE_F8_E4M3, count));
        }
        expect_same(y.back(), want, "pieces");
        EXPECT(launch_convert(nullptr, y.at(0), DTYPE_F16, x, DTYPE_F32, 1) ==
                   cudaErrorInvalidValue,
               "to fp16");
        EXPECT(launch_convert(nullptr, y.at(0), to, x, DTYPE_F64, 1) == cudaErrorInvalidValue,
               "from fp64");
    }
}

/* ---- integers -------------------------------------------------------------------------------- */

static float brightness(float y)
{
    float v = 0.5f * y + 0.5f;
    return !(v > 0) ? 0 : v > 1 ? 1 : v;
}

template <class T, class Launch>
static void check_integers(int64_t rows, int64_t n, int64_t stride, const Launch &launch,
                           double most_off, double lowest)
{
    std::vector<float> y = random_values(rows * stride);
    for (float &v : y) v *= 1.2f;
    if (n > 8) {
        const float special[] = {NOT_A_NUMBER, INFINITE, -INFINITE, 1.0f, -1.0f};
        std::copy(std::begin(special), std::end(special), y.begin() + 3);
    }
    for (int lead = 0; lead < 2; lead++) {
        Values dy(DTYPE_F32, y, lead);
        OnDevice<T> out(std::vector<T>(static_cast<size_t>(rows * n + lead), 111));
        EXPECT_LAUNCH(launch(out + lead, dy.floats(), stride, n, rows));
        std::vector<T> got = out.back();
        EXPECT(lead == 0 || got[0] == 111, "written before the first");
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < n; i++) {
                T one = got[static_cast<size_t>(lead + r * n + i)];
                double level = double{std::numeric_limits<T>::max()} *
                               brightness(y[static_cast<size_t>(r * stride + i)]);
                double off = one - level; /* float may round a product up to a whole number */
                EXPECT(off >= lowest && off <= most_off, "%lld, %lld: %d for %.9g",
                       static_cast<long long>(r), static_cast<long long>(i), one, level);
            }
    }
}

static void test_integers()
{
    struct {
        int64_t rows, n, stride;
    } const shapes[] = {{1, 1, 1}, {1, 2051, 2051}, {3, 36, 36}, {3, 36, 48}, {2, 35, 40}};
    for (const auto &s : shapes) {
        auto bytes = [](uint8_t *to, const float *y, int64_t stride, int64_t n, int64_t rows) {
            return launch_to_bytes(nullptr, to, y, stride, n, rows);
        };
        auto words = [](uint16_t *to, const float *y, int64_t stride, int64_t n, int64_t rows) {
            return launch_to_words(nullptr, to, y, stride, n, rows);
        };
        check_integers<uint8_t>(s.rows, s.n, s.stride, bytes, 1e-5, -1);
        check_integers<uint16_t>(s.rows, s.n, s.stride, words, 0.5 + 4e-3, -0.5 - 4e-3);
    }
}

/* The CPU backend's bytes are the same: 0.5 y and 255 v are rounded alike. */
static void test_bytes_exactly()
{
    std::vector<float> y = random_values(4099);
    std::vector<unsigned char> want;
    for (float v : y) want.push_back(static_cast<unsigned char>(255.0f * brightness(v)));
    OnDevice<float> dy(y);
    OnDevice<uint8_t> bytes(y.size());
    int64_t n = static_cast<int64_t>(y.size());
    EXPECT_LAUNCH(launch_to_bytes(nullptr, bytes, dy, n, n, 1));
    EXPECT_SAME(bytes.back(), want);
}

/* ---- normals --------------------------------------------------------------------------------- */

struct Four {
    uint32_t word[4];
};

/* Philox as its authors write it: counter and key of any words. */
static Four philox_on_host(Four counter, uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
        uint64_t p = uint64_t{0xD2511F53u} * counter.word[0];
        uint64_t q = uint64_t{0xCD9E8D57u} * counter.word[2];
        counter = {
            {static_cast<uint32_t>(q >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(q),
             static_cast<uint32_t>(p >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(p)}};
    }
    return counter;
}

static double normal_on_host(uint64_t seed, int64_t number)
{
    uint64_t group = static_cast<uint64_t>(number) / 4;
    Four words =
        philox_on_host({{static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), 0, 0}},
                       static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
    int pair = static_cast<int>(number % 4) / 2 * 2;
    double radius = sqrt(-2 * log((words.word[pair] + 0.5) * 0x1p-32));
    double turn = words.word[pair + 1] * (2 * M_PI * 0x1p-32);
    return radius * (number % 2 ? sin(turn) : cos(turn));
}

/* The authors' known answers. */
static void test_philox_itself()
{
    Four zeros = philox_on_host({{0, 0, 0, 0}}, 0, 0);
    Four ones = philox_on_host({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u);
    const uint32_t of_zeros[] = {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8};
    const uint32_t of_ones[] = {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD};
    for (int i = 0; i < 4; i++)
        EXPECT(zeros.word[i] == of_zeros[i] && ones.word[i] == of_ones[i], "%d: %08x %08x", i,
               zeros.word[i], ones.word[i]);
}

static void check_normals(uint64_t seed, int64_t first, int64_t n, enum dtype type)
{
    auto result = [&](const Way &way) {
        Values y(type, std::vector<float>(static_cast<size_t>(n)), way.lead);
        each_part(way, [&](int64_t from, int64_t count) {
            EXPECT_LAUNCH(launch_normal(nullptr, y.at(from), type, seed, first + from, count));
        });
        return y.back();
    };
    std::vector<float> want;
    for (int64_t i = 0; i < n; i++)
        want.push_back(static_cast<float>(normal_on_host(seed, first + i)));
    /* The first word is rounded to 24 bits before its logarithm, the second before its sine. */
    expect_close(result_any_way(n, result), want, type == DTYPE_BF16 ? 0x1p-8 : 5e-6, "normal");
}

static void test_normals()
{
    for (enum dtype type : BOTH_TYPES) {
        check_normals(42, 0, 1030, type);
        check_normals(0xFEDCBA9876543210u, 3, 41, type);
        check_normals(7, (int64_t{1} << 34) - 6, 17, type); /* the counter's upper word */
        check_normals(7, 2, 1, type);
    }
}

static void test_normals_are_normal()
{
    constexpr int64_t N = 40000;
    OnDevice<float> y(N);
    EXPECT_LAUNCH(launch_normal(nullptr, y, DTYPE_F32, 1, 0, N));
    double sum = 0, squares = 0, beyond = 0;
    for (float v : y.back()) {
        sum += v;
        squares += double{v} * v;
        beyond += fabs(v) > 1.959964;
    }
    /* Four standard deviations of each. */
    EXPECT(fabs(sum / N) < 0.02 && fabs(squares / N - 1) < 0.03 && fabs(beyond / N - 0.05) < 0.0044,
           "mean %g, mean square %g, beyond 1.96 %g", sum / N, squares / N, beyond / N);
}

int main()
{
    const Case cases[] = {{"gelu_gate", test_gelu_gate},
                          {"silu", test_silu},
                          {"modulation", test_modulation},
                          {"lincomb", test_lincomb},
                          {"dot_tiles", test_dot_tiles},
                          {"convert: all codes", test_convert},
                          {"convert: pieces", test_convert_pieces},
                          {"bytes and words", test_integers},
                          {"bytes exactly", test_bytes_exactly},
                          {"known answers of Philox", test_philox_itself},
                          {"normals", test_normals},
                          {"normals are normal", test_normals_are_normal}};
    return run_cases(cases);
}
