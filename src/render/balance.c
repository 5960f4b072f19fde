#include "render/balance.h"

#include "parallel/shard.h"

static double larger(double a, double b) { return a > b ? a : b; }

/* The largest rank's share of a shot: the others wait for it. */
static double denoise_share(const struct balance_shot *s, int ranks)
{
    struct shard_plan p = shard_plan_make(s->tokens, ranks);
    return (double)shard_max_granules(&p) / (double)p.granules;
}

static double share_of(int64_t extent, int ranks)
{
    return (double)((extent + ranks - 1) / ranks) / (double)extent;
}

/* By rows or by columns, whichever is the more even. */
static double decode_share(const struct balance_shot *s, int ranks)
{
    double rows = share_of(s->h, ranks), columns = share_of(s->w, ranks);
    return rows < columns ? rows : columns;
}

static struct balance_cost shared(const struct balance *b, int i, int denoise_ranks,
                                  int codec_ranks)
{
    const struct balance_shot *s = &b->shots[i];
    bool all = b->last_by_all && i + 1 == b->count;
    return (struct balance_cost){
        .text = s->cost.text, /* by the rank that owns the shot, the others wait */
        .denoise = s->cost.denoise * denoise_share(s, denoise_ranks),
        .decode = s->cost.decode * decode_share(s, all ? denoise_ranks + codec_ranks : codec_ranks),
    };
}

struct balance_cost balance_work(const struct balance *b, int denoise_ranks, int codec_ranks)
{
    struct balance_cost sum = {0};
    for (int i = 0; i < b->count; i++) {
        struct balance_cost c = shared(b, i, denoise_ranks, codec_ranks);
        sum.text += c.text;
        sum.denoise += c.denoise;
        sum.decode += c.decode;
    }
    return sum;
}

/* Codec ranks encode the next shot's text before they decode this one. */
double balance_time(const struct balance *b, int denoise_ranks, int codec_ranks)
{
    double denoise = 0, codec = 0, text = 0; /* when each is done with what it has begun */
    for (int i = 0; i < b->count; i++) {
        struct balance_cost c = shared(b, i, denoise_ranks, codec_ranks);
        if (i == 0) text = codec = c.text;
        denoise = larger(denoise, text) + c.denoise;
        if (i + 1 < b->count) text = codec += b->shots[i + 1].cost.text;
        codec = larger(codec, denoise) + c.decode;
    }
    return codec;
}

int balance_codec_ranks(const struct balance *b, int ranks, int denoise_ranks)
{
    int most = ranks - (denoise_ranks ? denoise_ranks : 1), best = 1;
    double best_time = 0;
    for (int c = 1; c <= most; c++) {
        double time = balance_time(b, denoise_ranks ? denoise_ranks : ranks - c, c);
        if (c > 1 && time >= best_time) continue;
        best = c;
        best_time = time;
    }
    return best;
}

static double ratio(double measured, double expected)
{
    return expected > 0 ? measured / expected : 1;
}

void balance_fit(struct balance *b, int denoise_ranks, int codec_ranks,
                 const struct balance_cost *measured)
{
    struct balance_cost expected = balance_work(b, denoise_ranks, codec_ranks);
    double text = ratio(measured->text, expected.text),
           denoise = ratio(measured->denoise, expected.denoise),
           decode = ratio(measured->decode, expected.decode);
    for (int i = 0; i < b->count; i++) {
        b->shots[i].cost.text *= text;
        b->shots[i].cost.denoise *= denoise;
        b->shots[i].cost.decode *= decode;
    }
}
