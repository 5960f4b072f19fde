/* How many ranks code, on jobs small enough to be worked out by hand. */

#include "render/balance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SHOTS = 10 };

/* 768 tokens are 48 granules of 16. */
static struct balance_shot shot(double text, double denoise, double decode)
{
    return (struct balance_shot){.tokens = 768,
                                 .h = 8,
                                 .w = 5,
                                 .cost = {.text = text, .denoise = denoise, .decode = decode}};
}

struct job {
    struct balance_shot shots[SHOTS];
    struct balance b;
};

static struct balance *job(struct job *j, int count, struct balance_shot each)
{
    for (int i = 0; i < count; i++) j->shots[i] = each;
    j->b = (struct balance){.shots = j->shots, .count = count, .last_by_all = true};
    return &j->b;
}

static void many_steps_take_one_codec_rank(void **state)
{
    (void)state;
    struct job j;
    /* 7 granules of 48, 8 of 48 */
    struct balance *b = job(&j, SHOTS, shot(0, 480, 10));
    assert_float_equal(balance_time(b, 7, 1), 10 * 70 + 10.0 / 8, 0);
    assert_float_equal(balance_time(b, 6, 2), 10 * 80 + 10.0 / 8, 0);
    assert_int_equal(balance_codec_ranks(b, 8, 0), 1);
    assert_int_equal(balance_codec_ranks(job(&j, 1, shot(0, 480, 10)), 8, 0), 1);
}

/* A decode as long as a denoise: half of the ranks each. */
static void few_steps_take_more(void **state)
{
    (void)state;
    struct job j;
    struct balance *b = job(&j, SHOTS, shot(0, 48, 48));
    assert_float_equal(balance_time(b, 5, 3), 10 + 9 * 48 * 3 / 8.0 + 6, 0); /* 3 rows of 8 */
    assert_float_equal(balance_time(b, 4, 4), 10 * 12 + 6, 0);
    assert_float_equal(balance_time(b, 3, 5), 10 * 16 + 6, 0); /* 1 column of 5: 9.6 each */
    assert_int_equal(balance_codec_ranks(b, 8, 0), 4);
    assert_int_equal(balance_codec_ranks(job(&j, SHOTS, shot(0, 48, 480)), 8, 0), 5);
}

static void one_shot_alone(void **state)
{
    (void)state;
    struct job j;
    struct balance *b = job(&j, 1, shot(3, 48, 480));
    assert_float_equal(balance_time(b, 7, 1), 3 + 7 + 60, 0);
    assert_int_equal(balance_codec_ranks(b, 8, 0), 1); /* all help when the steps are done */
    b->last_by_all = false;
    assert_float_equal(balance_time(b, 7, 1), 3 + 7 + 480, 0);
    assert_float_equal(balance_time(b, 3, 5), 3 + 16 + 96, 0);
    assert_float_equal(balance_time(b, 4, 4), 3 + 12 + 120, 0);
    assert_int_equal(balance_codec_ranks(b, 8, 0), 5);
}

/* Text by text beside decode by decode: it is the owner's alone. */
static void texts_count(void **state)
{
    (void)state;
    struct job j;
    struct balance *b = job(&j, 3, shot(100, 48, 48));
    /* texts end at 100, 200 and, the first shot's decode before them, 348 */
    assert_float_equal(balance_time(b, 1, 1), 100 + 100 + 48 + 100 + 48 + 24, 0);
}

static void nothing_to_choose(void **state)
{
    (void)state;
    struct job j;
    assert_int_equal(balance_codec_ranks(job(&j, 2, shot(0, 1, 1000)), 1, 0), 1);
    assert_int_equal(balance_codec_ranks(job(&j, 2, shot(0, 1, 1000)), 2, 0), 1);
}

static void of_equals_the_fewest(void **state)
{
    (void)state;
    struct job j;
    /* one granule and one latent: more ranks do nothing for either side */
    struct balance_shot s = {.tokens = 1, .h = 1, .w = 1, .cost = {.denoise = 5, .decode = 7}};
    assert_int_equal(balance_codec_ranks(job(&j, 4, s), 8, 0), 1);
}

static void denoise_ranks_are_given(void **state)
{
    (void)state;
    struct job j;
    struct balance *b = job(&j, SHOTS, shot(0, 48, 48));
    /* 2 denoise 24 each: a decode on 2 is as quick, and 5 of all 7 ranks' columns help with the
     * last */
    assert_float_equal(balance_time(b, 2, 2), 10 * 24 + 12, 0);
    assert_float_equal(balance_time(b, 2, 6), 10 * 24 + 6, 0);
    assert_int_equal(balance_codec_ranks(b, 8, 2), 6);
    assert_int_equal(balance_codec_ranks(b, 8, 7), 1);
    assert_int_equal(balance_codec_ranks(b, 8, 9), 1);
}

/* The same job as 'few_steps_take_more' when a decode turns out to take 10 times as long. */
static void measured_times_take_the_place_of_counted_ones(void **state)
{
    (void)state;
    struct job j;
    struct balance *b = job(&j, SHOTS, shot(0, 48, 48));
    struct balance_cost work = balance_work(b, 4, 4);
    assert_float_equal(work.denoise, 10 * 12, 0);
    assert_float_equal(work.decode, 9 * 12 + 6, 0);
    balance_fit(b, 4, 4, &(struct balance_cost){.text = 0, .denoise = 60, .decode = 570});
    assert_float_equal(b->shots[3].cost.text, 0, 0);
    assert_float_equal(b->shots[3].cost.denoise, 24, 0);
    assert_float_equal(b->shots[3].cost.decode, 240, 0);
    assert_int_equal(balance_codec_ranks(b, 8, 0), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_steps_take_one_codec_rank),
        cmocka_unit_test(few_steps_take_more),
        cmocka_unit_test(one_shot_alone),
        cmocka_unit_test(texts_count),
        cmocka_unit_test(nothing_to_choose),
        cmocka_unit_test(of_equals_the_fewest),
        cmocka_unit_test(denoise_ranks_are_given),
        cmocka_unit_test(measured_times_take_the_place_of_counted_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
