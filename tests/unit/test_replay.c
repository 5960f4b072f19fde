/* Which passes are recorded and replayed (src/model/replay.h), on a backend that writes down what
 * it is asked for: 'p' the op of a pass, '<' '|' '>' a recording begins, is cut and ends, 'r' a
 * part of it is replayed, 'f' it is forgotten; and 'm', what a pass does at a cut. */
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
static bool refuses, refuses_cuts, moved;
static struct recording recordings[64];
static int made;

static void say(const char *letter) { strcat(said, letter); }

static bool begin(struct device *dev)
{
    (void)dev;
    if (!refuses) say("<");
    return !refuses;
}

static bool cut(struct device *dev)
{
    (void)dev;
    say("|");
    return !refuses_cuts;
}

static struct recording *end(struct device *dev)
{
    (void)dev;
    say(">");
    moved = false;
    if (refuses_cuts) return NULL;
    recordings[made].valid = 1;
    return &recordings[made++];
}

static bool replay(struct device *dev, struct recording *r)
{
    (void)dev;
    assert_true(r->valid);
    return !moved;
}

static bool next(struct device *dev)
{
    (void)dev;
    say("r");
    return true;
}

static void op(struct device *dev, struct mat y, struct mat x)
{
    (void)dev, (void)y, (void)x;
    say("p");
}

static void forget(struct device *dev, struct recording *r)
{
    (void)dev;
    r->valid = 0;
    say("f");
}

static const struct ops table = {.record_begin = begin,
                                 .record_cut = cut,
                                 .record_end = end,
                                 .replay_begin = replay,
                                 .replay_next = next,
                                 .recording_free = forget,
                                 .silu = op};
static struct device dev = {.ops = &table};

static void pass(void *argument)
{
    float value;
    (void)argument;
    op_silu(&dev, mat_f32(&value, 1, 1), mat_f32(&value, 1, 1));
}

/* Where nothing has been asked for since a cut, another is none. */
static void pass_with_message(void *argument)
{
    pass(argument);
    if (op_cut(&dev)) say("m");
    if (op_cut(&dev)) say("m");
    pass(argument);
    pass(argument);
}

static int reset(void **state)
{
    (void)state;
    said[0] = 0;
    refuses = refuses_cuts = moved = false;
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

static void what_is_no_op_is_done_in_every_replay(void **state)
{
    (void)state;
    struct replays r = replays_on(true);
    struct replay_key key = {.times = 1};
    for (int i = 0; i < 3; i++) replays_run(&r, &key, pass_with_message, NULL);
    assert_string_equal(said, "pmmpp"
                              "<p|pp>rmmr"
                              "rmmr");
    replays_forget(&r);
    said[0] = 0;
    pass_with_message(NULL); /* and what comes afterwards is as ever */
    assert_string_equal(said, "pmmpp");
}

/* Nothing more is noted, or done in its place. */
static void a_recording_that_fails_at_a_cut(void **state)
{
    (void)state;
    struct replays r = replays_on(true);
    struct replay_key key = {.times = 1};
    refuses_cuts = true;
    for (int i = 0; i < 2; i++) replays_run(&r, &key, pass_with_message, NULL);
    assert_string_equal(said, "pmmpp"
                              "<p|>pmmpp");
    replays_forget(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_second_is_recorded, reset),
        cmocka_unit_test_setup(what_differs_is_another_pass, reset),
        cmocka_unit_test_setup(what_has_moved_is_recorded_again, reset),
        cmocka_unit_test_setup(a_device_that_refuses, reset),
        cmocka_unit_test_setup(what_is_no_op_is_done_in_every_replay, reset),
        cmocka_unit_test_setup(a_recording_that_fails_at_a_cut, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
