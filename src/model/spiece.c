#include "model/spiece.h"

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_FILE_BYTES = 64 << 20,
    MAX_PIECES = 1 << 20,
    MAX_PIECE_BYTES = 512, /* the library builds its trie recursively, a level a byte */
    MAX_RULE_BYTES = 128,  /* longest source of a normalization rule; nmt_nfkc's is about 20 */
    MAX_REPLACEMENT_BYTES = 256, /* longest result of a rule; nmt_nfkc's is 33 */
    MAX_RULE_MATCHES = 32,       /* the library's array for rules that match at one place */
};

/* ---- protobuf wire format -------------------------------------------------------------------- */

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* A message being walked. `path` and `file` (where the file begins) are for messages only. */
struct wire {
    const char *path;
    const unsigned char *file, *at, *end;
};
struct field {
    uint64_t number, value; /* value: of a varint or a fixed one */
    enum wire_type type;
    const unsigned char *start, *data; /* the field with its tag; the content of WIRE_BYTES */
    size_t bytes;
};

static int broken(const struct wire *w, const char *what)
{
    return error_set(STATUS_INPUT, "%s: not a usable SentencePiece model: %s (byte %lld)", w->path,
                     what, (long long)(w->at - w->file));
}

static bool take_varint(struct wire *w, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 70 && w->at < w->end; shift += 7) {
        uint64_t byte = *w->at++;
        *value |= shift < 64 ? (byte & 0x7F) << shift : 0;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool take_fixed(struct wire *w, size_t bytes, uint64_t *value)
{
    if ((size_t)(w->end - w->at) < bytes) return false;
    *value = 0;
    for (size_t i = 0; i < bytes; i++) *value |= (uint64_t)w->at[i] << (8 * i);
    w->at += bytes;
    return true;
}

/* The next field of a message that is not at its end. */
static int take_field(struct wire *w, struct field *f)
{
    uint64_t tag;
    *f = (struct field){.start = w->at};
    if (!take_varint(w, &tag) || tag >> 3 == 0 || tag >> 32) return broken(w, "bad field tag");
    f->number = tag >> 3;
    f->type = (enum wire_type)(tag & 7);
    bool whole;
    switch (f->type) {
    case WIRE_VARINT:
        whole = take_varint(w, &f->value);
        break;
    case WIRE_FIXED64:
        whole = take_fixed(w, 8, &f->value);
        break;
    case WIRE_FIXED32:
        whole = take_fixed(w, 4, &f->value);
        break;
    case WIRE_BYTES:
        whole = take_varint(w, &f->value) && f->value <= (uint64_t)(w->end - w->at);
        if (whole) {
            f->data = w->at;
            f->bytes = (size_t)f->value;
            w->at += f->bytes;
        }
        break;
    default:
        return broken(w, "unknown wire type");
    }
    return whole ? STATUS_OK : broken(w, "cut off");
}

static struct wire inside(const struct wire *w, const struct field *f)
{
    return (struct wire){w->path, w->file, f->data, f->data + f->bytes};
}

/* ---- the normalizer's rules: a double-array trie and its replacement strings (spec 6.2) ------ */

struct charsmap {
    const unsigned char *units; /* [count] uint32 little endian */
    uint32_t count;
    size_t replacement_bytes;
    unsigned char *seen; /* [count]: 0 unknown, WALKING, else 1 + most matches from here on */
};
enum { WALKING = 255 };

static uint32_t unit_at(const struct charsmap *m, uint32_t i)
{
    const unsigned char *u = m->units + 4 * (size_t)i;
    return u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

/* Most rules that a text can match along one path from unit `pos` on, or -1 if some text would lead
 * out of the array, in circles, to a replacement outside of the strings or to more matches than the
 * library has room for. */
static int charsmap_walk(const struct charsmap *m, uint32_t pos, int depth)
{
    if (m->seen[pos]) return m->seen[pos] == WALKING ? -1 : m->seen[pos] - 1;
    if (depth > MAX_RULE_BYTES) return -1;
    m->seen[pos] = WALKING;
    uint32_t unit = unit_at(m, pos);
    uint32_t children = pos ^ ((unit >> 10) << ((unit & 0x200) >> 6));
    if ((children | 0xFF) >= m->count) return -1;
    bool has_rule = unit >> 8 & 1;
    if (has_rule && (unit_at(m, children) & 0x7FFFFFFF) >= m->replacement_bytes) return -1;
    int most = 0;
    for (uint32_t byte = 1; byte < 256; byte++) {
        if ((unit_at(m, children ^ byte) & 0x800000FF) != byte) continue;
        int below = charsmap_walk(m, children ^ byte, depth + 1);
        if (below < 0) return -1;
        if (below > most) most = below;
    }
    most += has_rule;
    if (most > MAX_RULE_MATCHES) return -1;
    m->seen[pos] = (unsigned char)(1 + most);
    return most;
}

static bool replacements_valid(const unsigned char *strings, size_t bytes)
{
    if (bytes > 0 && strings[bytes - 1] != 0) return false;
    for (size_t i = 0, length = 0; i < bytes; i++) {
        length = strings[i] ? length + 1 : 0;
        if (length > MAX_REPLACEMENT_BYTES) return false;
    }
    return true;
}

static int check_charsmap(const struct wire *w, const struct field *f)
{
    if (f->bytes == 0) return STATUS_OK; /* no rules */
    struct wire map = inside(w, f);
    uint64_t trie_bytes;
    if (!take_fixed(&map, 4, &trie_bytes) || trie_bytes > (uint64_t)(map.end - map.at) ||
        trie_bytes % 4 || trie_bytes == 0)
        return broken(&map, "the normalizer's rules do not have the size they state");
    const unsigned char *strings = map.at + trie_bytes;
    struct charsmap m = {.units = map.at,
                         .count = (uint32_t)(trie_bytes / 4),
                         .replacement_bytes = (size_t)(map.end - strings)};
    m.seen = xcalloc(m.count, 1);
    bool valid = replacements_valid(strings, m.replacement_bytes) && charsmap_walk(&m, 0, 0) >= 0;
    free(m.seen);
    return valid ? STATUS_OK : broken(&map, "the normalizer's rules are damaged");
}

/* ---- messages -------------------------------------------------------------------------------- */

enum piece_type { PIECE_NORMAL = 1, PIECE_UNKNOWN = 2, PIECE_LAST = 6 };

static bool field_is(const struct field *f, uint64_t number, enum wire_type type)
{
    return f->number == number && f->type == type;
}

static int check_piece(struct spiece *s, struct wire w)
{
    struct field text = {0}, f;
    uint64_t type = PIECE_NORMAL;
    while (w.at < w.end) {
        TRY(take_field(&w, &f));
        if (field_is(&f, 1, WIRE_BYTES)) {
            if (text.data) return broken(&w, "a piece has two texts");
            text = f;
        } else if (field_is(&f, 2, WIRE_FIXED32)) {
            uint32_t bits = (uint32_t)f.value;
            float score;
            memcpy(&score, &bits, sizeof score);
            if (!isfinite(score)) return broken(&w, "a piece's score is not a finite number");
        } else if (field_is(&f, 3, WIRE_VARINT)) {
            type = f.value;
        } else if (f.number <= 3) {
            return broken(&w, "a piece's field has the wrong wire type");
        }
    }
    if (text.bytes == 0 || text.bytes > MAX_PIECE_BYTES || memchr(text.data, 0, text.bytes) ||
        !utf8_valid(text.data, text.bytes))
        return broken(&w, "a piece is not 1 to 512 bytes of UTF-8");
    if (type < PIECE_NORMAL || type > PIECE_LAST) return broken(&w, "a piece has an unknown type");
    if (s->count == MAX_PIECES) return broken(&w, "more than 1048576 pieces");
    if (text.bytes == 4 && memcmp(text.data, "</s>", 4) == 0) s->eos = s->count;
    if (text.bytes == 5 && memcmp(text.data, "<pad>", 5) == 0) s->pad = s->count;
    if (type == PIECE_UNKNOWN) s->unk = s->count;
    s->count++;
    return STATUS_OK;
}

static int check_trainer(struct wire w)
{
    struct field f;
    while (w.at < w.end) {
        TRY(take_field(&w, &f));
        if (f.number == 3 && (f.type != WIRE_VARINT || f.value != 1))
            return broken(&w, "model_type is not UNIGRAM, the only one T5 uses");
    }
    return STATUS_OK;
}

static int check_normalizer(struct wire w)
{
    struct field f;
    bool has_rules = false;
    while (w.at < w.end) {
        TRY(take_field(&w, &f));
        if (f.number != 2) continue;
        if (f.type != WIRE_BYTES || has_rules)
            return broken(&w, "the normalizer's rules must appear once, as bytes");
        has_rules = true;
        TRY(check_charsmap(&w, &f));
    }
    return STATUS_OK;
}

static int check_model(struct spiece *s, struct wire w)
{
    enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3 };
    struct field f;
    bool has[4] = {false};
    while (w.at < w.end) {
        TRY(take_field(&w, &f));
        if (f.number > NORMALIZER) continue;
        if (f.type != WIRE_BYTES) return broken(&w, "a part of the model has the wrong wire type");
        if (f.number != PIECES && has[f.number])
            return broken(&w, "a part of the model appears twice");
        has[f.number] = true;
        if (f.number == PIECES)
            TRY(check_piece(s, inside(&w, &f)));
        else if (f.number == TRAINER)
            TRY(check_trainer(inside(&w, &f)));
        else
            TRY(check_normalizer(inside(&w, &f)));
        size_t bytes = (size_t)(w.at - f.start);
        memcpy(s->proto + s->bytes, f.start, bytes);
        s->bytes += bytes;
    }
    if (s->count == 0) return broken(&w, "no pieces");
    if (s->eos < 0) return broken(&w, "no piece \"</s>\", which ends every T5 text");
    if (s->unk < 0) return broken(&w, "no piece for unknown characters");
    return STATUS_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

int spiece_read(struct spiece *s, const char *path)
{
    char *text;
    size_t bytes;
    TRY(file_read(path, MAX_FILE_BYTES, &text, &bytes));
    const unsigned char *data = (const unsigned char *)text;
    if (bytes == 0) {
        free(text);
        return error_set(STATUS_INPUT, "%s: 0 bytes, not a SentencePiece model", path);
    }
    *s = (struct spiece){.proto = xmalloc(bytes), .eos = -1, .pad = -1, .unk = -1};
    int status = check_model(s, (struct wire){path, data, data, data + bytes});
    free(text);
    if (status != STATUS_OK) spiece_free(s);
    return status;
}

void spiece_free(struct spiece *s)
{
    free(s->proto);
    *s = (struct spiece){0};
}
