/* All ranks of the job: how they start, agree that something failed, and leave together. */
#ifndef RINGREEL_WORLD_H
#define RINGREEL_WORLD_H

#include "media/partial.h"
#include "parallel/comm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world {
    int rank, size;
    int host_rank, host_size; /* among the ranks of this host */
    int processors;           /* this rank's share of those its host gives us, at least 1 */
    char host[64];
    bool mpi; /* false: started without a launcher, a world of one, MPI is never initialised */
    double timeout_s;
    struct comm *comm;    /* everyone */
    struct partial trace; /* on rank 0, between world_open_trace and world_write_trace */
};

/* Collective. Starts MPI if a launcher started us, sets the deadline of every wait, the identity in
 * messages, and what SIGTERM, SIGINT and SIGHUP do: name the rank and its phase, call on_signal
 * (async-signal-safe), exit 128 + signal. */
int world_start(struct world *w, int *argc, char ***argv, void (*on_signal)(void));
void world_set_timeout(struct world *w, double timeout_s); /* Local */

/* Collective: the worst status of any rank, the same on all. The lowest failing rank logs its
 * error_message(), once. */
int world_agree(struct world *w, int status);
/* Collective: the smallest value of any rank. */
int world_min(struct world *w, int value);
/* Collective over the world: the sum over the ranks of this host. */
int64_t world_host_sum(struct world *w, int64_t value);
/* Collective over the world: what each rank of this host has, in their order, to all
 * [host_size]. */
void world_host_gather(struct world *w, const void *mine, void *all, size_t bytes);
/* Collective over the world: the ranks of this host that say the same `color`, in their order; NULL
 * on those that say -1. */
struct comm *world_host_split(struct world *w, int color, const char *name);
/* Collective: STATUS_INPUT on all ranks where not all of them have the same text; the message names
 * `what` and two ranks that differ. */
int world_same(struct world *w, const char *what, const char *text);
/* Collective: rank 0's buffer (malloced, *data and *bytes) is given to all. */
void world_share_bytes(struct world *w, char **data, size_t *bytes);

/* Starts recording; rank 0 makes sure that the file can be written (STATUS_INPUT). Local. */
int world_open_trace(struct world *w, const char *path);
/* Collective: gathers every rank's spans to rank 0, which writes the Chrome trace. No-op unless
 * opened. */
int world_write_trace(struct world *w, const char *role);

/* Collective: agrees on the exit code, ends MPI, frees. Returns the code for main to return. */
int world_stop(struct world *w, int status);

#endif
