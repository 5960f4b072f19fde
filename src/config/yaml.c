#include "config/yaml.h"

#include "base/error.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct yaml_doc {
    struct yaml_node *nodes;
    int count, capacity;
};

/* Reading: the open collections from the outermost to the innermost. */
struct reader {
    const char *name;
    struct yaml_doc *doc;
    int depth;
    struct {
        int node, last_child;
    } open[YAML_MAX_DEPTH];
};

static int fail(const struct reader *r, yaml_mark_t at, const char *cause)
{
    return error_set(STATUS_INPUT, "%s:%zu:%zu: %s", r->name, at.line + 1, at.column + 1, cause);
}

/* ---- building the tree ----------------------------------------------------------------------- */

static int add_node(struct reader *r, yaml_mark_t at, enum yaml_kind kind)
{
    struct yaml_doc *doc = r->doc;
    if (doc->count == doc->capacity) {
        doc->capacity = doc->capacity ? 2 * doc->capacity : 64;
        doc->nodes = xrealloc(doc->nodes, (size_t)doc->capacity * sizeof *doc->nodes);
    }
    int self = doc->count++;
    doc->nodes[self] = (struct yaml_node){
        .kind = kind,
        .line = (int)at.line + 1,
        .column = (int)at.column + 1,
        .first_child = -1,
        .next_sibling = -1,
    };
    if (r->depth > 0) {
        int parent = r->open[r->depth - 1].node, before = r->open[r->depth - 1].last_child;
        *(before < 0 ? &doc->nodes[parent].first_child : &doc->nodes[before].next_sibling) = self;
        doc->nodes[parent].count++;
        r->open[r->depth - 1].last_child = self;
    }
    return self;
}

/* The next child of the innermost open collection will be a key. */
static bool expects_key(const struct reader *r)
{
    if (r->depth == 0) return false;
    const struct yaml_node *parent = &r->doc->nodes[r->open[r->depth - 1].node];
    return parent->kind == YAML_MAP && parent->count % 2 == 0;
}

static int check_node(const struct reader *r, yaml_mark_t at, const yaml_char_t *anchor,
                      const yaml_char_t *tag)
{
    if (anchor) return fail(r, at, "anchors (&name) are not allowed; write the value out");
    if (tag) return fail(r, at, "tags (!name) are not allowed in job files");
    if (r->doc->count >= YAML_MAX_NODES)
        return fail(r, at, "too many values (at most 500000 in a job file)");
    return STATUS_OK;
}

static int on_scalar(struct reader *r, const yaml_event_t *e)
{
    const char *text = (const char *)e->data.scalar.value;
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    TRY(check_node(r, e->start_mark, e->data.scalar.anchor, e->data.scalar.tag));
    if (strlen(text) != e->data.scalar.length)
        return fail(r, e->start_mark, "text with a NUL character");
    if (plain && expects_key(r) && strcmp(text, "<<") == 0)
        return fail(r, e->start_mark, "merge keys (<<) are not allowed; write the settings out");
    int self = add_node(r, e->start_mark, YAML_SCALAR);
    r->doc->nodes[self].plain = plain;
    r->doc->nodes[self].text = xstrdup(text);
    return STATUS_OK;
}

static int on_open(struct reader *r, yaml_mark_t at, enum yaml_kind kind, const yaml_char_t *anchor,
                   const yaml_char_t *tag)
{
    TRY(check_node(r, at, anchor, tag));
    if (expects_key(r)) return fail(r, at, "a key must be a name, not a map or a list");
    if (r->depth == YAML_MAX_DEPTH)
        return fail(r, at, "nested too deeply (at most 8 levels in a job file)");
    int self = add_node(r, at, kind);
    r->open[r->depth].node = self;
    r->open[r->depth++].last_child = -1;
    return STATUS_OK;
}

