#include "model/json_input.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 100 * 1000 * 1000, MAX_FILE_DEPTH = 32 };

/* Deepest nesting of brackets outside strings. Exact for valid JSON and bounded work for anything
 * else, so that the recursive parser never sees deep input. */
static int depth_of(const char *text, size_t size)
{
    int depth = 0, deepest = 0;
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
            if (depth > deepest) deepest = depth;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
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
    if (depth_of(text, size) > max_depth)
        return error_set(STATUS_INPUT, "%s: JSON nested deeper than %d levels", what, max_depth);
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

static int read_all(int fd, const char *path, char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = read(fd, text + at, size - at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return error_set(STATUS_INPUT, "%s: %s", path, strerror(errno));
        if (got == 0) return error_set(STATUS_INPUT, "%s: became shorter while it was read", path);
        at += (size_t)got;
    }
    return STATUS_OK;
}

int json_input_read(json_t **out, const char *path)
{
    /* Not blocking: a FIFO must not hold us before fstat sees it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set(STATUS_INPUT, "%s: %s", path, strerror(errno));
    struct stat info;
    char *text = NULL;
    int status;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = error_set(STATUS_INPUT, "%s: not a regular file", path);
        goto done;
    }
    if (info.st_size > MAX_FILE_BYTES) {
        status = error_set(STATUS_INPUT, "%s: %lld bytes, more than %d", path,
                           (long long)info.st_size, MAX_FILE_BYTES);
        goto done;
    }
    size_t size = (size_t)info.st_size;
    text = xmalloc(size);
    TRY_OR(done, status, read_all(fd, path, text, size));
    status = json_input_parse(out, path, text, size, MAX_FILE_DEPTH);
done:
    free(text);
    close(fd);
    return status;
}
