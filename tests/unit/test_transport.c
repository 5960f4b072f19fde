/* Who may use NCCL: groups whose ranks have a device each and the same library. */
#include "parallel/transport.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

enum { DENOISE = 0, CODEC = 1, EVERYONE = 2 };
enum { D = 1 << DENOISE, C = 1 << CODEC, E = 1 << EVERYONE };

static void refuses(const struct transport_rank *ranks, int count, int group, const char *expected)
{
    char why[160] = "";
    assert_false(transport_possible(ranks, count, group, why, sizeof why));
    assert_string_equal(why, expected);
}

static void accepts(const struct transport_rank *ranks, int count, int group)
{
    char why[160];
    assert_true(transport_possible(ranks, count, group, why, sizeof why));
}

static void test_devices_of_their_own(void **state)
{
    (void)state;
    const struct transport_rank ranks[] = {
        {11, 22809, D | E}, {12, 22809, D | E}, {13, 22809, C | E}, {14, 22809, C | E}};
    for (int g = 0; g < TRANSPORT_GROUPS; g++) accepts(ranks, 4, g);
}

/* A codec rank on the device of a denoise rank: only what both are in is in the way. */
static void test_shared_device(void **state)
{
    (void)state;
    const struct transport_rank ranks[] = {
        {11, 22809, D | E}, {12, 22809, D | E}, {12, 22809, C | E}};
    accepts(ranks, 3, DENOISE);
    accepts(ranks, 3, CODEC);
    refuses(ranks, 3, EVERYONE, "ranks 1 and 2 share a device");
}

static void test_libraries(void **state)
{
    (void)state;
    const struct transport_rank ranks[] = {
        {11, 22809, D | E}, {12, 22703, D | E}, {13, 0, C | E}, {0, 0, C}};
    refuses(ranks, 4, DENOISE, "rank 0 has NCCL 2.28.9, rank 1 2.27.3");
    refuses(ranks, 4, CODEC, "rank 2 has no NCCL");
    refuses(ranks + 3, 1, CODEC, "rank 0 has no device");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_devices_of_their_own),
                                       cmocka_unit_test(test_shared_device),
                                       cmocka_unit_test(test_libraries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
