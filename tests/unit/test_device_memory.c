/* What ranks need together of the devices that they share. */
#include "render/device_memory.h"
#include "tests/support/synth.h"

#include <stdio.h>
#include <string.h>

#define GIB ((int64_t)1 << 30)

static struct device_claim claim(const char *identity, int64_t streamed, int64_t resident,
                                 int64_t left)
{
    struct device_claim c = {.bytes = {streamed, resident}, .left = left, .all = 80 * GIB};
    snprintf(c.facts.identity, sizeof c.facts.identity, "%s", identity);
    snprintf(c.facts.place, sizeof c.facts.place, "0000:0%.1s:00.0", identity);
    snprintf(c.facts.model, sizeof c.facts.model, "GPU");
    return c;
}

static void ranks_on_one_device_are_summed(void **state)
{
    (void)state;
    const struct device_claim claims[] = {claim("1", 10 * GIB, 20 * GIB, 70 * GIB),
                                          claim("2", 1 * GIB, 2 * GIB, 60 * GIB),
                                          claim("1", 30 * GIB, 40 * GIB, 65 * GIB)};
    for (int mine = 0; mine < 3; mine += 2) { /* alike on both */
        struct device_sum sum = device_memory_sum(claims, 3, mine);
        assert_int_equal(sum.ranks, 2);
        assert_true(sum.bytes[false] == 40 * GIB && sum.bytes[true] == 60 * GIB);
        assert_true(sum.left == 65 * GIB && sum.all == 80 * GIB); /* the least that is seen */
    }
    struct device_sum alone = device_memory_sum(claims, 3, 1);
    assert_int_equal(alone.ranks, 1);
    assert_true(alone.bytes[false] == 1 * GIB && alone.bytes[true] == 2 * GIB);
    assert_true(alone.left == 60 * GIB);
}

/* In a plan on a machine without GPUs every rank has one of its own. */
static void devices_that_are_not_here_are_not_shared(void **state)
{
    (void)state;
    char text[200];
    const struct device_claim claims[] = {claim("", 1 * GIB, 2 * GIB, INT64_MAX),
                                          claim("", 3 * GIB, 4 * GIB, INT64_MAX)};
    struct device_sum sum = device_memory_sum(claims, 2, 1);
    assert_int_equal(sum.ranks, 1);
    assert_true(sum.bytes[true] == 4 * GIB);
    assert_true(device_memory_is_easy(&sum, true) && device_memory_suffices(&sum, true));
    assert_string_equal(device_memory_text(&claims[1], &sum, "h", true, text, sizeof text),
                        "a rank needs 4.00 GiB of its device, which is not here");
}

static void weights_stay_where_there_is_room_to_spare(void **state)
{
    (void)state;
    struct device_sum sum = {.ranks = 1, .bytes = {50, 95}, .left = 100, .all = 100};
    assert_true(device_memory_is_easy(&sum, true) && device_memory_suffices(&sum, true));
    sum.bytes[true] = 96;
    assert_true(!device_memory_is_easy(&sum, true) && device_memory_suffices(&sum, true));
    sum.bytes[true] = 100;
    assert_true(device_memory_suffices(&sum, true));
    sum.bytes[true] = 101;
    assert_true(!device_memory_suffices(&sum, true) && device_memory_suffices(&sum, false));
}

static void a_device_says_what_it_is_asked_for(void **state)
{
    (void)state;
    char text[200];
    const struct device_claim claims[] = {claim("1", 10 * GIB, 20 * GIB, 70 * GIB),
                                          claim("1", 1 * GIB, 2 * GIB, 60 * GIB)};
    struct device_sum both = device_memory_sum(claims, 2, 0), one = device_memory_sum(claims, 1, 0);
    assert_string_equal(device_memory_text(claims, &both, "h", true, text, sizeof text),
                        "2 ranks on device 0000:01:00.0 (GPU) of h need 22.00 GiB, 60.00 GiB of "
                        "80.00 GiB are free");
    assert_string_equal(device_memory_text(claims, &one, "h", false, text, sizeof text),
                        "1 rank on device 0000:01:00.0 (GPU) of h needs 10.00 GiB, 70.00 GiB of "
                        "80.00 GiB are free");
    for (size_t size = 1; size < 100; size++) /* cut, never past the end */
        assert_true(strlen(device_memory_text(claims, &both, "h", true, text, size)) < size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_on_one_device_are_summed),
        cmocka_unit_test(devices_that_are_not_here_are_not_shared),
        cmocka_unit_test(weights_stay_where_there_is_room_to_spare),
        cmocka_unit_test(a_device_says_what_it_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
