/* safetensors: what is accepted, what is refused with which message, and what is written. */
#include "tests/support/synth.h"

#include "base/error.h"

#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir, *path;

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    path = xasprintf("%s/file.safetensors", dir);
    error_clear();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove(dir);
    free(path);
    return 0;
}

static void write_bytes(const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* A file with this header text and `data_bytes` bytes 0, 1, 2, ... behind it. */
static void write_file(const char *header, size_t data_bytes)
{
    size_t length = strlen(header), size = 8 + length + data_bytes;
    unsigned char *bytes = xcalloc(size, 1);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++) bytes[8 + length + i] = (unsigned char)i;
    write_bytes(bytes, size);
    free(bytes);
}

/* Opening must fail with STATUS_INPUT, and the one-line message must hold the path and `part`. */
static void expect_refused(const char *part)
{
    struct safetensors *f = NULL;
    error_clear();
    assert_int_equal(safetensors_open(&f, path), STATUS_INPUT);
    assert_null(f);
    const char *message = error_message();
    if (!strstr(message, path) || !strstr(message, part) || strchr(message, '\n'))
        fail_msg("message is \"%s\"; it should hold \"%s\" and \"%s\"", message, path, part);
}

static void refuse(const char *header, size_t data_bytes, const char *part)
{
    write_file(header, data_bytes);
    expect_refused(part);
}

static struct safetensors *accept(const char *header, size_t data_bytes)
{
    struct safetensors *f = NULL;
    write_file(header, data_bytes);
    if (safetensors_open(&f, path) != STATUS_OK) fail_msg("refused: %s", error_message());
    return f;
}

#define TENSOR(name, dtype, shape, begin, end)                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end   \
    "]}"

/* ---- accepted -------------------------------------------------------------------------------- */

static void test_reads(void **state)
{
    (void)state;
    struct safetensors *f =
        accept("{\"__metadata__\":{\"format\":\"pt\",\"k\":\"\\u00e9\"}," TENSOR(
                   "b", "F32", "[2,1]", "0", "8") "," TENSOR("a.c", "U8", "[3]", "8", "11") "}   ",
               11);
    assert_int_equal(safetensors_count(f), 2);
    assert_string_equal(safetensors_path(f), path);
    assert_string_equal(safetensors_at(f, 0)->name, "a.c");
    assert_string_equal(safetensors_at(f, 1)->name, "b");
    const struct tensor *t = safetensors_find(f, "a.c");
    assert_ptr_equal(t, safetensors_at(f, 0));
    assert_int_equal(t->dtype, DTYPE_U8);
    assert_int_equal(t->rank, 1);
    assert_int_equal(t->shape[0], 3);
    assert_int_equal(t->bytes, 3);
    assert_memory_equal(t->data, "\x08\x09\x0a", 3);
    assert_string_equal(safetensors_dtype(t), "U8");
    t = safetensors_find(f, "b");
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 1);
    assert_memory_equal(t->data, "\0\1\2\3\4\5\6\7", 8);
    assert_null(safetensors_find(f, "a"));
    assert_null(safetensors_find(f, "__metadata__"));
    assert_string_equal(safetensors_metadata(f, "format"), "pt");
    assert_string_equal(safetensors_metadata(f, "k"), "\xc3\xa9");
    assert_null(safetensors_metadata(f, "absent"));
    safetensors_close(f);
}

static void test_empty_scalar_unaligned(void **state)
{
    (void)state;
    /* The F32 begins at an odd byte; two empty tensors share places with others, one lies at the
     * end. */
    struct safetensors *f = accept(
        "{" TENSOR("f", "F32", "[1]", "1", "5") "," TENSOR(
            "byte", "U8", "[1]", "0",
            "1") "," TENSOR("empty", "F32", "[4,0,7]", "1",
                            "1") "," TENSOR("end", "F16", "[0]", "7",
                                            "7") "," TENSOR("scalar", "BF16", "[]", "5", "7") "}",
        7);
    assert_int_equal(safetensors_find(f, "scalar")->rank, 0);
    assert_int_equal(tensor_count(safetensors_find(f, "scalar")), 1);
    assert_int_equal(tensor_count(safetensors_find(f, "empty")), 0);
    assert_int_equal(safetensors_find(f, "end")->bytes, 0);
    float *value = tensor_floats(safetensors_find(f, "f"));
    uint32_t bits;
    memcpy(&bits, value, sizeof bits);
    assert_int_equal(bits, 0x04030201);
    free(value);
    safetensors_close(f);

    f = accept("{}", 0);
    assert_int_equal(safetensors_count(f), 0);
    assert_null(safetensors_find(f, "a"));
    assert_null(safetensors_metadata(f, "a"));
    safetensors_close(f);
}

