#include "base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char message[2048];
static _Thread_local bool recorded;
static char phase[160] = "starting";
static char identity[160] = "ringreel";
static void (*abort_hook)(int status);

int error_set(int status, const char *format, ...)
{
    if (!recorded) {
        va_list args;
        va_start(args, format);
        vsnprintf(message, sizeof message, format, args);
        va_end(args);
        recorded = true;
    }
    return status;
}

const char *error_message(void) { return recorded ? message : ""; }

void error_clear(void)
{
    recorded = false;
    message[0] = '\0';
}

void phase_set(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(phase, sizeof phase, format, args);
    va_end(args);
}

const char *phase_get(void) { return phase; }

void error_set_identity(const char *text) { snprintf(identity, sizeof identity, "%s", text); }

void error_set_abort(void (*abort_job)(int status)) { abort_hook = abort_job; }

void fatal(const char *file, int line, const char *condition, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bool plain = strcmp(condition, "false") == 0; /* CHECK(false, ...): the text says it all */
    fprintf(stderr, "ringreel: fatal: %s, during %s: %s (%s:%d%s%s)\n", identity, phase, text, file,
            line, plain ? "" : ": ", plain ? "" : condition);
    fflush(stderr);
    if (abort_hook) abort_hook(STATUS_MACHINE);
    exit(STATUS_MACHINE);
}

void *xmalloc(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    CHECK(p, "out of memory: %zu bytes", bytes);
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    CHECK(p, "out of memory: %zu x %zu bytes", count, size);
    return p;
}

void *xrealloc(void *old, size_t bytes)
{
    void *p = realloc(old, bytes ? bytes : 1);
    CHECK(p, "out of memory: %zu bytes", bytes);
    return p;
}

char *xstrdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    return memcpy(xmalloc(bytes), text, bytes);
}

char *xasprintf(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    CHECK(length >= 0, "out of memory while formatting text");
    return text;
}
