/* Which passes are recorded and replayed (src/model/replay.h), on a backend that writes down what
 * it is asked for: 'p' a pass that runs, '<' '>' a recording begins and ends, 'r' a replay, 'f' one
 * is forgotten. */
#include "kernels/backend.h"
#include "model/replay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct recording {
    int valid;
};

static char said[256];
static bool refuses, moved;
static struct recording recordings[64];
static int made;

static void say(const char *letter) { strcat(said, letter); }

static bool begin(struct device *dev)
{
    (void)dev;
    if (!refuses) say("<");
    return !refuses;
}

static struct recording *end(struct device *dev)
{
    (void)dev;
    say(">");
    moved = false;
    recordings[made].valid = 1;
    return &recordings[made++];
}

static bool replay(struct device *dev, struct recording *r)
{
    (void)dev;
    assert_true(r->valid);
    if (!moved) say("r");
    return !moved;
}

static void forget(struct device *dev, struct recording *r)
{
    (void)dev;
    r->valid = 0;
    say("f");
}

static const struct ops table = {
    .record_begin = begin, .record_end = end, .replay = replay, .recording_free = forget};
static struct device dev = {.ops = &table};

static void pass(void *argument)
{
    (void)argument;
    say("p");
}

static int reset(void **state)
{
    (void)state;
    said[0] = 0;
    refuses = moved = false;
    return 0;
}

static struct replays replays_on(bool on) { return (struct replays){.dev = &dev, .on = on}; }

static void run(struct replays *r, const struct replay_key *key, int times)
{
    for (int i = 0; i < times; i++) replays_run(r, key, pass, NULL);
}

static void only_runs(struct replays *r, const struct replay_key *key)
{
    said[0] = 0;
    run(r, key, 3);
    assert_string_equal(said, "ppp");
}

static void the_second_is_recorded(void **state)
{
    (void)state;
    struct replays r = replays_on(true), off = replays_on(false);
    struct replay_key key = {.times = 1};
    run(&r, &key, 4);
    assert_string_equal(said, "p<p>rrr");
    replays_forget(&r);
    run(&r, &key, 2);
    assert_string_equal(said, "p<p>rrrfp<p>r");
    replays_forget(&r);
    only_runs(&off, &key);
}

/* Each part of a key, and the blocks themselves in place of where they lie. */
static void what_differs_is_another_pass(void **state)
{
    (void)state;
    static int here, blocks[] = {3, 5}, others[] = {3, 6}, alike[] = {3, 5};
    const struct replay_key keys[] = {{.times = 1},
                                      {.times = 2},
                                      {.times = 1, .to = &here},
                                      {.times = 1, .text_slot = 1},
                                      {.times = 1, .text_tokens = 4},
                                      {.times = 1, .skip = {STG_RESIDUAL, 2, blocks}},
                                      {.times = 1, .skip = {STG_RESIDUAL, 1, blocks}},
                                      {.times = 1, .skip = {STG_RESIDUAL, 2, others}}};
    const int count = (int)(sizeof keys / sizeof *keys);
    assert_int_equal(count, REPLAYS_MOST);
    struct replays r = replays_on(true);
    for (int i = 0; i < count; i++) run(&r, &keys[i], 1);
    assert_string_equal(said, "pppppppp");
    struct replay_key again = {.times = 1, .skip = {STG_RESIDUAL, 2, alike}};
    run(&r, &again, 2);
    assert_string_equal(said, "pppppppp<p>rr");

    /* No room for more, or for so many blocks: they run. */
    int many[REPLAY_BLOCKS_MOST + 1] = {0};
    struct replay_key late = {.times = 7}, wide = {.skip = {STG_RESIDUAL, 65, many}};
    run(&r, &late, 3);
    assert_string_equal(said, "pppppppp<p>rrppp");
    replays_forget(&r);
    only_runs(&r, &wide);
}

static void what_has_moved_is_recorded_again(void **state)
{
    (void)state;
    struct replays r = replays_on(true);
    struct replay_key key = {.times = 1};
    run(&r, &key, 2);
    moved = true;
    run(&r, &key, 3);
    assert_string_equal(said, "p<p>rfp<p>rr");
    replays_forget(&r);
}

static void a_device_that_refuses(void **state)
{
    (void)state;
    struct replays r = replays_on(true);
    struct replay_key key = {.times = 1};
    refuses = true;
    only_runs(&r, &key);
    replays_forget(&r);
    assert_string_equal(said, "ppp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_second_is_recorded, reset),
        cmocka_unit_test_setup(what_differs_is_another_pass, reset),
        cmocka_unit_test_setup(what_has_moved_is_recorded_again, reset),
        cmocka_unit_test_setup(a_device_that_refuses, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
