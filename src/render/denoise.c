#include "render/denoise.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "render/dump.h"
#include "render/guidance.h"
#include "render/noise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What the steps of one shot share. */
struct denoise {
    struct engine *e;
    struct shot *shot;
    const struct shard_plan *plan;
    struct mat x, u, p, q, scratch; /* [S_loc, C] */
    struct sequence_sums *sums;
    struct rng per_step; /* the reference's global generator: stochastic sampling */
};

static struct denoise begin(struct engine *e, struct shot *s)
{
    struct denoiser *d = &e->denoiser;
    struct latent_grid grid = {.f = s->f,
                               .h = s->h,
                               .w = s->w,
                               .frame_rate = s->options->frame_rate,
                               .time_factor = s->time_factor,
                               .space_factor = s->space_factor};
    transformer_set_grid(d->transformer, &grid);
    struct denoise run = {
        .e = e, .shot = s, .plan = transformer_plan(d->transformer), .sums = &d->sums};
    d->sums.plan = run.plan;
    int64_t rows = shard_tokens(run.plan, comm_rank(e->mesh.denoise_group));
    run.x = mat_f32(d->x, rows, e->channels);
    run.u = mat_f32(d->velocity[0], rows, e->channels);
    run.p = mat_f32(d->velocity[1], rows, e->channels);
    run.q = mat_f32(d->velocity[2], rows, e->channels);
    run.scratch = mat_f32(d->scratch, rows, e->channels);
    rng_seed(&run.per_step, (uint64_t)s->options->seed);
    return run;
}

static void draw(struct denoise *d, struct rng *r, enum rng_kind order, struct mat out)
{
    int me = comm_rank(d->e->mesh.denoise_group);
    noise_draw(r, order, d->plan->tokens, d->e->channels, shard_first_token(d->plan, me), out.rows,
               out.p);
}

/* p <- the guided velocity at level t. */
static void predict(struct denoise *d, const struct guidance *g, float t)
{
    struct transformer *model = d->e->denoiser.transformer;
    struct timesteps times = {.count = 1, .values = &t};
    if (g->use_cfg) transformer_forward(model, d->u, d->x, &times, 0, NULL);
    transformer_forward(model, d->p, d->x, &times, 1, NULL);
    if (g->use_stg) {
        struct skip_layers skip = {
            .mode = g->skip.mode, .count = g->skip.count, .blocks = g->skip.blocks};
        transformer_forward(model, d->q, d->x, &times, 1, &skip);
    }
    guidance_combine(g, d->sums, d->u, d->p, d->q, d->scratch);
}

/* x <- the latents at the next level: Euler, or full re-noising of the predicted clean latents. */
static void advance(struct denoise *d, float t)
{
    struct device *dev = d->e->dev;
    int64_t n = d->x.rows * d->x.cols;
    float dt = t - schedule_next(&d->shot->schedule, t), next = t - dt;
    if (!d->shot->options->stochastic_sampling) {
        op_lincomb(dev, d->x.p, 1, d->x.p, -dt, d->p.p, n);
        return;
    }
    draw(d, &d->per_step, RNG_TORCH, d->scratch);
    op_lincomb(dev, d->x.p, 1, d->x.p, -t, d->p.p, n);
    op_lincomb(dev, d->x.p, 1 - next, d->x.p, next, d->scratch.p, n);
}

/* Damaged weights (NaN or infinity in a file) would otherwise end in black and exit code 0. */
static int check_finite(struct denoise *d, int i)
{
    if (isfinite(sequence_dot(d->sums, d->x, d->x.p))) return STATUS_OK;
    return error_set(
        STATUS_INPUT,
        "%s: shot %d step %d: the latents are not finite (NaN or infinity in the weights?)",
        checkpoint_path(d->e->checkpoint), d->shot->number + 1, i + 1);
}

static int dump_step(struct denoise *d, int i)
{
    char file[32], velocity[32], latents[32];
    if (!d->e->job->dump) return STATUS_OK;
    snprintf(file, sizeof file, "step_%03d", i);
    snprintf(velocity, sizeof velocity, "velocity_%03d", i);
    snprintf(latents, sizeof latents, "latents_%03d", i);
    struct dump_part parts[] = {{velocity, d->p.p}, {latents, d->x.p}};
    return dump_sharded(d->e->job->dump, d->shot->number, file, d->e->mesh.denoise_group, d->plan,
                        d->e->channels, parts, 2);
}

