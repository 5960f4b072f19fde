/* Errors: two kinds, never mixed (docs/MAP.md, "How things fail").
 *
 *   TRY(call)         the user's input is wrong. The callee has recorded one line naming file,
 *                     line, key or tensor; the status travels up; all ranks agree (world_agree)
 *                     and leave together with that exit code.
 *   CHECK(cond, ...)  we or the machine are wrong. Prints rank, host, phase; ends the whole job.
 *
 *     int load(const char *path)
 *     {
 *         int fd = open(path, O_RDONLY);
 *         if (fd < 0) return error_set(STATUS_INPUT, "%s: %s", path, strerror(errno));
 *         ...
 *         TRY(parse_header(fd));
 *         return STATUS_OK;
 *     }
 */
#ifndef RINGREEL_ERROR_H
#define RINGREEL_ERROR_H

#include <stddef.h>

/* The values are process exit codes. */
enum status {
    STATUS_OK = 0,
    STATUS_MACHINE = 1, /* a failed allocation, a bug, a dead peer */
    STATUS_INPUT = 2,   /* job file, command line, model file, output place */
    STATUS_STOPPED =
        3, /* stopped by a signal or because another rank failed: that rank logs the cause */
};

/* Records the one-line cause (no trailing newline) for this thread and returns `status`.
 * The first record wins until error_clear(): whoever knows the cause first names it. What threads
 * of ours find wrong is recorded again by the one that waits for them. Local. */
int error_set(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The recorded cause, or "" when there is none. Local. */
const char *error_message(void);
void error_clear(void);

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_status_ = (call);                                                                  \
        if (try_status_ != STATUS_OK) return try_status_;                                          \
    } while (0)

/* As TRY, but leaves through `label` with `status` set, for functions that must release something.
 */
#define TRY_OR(label, status, call)                                                                \
    do {                                                                                           \
        (status) = (call);                                                                         \
        if ((status) != STATUS_OK) goto label;                                                     \
    } while (0)

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) fatal(__FILE__, __LINE__, #cond, __VA_ARGS__);           \
    } while (0)

/* What this process is doing now, for fatal messages and for the signal handler: "shot 3 step 12/40
 * block 7 hop 2". */
void phase_set(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *phase_get(void);

/* "rank 3 on host gpu7", shown in front of fatal messages. Set once by world_start. */
void error_set_identity(const char *identity);

/* Called by fatal() before exit(); world_start installs what removes partial files and ends the
 * other ranks. */
void error_set_abort(void (*abort_job)(int status));

_Noreturn void fatal(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* malloc/calloc/strdup that end the job (CHECK) instead of returning NULL. `count * size` is
 * checked for overflow. */
void *xmalloc(size_t bytes) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *old, size_t bytes);
char *xstrdup(const char *text);
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