static void test_other_dtypes(void **state)
{
    (void)state;
    struct safetensors *f =
        accept("{" TENSOR("a", "F8_E5M2", "[2]", "0", "2") "," TENSOR(
                   "b", "F4", "[4]", "2", "4") "," TENSOR("c", "C64", "[1]", "4",
                                                          "12") "," TENSOR("d", "F8_E4M3", "[1]",
                                                                           "12", "13") "}",
               13);
    assert_int_equal(safetensors_find(f, "a")->dtype, DTYPE_COUNT);
    assert_string_equal(safetensors_dtype(safetensors_find(f, "a")), "F8_E5M2");
    assert_string_equal(safetensors_dtype(safetensors_find(f, "b")), "F4");
    assert_int_equal(safetensors_find(f, "d")->dtype, DTYPE_F8_E4M3);
    safetensors_close(f);
    refuse("{" TENSOR("odd", "F6_E2M3", "[1]", "0", "0") "}", 0, "tensor odd: F6_E2M3 [1]");
    refuse("{" TENSOR("w", "I16", "[3]", "0", "5") "}", 5,
           "tensor w: I16 [3] does not take the 5 bytes");
}

/* ---- refused --------------------------------------------------------------------------------- */

static void test_not_a_file(void **state)
{
    (void)state;
    expect_refused("No such file");
    assert_int_equal(mkdir(path, 0777), 0);
    expect_refused("not a regular file");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refused("not a regular file");
    assert_int_equal(unlink(path), 0);
    write_bytes("", 0);
    expect_refused("only 0 bytes");
    write_bytes("\2\0\0\0\0\0\0", 7);
    expect_refused("only 7 bytes");
}

