/* Text as users give it: who owns it, how to show it in a one-line message. */
#ifndef RINGREEL_TEXT_H
#define RINGREEL_TEXT_H

#include <stddef.h>
#include <stdio.h>

/* Owns strings that live as long as their job. */
struct text_pool {
    struct text_pool_item *last;
};
const char *text_keep(struct text_pool *pool, const char *text); /* a copy */
void text_pool_free(struct text_pool *pool);

/* For messages: `text` in single quotes, shortened, '?' for control characters. Returns out. */
enum { TEXT_SHOWN = 64 };
const char *text_show(char out[TEXT_SHOWN], const char *text);

/* `text` as a double-quoted YAML scalar on one line. */
void text_print_quoted(FILE *out, const char *text);

/* Edits (insert, delete, replace, swap of neighbours) that turn a into b; 64 if either is longer
 * than 63 bytes. */
int text_distance(const char *a, const char *b);

#endif
