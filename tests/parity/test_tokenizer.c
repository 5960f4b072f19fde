/* The tokenizer against stored ids of the reference's SentencePiece model, and against damaged
 * model files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "model/spiece.h"
#include "model/tokenizer.h"

enum { MAX_TOKENS = 256 };
static const char model_path[] = "models/tiny/tokenizer/spiece.model";

static struct tokenizer *open_tiny(void)
{
    struct tokenizer *t = NULL;
    assert_int_equal(tokenizer_open(&t, model_path), STATUS_OK);
    return t;
}

/* Encodes and compares; `expected` has the </s>. Without max_len the reference did not truncate. */
static void assert_row(const struct tokenizer *t, json_t *row)
{
    const char *text = json_string_value(json_object_get(row, "text"));
    json_t *expected = json_object_get(row, "ids"), *limit = json_object_get(row, "max_len");
    int n = (int)json_array_size(expected), count = -1;
    int max_tokens = limit ? (int)json_integer_value(limit) : n + 10;
    int32_t *ids = calloc((size_t)max_tokens, sizeof *ids);
    assert_int_equal(tokenizer_encode(t, text, max_tokens, ids, &count), STATUS_OK);
    bool equal = count == n;
    for (int i = 0; equal && i < n; i++)
        equal = ids[i] == json_integer_value(json_array_get(expected, (size_t)i));
    if (!equal) {
        char *dump = json_dumps(row, JSON_COMPACT);
        print_error("%d ids, first %d; expected %s\n", count, ids[0], dump);
        free(dump);
    }
    free(ids);
    assert_true(equal);
}

static void test_reference(void **state)
{
    (void)state;
    json_error_t error;
    json_t *rows = json_load_file("tests/parity/data/tokenizer.json", 0, &error), *row;
    size_t i;
    struct tokenizer *t = open_tiny();
    assert_non_null(rows);
    assert_true(json_array_size(rows) > 300);
    json_array_foreach (rows, i, row) assert_row(t, row);
    json_decref(rows);
    tokenizer_close(t);
}

/* ---- text ------------------------------------------------------------------------------------ */

static int encode(const struct tokenizer *t, const char *text, int32_t ids[MAX_TOKENS])
{
    int count = 0;
    assert_int_equal(tokenizer_encode(t, text, MAX_TOKENS, ids, &count), STATUS_OK);
    return count;
}

static void assert_same_ids(const struct tokenizer *t, const char *a, const char *b)
{
    int32_t ids_a[MAX_TOKENS], ids_b[MAX_TOKENS];
    int n = encode(t, a, ids_a);
    assert_int_equal(n, encode(t, b, ids_b));
    assert_memory_equal(ids_a, ids_b, (size_t)n * sizeof *ids_a);
}

/* Separators that str.strip() removes and the model's own normalizer would not. */
static void test_strips_unicode_space(void **state)
{
    (void)state;
    struct tokenizer *t = open_tiny();
    int32_t ids[MAX_TOKENS];
    assert_same_ids(t, " \t\v\x1c\x1f\xc2\x85\xc2\xa0\xe2\x80\xa8\xe3\x80\x80 a ball \xc2\xa0\n",
                    "a ball");
    assert_int_equal(encode(t, "\xc2\x85\x1d\xe3\x80\x80", ids), 1); /* nothing but space */
    assert_int_equal(ids[0], 1);
    assert_true(encode(t,
                       "a\xc2\x85"
                       "b",
                       ids) > 2); /* inside it stays */
    tokenizer_close(t);
}

static void test_refuses_bad_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text, *at;
    } bad[] = {
        {"abc\xff", "byte 3"},
        {"\x80", "byte 0"},
        {"a\xc3", "byte 1"},
        {"ab\xc0\xaf", "byte 2"}, /* overlong '/' */
        {"\xe0\x80\x80", "byte 0"},
        {"x\xed\xa0\x80", "byte 1"}, /* a surrogate */
        {"\xf4\x90\x80\x80", "byte 0"},
        {"\xf5\x80\x80\x80", "byte 0"}, /* above U+10FFFF */
        {"\xf8\x90\x80\x80", "byte 0"},
        {"\xf0\x8f\xbf\xbf", "byte 0"}, /* no lead; overlong */
        {"ok \xe3\x81 no", "byte 3"},
        {"\xbf\xbf", "byte 0"}, /* no lead */
    };
    struct tokenizer *t = open_tiny();
    int32_t ids[MAX_TOKENS];
    int count;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error_clear();
        assert_int_equal(tokenizer_encode(t, bad[i].text, MAX_TOKENS, ids, &count), STATUS_INPUT);
        if (!strstr(error_message(), bad[i].at)) fail_msg("case %zu: %s", i, error_message());
    }
    error_clear();
    /* the last and first valid characters around the forbidden ranges */
    assert_true(encode(t, "\xf4\x8f\xbf\xbf \xed\x9f\xbf \xee\x80\x80", ids) > 1);
    char *huge = malloc((1 << 20) + 2);
    memset(huge, 'a', (1 << 20) + 1);
    huge[(1 << 20) + 1] = '\0';
    assert_int_equal(tokenizer_encode(t, huge, MAX_TOKENS, ids, &count), STATUS_INPUT);
    free(huge);
    error_clear();
    tokenizer_close(t);
}

