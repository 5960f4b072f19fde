#include "render/denoise.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "render/codec.h"
#include "render/conditioning.h"
#include "render/dump.h"
#include "render/guidance.h"
#include "render/noise.h"

#include <math.h>
#include <stdio.h>

/* What the steps of one shot share. */
struct denoise {
    struct engine *e;
    struct shot *shot;
    const struct shard_plan *plan;
    struct mat x, u, p, q, scratch; /* [S_loc, C] */
    struct sequence_sums *sums;
    struct rng noise; /* the reference's generator: initial noise, then that on conditioned rows */
    struct rng per_step; /* its global generator: stochastic sampling */
    struct conditioned conditioned;
};

static void draw(struct denoise *d, struct rng *r, enum rng_kind order, struct mat out)
{
    int me = comm_rank(d->e->mesh.denoise_group);
    noise_draw(d->e->dev, r, order, d->plan->tokens, d->e->channels, shard_first_token(d->plan, me),
               out.rows, out.p);
}

/* Grid and noise of a shot. */
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
    rng_seed(&run.noise, (uint64_t)s->options->seed);
    run.per_step = conditioning_global_stream(e, s);
    draw(&run, &run.noise, s->options->rng, run.x);
    return run;
}

/* p <- the guided velocity at level t. */
static void predict(struct denoise *d, const struct guidance *g, float t)
{
    struct transformer *model = d->e->denoiser.transformer;
    struct timesteps times = {.count = 1, .values = &t};
    if (d->conditioned.any) times = conditioning_levels(&d->conditioned, t);
    if (g->use_cfg) transformer_forward(model, d->u, d->x, &times, 0, NULL);
    transformer_forward(model, d->p, d->x, &times, 1, NULL);
    if (g->use_stg) {
        struct skip_layers skip = {
            .mode = g->skip.mode, .count = g->skip.count, .blocks = g->skip.blocks};
        transformer_forward(model, d->q, d->x, &times, 1, &skip);
    }
    guidance_combine(g, d->sums, d->u, d->p, d->q, d->scratch);
}

/* Rows [first, end) of x <- the latents at the next level: Euler, or full re-noising of the
 * predicted clean latents with the rows of scratch. */
static void advance_rows(struct denoise *d, int64_t first, int64_t end, float t)
{
    struct device *dev = d->e->dev;
    int64_t at = first * d->x.cols, n = (end - first) * d->x.cols;
    float *x = (float *)d->x.p + at, *velocity = (float *)d->p.p + at;
    float dt = t - schedule_next(&d->shot->schedule, t), next = t - dt;
    if (!d->shot->options->stochastic_sampling) {
        op_lincomb(dev, x, 1, x, -dt, velocity, n);
        return;
    }
    op_lincomb(dev, x, 1, x, -t, velocity, n);
    op_lincomb(dev, x, 1 - next, x, next, (float *)d->scratch.p + at, n);
}

static void advance(struct denoise *d, float t)
{
    struct conditioned *c = &d->conditioned;
    if (d->shot->options->stochastic_sampling) draw(d, &d->per_step, RNG_TORCH, d->scratch);
    if (c->any && conditioning_is_free(c, t)) advance_rows(d, 0, c->start.rows, c->levels[0]);
    advance_rows(d, c->start.rows, d->x.rows, t);
}

/* Conditioned rows are shown to the network with noise that is drawn anew at every step. */
static void refresh_conditioned(struct denoise *d, float t)
{
    if (!d->conditioned.draws) return;
    draw(d, &d->noise, RNG_TORCH, d->scratch);
    conditioning_refresh(&d->conditioned, d->e, d->x, t, d->scratch.p);
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
    struct dump_part parts[] = {{velocity, d->p}, {latents, d->x}};
    return dump_sharded(d->e->job->dump, d->shot->number, file, d->e->dev, d->e->mesh.denoise_group,
                        d->plan, parts, 2);
}

static int dump_start(struct denoise *d, const struct shot_input *input)
{
    if (!d->e->job->dump) return STATUS_OK;
    struct dump_part noise = {"noise", d->x};
    int status = dump_sharded(d->e->job->dump, d->shot->number, "noise", d->e->dev,
                              d->e->mesh.denoise_group, d->plan, &noise, 1);
    if (comm_rank(d->e->mesh.denoise_group) == 0 && status == STATUS_OK)
        status = dump_inputs(d->e->job->dump, d->shot->number, input, d->e->text_width,
                             d->e->channels, d->shot->schedule.sigma, d->shot->schedule.count);
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

static int set_texts(struct denoise *d, const struct shot_input *input)
{
    struct transformer *model = d->e->denoiser.transformer;
    const int64_t *tokens = input->head.tokens;
    if (d->shot->uses_negative) TRY(transformer_set_text(model, 0, input->embeds, (int)tokens[0]));
    return transformer_set_text(model, 1, input->embeds + tokens[0] * d->e->text_width,
                                (int)tokens[1]);
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
        refresh_conditioned(d, t);
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

/* Behind begin. */
static int denoise(struct denoise *d, const struct shot_input *input)
{
    double start_s = clock_s();
    struct engine *e = d->e;
    struct shot *s = d->shot;
    TRY(set_texts(d, input));
    int status = dump_start(d, input);
    d->conditioned = conditioning_begin(e, s, d->plan, d->x, input->condition);
    TRY(run_steps(d, status));
    e->tally.denoise += clock_s() - start_s;
    trace_span("denoise", "denoise", 0, s->number, -1, start_s);
    log_json("stage", "\"name\":\"denoise\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             clock_s() - start_s);
    return STATUS_OK;
}

int denoise_shot(struct engine *e, struct shot *s, const struct shot_input *input)
{
    struct denoise d = begin(e, s);
    return denoise(&d, input);
}

/* Waits while neither of the two shots before has gone: decoding is slower then. */
static void hand_over(struct engine *e, int number)
{
    struct handover_cut cut = engine_cut(e, number);
    int64_t rows = shard_tokens(&cut.plan, comm_rank(e->mesh.denoise_group));
    phase_set("shot %d, waiting for room for its latents", number + 1);
    double start_s = clock_s();
    float *room = handover_latents_buffer(&e->handover);
    trace_span("comm", "wait for a free slot", 1, number, -1, start_s);
    op_download(e->dev, room, e->denoiser.x, (size_t)(rows * e->channels) * sizeof *room);
    device_finish(e->dev);
    handover_send_latents(&e->handover, number);
}

static int denoise_one(struct engine *e, int number)
{
    struct handover *h = &e->handover;
    struct shot_input input;
    struct denoise d = begin(e, &e->shots[number]); /* noise is drawn while the text is encoded */
    phase_set("shot %d, waiting for its text", number + 1);
    TRY(handover_receive_input(h, number, &input));
    if (number == 0) e->tally.begin = clock_s();
    TRY(denoise(&d, &input));
    hand_over(e, number);
    return STATUS_OK;
}

int denoise_loop(struct engine *e)
{
    int status = STATUS_OK;
    handover_start(&e->handover, engine_cut, e);
    for (int number = 0; number < e->job->shot_count && status == STATUS_OK; number++)
        status = denoise_one(e, number);
    if (status == STATUS_OK && e->helping) engine_begin_helping(e);
    phase_set("waiting for the codec ranks to finish");
    double start_s = clock_s();
    handover_end_denoise(&e->handover, status);
    trace_span("comm", "wait for the codec ranks", 1, -1, -1, start_s);
    status = codec_decode_last(e, status);
    handover_finish(&e->handover);
    return status;
}
