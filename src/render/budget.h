/* Memory is planned and checked against what the hosts and their devices have before the first
 * step, from the same layout code that takes it: a job that does not fit is refused when it
 * starts, not after hours. */
#ifndef RINGREEL_BUDGET_H
#define RINGREEL_BUDGET_H

#include "base/memory.h"
#include "render/device_memory.h"

#include <stdbool.h>
#include <stdint.h>

struct engine;

/* Where memory is taken. A device without memory of its own takes the host's. */
enum memory_place { MEMORY_HOST, MEMORY_DEVICE, MEMORY_PLACES };

/* What this rank will take with weights expanded at every use, and with resident ones. */
struct budget {
    struct memory_plan plan[2][MEMORY_PLACES]; /* [resident] */
    int64_t bytes[2][MEMORY_PLACES];           /* of this rank */
    int64_t host_bytes[2];                     /* of the ranks of this host, */
    int64_t available;                         /* to them */
    struct device_claim claim;                 /* of this rank on its device, */
    struct device_sum device;                  /* and of all that share it */
    int64_t mappable;                          /* to this process */
    bool cramped[2];                           /* does not fit this process */
    bool host_cramped[2];                      /* nor that of some rank on this host */
};

/* Local. Models that share the plan are open, memory is not taken. STATUS_INPUT for absurd sizes.
 */
int budget_plan(struct budget *b, struct engine *e);
/* Collective over the world: chooses e->resident for this host; STATUS_INPUT on the rank that
 * should speak when it does not fit. */
int budget_decide(struct budget *b, struct engine *e);
/* Does `more` fit, and leave the weights where they are with `less`? The same on all ranks.
 * Collective over the world. */
bool budget_has_room(struct budget *more, struct budget *less, const struct engine *e);
/* --dry-run: a line for every rank, on standard output. Collective over the world. */
void budget_print_ranks(struct budget *b, const struct engine *e);
/* One line for each role, from its first rank. Local. */
void budget_print(const struct budget *b, const struct engine *e);
/* After the last shot: what ranks really had in memory at most. Collective over the world. */
void budget_print_peaks(const struct engine *e);

#endif
