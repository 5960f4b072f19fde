/* Bit patterns of PyTorch's CPU generator: the engine, both ways to normals, the tail rule, and
 * what calls leave behind for the next. Constants here come from the specification;
 * tests/parity/data/rng.json from a PyTorch. */
#include "base/rng.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* 64-bit FNV-1a over little-endian bytes. */
static uint64_t fnv1a(const float *x, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        for (int shift = 0; shift < 32; shift += 8)
            hash = (hash ^ (bits_of(x[i]) >> shift & 0xffu)) * 0x100000001b3u;
    return hash;
}

/* The caller frees. */
static float *randn(uint64_t seed, size_t n)
{
    struct rng r;
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    rng_seed(&r, seed);
    rng_randn(&r, x, n);
    return x;
}

/* ---- engine ---------------------------------------------------------------------------------- */

static void test_words_are_mt19937(void **state)
{
    (void)state;
    struct rng r;
    const uint32_t expected[] = {2357136044u, 2546248239u, 3071714933u, 3626093760u};
    rng_seed(&r, 0);
    for (int i = 0; i < 4; i++) assert_int_equal(rng_u32(&r), expected[i]);
    rng_seed(&r,
             5489); /* the default seed of C++'s mt19937, whose 10000th word the standard gives */
    uint32_t word = 0;
    for (int i = 0; i < 10000; i++) word = rng_u32(&r);
    assert_int_equal(word, 4123659995u);
}

static void test_first_word_is_the_high_half(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 0);
    assert_true(rng_u64(&r) == ((uint64_t)2357136044u << 32 | 2546248239u));
}

static void test_seed_keeps_its_low_32_bits(void **state)
{
    (void)state;
    struct rng a, b;
    rng_seed(&a, 42);
    rng_seed(&b, 42 + ((uint64_t)7 << 32));
    for (int i = 0; i < 2000; i++) assert_int_equal(rng_u32(&a), rng_u32(&b));
}

static void test_seeding_forgets_the_cached_normal(void **state)
{
    (void)state;
    struct rng r;
    float first, again;
    rng_seed(&r, 1);
    rng_randn(&r, &first, 1); /* half of a pair */
    rng_seed(&r, 1);
    rng_randn(&r, &again, 1);
    assert_int_equal(bits_of(first), bits_of(again));
}

/* ---- normals: constants of the specification ------------------------------------------------- */

static const struct {
    uint64_t seed;
    uint32_t first[8], last;
    uint64_t hash; /* of 786432 = 128*16*16*24 values */
} long_draws[] = {
    {0,
     {0xbf901b85, 0xbf93808a, 0xbe804bd6, 0xbede255d, 0x3f594515, 0x3f312783, 0xbea1cc6d,
      0xc0075fc1},
     0xbf0cf3e2,
     0xccfabb3ecc25da5bu},
    {42,
     {0x3ff6a529, 0x3fbe5f53, 0x3f669567, 0xc006c0db, 0x3f2dacd5, 0xbf9e0591, 0xbd306786,
      0xbfcd65ba},
     0xbf5ec7c2,
     0x4b9bad664730d5efu},
    {171198,
     {0xbd039be8, 0x3ee09bd8, 0x3fe30911, 0x3f36d146, 0xbe9e5c59, 0xbe4c6be2, 0x3f892956,
      0x3dfaf1b7},
     0xbf07757f,
     0x961033125ae1cccau},
};

static void test_long_draws_match_bit_for_bit(void **state)
{
    (void)state;
    enum { N = 786432 };
    for (size_t i = 0; i < sizeof long_draws / sizeof *long_draws; i++) {
        float *x = randn(long_draws[i].seed, N);
        for (int j = 0; j < 8; j++) assert_int_equal(bits_of(x[j]), long_draws[i].first[j]);
        assert_int_equal(bits_of(x[N - 1]), long_draws[i].last);
        assert_true(fnv1a(x, N) == long_draws[i].hash);
        free(x);
    }
}

static const struct {
    uint64_t seed;
    size_t n;
    double first[5]; /* to four decimals */
    int count;
} short_draws[] = {
    {0, 5, {1.5410, -0.2934, -2.1788, 0.5684, -1.0845}, 5},   /* scalar path */
    {0, 16, {-1.1258, -1.1524, -0.2506, -0.4339, 0.8487}, 5}, /* one block */
    {0, 17, {-1.1258, -1.6959, 0.5667, 0.7935, 0.5988}, 5},   /* a tail that overwrites all but one
                                                                 value */
    {0, 20, {-1.1258, -1.1524, -0.2506, -0.4339, 0.5988}, 5}, {42, 3, {0.3367, 0.1288, 0.2345}, 3},
};

