/* The granule plan: what makes a render's bytes independent of the number of ranks. */

#include "parallel/shard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const int64_t lengths[] = {1,   15,   16,   17,    36,    200,   767,   768,   769,
                                  960, 1536, 6144, 12287, 12289, 13376, 67320, 269280};

static void shards_tile_the_sequence(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (int ranks = 1; ranks <= 33; ranks++) {
            struct shard_plan p = shard_plan_make(lengths[i], ranks);
            int64_t tokens = 0, granules = 0, most = 0, least = p.granules;
            for (int r = 0; r < ranks; r++) {
                assert_int_equal(shard_first_token(&p, r), tokens);
                assert_int_equal(shard_first_granule(&p, r), granules);
                tokens += shard_tokens(&p, r);
                granules += shard_granules(&p, r);
                most = shard_granules(&p, r) > most ? shard_granules(&p, r) : most;
                least = shard_granules(&p, r) < least ? shard_granules(&p, r) : least;
                assert_true(shard_tokens(&p, r) <= shard_most_tokens(lengths[i], ranks));
            }
            assert_int_equal(tokens, lengths[i]);
            assert_int_equal(granules, p.granules);
            assert_true(most - least <= 1);
            assert_true(most <= shard_max_granules(&p));
        }
    }
}

static void granule_depends_on_length_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int64_t g = shard_granule(lengths[i]);
        assert_true(g % 16 == 0 && g >= 16 && g <= 256);
        for (int ranks = 1; ranks <= 8; ranks++)
            assert_int_equal(shard_plan_make(lengths[i], ranks).granule, g);
    }
    assert_int_equal(shard_granule(6144), 128);
}

/* Buffers are sized once for the longest shot and must hold every shorter one, whose granules are
 * smaller. */
static void buffers_hold_every_shorter_sequence(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 16; ranks++) {
        int64_t room = shard_most_tokens(2000, ranks);
        for (int64_t tokens = 1; tokens <= 2000; tokens++) {
            struct shard_plan p = shard_plan_make(tokens, ranks);
            assert_true(shard_max_granules(&p) * p.granule <= room);
            assert_true(p.granules <= shard_most_granules(2000));
        }
    }
    assert_int_equal(shard_most_tokens(1537, 11),
                     160); /* 1536 tokens: 5 granules of 32; 1537: 3 of 48 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_tile_the_sequence),
        cmocka_unit_test(granule_depends_on_length_alone),
        cmocka_unit_test(buffers_hold_every_shorter_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
