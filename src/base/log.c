#include "base/log.h"

#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int my_rank;
static enum log_level threshold = LOG_INFO;
static double zero_s;
static FILE *json;

static double monotonic_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double clock_s(void) { return monotonic_s() - zero_s; }
void clock_set_zero(void) { zero_s = monotonic_s(); }

void log_init(int rank, enum log_level level)
{
    my_rank = rank;
    threshold = level;
    if (zero_s == 0) clock_set_zero();
}

/* Under mpirun a rank's stderr is a pipe; the launcher says whether a person is at the other end.
 */
static bool on_terminal(void) { return isatty(STDERR_FILENO) || getenv("RINGREEL_TERMINAL"); }

/* What a line begins with: on a terminal rank 0 may have an unfinished progress line there. It
 * draws it again. */
static const char *line_start(void) { return on_terminal() ? "\r\033[K" : ""; }

void log_line(enum log_level level, const char *format, ...)
{
    if (level > threshold) return;
    static const char *const names[] = {"error: ", "warning: ", "", ""};
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%sringreel: %s%s\n", line_start(), names[level],
            text); /* one call: lines of ranks do not mix */
}

/* ---- progress -------------------------------------------------------------------------------- */

static void duration_text(double seconds, char out[32])
{
    if (seconds < 100)
        snprintf(out, 32, "%.1f s", seconds);
    else
        snprintf(out, 32, "%d:%02d min", (int)(seconds / 60), (int)seconds % 60);
}

static void show(struct progress *p, bool last)
{
    bool terminal = my_rank == 0 && on_terminal();
    double now = clock_s(), elapsed = now - p->start_s;
    if (threshold < LOG_INFO || (!last && now - p->last_shown_s < (terminal ? 0.1 : 10.0))) return;
    p->last_shown_s = now;
    char count[48], rate[48] = "", rest[48] = "", text[32];
    if (p->unit)
        snprintf(count, sizeof count, "%lld/%lld", (long long)p->done, (long long)p->total);
    else
        snprintf(count, sizeof count, "%.0f%%",
                 100.0 * (double)p->done / (double)(p->total ? p->total : 1));
    if (p->done > 0 && elapsed > 0) {
        double each = elapsed / (double)p->done;
        if (p->unit && each >= 1)
            snprintf(rate, sizeof rate, "  %.2f s/%s", each, p->unit);
        else if (p->unit)
            snprintf(rate, sizeof rate, "  %.1f %ss/s", 1 / each, p->unit);
        duration_text(last ? elapsed : each * (double)(p->total - p->done), text);
        snprintf(rest, sizeof rest, last ? "  in %s" : "  ETA %s", text);
    }
    fprintf(stderr, "%sringreel: %-22s %s%s%s%s", line_start(), p->label, count, rate, rest,
            terminal && !last ? "" : "\n");
}

void progress_start(struct progress *p, const char *label, const char *unit, int64_t total)
{
    *p = (struct progress){.unit = unit, .total = total, .start_s = clock_s()};
    p->last_shown_s = p->start_s;
    snprintf(p->label, sizeof p->label, "%s", label);
}

void progress_advance(struct progress *p, int64_t done)
{
    p->done = done;
    show(p, false);
}

void progress_end(struct progress *p)
{
    p->done = p->total;
    show(p, true);
}

/* ---- machine-readable events ----------------------------------------------------------------- */

int log_json_open(const char *path, int rank)
{
    char *name = rank == 0 ? xstrdup(path) : xasprintf("%s.%d", path, rank);
    json = fopen(name, "w");
    int status =
        json ? STATUS_OK : error_set(STATUS_INPUT, "log_json: %s: %s", name, strerror(errno));
    free(name);
    return status;
}

void log_json(const char *event, const char *fields, ...)
{
    if (!json) return;
    fprintf(json, "{\"t\":%.6f,\"rank\":%d,\"event\":\"%s\"", clock_s(), my_rank, event);
    if (fields[0]) {
        va_list args;
        va_start(args, fields);
        fputc(',', json);
        vfprintf(json, fields, args);
        va_end(args);
    }
    fputs("}\n", json);
    fflush(json); /* whoever follows the file sees every event at once; events are rare */
}

int log_json_close(void)
{
    if (!json) return STATUS_OK;
    bool failed = ferror(json) != 0;
    failed = fclose(json) != 0 || failed;
    json = NULL;
    return failed ? error_set(STATUS_INPUT, "log_json: not all events could be written: %s",
                              strerror(errno))
                  : STATUS_OK;
}