static void test_header_length(void **state)
{
    (void)state;
    write_bytes("\0\0\0\0\0\0\0\0", 8);
    expect_refused("does not begin with '{'");
    write_bytes("\3\0\0\0\0\0\0\0{}", 10);
    expect_refused("the header should have 3 bytes, the file ends after 2");
    write_bytes("\1\xe1\xf5\5\0\0\0\0{}", 10); /* 100 000 001 */
    expect_refused("a header of 100000001 bytes (at most 16 MiB are allowed)");
    write_bytes("\1\0\0\1\0\0\0\0{}", 10); /* 16 MiB + 1 */
    expect_refused("a header of 16777217 bytes (at most 16 MiB");
    write_bytes("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    expect_refused("a header of 18446744073709551615 bytes");
    write_bytes("\xf8\xff\xff\xff\xff\xff\xff\xff{}", 10); /* 8 + n wraps to 0 */
    expect_refused("a header of 18446744073709551608 bytes");
}

static void test_bad_json(void **state)
{
    (void)state;
    refuse(" {}", 0, "does not begin with '{'");
    refuse("[]", 0, "does not begin with '{'");
    refuse("{", 0, "bad JSON");
    refuse("{} x", 0, "bad JSON");
    refuse("{\"a\":}", 0, "bad JSON");
    refuse("{\"a\":\033\n}", 0, "bad JSON");
    refuse("{\"\xff\":1}", 0, "bad JSON");
    refuse("{\"\xc0\x80\":1}", 0, "bad JSON");
    refuse("{\"\\ud800\":1}", 0, "bad JSON");
    refuse("{\"a\\u0000b\":1}", 0, "bad JSON");
    refuse(
        "{" TENSOR("twice", "U8", "[1]", "0", "1") "," TENSOR("twice", "U8", "[1]", "1", "2") "}",
        2, "twice");
    refuse("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "bad JSON");
    refuse("{\"a\\u001b[2J\":1}", 0, "control character 0x1b");
    refuse("{\"a\\nb\":1}", 0, "control character 0x0a");
}

static void test_deep_json(void **state)
{
    (void)state;
    refuse("{\"a\":[[[[]]]]}", 0, "deeper than 4");
    size_t depth = 1000000;
    char *text = xmalloc(depth + 8);
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', depth);
    text[5 + depth] = '\0';
    refuse(text, 0, "deeper than 4");
    free(text);
    /* brackets inside strings do not count */
    safetensors_close(accept("{" TENSOR("[[[[[[\\\"[[[[", "U8", "[1]", "0", "1") "}", 1));
}

/* Each of these values is two bytes of text and some 250 bytes in the parser. */
static void test_many_values(void **state)
{
    (void)state;
    size_t count = 2000000;
    char *text = xmalloc(3 * count + 8), *to = stpcpy(text, "{\"a\":[");
    for (size_t i = 0; i < count; i++) to = stpcpy(to, i ? ",{}" : "{}");
    strcpy(to, "]}");
    refuse(text, 0, "more than 1000000 values");
    free(text);
    /* commas inside strings do not count */
    text = xmalloc(count + 64);
    to = stpcpy(text, "{\"__metadata__\":{\"note\":\"");
    memset(to, ',', count);
    strcpy(to + count, "\"}}");
    safetensors_close(accept(text, 0));
    free(text);
}

static void test_bad_entries(void **state)
{
    (void)state;
    refuse("{\"w\":1}", 0, "tensor w: not an object");
    refuse("{\"w\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0, "tensor w: not an object of dtype");
    refuse("{" TENSOR("w", "U9", "[1]", "0", "1") "}", 1, "tensor w: unknown dtype \"U9\"");
    refuse("{" TENSOR("w", "f32", "[1]", "0", "4") "}", 4, "tensor w: unknown dtype");
    refuse("{\"w\":{\"dtype\":3,\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
           "tensor w: dtype is not a string");
    refuse("{" TENSOR("w", "U8", "1", "0", "1") "}", 1, "tensor w: shape is not a list");
    refuse("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1]}}", 1,
           "tensor w: data_offsets");
    refuse("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1,
           "tensor w: data_offsets");
    refuse("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":\"01\"}}", 1,
           "tensor w: data_offsets");
    refuse("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
    refuse("{\"__metadata__\":{\"key\":1}}", 0, "the value of \"key\" is not a string");
    char *name = xmalloc(600), *header;
    memset(name, 'n', 599);
    name[599] = '\0';
    header = xasprintf("{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
    refuse(header, 1, "a tensor name of 599 bytes");
    free(header);
    free(name);
}

static void test_bad_numbers(void **state)
{
    (void)state;
    static const char *const shapes[] = {"[-1]", "[1.0]", "[1e0]", "[\"1\"]", "[null]", "[[1]]"};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char *header =
            xasprintf("{\"w\":{\"dtype\":\"U8\",\"shape\":%s,\"data_offsets\":[0,1]}}", shapes[i]);
        refuse(header, 1, "tensor w: dimension 0");
        free(header);
    }
    refuse("{" TENSOR("w", "U8", "[99999999999999999999]", "0", "1") "}", 1, "bad JSON");
    refuse("{" TENSOR("w", "U8", "[1]", "-1", "0") "}", 1, "tensor w: data_offsets");
    refuse("{" TENSOR("w", "U8", "[1]", "0.0", "1") "}", 1, "tensor w: data_offsets");
    refuse("{" TENSOR("w", "U8", "[1]", "0", "1e0") "}", 1, "tensor w: data_offsets");
    refuse("{" TENSOR("w", "U8", "[4294967296,4294967296]", "0", "0") "}", 0,
           "tensor w: the product of its shape overflows");
    refuse("{" TENSOR("w", "U8", "[9223372036854775807,2]", "0", "0") "}", 0,
           "tensor w: the product");
    refuse("{" TENSOR("w", "F32", "[4611686018427387904]", "0", "0") "}", 0, "tensor w: the size");
    refuse("{" TENSOR("w", "U8", "[1,1,1,1,1,1,1,1,1]", "0", "1") "}", 1, "tensor w: 9 dimensions");
    safetensors_close(accept("{" TENSOR("w", "U8", "[1,1,1,1,1,1,1,1]", "0", "1") "}", 1));
}

static void test_bad_layout(void **state)
{
    (void)state;
    refuse("{" TENSOR("a", "U8", "[2]", "0", "2") "," TENSOR("w", "U8", "[2]", "1", "3") "}", 3,
           "tensor w overlaps tensor a");
    refuse("{" TENSOR("a", "U8", "[2]", "0", "2") "," TENSOR("w", "U8", "[1]", "3", "4") "}", 4,
           "tensor w begins at byte 3");
    refuse("{" TENSOR("w", "U8", "[1]", "1", "2") "}", 2, "tensor w begins at byte 1");
    refuse("{" TENSOR("w", "U8", "[1]", "1", "0") "}", 1,
           "tensor w: data_offsets [1,0] run backwards");
    refuse("{" TENSOR("w", "U8", "[4]", "0", "4") "}", 3,
           "tensor w: data_offsets [0,4] reach past the 3 bytes");
    refuse("{" TENSOR("w", "U8", "[1]", "9223372036854775806", "9223372036854775807") "}", 1,
           "tensor w: data_offsets");
    refuse("{" TENSOR("w", "U8", "[4]", "0", "4") "}", 5, "1 trailing bytes");
    refuse("{}", 1, "1 trailing bytes");
    refuse("{" TENSOR("w", "F32", "[2]", "0", "4") "}", 4,
           "tensor w: F32 [2] does not take the 4 bytes");
    refuse("{" TENSOR("w", "F32", "[]", "0", "0") "}", 0,
           "tensor w: F32 [] does not take the 0 bytes");
}

/* ---- writing --------------------------------------------------------------------------------- */

static int partial_files(void)
{
    glob_t found;
    char *pattern = xasprintf("%s/*.part-*", dir);
    int count = glob(pattern, 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    globfree(&found);
    free(pattern);
    return count;
}

static void test_write_read(void **state)
{
    (void)state;
    const float f[3] = {1, -2, 3.5f};
    const uint16_t h[2] = {0x3f80, 0xbf80};
    const struct tensor tensors[] = {{"z.half", DTYPE_BF16, 1, {2}, h, sizeof h},
                                     {"scalar", DTYPE_F32, 0, {0}, f, 4},
                                     {"byte\"quoted", DTYPE_U8, 1, {1}, f, 1},
                                     {"f", DTYPE_F32, 2, {3, 1}, f, sizeof f},
                                     {"none", DTYPE_F32, 2, {3, 0}, NULL, 0}};
    const char *const metadata[] = {"config", "{\"a\":[1]}", "note", "\xc3\xa9\n", NULL};
    struct safetensors *file;
    assert_int_equal(safetensors_write(path, tensors, 5, metadata), STATUS_OK);
    assert_int_equal(safetensors_open(&file, path), STATUS_OK);
    assert_int_equal(safetensors_count(file), 5);
    assert_string_equal(safetensors_metadata(file, "config"), metadata[1]);
    assert_string_equal(safetensors_metadata(file, "note"), metadata[3]);
    for (int i = 0; i < 5; i++) {
        const struct tensor *t = safetensors_find(file, tensors[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, tensors[i].dtype);
        assert_int_equal(t->rank, tensors[i].rank);
        assert_memory_equal(t->shape, tensors[i].shape, (size_t)t->rank * sizeof t->shape[0]);
        assert_int_equal(t->bytes, tensors[i].bytes);
        if (t->bytes) assert_memory_equal(t->data, tensors[i].data, t->bytes);
        assert_int_equal((uintptr_t)t->data % dtype_size(t->dtype), 0);
    }
    safetensors_close(file);
    assert_int_equal(safetensors_write(path, NULL, 0, NULL), STATUS_OK); /* replaces */
    assert_int_equal(safetensors_open(&file, path), STATUS_OK);
    assert_int_equal(safetensors_count(file), 0);
    safetensors_close(file);
    assert_int_equal(partial_files(), 0);
}

static void expect_write_fails(const char *to, const struct tensor *t)
{
    error_clear();
    assert_int_equal(safetensors_write(to, t, 1, NULL), STATUS_INPUT);
    assert_non_null(strstr(error_message(), to));
    assert_int_equal(partial_files(), 0);
}

static void test_write_fails(void **state)
{
    (void)state;
    static const unsigned char zeros[100000];
    const struct tensor t = {"t", DTYPE_U8, 1, {sizeof zeros}, zeros, sizeof zeros};
    /* A full disk, as far as write() is concerned. The old file stays. */
    write_file("{}", 0);
    char *below = xasprintf("%s/such.safetensors", path);
    expect_write_fails(below, &t);
    free(below);
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = (struct rlimit){20000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    error_clear();
    int status = safetensors_write(path, &t, 1, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, STATUS_INPUT);
    assert_non_null(strstr(error_message(), path));
    assert_int_equal(partial_files(), 0);
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, path), STATUS_OK);
    assert_int_equal(safetensors_count(file), 0);
    safetensors_close(file);

    assert_int_equal(unlink(path), 0); /* a folder stands where the file should go: rename fails */
    assert_int_equal(mkdir(path, 0777), 0);
    expect_write_fails(path, &t);
    const char *const bad[] = {"key", "\xff", NULL};
    error_clear();
    assert_int_equal(safetensors_write(path, &t, 1, bad), STATUS_INPUT);
    assert_non_null(strstr(error_message(), "UTF-8"));
}

/* ---- manifests ------------------------------------------------------------------------------- */

static void test_manifest(void **state)
{
    (void)state;
    static const char text[] =
        "{\"metadata\":{\"config\":\"{}\"},\"tensors\":["
        "{\"name\":\"a\",\"shape\":[4,16],\"dtype\":\"F32\",\"seed\":42,\"scale\":1,\"offset\":0},"
        "{\"name\":\"b\",\"shape\":[64],\"dtype\":\"BF16\",\"seed\":42,\"scale\":0.1,\"offset\":1},"
        "{\"name\":\"c\",\"shape\":[64],\"dtype\":\"F16\",\"seed\":42,\"scale\":1,\"offset\":0},"
        "{\"name\":\"s\",\"shape\":[],\"dtype\":\"F32\",\"seed\":42,\"scale\":1,\"offset\":1000}]}";
    char *manifest = xasprintf("%s/m.json", dir);
    FILE *file = fopen(manifest, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    if (synth_checkpoint(manifest, path) != STATUS_OK) fail_msg("%s", error_message());
    struct safetensors *f;
    assert_int_equal(safetensors_open(&f, path), STATUS_OK);
    assert_string_equal(safetensors_metadata(f, "config"), "{}");
    const struct tensor *a = fixture(f, "a"), *b = fixture(f, "b"), *c = fixture(f, "c");
    /* torch.randn with seed 42 (spec vae-and-scheduler 7.3) */
    static const uint32_t expected[8] = {0x3ff6a529, 0x3fbe5f53, 0x3f669567, 0xc006c0db,
                                         0x3f2dacd5, 0xbf9e0591, 0xbd306786, 0xbfcd65ba};
    assert_memory_equal(a->data, expected, sizeof expected);
    float *fa = tensor_floats(a), *fb = tensor_floats(b), *fc = tensor_floats(c),
          *fs = tensor_floats(fixture(f, "s"));
    for (int i = 0; i < 64; i++) {
        float scaled = fa[i] * 0.1f;
        assert_true(fb[i] == f32_from_bf16(bf16_from_f32(scaled + 1.0f)));
        assert_true(fc[i] - fa[i] <= 0x1p-11f * 4 && fa[i] - fc[i] <= 0x1p-11f * 4);
    }
    assert_true(fs[0] > 1000.33f &&
                fs[0] < 1000.35f); /* 0.3367: fewer than 16 draws take the scalar path */
    assert_true(relative_rms(fa, fa, 64) == 0);
    assert_true(relative_rms(fc, fa, 64) > 0 && relative_rms(fc, fa, 64) < 1e-3);
    free(fa);
    free(fb);
    free(fc);
    free(fs);
    safetensors_close(f);
    free(manifest);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_reads),         CASE(test_empty_scalar_unaligned),
        CASE(test_other_dtypes),  CASE(test_not_a_file),
        CASE(test_header_length), CASE(test_bad_json),
        CASE(test_deep_json),     CASE(test_many_values),
        CASE(test_bad_entries),   CASE(test_bad_numbers),
        CASE(test_bad_layout),    CASE(test_write_read),
        CASE(test_write_fails),   CASE(test_manifest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
