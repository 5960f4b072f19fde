/* --trace FILE: Chrome trace format (chrome://tracing, Perfetto), two rows per rank (work and
 * waiting). Spans are kept in memory (a fixed number of them, allocated once; the oldest win and
 * the rest are counted) and gathered by world_write_trace. */
#ifndef RINGREEL_TRACE_H
#define RINGREEL_TRACE_H

#include <stdbool.h>
#include <stddef.h>

struct trace_span {
    char name[40];     /* "step", "hop", "decode" */
    char category[16]; /* "denoise", "comm", "codec" */
    double start_s, end_s;
    int track;       /* 0 = compute, 1 = communication */
    int shot, index; /* -1 when they do not apply */
};

void trace_enable(size_t max_spans);
bool trace_enabled(void);
/* Records a span that began at start_s (clock_s()) and ends now. No-op unless enabled. */
void trace_span(const char *category, const char *name, int track, int shot, int index,
                double start_s);
const struct trace_span *trace_spans(size_t *count, size_t *dropped);
void trace_free(void);

#endif
