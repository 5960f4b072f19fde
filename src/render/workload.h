/* What a job costs before anything of it has run: multiply-adds of its texts, steps and decodes,
 * from the shapes of the checkpoint's tensors and the job. A multiply-add takes about as long in
 * every kernel (docs/SPEED.md). */
#ifndef RINGREEL_WORKLOAD_H
#define RINGREEL_WORKLOAD_H

#include "render/balance.h"

struct engine;

/* e->balance: checkpoint, VAE and shots are known. Local; given back by workload_free. */
void workload_count(struct engine *e);
void workload_free(struct engine *e);
/* "1 of 8 ranks codes ...": how many, and why. Local, says nothing in a world of one. */
void workload_announce(const struct engine *e);

#endif
