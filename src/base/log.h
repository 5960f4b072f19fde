/* What a person sees (stderr), and what a machine reads (--log-json FILE: one JSON object a line).
 */
#ifndef RINGREEL_LOG_H
#define RINGREEL_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* rank 0 speaks for all unless a line concerns one rank. `level` drops lines above it. Local. */
void log_init(int rank, enum log_level level);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

/* Seconds since log_init on a monotonic clock; ranks align their zero in world_start. */
double clock_s(void);
void clock_set_zero(void);

/* Progress of one stage. With a terminal on stderr one line is rewritten ("denoise 12/40 1.3 s/step
 * ETA 36 s"), without one a plain line is written at most every 10 s and at the end. Only rank 0's
 * and the codec ranks' stages are shown. */
struct progress {
    char label[48];
    const char *unit; /* "step", "frame"; NULL: shown as a percentage */
    int64_t done, total;
    double start_s, last_shown_s;
};
void progress_start(struct progress *p, const char *label, const char *unit, int64_t total);
void progress_advance(struct progress *p, int64_t done);
void progress_end(struct progress *p);

/* Events for --log-json: {"t":1.234,"rank":0,"event":"step","shot":0,...}. `fields` is a
 * printf-formatted JSON fragment without braces ("\"shot\":%d"), "" for none. No-op unless
 * log_json_open succeeded. The file of rank 0 has the given name, rank r writes NAME.r. */
int log_json_open(const char *path, int rank);
void log_json(const char *event, const char *fields, ...) __attribute__((format(printf, 2, 3)));
int log_json_close(void); /* STATUS_INPUT if an event could not be written (a full disk) */

#endif
