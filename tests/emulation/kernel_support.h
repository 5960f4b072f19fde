/* What the tests of kernels/cuda/kernels.h share: random operands in a type, on the device; the CPU
 * backend, which they are compared with; the ways to launch that must give the same bits. */
#ifndef RINGREEL_KERNEL_SUPPORT_H
#define RINGREEL_KERNEL_SUPPORT_H

#include "kernels/cuda/kernels.h"
#include "tests/emulation/test_support.h"

#include <cstdint>
#include <limits>
#include <memory>

inline struct device *cpu()
{
    static struct device *device = device_open_cpu(1, nullptr, PRECISION_F32);
    return device;
}

inline const enum dtype BOTH_TYPES[] = {DTYPE_F32, DTYPE_BF16};
inline const float NOT_A_NUMBER = std::numeric_limits<float>::quiet_NaN();
inline const float INFINITE = std::numeric_limits<float>::infinity();

#define EXPECT_LAUNCH(call)                                                                        \
    do {                                                                                           \
        int launch_error = (call);                                                                 \
        EXPECT(launch_error == cudaSuccess, "error %d", launch_error);                             \
    } while (0)

/* ---- numbers --------------------------------------------------------------------------------- */

inline uint32_t random_state = 1;
inline uint32_t random_word() { return random_state = random_state * 1664525u + 1013904223u; }
inline std::vector<float> random_values(int64_t n) /* [-1, 1) */
{
    std::vector<float> v(static_cast<size_t>(n));
    for (float &x : v) x = static_cast<float>(static_cast<int32_t>(random_word())) * 0x1p-31f;
    return v;
}
inline std::vector<int32_t> random_numbers(int64_t n, int64_t below)
{
    std::vector<int32_t> v(static_cast<size_t>(n));
    for (int32_t &x : v) x = static_cast<int32_t>((random_word() >> 8) % below);
    return v;
}

inline float rounded(float x, enum dtype type)
{
    return type == DTYPE_BF16 ? f32_from_bf16(bf16_from_f32(x)) : x;
}
inline std::vector<float> rounded(std::vector<float> v, enum dtype type)
{
    for (float &x : v) x = rounded(x, type);
    return v;
}

inline uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
/* NaNs are the same, whatever their payload; 0 and -0 are not. */
inline bool same(float x, float y) { return (x != x && y != y) || bits_of(x) == bits_of(y); }

inline void expect_same(const std::vector<float> &got, const std::vector<float> &want,
                        const char *what)
{
    EXPECT(got.size() == want.size(), "%s: %zu, %zu", what, got.size(), want.size());
    size_t count = 0, first = 0;
    for (size_t i = 0; i < got.size(); i++)
        if (!same(got[i], want[i]) && count++ == 0) first = i;
    EXPECT(count == 0, "%s: %zu of %zu differ, the first is %zu: %.9g, should be %.9g", what, count,
           got.size(), first, got[first], want[first]);
}

/* fp32: sums in another order, functions within some units in the last place, of values about 1
 * (tests/unit/kernel_helpers.h). bf16: the last of 8 bits, as a value between two may go either
 * way. */
inline double tolerance(enum dtype type) { return type == DTYPE_BF16 ? 0x1p-8 : 3e-6; }

inline void expect_close(const std::vector<float> &got, const std::vector<float> &want,
                         double allowed, const char *what)
{
    EXPECT(got.size() == want.size(), "%s: %zu, %zu", what, got.size(), want.size());
    size_t count = 0, first = 0;
    for (size_t i = 0; i < got.size(); i++) {
        double error = fabs(double{got[i]} - want[i]), size = fabs(want[i]);
        bool good = same(got[i], want[i]) || error <= allowed * (size > 1 ? size : 1);
        if (!good && count++ == 0) first = i;
    }
    EXPECT(count == 0, "%s: %zu of %zu too far, the first is %zu: %.9g, should be %.9g", what,
           count, got.size(), first, got[first], want[first]);
}

/* ---- operands on the device ------------------------------------------------------------------ */

/* Values in a type, `lead` elements behind an address that vectors like, with a border before and
 * behind that nobody may write. */
class Values
{
  public:
    Values(enum dtype type, const std::vector<float> &values, int lead = 0)
        : type_(type), n_(values.size()), lead_(lead), bytes_(encoded(values))
    {
    }
    void *at(int64_t element)
    {
        return static_cast<unsigned char *>(bytes_) +
               (BORDER + lead_ + static_cast<size_t>(element)) * dtype_size(type_);
    }
    float *floats() { return static_cast<float *>(at(0)); }
    struct mat rows(int64_t first, int64_t count, int64_t cols)
    {
        return {at(first * cols), count, cols, type_};
    }
    std::vector<float> back() const
    {
        std::vector<unsigned char> raw = bytes_.back();
        std::vector<float> all(2 * BORDER + lead_ + n_);
        dtype_to_f32(all.data(), raw.data(), type_, all.size());
        size_t first = BORDER + lead_;
        for (size_t i = 0; i < all.size(); i++)
            if (i < first || i >= first + n_)
                EXPECT(all[i] == MARK, "written outside: element %lld of %zu",
                       static_cast<long long>(i) - static_cast<long long>(first), n_);
        return {all.begin() + first, all.begin() + first + n_};
    }

  private:
    static constexpr size_t BORDER = 16;
    static constexpr float MARK = 77;
    enum dtype type_;
    size_t n_, lead_;
    OnDevice<unsigned char> bytes_;

    std::vector<unsigned char> encoded(const std::vector<float> &values) const
    {
        std::vector<float> all(2 * BORDER + lead_ + n_, MARK);
        std::copy(values.begin(), values.end(), all.begin() + BORDER + lead_);
        std::vector<unsigned char> raw(all.size() * dtype_size(type_));
        for (size_t i = 0; i < all.size(); i++) {
            uint16_t half = bf16_from_f32(all[i]);
            if (type_ == DTYPE_BF16)
                memcpy(&raw[2 * i], &half, 2);
            else
                memcpy(&raw[4 * i], &all[i], 4);
        }
        return raw;
    }
};

/* ---- ways to launch -------------------------------------------------------------------------- */

/* Launches of rows or frames from cuts[i] to cuts[i + 1], on arrays that begin `lead` elements
 * behind a vector's place. */
struct Way {
    std::vector<int64_t> cuts;
    int lead;
};

/* result(way) for all rows at once; other ways must give the same bits: cut in two, without
 * vectors, and with a grid so small that a block has several rows. */
template <class Result> std::vector<float> result_any_way(int64_t rows, const Result &result)
{
    std::vector<float> whole = result(Way{{0, rows}, 0});
    if (rows > 1) expect_same(result(Way{{0, (rows + 1) / 2, rows}, 0}), whole, "cut in two");
    expect_same(result(Way{{0, rows}, 1}), whole, "no vectors");
    int64_t most = launch_blocks_most;
    launch_blocks_most = 1;
    expect_same(result(Way{{0, rows}, 0}), whole, "one block");
    launch_blocks_most = most;
    return whole;
}

/* run(first, count) for each part of a way */
template <class Run> void each_part(const Way &way, const Run &run)
{
    for (size_t i = 0; i + 1 < way.cuts.size(); i++)
        run(way.cuts[i], way.cuts[i + 1] - way.cuts[i]);
}

#endif
