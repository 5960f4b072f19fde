/* Ring attention over a sharded token sequence (Liu et al. 2023; blockwise flash attention, Dao et
 * al. 2022).
 *
 * order canonical: block 0, 1, 2, ... is broadcast by its owner in turn, double-buffered: block j+1
 *   moves while block j is attended. Every rank folds the same granules in the same order, so the
 *   bytes do not depend on the ranks.
 * order ring: a rank starts with its own block and passes blocks on to the next rank; fewest bytes,
 *   no common start, but the order of summation depends on the rank: equal to 1e-5, not to the
 *   byte. */
#ifndef RINGREEL_RING_H
#define RINGREEL_RING_H

#include "base/arena.h"
#include "base/tensor.h"
#include "config/options.h"
#include "kernels/ops.h"
#include "parallel/comm.h"
#include "parallel/shard.h"

struct ring {
    struct device *dev;
    struct comm *group;
    enum attention_order order;
    int64_t heads, head_dim;
    struct shard_plan plan; /* of the sequence being attended; set by ring_set_plan */
    int64_t granule_floats; /* op_kv_granule_floats */
    float *own;             /* this rank's packed keys and values; device memory, as are all */
    float *incoming[2];     /* blocks of other ranks, double-buffered */
    float *state;           /* running softmax of the local queries; free between attentions */
    /* for the trace and for messages */
    int shot, step, block;
};

/* Lays out the buffers, of the device, for shards of up to `tokens` (shard_most_tokens). Called
 * twice, see arena.h. Local. */
void ring_lay_out(struct ring *r, struct arena *a, int64_t tokens);
/* What blocks that are under way take of the host, where they cannot go from device to device.
 * Local. */
int64_t ring_staging_bytes(const struct ring *r, int64_t tokens);
void ring_set_plan(struct ring *r,
                   const struct shard_plan *plan); /* Local; no larger than what was laid out */

/* Collective over r->group. o, q, k, v [S_loc, N*d]; k already normed and rotated; o may be q. */
void ring_attend(struct ring *r, struct mat o, struct mat q, struct mat k, struct mat v,
                 float scale);

#endif
