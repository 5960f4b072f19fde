/* Attention of kernels/cuda against a plain computation in double precision, against the CPU
 * backend, and bit for bit against itself: queries and granules spread over launches differently.
 * Operands are bf16 numbers, so that what differs is arithmetic alone. */
#include "kernels/cuda/attention.h"
#include "tests/emulation/test_support.h"

extern "C" {
#include "kernels/ops.h"
}

struct Problem {
    int64_t queries, keys, granule, heads, d;
    bool bf16;       /* of q, k, v, o in memory */
    float sharpness; /* of the scores; the larger, the more a row follows one key */
};

using Floats = std::vector<float>;

static Floats random_bf16(size_t n, uint32_t seed, float size)
{
    Floats x(n);
    for (float &v : x) {
        seed = seed * 1664525u + 1013904223u;
        v = bf16_value(bf16_bits(size * static_cast<float>(static_cast<int32_t>(seed)) * 0x1p-31f));
    }
    return x;
}

/* [S, heads * d] on the device, fp32 or bf16 */
class Rows
{
  public:
    Rows(const Floats &x, int64_t rows, int64_t cols, bool bf16)
        : memory_(stored(x, bf16)), rows_{memory_, rows, cols, bf16}
    {
    }
    operator attention_rows() const { return rows_; }
    Floats back() const
    {
        std::vector<uint8_t> bytes = memory_.back();
        Floats x(static_cast<size_t>(rows_.rows * rows_.cols));
        for (size_t i = 0; i < x.size(); i++) {
            uint16_t half;
            memcpy(&half, &bytes[rows_.bf16 ? 2 * i : 0], 2);
            if (rows_.bf16)
                x[i] = bf16_value(half);
            else
                memcpy(&x[i], &bytes[4 * i], 4);
        }
        return x;
    }

  private:
    static std::vector<uint8_t> stored(const Floats &x, bool bf16)
    {
        std::vector<uint8_t> bytes(x.size() * (bf16 ? 2 : 4));
        for (size_t i = 0; i < x.size(); i++) {
            uint16_t half = bf16_bits(x[i]);
            if (bf16)
                memcpy(&bytes[2 * i], &half, 2);
            else
                memcpy(&bytes[4 * i], &x[i], 4);
        }
        return bytes;
    }
    OnDevice<uint8_t> memory_;
    attention_rows rows_;
};

struct Operands {
    Floats q, k, v;
    explicit Operands(const Problem &p)
        : q(random_bf16(static_cast<size_t>(p.queries * p.heads * p.d), 1, p.sharpness)),
          k(random_bf16(static_cast<size_t>(p.keys * p.heads * p.d), 2, 1)),
          v(random_bf16(static_cast<size_t>(p.keys * p.heads * p.d), 3, 1))
    {
    }
};

static float scale_of(const Problem &p) { return 1.0f / sqrtf(static_cast<float>(p.d)); }

static Floats part(const Floats &x, int64_t first, int64_t count)
{
    return Floats(x.begin() + first, x.begin() + first + count);
}

/* ---- references ------------------------------------------------------------------------------ */

/* T5's buckets, from the formula: half are exact, the others grow logarithmically to 128. */
static int t5_bucket(int64_t distance)
{
    double a = std::fabs(static_cast<double>(distance));
    int bucket = static_cast<int>(a);
    if (a >= 8) bucket = 8 + static_cast<int>(std::log(a / 8) / std::log(16.0) * 8 + 1e-9);
    return (bucket > 15 ? 15 : bucket) + (distance > 0 ? 16 : 0);
}

static Floats naive(const Problem &p, const Operands &x, double scale, const Floats *bias)
{
    Floats o(x.q.size());
    int64_t cols = p.heads * p.d;
    for (int64_t i = 0; i < p.queries; i++)
        for (int64_t n = 0; n < p.heads; n++) {
            std::vector<double> s(static_cast<size_t>(p.keys));
            double top = -1e300, sum = 0;
            for (int64_t j = 0; j < p.keys; j++) {
                double dot = 0;
                for (int64_t c = n * p.d; c < (n + 1) * p.d; c++)
                    dot += double{x.q[i * cols + c]} * x.k[j * cols + c];
                s[j] = dot * scale + (bias ? (*bias)[t5_bucket(j - i) * p.heads + n] : 0);
                top = std::fmax(top, s[j]);
            }
            for (double &w : s) sum += w = std::exp(w - top);
            for (int64_t c = n * p.d; c < (n + 1) * p.d; c++) {
                double total = 0;
                for (int64_t j = 0; j < p.keys; j++) total += s[j] * x.v[j * cols + c];
                o[i * cols + c] = static_cast<float>(total / sum);
            }
        }
    return o;
}