static void test_short_draws_follow_the_tail_and_scalar_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof short_draws / sizeof *short_draws; i++) {
        float *x = randn(short_draws[i].seed, short_draws[i].n);
        for (int j = 0; j < short_draws[i].count; j++)
            assert_true(fabs((double)x[j] - short_draws[i].first[j]) < 5.1e-5);
        free(x);
    }
}

/* ---- normals: values of a PyTorch ------------------------------------------------------------ */

static uint32_t hex(const json_t *word)
{
    return (uint32_t)strtoul(json_string_value(word), NULL, 16);
}

/* `row`: {"n", "first": [hex...], "last": [hex...], "fnv1a64": hex} */
static void assert_described(const json_t *row, const float *x, size_t n)
{
    const json_t *first = json_object_get(row, "first"), *last = json_object_get(row, "last");
    assert_int_equal(json_integer_value(json_object_get(row, "n")), n);
    assert_true(json_array_size(first) > 0 && json_array_size(last) > 0);
    for (size_t i = 0; i < json_array_size(first); i++)
        assert_int_equal(bits_of(x[i]), hex(json_array_get(first, i)));
    for (size_t i = 0; i < json_array_size(last); i++)
        assert_int_equal(bits_of(x[n - json_array_size(last) + i]), hex(json_array_get(last, i)));
    assert_true(fnv1a(x, n) ==
                strtoull(json_string_value(json_object_get(row, "fnv1a64")), NULL, 16));
}

static void assert_drawn(struct rng *r, const json_t *row, bool strided)
{
    size_t n = (size_t)json_integer_value(json_object_get(row, "n"));
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    if (strided)
        rng_randn_strided(r, x, n);
    else
        rng_randn(r, x, n);
    assert_described(row, x, n);
    free(x);
}

static int load_fixture(void **state)
{
    *state = json_load_file("tests/parity/data/rng.json", 0, NULL);
    return *state ? 0 : -1;
}

static int drop_fixture(void **state)
{
    json_decref(*state);
    return 0;
}

static const json_t *rows_of(void **state, const char *key)
{
    const json_t *rows = json_object_get(*state, key);
    assert_true(json_array_size(rows) > 0);
    return rows;
}

static uint64_t seed_of(const json_t *row)
{
    return (uint64_t)json_integer_value(json_object_get(row, "seed"));
}

static void test_pytorch_randn(void **state)
{
    size_t i;
    const json_t *row;
    json_array_foreach (rows_of(state, "randn"), i, row) {
        struct rng r;
        rng_seed(&r, seed_of(row));
        assert_drawn(&r, row, false);
    }
}

/* randn_like of a permuted tensor fills memory order on the scalar path, unless the permutation
 * changed nothing. */
static void test_pytorch_randn_like(void **state)
{
    size_t i;
    const json_t *row;
    json_array_foreach (rows_of(state, "randn_like_permuted"), i, row) {
        struct rng r;
        rng_seed(&r, seed_of(row));
        assert_drawn(&r, json_object_get(row, "memory_order"),
                     !json_is_true(json_object_get(row, "contiguous")));
    }
}

/* What one call leaves behind (words, half a pair) is what the next one starts from. */
static void test_pytorch_successive_calls(void **state)
{
    size_t i, j;
    const json_t *row, *call;
    json_array_foreach (rows_of(state, "successive"), i, row) {
        struct rng r;
        rng_seed(&r, seed_of(row));
        json_array_foreach (json_object_get(row, "calls"), j, call) assert_drawn(&r, call, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_are_mt19937),
        cmocka_unit_test(test_first_word_is_the_high_half),
        cmocka_unit_test(test_seed_keeps_its_low_32_bits),
        cmocka_unit_test(test_seeding_forgets_the_cached_normal),
        cmocka_unit_test(test_long_draws_match_bit_for_bit),
        cmocka_unit_test(test_short_draws_follow_the_tail_and_scalar_rules),
        cmocka_unit_test(test_pytorch_randn),
        cmocka_unit_test(test_pytorch_randn_like),
        cmocka_unit_test(test_pytorch_successive_calls),
    };
    return cmocka_run_group_tests(tests, load_fixture, drop_fixture);
}
