#include "parallel/shard.h"

#include "base/error.h"

enum { GRANULE_STEP = 16, GRANULE_MIN = 16, GRANULE_MAX = 256, GRANULES_WANTED = 48 };

/* About 48 granules, so that up to 8 ranks get 6 each (within 17 % of even) and 16 ranks 3; never
 * below 16 tokens, the width of the kernels' tiles, nor above 256, where larger tiles gain nothing.
 */
int64_t shard_granule(int64_t tokens)
{
    int64_t g = (tokens + GRANULES_WANTED - 1) / GRANULES_WANTED;
    g = (g + GRANULE_STEP - 1) / GRANULE_STEP * GRANULE_STEP;
    return g < GRANULE_MIN ? GRANULE_MIN : g > GRANULE_MAX ? GRANULE_MAX : g;
}

struct shard_plan shard_plan_make(int64_t tokens, int ranks)
{
    CHECK(tokens > 0 && ranks > 0, "a plan for %lld tokens on %d ranks", (long long)tokens, ranks);
    int64_t g = shard_granule(tokens);
    return (struct shard_plan){
        .tokens = tokens, .granule = g, .granules = (tokens + g - 1) / g, .ranks = ranks};
}

int64_t shard_first_granule(const struct shard_plan *p, int rank)
{
    return p->granules * rank / p->ranks;
}

int64_t shard_granules(const struct shard_plan *p, int rank)
{
    return shard_first_granule(p, rank + 1) - shard_first_granule(p, rank);
}

int64_t shard_first_token(const struct shard_plan *p, int rank)
{
    int64_t first = shard_first_granule(p, rank) * p->granule;
    return first < p->tokens ? first : p->tokens;
}

int64_t shard_tokens(const struct shard_plan *p, int rank)
{
    return shard_first_token(p, rank + 1) - shard_first_token(p, rank);
}

int64_t shard_max_granules(const struct shard_plan *p)
{
    return (p->granules + p->ranks - 1) / p->ranks;
}

int64_t shard_most_tokens(int64_t max_tokens, int ranks)
{
    int64_t most = 0, largest = shard_granule(max_tokens);
    for (int64_t g = GRANULE_MIN; g <= largest; g += GRANULE_STEP) {
        int64_t longest =
            g == largest ? max_tokens : g * GRANULES_WANTED; /* the longest sequence cut into g */
        struct shard_plan p = shard_plan_make(longest, ranks);
        int64_t tokens = shard_max_granules(&p) * p.granule;
        most = tokens > most ? tokens : most;
    }
    return most;
}

int64_t shard_most_granules(int64_t max_tokens)
{
    int64_t longest = (max_tokens + GRANULE_MAX - 1) / GRANULE_MAX;
    return longest > GRANULES_WANTED ? longest : GRANULES_WANTED;
}