static Floats on_cpu(const Problem &p, Operands x)
{
    device *dev = device_open_cpu(1, nullptr, PRECISION_F32);
    int64_t cols = p.heads * p.d, granules = (p.keys + p.granule - 1) / p.granule;
    Floats o(x.q.size());
    Floats packed(granules * op_kv_granule_floats(dev, p.granule, p.heads, p.d));
    Floats state(op_attention_state_floats(p.queries, p.heads, p.d));
    auto matrix = [&](Floats &m, int64_t rows) { return mat{m.data(), rows, cols, DTYPE_F32}; };
    op_kv_pack(dev, packed.data(), matrix(x.k, p.keys), matrix(x.v, p.keys), p.heads, p.granule);
    op_attention_begin(dev, state.data(), p.queries, p.heads, p.d);
    op_attention_block(dev, state.data(), matrix(x.q, p.queries), packed.data(), p.keys, p.granule,
                       p.heads, scale_of(p));
    op_attention_finish(dev, matrix(o, p.queries), state.data(), p.heads);
    device_close(dev);
    return o;
}

/* ---- the kernels ----------------------------------------------------------------------------- */

/* cuts: granules at which to begin a new block of keys. Returns output, then state. */
static Floats on_gpu(const Problem &p, const Operands &x, attention_kernel kernel,
                     const std::vector<int64_t> &cuts = {})
{
    int64_t cols = p.heads * p.d, granules = (p.keys + p.granule - 1) / p.granule;
    int64_t size = attention_kv_granule_floats(p.granule, p.heads, p.d);
    Rows q(x.q, p.queries, cols, p.bf16), k(x.k, p.keys, cols, p.bf16);
    Rows v(x.v, p.keys, cols, p.bf16), o(x.q, p.queries, cols, p.bf16);
    const float nan = std::nanf("");
    OnDevice<float> packed(Floats(static_cast<size_t>(granules * size), nan));
    OnDevice<float> state(
        Floats(static_cast<size_t>(attention_state_floats(p.queries, p.heads, p.d)), nan));
    int error = attention_kv_pack(nullptr, packed, k, v, p.heads, p.granule);
    if (!error) error = attention_begin(nullptr, state, p.queries, p.heads, p.d);
    std::vector<int64_t> ends = cuts;
    ends.push_back(granules);
    int64_t from = 0;
    for (int64_t to : ends) {
        int64_t keys = (to * p.granule < p.keys ? to * p.granule : p.keys) - from * p.granule;
        if (!error)
            error = attention_block(nullptr, kernel, state, q, packed + from * size, keys,
                                    p.granule, p.heads, scale_of(p));
        from = to;
    }
    if (!error) error = attention_finish(nullptr, o, state, p.heads);
    EXPECT(error == cudaSuccess, "error %d", error);
    Floats all = o.back(), rest = state.back();
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
}

/* The output alone, begun and finished in the launches that need it: `state` is not looked at by
 * one that begins it, nor touched by one that does all. o_bf16: of the output; q is written over if
 * it has the same type. */
static Floats in_parts(const Problem &p, const Operands &x, attention_kernel kernel, bool o_bf16,
                       const std::vector<int64_t> &cuts = {})
{
    int64_t cols = p.heads * p.d, granules = (p.keys + p.granule - 1) / p.granule, from = 0;
    int64_t size = attention_kv_granule_floats(p.granule, p.heads, p.d);
    Rows q(x.q, p.queries, cols, p.bf16), k(x.k, p.keys, cols, p.bf16);
    Rows v(x.v, p.keys, cols, p.bf16), other(x.q, p.queries, cols, o_bf16);
    Rows &o = o_bf16 == p.bf16 ? q : other;
    OnDevice<float> packed(static_cast<size_t>(granules * size));
    Floats untouched(static_cast<size_t>(attention_state_floats(p.queries, p.heads, p.d)), 7);
    OnDevice<float> state(untouched);
    int error = attention_kv_pack(nullptr, packed, k, v, p.heads, p.granule);
    std::vector<int64_t> ends = cuts;
    ends.push_back(granules);
    for (int64_t to : ends) {
        int64_t keys = (to * p.granule < p.keys ? to * p.granule : p.keys) - from * p.granule;
        if (!error)
            error = attention_part(nullptr, kernel, o, state, q, packed + from * size, keys,
                                   p.granule, p.heads, scale_of(p), from == 0, to == granules);
        from = to;
    }
    EXPECT(error == cudaSuccess, "error %d", error);
    if (cuts.empty()) EXPECT_SAME(state.back(), untouched);
    return o.back();
}

