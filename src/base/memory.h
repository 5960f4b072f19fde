/* How much memory there is, and what a rank plans to take of it. All functions are Local. */
#ifndef RINGREEL_MEMORY_H
#define RINGREEL_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Bytes this host can still give: MemAvailable, or less where a control group of this process has a
 * limit. INT64_MAX where the system does not say. */
int64_t memory_available(void);
/* The same with the system's files below `root`. */
int64_t memory_available_in(const char *root);
/* Bytes this process may still map (ulimit -v); INT64_MAX without a limit. */
int64_t memory_addresses(void);

/* Bytes this process has had in memory at most, mapped files included; 0 where the system does not
 * say. */
int64_t memory_peak(void);

/* What is planned, part by part: mostly arenas, under their names. */
enum { MEMORY_PARTS = 24 };
struct memory_part {
    const char *name; /* outlives the plan */
    int64_t bytes;
};
struct memory_plan {
    int count;
    struct memory_part parts[MEMORY_PARTS];
};
void memory_plan_add(struct memory_plan *p, const char *name,
                     int64_t bytes); /* 0 bytes: not a part */
int64_t memory_plan_bytes(const struct memory_plan *p);
/* "12.30 GiB: VAE decode 10.00 GiB, video 2.10 GiB, other 204.8 MiB": the largest first, those
 * under 1 % together. Returns `out`. */
char *memory_plan_text(const struct memory_plan *p, char *out, size_t size);
/* What was planned in words, for those who find later that memory cannot be had: memory_planned
 * is then "; the plan (--dry-run) was " and these words, before that "". */
void memory_plan_keep(const char *text);
const char *memory_planned(void);
/* "1.50 GiB", "23.4 MiB" */
char *memory_text(int64_t bytes, char out[32]);

#endif
