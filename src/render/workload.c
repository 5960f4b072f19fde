#include "render/workload.h"

#include "base/error.h"
#include "base/log.h"
#include "render/decode.h"
#include "render/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before any text is cut into tokens: about four bytes each, and the end. */
static int64_t text_tokens(const struct engine *e, const char *text)
{
    int64_t tokens = (int64_t)strlen(text) / 4 + 2, most = e->job->text_encoder_max_tokens;
    return tokens < most ? tokens : most;
}

/* NULL if there is none: the codec ranks will say why. */
static struct checkpoint *open_text_encoder(const struct engine *e)
{
    struct checkpoint *c = NULL;
    if (checkpoint_open_text_encoder(&c, e->job->text_encoder_path) == STATUS_OK) return c;
    error_clear();
    return NULL;
}

static double text_cost(const struct engine *e, const struct shot *s, const struct checkpoint *c)
{
    if (!c) return 0;
    double cost = t5_work(c, text_tokens(e, s->options->prompt));
    if (s->uses_negative) cost += t5_work(c, text_tokens(e, s->options->negative_prompt));
    return cost;
}

static double denoise_cost(const struct engine *e, const struct shot *s)
{
    int forwards = 0;
    for (int i = 0; i < s->schedule.count; i++) {
        struct guidance g = guidance_at(s->options, s->schedule.sigma[i]);
        forwards += 1 + g.use_cfg + g.use_stg;
    }
    return forwards *
           transformer_work(e->checkpoint, s->tokens, text_tokens(e, s->options->prompt));
}

void workload_count(struct engine *e)
{
    int count = e->job->shot_count;
    struct checkpoint *text_encoder = open_text_encoder(e);
    e->balance = (struct balance){
        .shots = xcalloc((size_t)count, sizeof *e->balance.shots),
        .count = count,
        .last_by_all = e->helping,
    };
    for (int i = 0; i < count; i++) {
        const struct shot *s = &e->shots[i];
        e->balance.shots[i] = (struct balance_shot){
            .tokens = s->tokens,
            .h = s->h,
            .w = s->w,
            .cost = {.text = text_cost(e, s, text_encoder),
                     .denoise = denoise_cost(e, s),
                     .decode = vae_decode_work(e->codec.vae, s->f, s->h, s->w, decode_span(s))},
        };
    }
    checkpoint_close(text_encoder);
}

void workload_free(struct engine *e)
{
    free(e->balance.shots);
    e->balance.shots = NULL;
}

void workload_announce(const struct engine *e)
{
    const struct mesh *m = &e->mesh;
    struct balance_cost work = balance_work(&e->balance, 1, 1);
    double all = 0.01 * (work.text + work.denoise + work.decode);
    char asked[64] = "";
    if (e->world->size == 1 || all <= 0) return;
    if (e->job->codec_ranks)
        snprintf(asked, sizeof asked, ", as asked (%d by itself)", e->chosen_codec_ranks);
    log_info("%d of %d ranks for the codec%s: by multiply-adds the job is %.1f %% denoising, %.1f "
             "%% decoding, %.1f %% texts",
             m->codec_ranks, e->world->size, asked, work.denoise / all, work.decode / all,
             work.text / all);
}
