/* Strict YAML, as a tree that knows the line and column of every key and value: one document of
 * maps, sequences and scalars. Anchors, aliases, tags, merge keys and non-scalar keys are refused,
 * so a file cannot grow when it is read; bytes, nesting and the number of nodes are limited. Values
 * are left as text: what they mean is the reader's business.
 *
 *     struct yaml_doc *doc;
 *     TRY(yaml_doc_read(&doc, text, bytes, "job.yaml"));
 *     for (const struct yaml_node *key = yaml_doc_first(doc, yaml_doc_root(doc)); key;) {
 *         const struct yaml_node *value = yaml_doc_next(doc, key);
 *         ...
 *         key = yaml_doc_next(doc, value);
 *     }
 *     yaml_doc_free(doc);
 */
#ifndef RINGREEL_YAML_H
#define RINGREEL_YAML_H

#include <stdbool.h>
#include <stddef.h>

enum { YAML_MAX_BYTES = 4 << 20, YAML_MAX_DEPTH = 8, YAML_MAX_NODES = 500000 };

enum yaml_kind { YAML_SCALAR, YAML_SEQUENCE, YAML_MAP };

struct yaml_node {
    enum yaml_kind kind;
    bool plain;                    /* a scalar without quotes: may be a number, true or null */
    int line, column;              /* from 1 */
    int count;                     /* children; a map's keys and values alternate and both count */
    int first_child, next_sibling; /* positions in the document, -1 for none */
    char *text;                    /* of a scalar: UTF-8 without NUL bytes; else NULL */
};

/* (The prefix is yaml_doc_: libyaml itself exports yaml_free and its like.) */
struct yaml_doc;

/* STATUS_INPUT with "name:line:column: cause". The document keeps nothing of `text`. Local. */
int yaml_doc_read(struct yaml_doc **out, const char *text, size_t bytes, const char *name);
const struct yaml_node *yaml_doc_root(const struct yaml_doc *doc);
/* The first child, NULL if there is none; the one after `node`, NULL if it is the last. */
const struct yaml_node *yaml_doc_first(const struct yaml_doc *doc, const struct yaml_node *parent);
const struct yaml_node *yaml_doc_next(const struct yaml_doc *doc, const struct yaml_node *node);
void yaml_doc_free(struct yaml_doc *doc); /* NULL is fine */

/* What a plain scalar is in the YAML 1.2 core schema. */
enum yaml_scalar { YAML_TEXT, YAML_NULL, YAML_BOOL, YAML_NUMBER };
enum yaml_scalar yaml_scalar_kind(const char *text);

#endif
