/* What memory there is, read from sample system files, and what a plan says. */
#include "base/arena.h"
#include "base/error.h"
#include "base/memory.h"
#include "tests/support/folder.h"
#include "tests/support/synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define GIB ((int64_t)1 << 30)

/* Puts text into a file below the folder; its folders are made. */
static void put(const char *path, const char *text)
{
    char *whole = xasprintf("%s/%s", test_folder, path);
    for (char *slash = strchr(whole + strlen(test_folder) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *f = fopen(whole, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(whole);
}

static void put_meminfo(void)
{
    put("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:          100000 kB\n"
                        "MemAvailable:    8388608 kB\nBuffers:           12345 kB\n");
}

static int64_t available(void) { return memory_available_in(test_folder); }

static void without_a_system_nothing_limits(void **state)
{
    (void)state;
    assert_true(available() == INT64_MAX);
    put("proc/meminfo",
        "MemTotal: 16777216 kB\nMemFree: 100000 kB\n"); /* a kernel of before 2014 */
    assert_true(available() == INT64_MAX);
    put("proc/meminfo", "MemAvailable: many kB\n");
    assert_true(available() == INT64_MAX);
    put("proc/meminfo", "");
    assert_true(available() == INT64_MAX);
}

static void available_is_not_free(void **state)
{
    (void)state;
    put_meminfo();
    assert_true(available() == 8 * GIB);
    put("proc/self/cgroup", "");
    assert_true(available() == 8 * GIB);
    put("proc/self/cgroup", "nonsense\n\n0:\n:\n3:cpu\n");
    assert_true(available() == 8 * GIB);
}

static void a_unified_group_limits(void **state)
{
    (void)state;
    put_meminfo();
    put("proc/self/cgroup", "0::/batch/job7\n");
    put("sys/fs/cgroup/batch/job7/memory.max", "4294967296\n");
    put("sys/fs/cgroup/batch/job7/memory.current", "1073741824\n");
    assert_true(available() == 3 * GIB);
    /* Files in the page cache make way. */
    put("sys/fs/cgroup/batch/job7/memory.stat",
        "anon 1\nfile 536870912\ninactive_file 268435456\nactive_file 268435456\n");
    assert_true(available() == 3 * GIB + GIB / 2);
    /* So does the group around it limit, and the tightest counts. */
    put("sys/fs/cgroup/batch/memory.max", "2147483648\n");
    put("sys/fs/cgroup/batch/memory.current", "1073741824\n");
    assert_true(available() == GIB);
    put("sys/fs/cgroup/batch/memory.current", "3221225472\n"); /* the limit was lowered */
    assert_true(available() == 0);
    put("sys/fs/cgroup/batch/memory.max", "max\n");
    put("sys/fs/cgroup/batch/job7/memory.max", "max\n");
    assert_true(available() == 8 * GIB);
}

static void a_legacy_group_limits(void **state)
{
    (void)state;
    put_meminfo();
    put("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/job7\n1:cpu:/other\n0::/\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n");
    assert_true(available() == 8 * GIB);
    put("sys/fs/cgroup/memory/job7/memory.limit_in_bytes", "2147483648\n");
    put("sys/fs/cgroup/memory/job7/memory.usage_in_bytes", "1610612736\n");
    put("sys/fs/cgroup/memory/job7/memory.stat", "active_file 5\ntotal_inactive_file 536870912\n");
    assert_true(available() == GIB);
}

/* A container sees its own group as the root of the tree, under a name from outside. */
static void a_container_limits(void **state)
{
    (void)state;
    put_meminfo();
    put("proc/self/cgroup", "4:memory:/docker/0123456789abcdef\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "0\n");
    assert_true(available() == GIB);
}

static void this_host_has_memory(void **state)
{
    (void)state;
    assert_true(memory_available() > 1 << 20);
}

static void the_limit_of_addresses_is_seen(void **state)
{
    (void)state;
    struct rlimit old, limit;
    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
    limit = old;
    limit.rlim_cur = (rlim_t)1 << 46; /* the sanitizers map 2^44 */
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    int64_t left = memory_addresses();
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
    assert_true(left > 0 && left < (int64_t)1 << 46);
    if (old.rlim_cur == RLIM_INFINITY) assert_true(memory_addresses() == INT64_MAX);
}

static void a_plan_names_the_largest_first(void **state)
{
    (void)state;
    char text[256];
    struct memory_plan p = {0};
    assert_string_equal(memory_plan_text(&p, text, sizeof text), "0.0 MiB");
    memory_plan_add(&p, "video", 3 * GIB);
    memory_plan_add(&p, "nothing", 0);
    memory_plan_add(&p, "decode", 5 * GIB);
    memory_plan_add(&p, "crumbs", 50 << 20);
    memory_plan_add(&p, "frames", GIB / 2);
    assert_true(memory_plan_bytes(&p) == 8 * GIB + GIB / 2 + (50 << 20));
    assert_string_equal(memory_plan_text(&p, text, sizeof text),
                        "8.55 GiB: decode 5.00 GiB, video 3.00 GiB, frames 512.0 MiB");
    memory_plan_add(&p, "more crumbs", 60 << 20);
    assert_string_equal(
        memory_plan_text(&p, text, sizeof text),
        "8.61 GiB: decode 5.00 GiB, video 3.00 GiB, frames 512.0 MiB, other 110.0 MiB");
    for (size_t size = 1; size < 90; size++) /* cut, never past the end */
        assert_true(strlen(memory_plan_text(&p, text, size)) < size);
}

static void what_was_planned_is_kept(void **state)
{
    (void)state;
    assert_string_equal(memory_planned(), "");
    memory_plan_keep("on the device 1.00 GiB");
    assert_string_equal(memory_planned(), "; the plan (--dry-run) was on the device 1.00 GiB");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, folder_make, folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(without_a_system_nothing_limits),
        CASE(available_is_not_free),
        CASE(a_unified_group_limits),
        CASE(a_legacy_group_limits),
        CASE(a_container_limits),
        cmocka_unit_test(this_host_has_memory),
        cmocka_unit_test(the_limit_of_addresses_is_seen),
        cmocka_unit_test(a_plan_names_the_largest_first),
        cmocka_unit_test(what_was_planned_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