static void test_truncation(void **state)
{
    (void)state;
    struct tokenizer *t = open_tiny();
    int32_t all[MAX_TOKENS], ids[MAX_TOKENS];
    const char *text = "a red ball</s> rolls from left to right<extra_id_5> over";
    int n = encode(t, text, all), count;
    assert_true(n > 8);
    for (int limit = 1; limit <= n + 1; limit++) {
        memset(ids, 0x7f, sizeof ids);
        assert_int_equal(tokenizer_encode(t, text, limit, ids, &count), STATUS_OK);
        assert_int_equal(count, limit < n ? limit : n);
        assert_memory_equal(ids, all, (size_t)(count - 1) * sizeof *ids);
        assert_int_equal(ids[count - 1], 1);
        assert_int_equal(ids[count], 0x7f7f7f7f); /* nothing behind */
    }
    tokenizer_close(t);
}

/* ---- damaged models -------------------------------------------------------------------------- */

struct buffer {
    unsigned char data[4096];
    size_t bytes;
};

static void put(struct buffer *b, const void *data, size_t bytes)
{
    assert_true(b->bytes + bytes <= sizeof b->data);
    memcpy(b->data + b->bytes, data, bytes);
    b->bytes += bytes;
}

/* A length-delimited field. */
static void put_field(struct buffer *b, int number, const void *data, size_t bytes)
{
    unsigned char head[3] = {(unsigned char)(number << 3 | 2), (unsigned char)(bytes & 0x7F), 0};
    if (bytes >= 0x80) head[1] |= 0x80, head[2] = (unsigned char)(bytes >> 7);
    put(b, head, bytes >= 0x80 ? 3 : 2);
    put(b, data, bytes);
}

static void put_piece(struct buffer *b, const char *text, size_t bytes, int type)
{
    struct buffer piece = {.bytes = 0};
    put_field(&piece, 1, text, bytes);
    put(&piece, "\x15\0\0\x80\xbf\x18", 6); /* score -1, type */
    put(&piece, &(unsigned char){(unsigned char)type}, 1);
    put_field(b, 1, piece.data, piece.bytes);
}

/* The smallest model that works: <pad> </s> <unk> and two letters. */
static struct buffer small_model(void)
{
    struct buffer b = {.bytes = 0};
    put_piece(&b, "<pad>", 5, 3);
    put_piece(&b, "</s>", 4, 3);
    put_piece(&b, "<unk>", 5, 2);
    put_piece(&b, "\xe2\x96\x81", 3, 1);
    put_piece(&b, "a", 1, 1);
    return b;
}

static char folder[] = "/tmp/ringreel-tokenizer-XXXXXX", file[64];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(file, sizeof file, "%s/spiece.model", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(folder);
}

static int open_bytes(struct tokenizer **t, const void *data, size_t bytes)
{
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    error_clear();
    return tokenizer_open(t, file);
}

static void assert_rejected(const struct buffer *b, const char *why)
{
    struct tokenizer *t = NULL;
    if (open_bytes(&t, b->data, b->bytes) != STATUS_INPUT) fail_msg("accepted, expected: %s", why);
    if (!strstr(error_message(), file) || !strstr(error_message(), why))
        fail_msg("\"%s\" lacks the file or \"%s\"", error_message(), why);
    error_clear();
}

static void test_small_model(void **state)
{
    (void)state;
    struct buffer b = small_model();
    struct tokenizer *t = NULL;
    int32_t ids[MAX_TOKENS];
    assert_int_equal(open_bytes(&t, b.data, b.bytes), STATUS_OK);
    assert_int_equal(encode(t, "a aZZa<extra_id_0><extra_id_99><pad>", ids), 10);
    /* unknown characters in a row are one unknown; sentinels count down from behind the pieces */
    const int32_t expected[] = {3, 4, 3, 4, 2, 4, 5 + 99, 5, 0, 1};
    assert_memory_equal(ids, expected, sizeof expected);
    /* neither is a sentinel: unknown text */
    assert_same_ids(t, "a<extra_id_100>", "a<extra_id_07>");
    tokenizer_close(t);
}

/* Expects the small model to be refused after `change` was made to it, the buffer `b`. */
#define REJECTED_AFTER(why, change)                                                                \
    do {                                                                                           \
        struct buffer b = small_model();                                                           \
        change;                                                                                    \
        assert_rejected(&b, why);                                                                  \
    } while (0)
