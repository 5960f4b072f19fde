/* JSON from files nobody vouches for: bounded in size, depth and number of values, duplicate keys
 * rejected, one-line messages. */
#ifndef RINGREEL_JSON_INPUT_H
#define RINGREEL_JSON_INPUT_H

#include <jansson.h>
#include <stddef.h>

/* `text` must be one JSON object. STATUS_INPUT "WHAT: ..." otherwise. The caller releases *out with
 * json_decref. */
int json_input_parse(json_t **out, const char *what, const char *text, size_t size, int max_depth);
/* The same for a whole file; `what` is its path. */
int json_input_read(json_t **out, const char *path);

#endif
