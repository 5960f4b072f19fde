/* Positions and rotations against the values of spec transformer section 9. */
#include "base/arena.h"
#include "model/rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void frequencies_have_the_reference_bits(void **state)
{
    (void)state;
    static const struct {
        int64_t n, j;
        uint32_t bits;
    } known[] = {
        {341, 0, 0x3fc90fdb},   {341, 1, 0x3fce953f},   {341, 2, 0x3fd44173},
        {341, 339, 0x466ee0a0}, {341, 340, 0x46756fdb}, {682, 0, 0x3fc90fdb},
        {682, 1, 0x3fcbccba},   {682, 2, 0x3fce9324},   {682, 680, 0x467223cc},
        {682, 681, 0x46756fdb},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_int_equal(bits_of(rope_frequency(10000, known[i].j, known[i].n)), known[i].bits);
    assert_int_equal(bits_of(rope_frequency(10000, 0, 1)), 0x3fc90fdb);
}

static void times_follow_the_causal_rule(void **state)
{
    (void)state;
    static const float causal[] = {0, 1, 9, 17, 25}, plain[] = {0, 8, 16, 24, 32};
    for (int64_t fi = 0; fi < 5; fi++) {
        assert_int_equal(bits_of(rope_time(fi, 8, true, 25)), bits_of(causal[fi] * 0.04f));
        assert_int_equal(bits_of(rope_time(fi, 8, false, 25)), bits_of(plain[fi] * 0.04f));
        assert_int_equal(bits_of(rope_time(fi, 8, true, 24)),
                         bits_of(causal[fi] * (float)(1.0 / 24)));
    }
}

struct tables {
    struct arena arena;
    struct rope rope;
};

static const struct rope_grid small_grid = {
    .f = 3, .h = 4, .w = 5, .frame_rate = 25, .time_factor = 8, .space_factor = 32};
enum { SMALL_TOKENS = 3 * 4 * 5 };

static void make_tables(struct tables *t, int64_t width, const struct rope_grid *g, int64_t first,
                        int64_t tokens)
{
    struct rope_settings settings = {.theta = 10000, .max_pos = {20, 2048, 2048}, .causal = true};
    arena_init(&t->arena, "test");
    rope_lay_out(&t->rope, &t->arena, width, g, tokens);
    arena_commit(&t->arena);
    rope_lay_out(&t->rope, &t->arena, width, g, tokens);
    struct device *dev = device_open_cpu(1, NULL, PRECISION_F32);
    rope_fill(&t->rope, dev, &settings, g, first, tokens);
    device_close(dev);
}

static const float *entry(const struct rope *r, int64_t token, int axis, int64_t j)
{
    return r->table[axis] + (r->coord[3 * token + axis] * r->n + j) * 2;
}

/* Token (1,2,3), causal, 25 frames a second: 0.04 s, 64 and 96 pixels. */
static void a_token_has_the_reference_phases(void **state)
{
    (void)state;
    enum { TOKEN = (1 * 4 + 2) * 5 + 3 };
    static const struct {
        int64_t width, j;
        double phase[3], tolerance;
    } known[] = {
        /* The stored phases have 8 digits: their last one is the tolerance. */
        {2048, 0, {-1.5645132, -1.4726216, -1.4235342}, 1e-6},
        {2048, 170, {-156.45131, -147.26216, -142.35342}, 2e-5},
        /* One ulp of a phase of 15000 is 1e-3, and back ends differ by a few in the frequency. */
        {2048, 340, {-15645.132, -14726.216, -14235.342}, 1e-2},
        {4096, 1, {-1.5858165, -1.4926736, -1.442918}, 1e-6},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct tables t;
        make_tables(&t, known[i].width, &small_grid, 0, SMALL_TOKENS);
        for (int axis = 0; axis < 3; axis++) {
            const float *pair = entry(&t.rope, TOKEN, axis, known[i].j);
            assert_true(fabs(pair[0] - cos(known[i].phase[axis])) < known[i].tolerance);
            assert_true(fabs(pair[1] - sin(known[i].phase[axis])) < known[i].tolerance);
        }
        arena_free(&t.arena);
    }
}

static void cosines_and_sines_have_the_reference_values(void **state)
{
    (void)state;
    enum { TOKEN = (1 * 4 + 2) * 5 + 3 };
    static const float cosine[] = {0.0062831f, 0.0980171f, 0.1467305f};
    static const float sine[] = {-0.9999803f, -0.9951847f, -0.9891765f};
    static const float top_cosine[] = {1.000f, 0.00026f, -0.70705f};
    struct tables t;
    make_tables(&t, 2048, &small_grid, 0, SMALL_TOKENS);
    assert_int_equal(t.rope.n, 341);
    assert_int_equal(t.rope.pad, 2);
    for (int axis = 0; axis < 3; axis++) {
        assert_true(fabsf(entry(&t.rope, TOKEN, axis, 0)[0] - cosine[axis]) < 1e-7f);
        assert_true(fabsf(entry(&t.rope, TOKEN, axis, 0)[1] - sine[axis]) < 1e-7f);
        assert_true(fabsf(entry(&t.rope, TOKEN, axis, 340)[0] - top_cosine[axis]) < 1e-2f);
    }
    arena_free(&t.arena);
}

static void a_shard_sees_its_part_of_the_grid(void **state)
{
    (void)state;
    struct tables whole, shard, idle;
    make_tables(&whole, 128, &small_grid, 0, SMALL_TOKENS);
    make_tables(&shard, 128, &small_grid, 17, 30);
    make_tables(&idle, 128, &small_grid, SMALL_TOKENS, 0);
    assert_memory_equal(shard.rope.coord, whole.rope.coord + 17 * 3, 30 * 3 * sizeof(int32_t));
    for (int axis = 0; axis < 3; axis++)
        assert_memory_equal(shard.rope.table[axis], whole.rope.table[axis],
                            (size_t)(whole.rope.positions[axis] * whole.rope.n * 2) *
                                sizeof(float));
    assert_int_equal(whole.rope.coord[3 * (SMALL_TOKENS - 1)], 2);
    assert_int_equal(whole.rope.coord[3 * (SMALL_TOKENS - 1) + 1], 3);
    assert_int_equal(whole.rope.coord[3 * (SMALL_TOKENS - 1) + 2], 4);
    arena_free(&whole.arena);
    arena_free(&shard.arena);
    arena_free(&idle.arena);
}

/* 3840 pixels wide and a minute long: phases beyond 2^16 need a real range reduction. */
static void large_phases_are_reduced_exactly(void **state)
{
    (void)state;
    struct rope_grid far = {
        .f = 181, .h = 1, .w = 120, .frame_rate = 24, .time_factor = 8, .space_factor = 32};
    struct tables t;
    make_tables(&t, 2048, &far, 0, 181 * 120);
    float u = rope_time(180, 8, true, 24) / 20.0f * 2.0f - 1.0f;
    float phase = rope_frequency(10000, 340, 341) * u;
    const float *pair = entry(&t.rope, 180 * 120, 0, 340);
    assert_true(phase > 70000);
    assert_true(fabsl((long double)pair[0] - cosl(phase)) < 1e-7L);
    assert_true(fabsl((long double)pair[1] - sinl(phase)) < 1e-7L);
    arena_free(&t.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_have_the_reference_bits),
        cmocka_unit_test(times_follow_the_causal_rule),
        cmocka_unit_test(a_token_has_the_reference_phases),
        cmocka_unit_test(cosines_and_sines_have_the_reference_values),
        cmocka_unit_test(a_shard_sees_its_part_of_the_grid),
        cmocka_unit_test(large_phases_are_reduced_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