#define BYTES(text) text, sizeof(text) - 1

static void test_rejects_bad_pieces(void **state)
{
    (void)state;
    REJECTED_AFTER("1 to 512 bytes", put_piece(&b, "", 0, 1));
    REJECTED_AFTER("UTF-8", put_piece(&b, BYTES("a\0b"), 1));
    REJECTED_AFTER("UTF-8", put_piece(&b, BYTES("\xc3"), 1));
    REJECTED_AFTER("type", put_piece(&b, "b", 1, 7));
    REJECTED_AFTER("type", put_piece(&b, "b", 1, 0));
    REJECTED_AFTER("not a finite number", put_field(&b, 1,
                                                    BYTES("\x0a\x01"
                                                          "b\x15\0\0\xc0\x7f")));
    REJECTED_AFTER("two texts", put_field(&b, 1,
                                          BYTES("\x0a\x01"
                                                "b\x0a\x01"
                                                "c")));
    /* these are the library's own words */
    REJECTED_AFTER("already defined", put_piece(&b, "a", 1, 1));
    REJECTED_AFTER("already defined", put_piece(&b, "u", 1, 2));
    REJECTED_AFTER("byte_fallback", put_piece(&b, BYTES("<0x00>"), 6));

    struct buffer only = {.bytes = 0};
    put_field(&only, 2, BYTES("\x18\x01"));
    assert_rejected(&only, "no pieces");
    put_piece(&only, BYTES("<unk>"), 2);
    assert_rejected(&only, "\"</s>\"");
    only.bytes = 0;
    put_piece(&only, BYTES("</s>"), 3);
    assert_rejected(&only, "unknown characters");
}

