/* The granule: how a token sequence is cut so that no number depends on the number of ranks
 * (docs/PARALLEL.md). A granule is G tokens, G a function of the sequence length alone; a rank owns
 * whole, consecutive granules; the last granule of the sequence may be short. All functions are
 * Local and pure. */
#ifndef RINGREEL_SHARD_H
#define RINGREEL_SHARD_H

#include <stdint.h>

struct shard_plan {
    int64_t tokens;   /* S */
    int64_t granule;  /* G, a multiple of 16 */
    int64_t granules; /* ceil(S / G) */
    int ranks;
};

int64_t shard_granule(int64_t tokens); /* G for S tokens: 16 <= G <= 256 */
struct shard_plan shard_plan_make(int64_t tokens, int ranks);
int64_t shard_first_granule(const struct shard_plan *p, int rank);
int64_t shard_granules(const struct shard_plan *p, int rank); /* may be 0: an idle rank */
int64_t shard_first_token(const struct shard_plan *p, int rank);
int64_t shard_tokens(const struct shard_plan *p, int rank); /* S_loc */
int64_t shard_max_granules(const struct shard_plan *p);     /* of any rank */
/* Most tokens, in whole granules, that any rank can own of any sequence of at most max_tokens: what
 * buffers are sized for (shorter sequences have smaller granules, so this is not simply the share
 * of the longest one). */
int64_t shard_most_tokens(int64_t max_tokens, int ranks);
int64_t shard_most_granules(int64_t max_tokens); /* of any sequence of at most max_tokens */

#endif