static int dump_start(struct denoise *d, const struct handover_head *head, const float *text)
{
    if (!d->e->job->dump) return STATUS_OK;
    struct dump_part noise = {"noise", d->x.p};
    int status = dump_sharded(d->e->job->dump, d->shot->number, "noise", d->e->mesh.denoise_group,
                              d->plan, d->e->channels, &noise, 1);
    if (comm_rank(d->e->mesh.denoise_group) == 0 && status == STATUS_OK)
        status = dump_inputs(d->e->job->dump, d->shot->number, text, head->tokens, d->e->text_width,
                             d->shot->schedule.sigma, d->shot->schedule.count);
    return status;
}

/* Rank 0 of the group may fail alone (a full disk under --dump), or a codec rank may have: all
 * leave together. */
static int agree_to_go_on(struct denoise *d, int mine)
{
    struct comm *group = d->e->mesh.denoise_group;
    int leader = mine;
    comm_broadcast_bytes(group, &leader, sizeof leader, 0);
    if (leader != STATUS_OK) return mine != STATUS_OK ? mine : STATUS_STOPPED;
    return handover_should_stop(&d->e->handover) == STATUS_OK ? STATUS_OK : STATUS_STOPPED;
}

static int set_texts(struct denoise *d, const struct handover_head *head, const float *text)
{
    struct transformer *model = d->e->denoiser.transformer;
    if (d->shot->uses_negative) TRY(transformer_set_text(model, 0, text, (int)head->tokens[0]));
    return transformer_set_text(model, 1, text + head->tokens[0] * d->e->text_width,
                                (int)head->tokens[1]);
}

static int run_steps(struct denoise *d, int status)
{
    struct shot *s = d->shot;
    struct progress progress;
    char label[48];
    bool leads = comm_rank(d->e->mesh.denoise_group) == 0;
    snprintf(label, sizeof label, "shot %d/%d denoise", s->number + 1, d->e->job->shot_count);
    if (leads) progress_start(&progress, label, "step", s->schedule.count);
    for (int i = 0; i < s->schedule.count; i++) {
        double start_s = clock_s();
        float t = s->schedule.sigma[i];
        TRY(agree_to_go_on(d, status));
        phase_set("shot %d step %d/%d", s->number + 1, i + 1, s->schedule.count);
        transformer_set_phase(d->e->denoiser.transformer, s->number, i);
        struct guidance g = guidance_at(s->options, t);
        predict(d, &g, t);
        advance(d, t);
        TRY(check_finite(d, i)); /* the same on every rank */
        status = dump_step(d, i);
        trace_span("denoise", "step", 0, s->number, i, start_s);
        log_json("step", "\"shot\":%d,\"step\":%d,\"steps\":%d,\"sigma\":%.6f,\"seconds\":%.6f",
                 s->number + 1, i + 1, s->schedule.count, t, clock_s() - start_s);
        if (leads) {
            progress_advance(&progress, i + 1);
            log_debug("shot %d step %d: sigma %.6f, guidance %g, stg %g, %.3f s", s->number + 1,
                      i + 1, t, g.use_cfg ? g.cfg : 1, g.use_stg ? g.stg : 0, clock_s() - start_s);
        }
    }
    TRY(agree_to_go_on(d, status));
    if (leads) progress_end(&progress);
    return STATUS_OK;
}

int denoise_shot(struct engine *e, struct shot *s, const struct handover_head *head,
                 const float *text, float *latents)
{
    double start_s = clock_s();
    struct denoise d = begin(e, s);
    struct rng noise;
    rng_seed(&noise, (uint64_t)s->options->seed);
    draw(&d, &noise, s->options->rng, d.x);
    TRY(set_texts(&d, head, text));
    TRY(run_steps(&d, dump_start(&d, head, text)));
    memcpy(latents, d.x.p, (size_t)(d.x.rows * d.x.cols) * sizeof *latents);
    log_json("stage", "\"name\":\"denoise\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             clock_s() - start_s);
    return STATUS_OK;
}

static int denoise_one(struct engine *e, int number)
{
    struct handover *h = &e->handover;
    struct handover_head head;
    float *text;
    phase_set("shot %d, waiting for its text", number + 1);
    TRY(handover_receive_text(h, number, &head, &text));
    float *latents = handover_latents_buffer(h, number);
    TRY(denoise_shot(e, &e->shots[number], &head, text, latents));
    handover_send_latents(
        h, number,
        shard_tokens(transformer_plan(e->denoiser.transformer), comm_rank(e->mesh.denoise_group)));
    return STATUS_OK;
}

int denoise_loop(struct engine *e)
{
    int status = STATUS_OK;
    for (int number = 0; number < e->job->shot_count && status == STATUS_OK; number++)
        status = denoise_one(e, number);
    phase_set("waiting for the codec ranks to finish");
    handover_end_denoise(&e->handover, status);
    return status;
}