static void test_rejects_bad_structure(void **state)
{
    (void)state;
    REJECTED_AFTER("UNIGRAM", put_field(&b, 2, BYTES("\x18\x02"))); /* BPE */
    REJECTED_AFTER("UNIGRAM", put_field(&b, 2, BYTES("\x18\x63")));
    REJECTED_AFTER("twice", (put_field(&b, 3, "", 0), put_field(&b, 3, "", 0)));
    REJECTED_AFTER("wire type", put(&b, BYTES("\x0b\x0c"))); /* a group */
    REJECTED_AFTER("wire type", put(&b, BYTES("\x10\x01"))); /* trainer_spec as a number */
    REJECTED_AFTER("cut off", put(&b, BYTES("\x0a\x7f"
                                            "a")));
    REJECTED_AFTER("cut off", put(&b, BYTES("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")));
    REJECTED_AFTER("tag", put(&b, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")));
    REJECTED_AFTER("tag", put(&b, BYTES("\x02\x00"))); /* field number 0 */
    for (size_t cut = 1; cut < 12; cut++) REJECTED_AFTER("", b.bytes -= cut);

    struct tokenizer *t = NULL;
    assert_int_equal(open_bytes(&t, "", 0), STATUS_INPUT);
    assert_non_null(strstr(error_message(), "0 bytes"));
    error_clear();
    assert_int_equal(tokenizer_open(&t, folder), STATUS_INPUT);
    error_clear();
    assert_int_equal(tokenizer_open(&t, "/nonexistent/spiece.model"), STATUS_INPUT);
    assert_non_null(strstr(error_message(), "/nonexistent/spiece.model"));
    error_clear();
    assert_int_equal(truncate(file, (64 << 20) + 1), 0);
    assert_int_equal(tokenizer_open(&t, file), STATUS_INPUT);
    assert_non_null(strstr(error_message(), "64 MiB"));
    error_clear();
}

/* A model whose normalizer has a trie of 256 units and these replacement strings. */
static void assert_rules(const uint32_t trie[256], const char *strings, size_t strings_bytes,
                         bool fine)
{
    struct buffer rules = {.bytes = 0}, normalizer = {.bytes = 0}, b = small_model();
    put(&rules, &(uint32_t){256 * sizeof *trie}, 4);
    put(&rules, trie, 256 * sizeof *trie);
    put(&rules, strings, strings_bytes);
    put_field(&normalizer, 2, rules.data, rules.bytes);
    put_field(&b, 3, normalizer.data, normalizer.bytes);
    struct tokenizer *t = NULL;
    assert_int_equal(open_bytes(&t, b.data, b.bytes), fine ? STATUS_OK : STATUS_INPUT);
    if (fine) {
        assert_same_ids(t, "a aba", "a aaa"); /* all of them: "b" becomes "a" */
        tokenizer_close(t);
    } else {
        assert_non_null(strstr(error_message(), "damaged"));
    }
    error_clear();
}

enum { HAS_RULE = 1 << 8 };
/* A unit for `label` whose children lie at `children ^ byte`, itself at `at`. */
static uint32_t unit(uint32_t label, uint32_t at, uint32_t children)
{
    return label | (at ^ children) << 10;
}

static void test_rejects_bad_rules(void **state)
{
    (void)state;
    REJECTED_AFTER("size", put_field(&b, 3,
                                     BYTES("\x12\x03"
                                           "abc")));
    REJECTED_AFTER("size", put_field(&b, 3,
                                     BYTES("\x12\x08\x08\0\0\0"
                                           "abcd")));
    REJECTED_AFTER("size", put_field(&b, 3,
                                     BYTES("\x12\x08\x03\0\0\0"
                                           "abcd")));

    /* "b" -> "a": the root's children at 1 ^ byte, b's (with the rule's value, 0) at 2 ^ byte */
    const uint32_t b_at = 1 ^ 'b', outside = 1 << 20;
    const uint32_t good[256] = {[0] = unit(0, 0, 1), [1 ^ 'b'] = unit('b', b_at, 2) | HAS_RULE};
    uint32_t trie[256];
#define RULES(fine, change, strings)                                                               \
    do {                                                                                           \
        memcpy(trie, good, sizeof trie);                                                           \
        change;                                                                                    \
        assert_rules(trie, BYTES(strings), fine);                                                  \
    } while (0)
    RULES(true, (void)0, "a\0");
    RULES(false, (void)0, "ab");       /* the string does not end */
    RULES(false, (void)0, "");         /* no string at all */
    RULES(false, trie[2] = 2, "a\0");  /* the rule's value is outside of the strings */
    RULES(true, trie[2] = 2, "xya\0"); /* and now inside */
    RULES(false, trie[0] = unit(0, 0, outside), "a\0");
    RULES(false, trie[b_at] = unit('b', b_at, outside) | HAS_RULE, "a\0");
    RULES(false, trie[b_at] = unit('b', b_at, 1), "a\0"); /* "b" follows itself for ever */
    RULES(false, trie[0] |= 1, "a\0");                    /* the root is its own child by byte 1 */
#undef RULES

    /* "b", "bb", ... : node i at index i + 1; the library has room for 32 matches */
    for (int rules = 32; rules <= 33; rules++) {
        memset(trie, 0, sizeof trie);
        trie[0] = unit(0, 0, 1 ^ 'b');
        for (uint32_t i = 1; i <= (uint32_t)rules; i++)
            trie[i] = unit('b', i, (i + 1) ^ 'b') | HAS_RULE;
        assert_rules(trie, "a\0", 2, rules == 32);
    }
    char longest[302];
    memset(longest, 'a', sizeof longest);
    longest[301] = '\0';
    assert_rules(good, longest, sizeof longest, false);
}

/* Whatever is flipped in a real model: refused, or usable without a crash. */
static void test_survives_flipped_bytes(void **state)
{
    (void)state;
    FILE *f = fopen(model_path, "rb");
    assert_non_null(f);
    static unsigned char model[8 << 20];
    size_t bytes = fread(model, 1, sizeof model, f), refused = 0;
    fclose(f);
    assert_true(bytes > 1000 && bytes < sizeof model);
    static const char text[] = "A ball \xef\xac\x81 \xe2\x91\xa0 e\xcc\x81 \xf0\x9f\x98\x80 --.";
    uint32_t random = 1;
    for (int round = 0; round < 60; round++) {
        size_t at[8];
        unsigned char was[8];
        for (int i = 0; i < 8; i++) {
            random = random * 1664525u + 1013904223u;
            at[i] = (random >> 4) % bytes;
            was[i] = model[at[i]];
            model[at[i]] ^= (unsigned char)(1u << (random & 7));
        }
        struct tokenizer *t = NULL;
        int32_t ids[MAX_TOKENS];
        size_t kept = round % 4 ? bytes : bytes - (random >> 8) % bytes;
        int count = 0, status = open_bytes(&t, model, kept);
        if (status == STATUS_OK) {
            status = tokenizer_encode(t, text, MAX_TOKENS, ids, &count);
            assert_true(status != STATUS_OK || count > 0);
            tokenizer_close(t);
        } else {
            assert_int_equal(status, STATUS_INPUT);
            assert_non_null(strstr(error_message(), file));
            refused++;
        }
        for (int i = 7; i >= 0; i--) model[at[i]] = was[i];
    }
    error_clear();
    assert_true(refused > 10 && refused < 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_strips_unicode_space),
        cmocka_unit_test(test_refuses_bad_utf8),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_small_model),
        cmocka_unit_test(test_rejects_bad_pieces),
        cmocka_unit_test(test_rejects_bad_structure),
        cmocka_unit_test(test_rejects_bad_rules),
        cmocka_unit_test(test_survives_flipped_bytes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
