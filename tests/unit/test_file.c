/* Whole files and UTF-8, as strangers give them. */
#include "tests/support/synth.h"

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void expect_refused(const char *path, size_t most, const char *part)
{
    char *data = (char *)path;
    size_t bytes = 1;
    error_clear();
    assert_int_equal(file_read(path, most, &data, &bytes), STATUS_INPUT);
    assert_null(data);
    if (strncmp(error_message(), path, strlen(path)) != 0 || !strstr(error_message(), part))
        fail_msg("\"%s\" lacks \"%s\"", error_message(), part);
    error_clear();
}

static void reads_whole_files(void **state)
{
    (void)state;
    char *dir = temp_dir_make(), *path = xasprintf("%s/file", dir), *data;
    size_t bytes;
    write_file(path, "a\0b", 3);
    assert_int_equal(file_read(path, 3, &data, &bytes), STATUS_OK);
    assert_int_equal(bytes, 3);
    assert_memory_equal(data, "a\0b", 4);
    free(data);
    expect_refused(path, 2, "3 bytes; at most 2 are allowed");
    assert_int_equal(truncate(path, (1 << 20) + 1), 0);
    expect_refused(path, 1 << 20, "1048577 bytes; at most 1 MiB are allowed");
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(file_read(path, 3, &data, &bytes), STATUS_OK);
    assert_int_equal(bytes, 0);
    assert_string_equal(data, "");
    free(data);
    expect_refused(dir, 10, "not a regular file");
    assert_int_equal(unlink(path), 0);
    expect_refused(path, 10, "No such file");
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes: it must not wait */
    expect_refused(path, 10, "not a regular file");
    temp_dir_remove(dir);
    free(path);
}

static void utf8_is_strict(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t valid;
        uint32_t first; /* code point, of what is valid */
    } cases[] = {
        {"a", 1, 'a'},
        {"\xc3\xa9", 2, 0xe9},
        {"\xe2\x82\xac", 3, 0x20ac},
        {"\xf0\x9f\x98\x80x", 5, 0x1f600},
        {"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
        {"\x7f", 1, 0x7f},
        {"\xc2\x80", 2, 0x80},
        {"\xe0\xa0\x80", 3, 0x800},
        {"\xf0\x90\x80\x80", 4, 0x10000},
        {"\x80", 0, 0},
        {"\xc3", 0, 0},
        {"\xc3(", 0, 0},
        {"\xc0\x80", 0, 0},
        {"\xc1\xbf", 0, 0},
        {"\xe0\x9f\xbf", 0, 0},
        {"\xf0\x8f\xbf\xbf", 0, 0},
        {"\xed\xa0\x80", 0, 0},
        {"\xed\xbf\xbf", 0, 0},
        {"\xf4\x90\x80\x80", 0, 0},
        {"\xf5\x80\x80\x80", 0, 0},
        {"\xff", 0, 0},
        {"\xf8\x88\x80\x80\x80", 0, 0},
        {"ab\xc3", 2, 'a'},
        {"\xe2\x82", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].text);
        uint32_t code = 0;
        char *text = malloc(n); /* without its NUL: nothing beyond the end is looked at */
        memcpy(text, cases[i].text, n);
        if (utf8_prefix(text, n) != cases[i].valid) fail_msg("case %zu", i);
        assert_true(utf8_valid(text, n) == (cases[i].valid == n));
        if (utf8_decode(text, n, &code) > 0) assert_int_equal(code, cases[i].first);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_whole_files),
        cmocka_unit_test(utf8_is_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
