#include "model/tokenizer.h"

#include "base/error.h"
#include "base/utf8.h"
#include "model/spiece.h"
#include "model/spm.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_TEXT_BYTES = 1 << 20, /* far beyond any prompt; keeps the library's int sizes safe */
    SENTINELS = 100, /* <extra_id_0> .. <extra_id_99>, numbered down from the vocabulary's end */
};

struct tokenizer {
    struct spm *spm;
    int32_t eos, pad, unk, pieces;
};

int tokenizer_open(struct tokenizer **out, const char *spiece_model_path)
{
    struct spiece model;
    char reason[256] = "";
    TRY(spiece_read(&model, spiece_model_path));
    struct tokenizer *t = xmalloc(sizeof *t);
    *t = (struct tokenizer){.spm = spm_open(model.proto, model.bytes, reason, sizeof reason),
                            .eos = model.eos,
                            .pad = model.pad,
                            .unk = model.unk,
                            .pieces = model.count};
    spiece_free(&model);
    if (!t->spm) {
        free(t);
        return error_set(STATUS_INPUT, "%s: not a usable SentencePiece model: %s",
                         spiece_model_path, reason);
    }
    *out = t;
    return STATUS_OK;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    spm_close(t->spm);
    free(t);
}

/* ---- text before encoding -------------------------------------------------------------------- */

/* What Python's str.strip() removes. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Checks the encoding and leaves *text, *bytes at what remains without white space at both ends. */
static int strip(const char **text, size_t *bytes)
{
    size_t total = strlen(*text), first = 0, last = 0; /* [first, last) without the spaces */
    if (total > MAX_TEXT_BYTES)
        return error_set(STATUS_INPUT, "prompt of %zu bytes; at most %d are allowed", total,
                         MAX_TEXT_BYTES);
    for (size_t i = 0; i < total;) {
        uint32_t code;
        size_t length = utf8_decode(*text + i, total - i, &code);
        if (length == 0) return error_set(STATUS_INPUT, "prompt: not UTF-8 at byte %zu", i);
        if (!is_space(code)) {
            if (last == 0) first = i;
            last = i + length;
        }
        i += length;
    }
    *text += first;
    *bytes = last - first;
    return STATUS_OK;
}

/* Length of the special token that `text` begins with, 0 if none; its id in *id. */
static size_t special_token(const struct tokenizer *t, const char *text, size_t bytes, int32_t *id)
{
    const struct {
        const char *name;
        int32_t id;
    } named[] = {{"</s>", t->eos}, {"<pad>", t->pad}, {"<unk>", t->unk}};
    static const char prefix[] = "<extra_id_";
    for (int i = 0; i < 3; i++) {
        size_t length = strlen(named[i].name);
        if (named[i].id < 0 || bytes < length || memcmp(text, named[i].name, length) != 0) continue;
        *id = named[i].id;
        return length;
    }
    size_t at = sizeof prefix - 1, digits = 0;
    if (bytes <= at || memcmp(text, prefix, at) != 0) return 0;
    int32_t k = 0;
    for (; digits < 2 && at < bytes && text[at] >= '0' && text[at] <= '9'; at++, digits++)
        k = 10 * k + (text[at] - '0');
    bool padded = digits == 2 && k < 10; /* "<extra_id_07>" is ordinary text */
    if (digits == 0 || padded || at == bytes || text[at] != '>') return 0;
    *id = t->pieces + SENTINELS - 1 - k;
    return at + 1;
}

/* ---- encoding -------------------------------------------------------------------------------- */

/* Appends the ids of one stretch of ordinary text, as many as fit below `limit`. */
static int encode_stretch(const struct tokenizer *t, const char *text, size_t bytes, int limit,
                          int32_t *ids, int *count)
{
    char reason[256] = "";
    if (bytes == 0 || *count == limit) return STATUS_OK;
    int got = spm_encode(t->spm, text, bytes, ids + *count, limit - *count, reason, sizeof reason);
    if (got < 0) return error_set(STATUS_MACHINE, "prompt cannot be tokenized: %s", reason);
    *count += got;
    return STATUS_OK;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, int max_tokens, int32_t *ids,
                     int *count)
{
    CHECK(max_tokens >= 1, "max_tokens %d", max_tokens);
    size_t bytes = 0, start = 0;
    TRY(strip(&text, &bytes));
    int n = 0, limit = max_tokens - 1;
    for (size_t i = 0; i < bytes && n < limit;) {
        int32_t id;
        size_t length = text[i] == '<' ? special_token(t, text + i, bytes - i, &id) : 0;
        if (length == 0) {
            i++;
            continue;
        }
        TRY(encode_stretch(t, text + start, i - start, limit, ids, &n));
        if (n < limit) ids[n++] = id;
        start = i += length;
    }
    TRY(encode_stretch(t, text + start, bytes - start, limit, ids, &n));
    ids[n++] = t->eos;
    *count = n;
    return STATUS_OK;
}
