#include "model/json_input.h"

#include "base/error.h"
#include "base/file.h"

#include <stdbool.h>
#include <stdlib.h>

enum { MAX_FILE_BYTES = 16 << 20, MAX_FILE_DEPTH = 32 };

/* A value takes the parser some 250 bytes, however short its text is. Headers of released models
 * have less than 30,000 values. */
enum { MAX_VALUES = 1000000 };

/* What the parser would have to build: the deepest nesting of brackets, and a bound on the number
 * of values. Every value is the first in its brackets or follows a comma. Exact for valid JSON and
 * bounded work for anything else, so that the parser never sees input that is deep or large. */
struct extent {
    int depth;
    size_t values;
};

static struct extent extent_of(const char *text, size_t size)
{
    struct extent e = {.values = 1};
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            e.values++;
            if (depth > e.depth) e.depth = depth;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == ',') {
            e.values++;
        }
    }
    return e;
}

/* Messages are one line of text, whatever the input holds. */
static void blank_control_characters(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
    }
}

int json_input_parse(json_t **out, const char *what, const char *text, size_t size, int max_depth)
{
    struct extent extent = extent_of(text, size);
    if (extent.depth > max_depth)
        return error_set(STATUS_INPUT, "%s: JSON nested deeper than %d levels", what, max_depth);
    if (extent.values > MAX_VALUES)
        return error_set(STATUS_INPUT, "%s: JSON of more than %d values", what, MAX_VALUES);
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        blank_control_characters(error.text);
        return error_set(STATUS_INPUT, "%s: bad JSON at byte %d: %s", what, error.position,
                         error.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(STATUS_INPUT, "%s: JSON is not an object", what);
    }
    *out = root;
    return STATUS_OK;
}

int json_input_read(json_t **out, const char *path)
{
    char *text;
    size_t size;
    TRY(file_read(path, MAX_FILE_BYTES, &text, &size));
    int status = json_input_parse(out, path, text, size, MAX_FILE_DEPTH);
    free(text);
    return status;
}
