#include "render/engine.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/rope.h"
#include "parallel/heartbeat.h"
#include "render/dump.h"
#include "render/guidance.h"
#include "render/sidecar.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- device ----------------------------------------------------------------------------------------------------- */

static int check_device(const struct job_options *job, int level, int best)
{
    if (strcmp(job->backend, "cuda") == 0)
        return error_set(STATUS_INPUT, "backend cuda: this build has the CPU backend only");
    if (level > best)
        return error_set(STATUS_INPUT, "isa %s: this CPU has %s at best", job->isa, device_best_isa());
    return STATUS_OK;
}

/* All ranks compute with the lowest instruction set of any host, so that mixed machines still give the same bytes. */
static int open_device(struct engine *e)
{
    const struct job_options *job = e->job;
    int best = device_isa_level(device_best_isa());
    int level = strcmp(job->isa, "auto") == 0 ? best : device_isa_level(job->isa);
    int status = check_device(job, level, best);
    level = world_min(e->world, level); /* also where the check failed: it is collective */
    TRY(status);
    e->dev = device_open_cpu(job->threads ? job->threads : e->world->processors, device_isa_name(level));
    device_set_poll(e->dev, heartbeat_poll, NULL);
    return STATUS_OK;
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

static int open_codec(struct engine *e)
{
    struct codec *c = &e->codec;
    char spiece[4096];
    if (!e->mesh.codes)
        return STATUS_OK;
    TRY(checkpoint_open_text_encoder(&c->text_encoder, e->job->text_encoder_path));
    TRY(checkpoint_tokenizer_path(c->text_encoder, spiece, sizeof spiece));
    TRY(tokenizer_open(&c->tokenizer, spiece));
    arena_note(&e->taken, false);
    int status = t5_open(&c->t5, e->dev, c->text_encoder, e->job->text_encoder_max_tokens);
    arena_note(NULL, false);
    TRY(status);
    return vae_open(&c->vae, e->dev, e->checkpoint);
}

static int check_widths(const struct engine *e)
{
    const struct codec *c = &e->codec;
    if (e->mesh.codes && t5_width(c->t5) != e->text_width)
        return error_set(STATUS_INPUT, "%s: embeddings are %lld wide, the transformer of %s takes %lld",
                         checkpoint_path(c->text_encoder), (long long)t5_width(c->t5), checkpoint_path(e->checkpoint),
                         (long long)e->text_width);
    if (e->mesh.codes && vae_latent_channels(c->vae) != e->channels)
        return error_set(STATUS_INPUT, "%s: the VAE has %lld latent channels, the transformer %lld",
                         checkpoint_path(e->checkpoint), (long long)vae_latent_channels(c->vae), (long long)e->channels);
    if (e->channels % 16)
        return error_set(STATUS_INPUT, "%s: %lld latent channels; a multiple of 16 is supported",
                         checkpoint_path(e->checkpoint), (long long)e->channels);
    return STATUS_OK;
}

/* Widths that ranks without the transformer need too: read from the tensors everybody has mapped. */
static int find_widths(struct engine *e)
{
    static const int64_t any2[] = {-1, -1};
    const struct tensor *patchify, *caption;
    TRY(checkpoint_need(e->checkpoint, &patchify, 2, any2, "patchify_proj.weight"));
    TRY(checkpoint_need(e->checkpoint, &caption, 2, any2, "caption_projection.linear_1.weight"));
    e->width = patchify->shape[0];
    e->channels = patchify->shape[1];
    e->text_width = caption->shape[1];
    return STATUS_OK;
}

/* ---- shots ------------------------------------------------------------------------------------------------------- */

/* Only codec ranks open the VAE; everybody needs its factors. */
static void share_factors(struct engine *e, int factors[2])
{
    int codec = mesh_codec_world_rank(&e->mesh, 0);
    if (e->world->rank == codec) {
        factors[0] = vae_time_factor(e->codec.vae);
        factors[1] = vae_space_factor(e->codec.vae);
    }
    comm_broadcast_bytes(e->world->comm, factors, 2 * (int)sizeof *factors, codec);
}

static int prepare_shots(struct engine *e, const int factors[2])
{
    const struct job_options *job = e->job;
    e->shots = xcalloc((size_t)job->shot_count, sizeof *e->shots);
    for (int i = 0; i < job->shot_count; i++) {
        struct shot *s = &e->shots[i];
        TRY(shot_prepare(s, i, &job->shots[i], &checkpoint_facts(e->checkpoint)->scheduler, factors[0], factors[1]));
        e->max_tokens = s->tokens > e->max_tokens ? s->tokens : e->max_tokens;
    }
    return STATUS_OK;
}

static bool decodes_shot(const struct engine *e, int shot)
{
    return e->mesh.codes && mesh_codec_of(&e->mesh, shot) == e->mesh.codec_index;
}

struct video_settings engine_output(const struct engine *e, int shot)
{
    const struct shot_options *o = &e->job->shots[shot];
    return (struct video_settings){.path = o->output, .encoder = o->encoder, .encoder_options = o->encoder_options,
                                   .bit_depth = o->bit_depth, .width = o->width, .height = o->height,
                                   .frame_rate = o->frame_rate, .frames = o->num_frames,
                                   .threads = device_threads(e->dev)};
}

/* Before hours of rendering: can every output be written as asked? Each codec rank checks its own shots. */
static int check_outputs(struct engine *e)
{
    if (e->world->rank == 0 && e->job->dump)
        TRY(dump_prepare(e->job->dump, e->job->shot_count));
    for (int i = 0; i < e->job->shot_count; i++) {
        if (!decodes_shot(e, i))
            continue;
        struct video_settings v = engine_output(e, i);
        TRY(video_check(&v));
        TRY(sidecar_check(&e->job->shots[i]));
    }
    return STATUS_OK;
}

static struct transformer_settings transformer_settings_of(const struct engine *e, bool resident)
{
    return (struct transformer_settings){.max_tokens = e->max_tokens,
                                         .max_text_tokens = e->job->text_encoder_max_tokens,
                                         .text_slots = HANDOVER_TEXTS,
                                         .max_times = 1,
                                         .order = e->job->attention_order,
                                         .resident = resident};
}

static int open_denoiser(struct engine *e)
{
    const struct job_options *job = e->job;
    if (!e->mesh.denoises)
        return STATUS_OK;
    struct transformer_settings s = transformer_settings_of(e, e->resident);
    double start_s = clock_s();
    TRY(transformer_open(&e->denoiser.transformer, e->dev, e->checkpoint, e->mesh.denoise_group, &s));
    if (e->world->rank == 0)
        log_info("opened %s: %d blocks; weights %s, in %.1f s", checkpoint_path(e->checkpoint),
                 transformer_blocks(e->denoiser.transformer), s.resident ? "resident" : "expanded at every use",
                 clock_s() - start_s);
    for (int i = 0; i < job->shot_count; i++)
        TRY(guidance_check(&job->shots[i], e->shots[i].schedule.sigma, e->shots[i].schedule.count,
                           transformer_blocks(e->denoiser.transformer)));
    return STATUS_OK;
}

/* ---- memory: laid out ---------------------------------------------------------------------------------------------- */

static void lay_out_exchange(struct engine *e, struct arena *a)
{
    if (e->mesh.denoises) {
        int64_t floats = shard_most_tokens(e->max_tokens, e->mesh.denoise_ranks) * e->channels;
        e->denoiser.x = arena_floats(a, floats);
        e->denoiser.scratch = arena_floats(a, floats);
        for (int i = 0; i < 3; i++)
            e->denoiser.velocity[i] = arena_floats(a, floats);
        e->denoiser.sums.dev = e->dev;
        e->denoiser.sums.group = e->mesh.denoise_group;
        sequence_sums_lay_out(&e->denoiser.sums, a, shard_most_granules(e->max_tokens), e->mesh.denoise_ranks);
    }
    if (e->mesh.codes)
        e->codec.latents = arena_floats(a, e->max_tokens * e->channels);
    handover_lay_out(&e->handover, a, &e->mesh, e->text_width, e->job->text_encoder_max_tokens, e->max_tokens, e->channels);
}

/* Room for the largest of this rank's shots. */
static void lay_out_pixels(struct engine *e, struct arena *video, struct arena *frames)
{
    int64_t floats = 0, bytes = 0;
    for (int i = 0; i < e->job->shot_count; i++) {
        const struct shot *s = &e->shots[i];
        const struct shot_options *o = s->options;
        if (!decodes_shot(e, i))
            continue;
        int64_t padded = s->frames * s->height * s->width * 3;
        int64_t kept = (e->job->dump ? (int64_t)o->num_frames : 1) * o->height * o->width * 3;
        floats = padded > floats ? padded : floats;
        bytes = kept > bytes ? kept : bytes;
    }
    e->codec.video = arena_floats(video, floats);
    e->codec.frames = arena_take(frames, (size_t)bytes);
}

static void lay_out(struct engine *e)
{
    lay_out_exchange(e, &e->arenas[ARENA_EXCHANGE]);
    vae_lay_out(&e->codec.decode, &e->arenas[ARENA_DECODE]);
    lay_out_pixels(e, &e->arenas[ARENA_VIDEO], &e->arenas[ARENA_FRAMES]);
}

static void take_memory(struct engine *e)
{
    for (int i = 0; i < ENGINE_ARENAS; i++)
        arena_commit(&e->arenas[i]);
    lay_out(e);
    if (e->mesh.codes && e->resident)
        vae_make_resident(e->codec.vae);
}

/* ---- memory: planned ----------------------------------------------------------------------------------------------- */

/* What this rank will take with weights expanded at every use, and with resident ones. */
struct needs {
    struct memory_plan plan[2]; /* [resident] */
    int64_t bytes[2], host_bytes[2];
    int64_t mappable, available; /* to this process, to this host */
    bool cramped[2];             /* does not fit this process */
    bool host_cramped[2];        /* nor that of some rank on this host */
};

static int plan_engine_arenas(struct engine *e, struct memory_plan *p)
{
    static const char *const names[ENGINE_ARENAS] = {"latents and hand-over", "VAE decode", "decoded video", "frames"};
    for (int i = 0; i < ENGINE_ARENAS; i++)
        arena_init(&e->arenas[i], names[i]);
    for (int i = 0; i < e->job->shot_count; i++) {
        const struct shot *s = &e->shots[i];
        if (decodes_shot(e, i) && !vae_plan(e->codec.vae, &e->codec.decode, s->f, s->h, s->w))
            return error_set(STATUS_INPUT, "shot %d: %dx%d, %d frames are too many for the memory of any machine", i + 1,
                             s->options->width, s->options->height, s->options->num_frames);
    }
    lay_out(e);
    for (int i = 0; i < ENGINE_ARENAS; i++)
        memory_plan_add(p, names[i], (int64_t)e->arenas[i].used_bytes);
    return STATUS_OK;
}

static int plan_transformer(struct engine *e, struct memory_plan *p)
{
    struct transformer *t;
    struct transformer_settings s = transformer_settings_of(e, false);
    arena_note(p, true);
    int status = transformer_open(&t, e->dev, e->checkpoint, e->mesh.denoise_group, &s);
    arena_note(NULL, false);
    TRY(status);
    transformer_close(t);

    size_t tables = 0;
    int64_t tokens = shard_most_tokens(e->max_tokens, e->mesh.denoise_ranks);
    for (int i = 0; i < e->job->shot_count; i++) {
        struct arena a;
        struct rope r;
        struct rope_grid grid = {.f = e->shots[i].f, .h = e->shots[i].h, .w = e->shots[i].w};
        arena_init(&a, "RoPE tables");
        rope_lay_out(&r, &a, e->width, &grid, tokens);
        tables = a.used_bytes > tables ? a.used_bytes : tables;
    }
    memory_plan_add(p, "RoPE tables", (int64_t)tables);
    return STATUS_OK;
}

static int64_t expanded_bytes(const struct checkpoint *c, const char *weight)
{
    const struct tensor *t = checkpoint_find(c, weight);
    return t ? tensor_count(t) * (int64_t)sizeof(float) : 0;
}

/* The text encoder's weights are always expanded at use, one layer at a time. */
static void plan_weights(const struct engine *e, struct memory_plan *p, bool resident)
{
    int64_t layer = 0, text_layer = 0;
    if (e->mesh.denoises && resident)
        memory_plan_add(p, "transformer weights", (int64_t)transformer_packed_bytes(e->checkpoint));
    if (e->mesh.denoises && !resident)
        layer = expanded_bytes(e->checkpoint, "adaln_single.linear.weight"); /* the widest */
    if (e->mesh.codes) {
        memory_plan_add(p, "VAE weights", vae_packed_bytes(e->codec.vae, resident));
        text_layer = expanded_bytes(e->codec.text_encoder, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight");
    }
    memory_plan_add(p, "one layer's weights", text_layer > layer ? text_layer : layer);
}

static int plan_memory(struct engine *e, struct needs *n)
{
    struct memory_plan plan = e->taken;
    *n = (struct needs){0};
    TRY(plan_engine_arenas(e, &plan));
    if (e->mesh.denoises)
        TRY(plan_transformer(e, &plan));
    for (int resident = 0; resident < 2; resident++) {
        n->plan[resident] = plan;
        plan_weights(e, &n->plan[resident], resident);
        n->bytes[resident] = memory_plan_bytes(&n->plan[resident]);
    }
    return STATUS_OK;
}

/* ---- memory: decided ----------------------------------------------------------------------------------------------- */

/* The largest shot that this rank has a part in. */
static const struct shot *largest_shot(const struct engine *e)
{
    const struct shot *largest = &e->shots[0];
    for (int i = 1; i < e->job->shot_count; i++)
        if ((e->mesh.denoises || decodes_shot(e, i)) && e->shots[i].tokens > largest->tokens)
            largest = &e->shots[i];
    return largest;
}

static const char *plural(int n) { return n == 1 ? "" : "s"; }

static int refuse(const struct engine *e, const struct needs *n)
{
    const struct shot *s = largest_shot(e);
    int ranks = e->world->host_size;
    char head[256], parts[512], advice[96] = "", needed[32], there[32], streamed[32];
    if (n->cramped[e->resident])
        snprintf(head, sizeof head, "the limit of addresses (ulimit -v) leaves rank %d %s", e->world->rank,
                 memory_text(n->mappable, there));
    else
        snprintf(head, sizeof head, "%d rank%s on %s need%s %s, available are %s", ranks, plural(ranks), e->world->host,
                 ranks == 1 ? "s" : "", memory_text(n->host_bytes[e->resident], needed), memory_text(n->available, there));
    if (e->resident && n->host_bytes[false] <= n->available && !n->host_cramped[false])
        snprintf(advice, sizeof advice, ", or --weights stream (%s)", memory_text(n->host_bytes[false], streamed));
    else if (!e->mesh.codes)
        snprintf(advice, sizeof advice, ", or denoise ranks on more hosts");
    else
        snprintf(advice, sizeof advice, "; more ranks do not: one decodes a whole shot");
    return error_set(STATUS_INPUT,
                     "not enough memory: %s; %s rank %d, for shot %d (%dx%d, %d frames): %s; fewer frames or a smaller "
                     "picture help%s", head, mesh_role_name(&e->mesh), e->world->rank, s->number + 1, s->options->width,
                     s->options->height, s->options->num_frames,
                     memory_plan_text(&n->plan[e->resident], parts, sizeof parts), advice);
}

/* Stacks of threads and what the video encoder takes: small beside the rest, but a limit of addresses is a hard one. */
enum { UNPLANNED_ADDRESSES = 128 << 20 };

/* Collective over the world. All ranks of a host see the same sums and so decide alike; hosts may differ. Where a plan
 * does not fit, the rank that needs most is the one that says so. */
static int decide_memory(struct engine *e, struct needs *n)
{
    struct world *w = e->world;
    int64_t taken = memory_plan_bytes(&e->taken);
    int64_t addresses = memory_addresses();
    n->mappable = addresses > UNPLANNED_ADDRESSES ? addresses - UNPLANNED_ADDRESSES : 0;
    n->available = world_host_sum(w, w->host_rank == 0 ? memory_available() : 0);
    for (int resident = 0; resident < 2; resident++) {
        n->cramped[resident] = n->bytes[resident] - taken > n->mappable;
        n->host_cramped[resident] = world_host_sum(w, n->cramped[resident]) > 0;
        n->host_bytes[resident] = world_host_sum(w, n->bytes[resident]);
    }
    bool resident_is_easy = !n->host_cramped[true] && n->host_bytes[true] <= n->available / 100 * 85;
    e->resident = e->job->weights == WEIGHTS_RESIDENT || (e->job->weights == WEIGHTS_AUTO && resident_is_easy);

    bool refused = n->cramped[e->resident] || n->host_bytes[e->resident] > n->available;
    int64_t mib = n->bytes[e->resident] >> 20;
    int need = refused ? mib < INT_MAX ? (int)mib + 1 : INT_MAX : 0;
    int largest = -world_min(w, -need);
    return refused && need == largest ? refuse(e, n) : STATUS_OK;
}

/* One line for each role, from its first rank. */
static void print_plan(const struct engine *e, const struct needs *n)
{
    char parts[512], host[32], available[32];
    if (e->world->rank != 0 && e->world->rank != mesh_codec_world_rank(&e->mesh, 0))
        return;
    log_info("memory of a %s rank: %s; %d rank%s on %s: %s of %s available", mesh_role_name(&e->mesh),
             memory_plan_text(&n->plan[e->resident], parts, sizeof parts), e->world->host_size,
             plural(e->world->host_size), e->world->host, memory_text(n->host_bytes[e->resident], host),
             memory_text(n->available, available));
}

/* ---- open, close -------------------------------------------------------------------------------------------------- */

/* Each stage is agreed on before the next, so that no rank waits for one that has already failed. */
int engine_open(struct engine *e, struct world *world, const struct job_options *job)
{
    int factors[2];
    struct needs needs;
    *e = (struct engine){.world = world, .job = job};
    phase_set("opening the models");
    TRY(world_agree(world, mesh_create(&e->mesh, world, job->denoise_ranks, job->codec_ranks, job->shot_count)));
    TRY(world_agree(world, open_device(e)));
    TRY(world_agree(world, checkpoint_open(&e->checkpoint, job->checkpoint_path)));
    TRY(world_agree(world, find_widths(e)));
    TRY(world_agree(world, open_codec(e)));
    TRY(world_agree(world, check_widths(e)));
    share_factors(e, factors);
    TRY(world_agree(world, prepare_shots(e, factors)));
    TRY(world_agree(world, plan_memory(e, &needs)));
    TRY(world_agree(world, decide_memory(e, &needs)));
    print_plan(e, &needs);
    TRY(world_agree(world, check_outputs(e)));
    TRY(world_agree(world, open_denoiser(e)));
    take_memory(e);
    return STATUS_OK;
}

void engine_close(struct engine *e)
{
    transformer_close(e->denoiser.transformer);
    vae_close(e->codec.vae);
    t5_close(e->codec.t5);
    tokenizer_close(e->codec.tokenizer);
    checkpoint_close(e->codec.text_encoder);
    checkpoint_close(e->checkpoint);
    if (e->dev)
        device_close(e->dev);
    for (int i = 0; i < ENGINE_ARENAS; i++)
        arena_free(&e->arenas[i]);
    mesh_free(&e->mesh);
    free(e->shots);
}