static double farthest(const Floats &x, const Floats &y)
{
    double most = 0;
    for (size_t i = 0; i < y.size(); i++) {
        double off = std::fabs(double{x[i]} - y[i]);
        if (!(off <= most)) most = off; /* NaN too */
    }
    return most;
}

/* A weight is rounded to bf16 before it meets its value, at most 2^-9 of it: so the mean of values
 * below 1 is off by 2^-9 at most, and by half a unit of its own if it is stored in bf16. Sums in
 * fp32 are far below that. */
static double tolerance(bool bf16) { return (bf16 ? 2 : 1) * 0x1p-9 + 1e-5; }

/* Those that this device has for a head width */
static std::vector<attention_kernel> kernels_of(int64_t d)
{
    std::vector<attention_kernel> kernels = {ATTENTION_MMA};
    if (attention_choose(capability(), d) != ATTENTION_MMA) kernels.push_back(ATTENTION_WGMMA);
    return kernels;
}

static void check_kernel(const Problem &p, const Operands &x, attention_kernel kernel)
{
    Floats want = naive(p, x, scale_of(p), nullptr), got = on_gpu(p, x, kernel);
    double off = farthest(got, want), off_cpu = farthest(got, on_cpu(p, x));
    EXPECT(
        off <= tolerance(p.bf16) && off_cpu <= tolerance(p.bf16),
        "kernel %d, %lld queries, %lld keys, granule %lld, %lld heads of %lld: off by %g, from the "
        "CPU %g",
        kernel, (long long)p.queries, (long long)p.keys, (long long)p.granule, (long long)p.heads,
        (long long)p.d, off, off_cpu);
}

static void check(const Problem &p)
{
    Operands x(p);
    for (attention_kernel kernel : kernels_of(p.d)) check_kernel(p, x, kernel);
}

static void check_kernel_bits(const Problem &p, const Operands &x, attention_kernel kernel)
{
    Floats want = on_gpu(p, x, kernel);
    int64_t granules = (p.keys + p.granule - 1) / p.granule, cols = p.heads * p.d;
    EXPECT_SAME(on_gpu(p, x, kernel, {1}), want);
    EXPECT_SAME(on_gpu(p, x, kernel, {granules / 2, granules - 1}), want);
    for (int64_t cut : {16, 5, 33}) {
        for (int64_t first : {int64_t{0}, cut}) {
            Problem some = p;
            some.queries = first ? p.queries - cut : cut;
            Operands y = x;
            y.q = part(x.q, first * cols, some.queries * cols);
            EXPECT_SAME(part(on_gpu(some, y, kernel), 0, some.queries * cols),
                        part(want, first * cols, some.queries * cols));
        }
    }
}

static void check_bits(const Problem &p)
{
    Operands x(p);
    for (attention_kernel kernel : kernels_of(p.d)) check_kernel_bits(p, x, kernel);
}