static int on_event(struct reader *r, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (e->data.document_start.tag_directives.start !=
            e->data.document_start.tag_directives.end)
            return fail(r, e->start_mark, "tags (%TAG) are not allowed in job files");
        if (r->doc->count > 0)
            return fail(r, e->start_mark, "a second document (only one is allowed)");
        return STATUS_OK;
    case YAML_ALIAS_EVENT:
        return fail(r, e->start_mark, "aliases (*name) are not allowed; write the value out");
    case YAML_SCALAR_EVENT:
        return on_scalar(r, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(r, e->start_mark, YAML_SEQUENCE, e->data.sequence_start.anchor,
                       e->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return on_open(r, e->start_mark, YAML_MAP, e->data.mapping_start.anchor,
                       e->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        r->depth--;
        return STATUS_OK;
    default:
        return STATUS_OK;
    }
}

/* ---- errors of the text itself --------------------------------------------------------------- */

static yaml_mark_t mark_of(const char *text, size_t offset)
{
    yaml_mark_t at = {.index = offset};
    for (size_t i = 0; i < offset; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n') {
            at.line++;
            at.column = 0;
        } else if (c >> 6 != 2) { /* columns count characters, not bytes */
            at.column++;
        }
    }
    return at;
}

/* The byte at a mark of libyaml (whose index counts characters), '\0' past the end. */
static char byte_at(const char *text, size_t bytes, yaml_mark_t at)
{
    size_t i = 0;
    for (size_t line = 0; line < at.line && i < bytes; i++) line += text[i] == '\n';
    for (size_t column = 0; column < at.column && i < bytes; column++) {
        i++;
        while (i < bytes && ((unsigned char)text[i]) >> 6 == 2) i++;
    }
    return i < bytes ? text[i] : '\0';
}

static int fail_syntax(const struct reader *r, const yaml_parser_t *p, const char *text,
                       size_t bytes)
{
    CHECK(p->error != YAML_MEMORY_ERROR, "out of memory while reading %s", r->name);
    if (p->error == YAML_READER_ERROR) return fail(r, mark_of(text, p->problem_offset), p->problem);
    char cause[256];
    bool tab = byte_at(text, bytes, p->problem_mark) == '\t';
    snprintf(cause, sizeof cause, "%s%s%s%s", p->problem, p->context ? " " : "",
             p->context ? p->context : "", tab ? " (a tab: indent with spaces)" : "");
    return fail(r, p->problem_mark, cause);
}

/* ---- the document ---------------------------------------------------------------------------- */

static int read_events(struct reader *r, const char *text, size_t bytes)
{
    yaml_parser_t parser;
    CHECK(yaml_parser_initialize(&parser), "out of memory while reading %s", r->name);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    int status = STATUS_OK;
    bool done = false;
    while (status == STATUS_OK && !done) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            status = fail_syntax(r, &parser, text, bytes);
            break;
        }
        status = on_event(r, &event);
        done = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

int yaml_doc_read(struct yaml_doc **out, const char *text, size_t bytes, const char *name)
{
    *out = NULL;
    if (bytes > YAML_MAX_BYTES)
        return error_set(STATUS_INPUT, "%s: %zu bytes; a job file has at most 4 MiB", name, bytes);
    struct reader r = {.name = name};
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
        text += 3;
        bytes -= 3;
    }
    size_t valid = utf8_prefix(text, bytes);
    if (valid < bytes) return fail(&r, mark_of(text, valid), "not valid UTF-8");
    r.doc = xcalloc(1, sizeof *r.doc);
    int status = read_events(&r, text, bytes);
    if (status == STATUS_OK && r.doc->count == 0)
        status = error_set(STATUS_INPUT,
                           "%s:1:1: the file is empty; expected settings such as "
                           "'prompt: ...'",
                           name);
    if (status != STATUS_OK)
        yaml_doc_free(r.doc);
    else
        *out = r.doc;
    return status;
}

const struct yaml_node *yaml_doc_root(const struct yaml_doc *doc) { return &doc->nodes[0]; }

const struct yaml_node *yaml_doc_first(const struct yaml_doc *doc, const struct yaml_node *parent)
{
    return parent->first_child < 0 ? NULL : &doc->nodes[parent->first_child];
}

const struct yaml_node *yaml_doc_next(const struct yaml_doc *doc, const struct yaml_node *node)
{
    return node->next_sibling < 0 ? NULL : &doc->nodes[node->next_sibling];
}

void yaml_doc_free(struct yaml_doc *doc)
{
    if (!doc) return;
    for (int i = 0; i < doc->count; i++) free(doc->nodes[i].text);
    free(doc->nodes);
    free(doc);
}

/* ---- scalars --------------------------------------------------------------------------------- */

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0) return true;
    return false;
}

/* [-+]? ( digits [. digits?] | . digits ) ( [eE] [-+]? digits )? */
static bool is_decimal(const char *p)
{
    static const char digits[] = "0123456789";
    p += *p == '-' || *p == '+';
    size_t whole = strspn(p, digits), fraction = 0;
    p += whole;
    if (*p == '.') {
        fraction = strspn(p + 1, digits);
        p += 1 + fraction;
    }
    if (whole + fraction == 0) return false;
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '-' || p[1] == '+');
        size_t exponent = strspn(p, digits);
        if (exponent == 0) return false;
        p += exponent;
    }
    return *p == '\0';
}

/* 0x1F, 0o17 */
static bool is_prefixed(const char *text, const char *prefix, const char *digits)
{
    return strncmp(text, prefix, 2) == 0 && text[2] && text[2 + strspn(text + 2, digits)] == '\0';
}

enum yaml_scalar yaml_scalar_kind(const char *text)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const bools[] = {"true", "True", "TRUE", "false", "False", "FALSE", NULL};
    static const char *const specials[] = {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN", NULL};
    if (is_one_of(text, nulls)) return YAML_NULL;
    if (is_one_of(text, bools)) return YAML_BOOL;
    const char *unsigned_text = text + (*text == '-' || *text == '+');
    bool number = is_prefixed(text, "0x", "0123456789abcdefABCDEF") ||
                  is_prefixed(text, "0o", "01234567") || is_decimal(text) ||
                  is_one_of(unsigned_text, specials);
    return number ? YAML_NUMBER : YAML_TEXT;
}
