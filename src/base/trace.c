#include "base/trace.h"

#include "base/error.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

static struct trace_span *spans;
static size_t used, capacity, lost;

void trace_enable(size_t max_spans)
{
    spans = xcalloc(max_spans, sizeof *spans);
    capacity = max_spans;
    used = lost = 0;
}

bool trace_enabled(void) { return capacity > 0; }

void trace_span(const char *category, const char *name, int track, int shot, int index,
                double start_s)
{
    if (!capacity) return;
    if (used == capacity) {
        lost++;
        return;
    }
    struct trace_span *s = &spans[used++];
    *s = (struct trace_span){
        .start_s = start_s, .end_s = clock_s(), .track = track, .shot = shot, .index = index};
    snprintf(s->name, sizeof s->name, "%s", name);
    snprintf(s->category, sizeof s->category, "%s", category);
}

const struct trace_span *trace_spans(size_t *count, size_t *dropped)
{
    *count = used;
    *dropped = lost;
    return spans;
}

void trace_free(void)
{
    free(spans);
    spans = NULL;
    used = capacity = 0;
}