/* Of either type of output, which on_gpu has of the queries' */
static void check_parts(const Problem &p)
{
    Operands x(p);
    int64_t granules = (p.keys + p.granule - 1) / p.granule;
    for (attention_kernel kernel : kernels_of(p.d))
        for (bool o_bf16 : {false, true}) {
            Floats want = part(on_gpu(p, x, kernel), 0, static_cast<int64_t>(x.q.size()));
            Floats whole = in_parts(p, x, kernel, o_bf16);
            if (o_bf16 == p.bf16) EXPECT_SAME(whole, want);
            double off = farthest(whole, want);
            EXPECT(off <= 0x1p-9, "kernel %d: off by %g", kernel, off);
            if (granules > 1) EXPECT_SAME(in_parts(p, x, kernel, o_bf16, {1}), whole);
            if (granules > 2) EXPECT_SAME(in_parts(p, x, kernel, o_bf16, {1, granules - 1}), whole);
        }
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void test_widths()
{
    check({33, 150, 64, 2, 32, false, 4});
    check({33, 150, 64, 2, 64, true, 4});
    check({33, 150, 64, 2, 128, false, 4});
}

static void test_awkward_sizes()
{
    check({1, 17, 16, 1, 64, false, 1});
    check({1, 1, 16, 3, 32, true, 1});
    check({17, 40, 32, 2, 128, true, 1});
    check({20, 128 + 65, 128, 1, 64, false, 8});
    check({130, 100, 48, 1, 32, false, 1});
    check({7, 224 + 3, 112, 3, 64, false, 30});
}

/* More tiles than the ring has stages, one after the other in the same slots */
static void test_long_ring()
{
    check({5, 64 * 9 + 1, 64, 1, 64, false, 2});
    check({5, 64 * 7, 256, 1, 128, false, 2});
    check({70, 32 * 7, 32, 1, 128, false, 2});
}

/* As for text: as many keys as one granule holds, or fewer */
static void test_cross_attention()
{
    check({40, 64, 64, 2, 32, true, 2});
    check({40, 13, 16, 2, 64, true, 2});
}

static void test_same_bits()
{
    check_bits({70, 150, 48, 1, 32, false, 4});
    check_bits({70, 120, 16, 1, 64, false, 4});
    check_bits({40, 230, 80, 1, 128, true, 4});
}

static void test_parts()
{
    check_parts({70, 70, 32, 2, 32, true, 4});
    check_parts({33, 40, 16, 2, 64, false, 4});
    check_parts({130, 64, 64, 1, 64, true, 4});
    check_parts({20, 200, 80, 1, 128, true, 4});
}

/* A granule whose scores are all -infinity leaves no trace and no NaN. */
static void test_infinite_scores()
{
    Problem p = {2, 40, 16, 1, 64, false, 1}, rest = {2, 20, 16, 1, 64, false, 1};
    Operands x(p), y(rest);
    for (float &value : x.q) value = 1;
    y.q = x.q;
    y.k = part(x.k, 20 * p.d, 20 * p.d);
    y.v = part(x.v, 20 * p.d, 20 * p.d);
    for (int64_t j = 0; j < 20; j++) x.k[j * p.d] = -INFINITY;
    for (attention_kernel kernel : kernels_of(p.d)) {
        double off = farthest(on_gpu(p, x, kernel), naive(rest, y, scale_of(p), nullptr));
        EXPECT(off <= tolerance(false), "kernel %d: off by %g", kernel, off);
    }
}

/* All in fp32: a chain of d products of the size of the scores, each rounded once. */
static void test_t5()
{
    struct {
        int64_t length, heads, d;
        bool bf16;
    } const cases[] = {
        {1, 1, 16, false}, {45, 2, 16, true}, {70, 1, 64, false}, {150, 1, 128, false}};
    for (auto &c : cases) {
        Problem p = {c.length, c.length, 16, c.heads, c.d, c.bf16, 1};
        Operands x(p);
        Floats bias = random_bf16(static_cast<size_t>(32 * c.heads), 4, 2);
        int64_t cols = c.heads * c.d;
        Rows q(x.q, c.length, cols, c.bf16), k(x.k, c.length, cols, c.bf16);
        Rows v(x.v, c.length, cols, c.bf16), o(x.q, c.length, cols, c.bf16);
        OnDevice<float> table(bias);
        int error = attention_t5(nullptr, o, q, k, v, c.heads, table);
        double off = farthest(o.back(), naive(p, x, 1, &bias));
        EXPECT(error == cudaSuccess && off <= (c.bf16 ? 0x1p-9 : 2e-6), "length %lld: off by %g",
               (long long)c.length, off);
    }
}

/* What no kernel can do is refused before it is launched. */
static void test_refused()
{
    EXPECT(attention_choose(80, 128) == ATTENTION_MMA &&
               attention_choose(90, 32) == ATTENTION_MMA &&
               attention_choose(90, 64) == ATTENTION_WGMMA &&
               attention_choose(100, 128) == ATTENTION_MMA,
           "choice");
    OnDevice<float> room(1 << 12);
    attention_rows q = {room, 4, 48, 0}, wide = {room, 4, 64, 0};
    int bad = cudaErrorInvalidValue;
    EXPECT(attention_begin(nullptr, room, 4, 1, 48) == bad, "head width 48");
    EXPECT(attention_block(nullptr, ATTENTION_MMA, room, q, room, 4, 16, 1, 1) == bad, "the same");
    EXPECT(attention_block(nullptr, ATTENTION_MMA, room, wide, room, 0, 16, 1, 1) == bad,
           "no keys");
    attention_rows narrow = {room, 4, 32, 0};
    EXPECT(attention_block(nullptr, ATTENTION_WGMMA, room, narrow, room, 4, 16, 1, 1) == bad,
           "head width 32 on wgmma");
    EXPECT(attention_kv_pack(nullptr, room, wide, wide, 1, 24) == bad, "granule 24");
    attention_rows longer = {room, ATTENTION_T5_LENGTH + 1, 4, 0};
    EXPECT(attention_t5(nullptr, longer, longer, longer, longer, 1, room) == bad, "too long");
}

int main()
{
    static const Case cases[] = {{"head widths", test_widths},
                                 {"awkward sizes", test_awkward_sizes},
                                 {"more tiles than stages", test_long_ring},
                                 {"text keys", test_cross_attention},
                                 {"the same bits however it is cut", test_same_bits},
                                 {"begun and finished in one launch", test_parts},
                                 {"scores of -infinity", test_infinite_scores},
                                 {"T5", test_t5},
                                 {"what is refused", test_refused}};
    return run_cases(cases);
}
