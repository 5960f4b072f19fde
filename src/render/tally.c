#include "render/tally.h"

#include "base/error.h"
#include "base/log.h"
#include "render/engine.h"

#include <stdio.h>
#include <stdlib.h>

enum { NUMBERS = sizeof(struct tally) / sizeof(double) };
static const double notable_share = 0.05,
                    notable_s = 0.5; /* of waiting; of what another mesh saves */

/* Of all ranks; the caller frees it. */
static struct tally *gather(const struct engine *e)
{
    struct tally *all = xcalloc((size_t)e->world->size, sizeof *all);
    all[e->world->rank] = e->tally;
    comm_all_gather_each(e->world->comm, (double *)all, NUMBERS);
    return all;
}

struct verdict {
    double seconds;                  /* from the first step to the last frame */
    double denoise_wait, codec_wait; /* of a rank of either side */
    int advised;                     /* codec ranks */
    double saved;                    /* by these, a share of the time */
};

/* The leader waits as long as the others do. What it waits for: texts, free slots, and that the
 * codec ranks get to the last shot. The first text and the last decode nobody can hide. */
static struct verdict judge(const struct engine *e, const struct tally *all)
{
    const struct mesh *m = &e->mesh;
    const struct tally *leader = &all[0], *codec = &all[mesh_codec_world_rank(m, 0)];
    int d = m->denoise_ranks, c = m->codec_ranks;
    struct balance_cost worked = {.denoise = leader->denoise, .decode = codec->decode};
    struct balance measured = e->balance;
    for (int i = 0; i < c; i++) worked.text += all[mesh_codec_world_rank(m, i)].text;
    balance_fit(&measured, d, c, &worked);
    struct verdict v = {
        .seconds = codec->end - leader->begin,
        .denoise_wait = codec->last_decode - leader->begin - leader->denoise,
        .codec_wait = codec->latents_wait,
        .advised = balance_codec_ranks(&measured, d + c, 0),
    };
    v.saved =
        1 - balance_time(&measured, d + c - v.advised, v.advised) / balance_time(&measured, d, c);
    return v;
}

static bool notable(const struct verdict *v, double seconds)
{
    return seconds > notable_s && seconds > notable_share * v->seconds;
}

/* "--codec-ranks 3"; who has also said how many denoise must say it anew. */
static void advise(const struct engine *e, const struct verdict *v, char *out, size_t size)
{
    int ranks = e->mesh.denoise_ranks + e->mesh.codec_ranks;
    int n = snprintf(out, size, "%d of %d would take %.0f %% less time (", v->advised, ranks,
                     100 * v->saved);
    if (e->job->denoise_ranks)
        n += snprintf(out + n, size - (size_t)n, "--denoise-ranks %d ", ranks - v->advised);
    snprintf(out + n, size - (size_t)n, "--codec-ranks %d)", v->advised);
}

static void say(const struct engine *e, const struct verdict *v)
{
    bool better = v->saved > notable_share && v->advised != e->mesh.codec_ranks;
    bool denoise = notable(v, v->denoise_wait);
    char advice[128] = "no other number of these would be notably faster";
    if (better) advise(e, v, advice, sizeof advice);
    if (denoise)
        log_info("denoise ranks waited %.1f s (%.0f %%) for codec ranks: %s", v->denoise_wait,
                 100 * v->denoise_wait / v->seconds, advice);
    else if (better && v->advised < e->mesh.codec_ranks && notable(v, v->codec_wait))
        log_info("codec ranks waited %.1f s (%.0f %%) for denoise ranks: %s", v->codec_wait,
                 100 * v->codec_wait / v->seconds, advice);
}

void tally_report(const struct engine *e)
{
    if (e->world->size == 1) return;
    struct tally *all = gather(e);
    if (e->world->rank == 0) {
        struct verdict v = judge(e, all);
        say(e, &v);
        log_json("balance",
                 "\"seconds\":%.6f,\"denoise_waited\":%.6f,\"codec_waited\":%.6f,\"codec_ranks\":"
                 "%d,\"advised\":%d",
                 v.seconds, v.denoise_wait, v.codec_wait, e->mesh.codec_ranks, v.advised);
    }
    free(all);
}
