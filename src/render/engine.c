#include "render/engine.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/rope.h"
#include "parallel/heartbeat.h"
#include "parallel/transport.h"
#include "render/budget.h"
#include "render/conditioning.h"
#include "render/decode.h"
#include "render/dump.h"
#include "render/device_choice.h"
#include "render/film_writer.h"
#include "render/guidance.h"
#include "render/sidecar.h"
#include "render/workload.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- models ---------------------------------------------------------------------------------- */

static int open_codec(struct engine *e)
{
    struct codec *c = &e->codec;
    char spiece[4096];
    if (!e->mesh.codes) return STATUS_OK;
    c->self = comm_open_self();
    TRY(checkpoint_open_text_encoder(&c->text_encoder, e->job->text_encoder_path));
    TRY(checkpoint_tokenizer_path(c->text_encoder, spiece, sizeof spiece));
    TRY(tokenizer_open(&c->tokenizer, spiece));
    return t5_open(&c->t5, e->dev, c->text_encoder, e->job->text_encoder_max_tokens);
}

static int check_widths(const struct engine *e)
{
    const struct codec *c = &e->codec;
    if (e->mesh.codes && t5_width(c->t5) != e->text_width)
        return error_set(STATUS_INPUT,
                         "%s: embeddings are %lld wide, the transformer of %s takes %lld",
                         checkpoint_path(c->text_encoder), (long long)t5_width(c->t5),
                         checkpoint_path(e->checkpoint), (long long)e->text_width);
    if (vae_latent_channels(c->vae) != e->channels)
        return error_set(STATUS_INPUT, "%s: the VAE has %lld latent channels, the transformer %lld",
                         checkpoint_path(e->checkpoint), (long long)vae_latent_channels(c->vae),
                         (long long)e->channels);
    if (e->channels % 16)
        return error_set(STATUS_INPUT, "%s: %lld latent channels; a multiple of 16 is supported",
                         checkpoint_path(e->checkpoint), (long long)e->channels);
    return STATUS_OK;
}

/* Widths that ranks without the transformer need too, from the tensors everybody has mapped. */
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

/* ---- shots ----------------------------------------------------------------------------------- */

static int prepare_shots(struct engine *e)
{
    const struct job_options *job = e->job;
    int time = vae_time_factor(e->codec.vae), space = vae_space_factor(e->codec.vae);
    e->shots = xcalloc((size_t)job->shot_count, sizeof *e->shots);
    for (int i = 0; i < job->shot_count; i++) {
        struct shot *s = &e->shots[i];
        TRY(shot_prepare(s, i, &job->shots[i], &checkpoint_facts(e->checkpoint)->scheduler, time,
                         space));
        e->max_tokens = s->tokens > e->max_tokens ? s->tokens : e->max_tokens;
    }
    return STATUS_OK;
}

/* Rank 0 weighs the job and tells all. */
static int make_mesh(struct engine *e)
{
    struct world *w = e->world;
    const struct job_options *job = e->job;
    e->chosen_codec_ranks = 1;
    if (w->rank == 0 && w->size > 1) {
        workload_count(e);
        e->chosen_codec_ranks = balance_codec_ranks(&e->balance, w->size, job->denoise_ranks);
    }
    comm_broadcast_bytes(w->comm, &e->chosen_codec_ranks, sizeof e->chosen_codec_ranks, 0);
    return mesh_create(&e->mesh, w, job->denoise_ranks, job->codec_ranks, e->chosen_codec_ranks);
}

static int open_transport(struct engine *e)
{
    phase_set("opening the transport");
    if (e->job->dry_run) {
        transport_plan(&e->mesh, e->dev, e->job->transport, e->helping);
        return STATUS_OK;
    }
    return transport_open(&e->mesh, e->dev, e->job->transport, e->helping, e->transport,
                          sizeof e->transport);
}

static void open_reading(struct engine *e)
{
    char line[256];
    reading_open(&e->reading, &e->mesh, e->dev, e->resident, line, sizeof line);
    if (e->world->rank == 0 && line[0]) log_info("%s", line);
}

bool engine_owns(const struct engine *e, int shot)
{
    return e->mesh.codes && mesh_codec_of(&e->mesh, shot) == e->mesh.codec_index;
}

struct comm *engine_decode_group(const struct engine *e, int shot)
{
    return e->helping && shot == e->job->shot_count - 1 ? e->mesh.everyone : e->mesh.codec_group;
}

bool engine_decodes(const struct engine *e, int shot) { return engine_decode_group(e, shot); }

bool engine_encodes(const struct engine *e)
{
    if (e->codec_only) return false;
    for (int i = 0; i < e->job->shot_count; i++)
        if (engine_owns(e, i) && conditioning_tokens(&e->shots[i])) return true;
    return false;
}

struct video_settings engine_output(const struct engine *e, int shot)
{
    const struct shot_options *o = &e->job->shots[shot];
    const struct shot *s = &e->shots[shot];
    return (struct video_settings){.path = o->output,
                                   .encoder = o->encoder,
                                   .encoder_options = o->encoder_options,
                                   .bit_depth = o->bit_depth,
                                   .width = o->width,
                                   .height = o->height,
                                   .frame_rate = o->frame_rate,
                                   .color_primaries = o->color_primaries,
                                   .color_transfer = o->color_transfer,
                                   .color_matrix = o->color_matrix,
                                   .color_range = o->color_range,
                                   .frames = s->written,
                                   .first = s->first_frame,
                                   .segment_frames = o->segment_frames,
                                   .encoders = e->job->parallel_encoders,
                                   .threads = device_threads(e->dev)};
}

/* Before hours of rendering: can every output be written as asked? Each rank checks what it will
 * write. */
static int check_outputs(struct engine *e)
{
    if (e->world->rank == 0 && e->job->dump) TRY(dump_prepare(e->job->dump, e->job->shot_count));
    for (int i = 0; i < e->job->shot_count; i++) {
        struct video_settings v;
        if (film_writer_settings(e, i, &v)) TRY(video_check(&v));
        if (engine_owns(e, i)) TRY(sidecar_check(&e->job->shots[i]));
    }
    return STATUS_OK;
}

struct transformer_settings engine_transformer_settings(const struct engine *e, bool resident)
{
    return (struct transformer_settings){.max_tokens = e->max_tokens,
                                         .max_text_tokens = e->job->text_encoder_max_tokens,
                                         .text_slots = HANDOVER_TEXTS,
                                         .max_times = conditioning_most_tokens(e) ? 2 : 1,
                                         .order = e->job->attention_order,
                                         .replay = e->job->graphs == GRAPHS_AUTO,
                                         .resident = resident};
}

static int open_denoiser(struct engine *e)
{
    const struct job_options *job = e->job;
    if (!e->mesh.denoises) return STATUS_OK;
    struct transformer_settings s = engine_transformer_settings(e, e->resident);
    double start_s = clock_s();
    reading_begin(&e->reading);
    int status = transformer_open(&e->denoiser.transformer, e->dev, e->checkpoint,
                                  e->mesh.denoise_group, &s);
    reading_end(&e->reading);
    TRY(status);
    if (e->world->rank == 0)
        log_info("opened %s: %d blocks; weights %s, in %.1f s", checkpoint_path(e->checkpoint),
                 transformer_blocks(e->denoiser.transformer),
                 s.resident ? "resident" : "expanded at every use", clock_s() - start_s);
    if (e->world->rank == 0 && s.replay && s.resident && device_records(e->dev) &&
        !comm_is_direct(e->mesh.denoise_group))
        log_info("graphs are not used: denoise ranks exchange messages by way of the host");
    for (int i = 0; i < job->shot_count; i++)
        TRY(guidance_check(&job->shots[i], e->shots[i].schedule.sigma, e->shots[i].schedule.count,
                           transformer_blocks(e->denoiser.transformer)));
    return STATUS_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Latents that are decoded at a time. */
static int64_t window_tokens(const struct shot *s) { return decode_chunk(s) * s->h * s->w; }

static int64_t most_window_tokens(const struct engine *e)
{
    int64_t most = 0;
    for (int i = 0; i < e->job->shot_count; i++) {
        int64_t tokens = window_tokens(&e->shots[i]);
        most = tokens > most ? tokens : most;
    }
    return most;
}

struct handover_cut engine_cut(void *engine, int shot)
{
    const struct engine *e = engine;
    const struct shot *s = &e->shots[shot];
    return (struct handover_cut){.plan = shard_plan_make(s->tokens, e->mesh.denoise_ranks),
                                 .window = window_tokens(s)};
}

static void lay_out_latents(struct engine *e, struct arena *a)
{
    struct denoiser *d = &e->denoiser;
    if (!e->mesh.denoises) return;
    int64_t tokens = shard_most_tokens(e->max_tokens, e->mesh.denoise_ranks);
    int64_t floats = tokens * e->channels, conditioned = conditioning_most_tokens(e);
    d->x = arena_floats(a, floats);
    d->scratch = arena_floats(a, floats);
    for (int i = 0; i < 3; i++) d->velocity[i] = arena_floats(a, floats);
    if (!conditioned) return;
    d->start = arena_floats(a, conditioned * e->channels);
    d->row_index = arena_take(a, (size_t)tokens * sizeof *d->row_index);
}

static void lay_out_exchange(struct engine *e, struct arena *a)
{
    int64_t conditioned = conditioning_most_tokens(e);
    if (e->mesh.denoises) {
        e->denoiser.mixed = arena_floats(a, conditioned * e->channels);
        e->denoiser.sums.dev = e->dev;
        e->denoiser.sums.group = e->mesh.denoise_group;
        sequence_sums_lay_out(&e->denoiser.sums, a, shard_most_granules(e->max_tokens),
                              e->mesh.denoise_ranks);
    }
    if (e->mesh.codes || e->helping) {
        e->codec.window = arena_floats(a, 2 * most_window_tokens(e) * e->channels);
        e->codec.latents = arena_floats(a, most_window_tokens(e) * e->channels);
    }
    if (e->mesh.codes) {
        e->codec.log_variance = arena_floats(a, conditioned * e->channels);
        e->codec.encoded =
            arena_floats(a, conditioned ? conditioned * vae_encoder_outputs(e->codec.vae) : 0);
    }
    struct handover_sizes sizes = {.text_tokens = e->job->text_encoder_max_tokens,
                                   .text_width = e->text_width,
                                   .tokens = e->max_tokens,
                                   .window = most_window_tokens(e),
                                   .channels = e->channels,
                                   .conditioned = conditioned};
    handover_lay_out(&e->handover, a, &e->mesh, &sizes);
}

struct vae_stream *engine_open_stream(struct engine *e, const struct vae_task *task)
{
    struct vae_stream *s;
    struct arena memory = e->codec.streams;
    CHECK(vae_stream_open(&s, e->codec.vae, task) == STATUS_OK, "%s", error_message());
    vae_stream_lay_out(s, &memory);
    return s;
}

/* Room for the largest of this rank's shots. */
static void lay_out_pixels(struct engine *e, struct arena *images, struct arena *frames)
{
    int64_t floats = 0, bytes = 0;
    for (int i = 0; i < e->job->shot_count; i++) {
        const struct shot *s = &e->shots[i];
        const struct shot_options *o = s->options;
        if (!engine_owns(e, i)) continue;
        int64_t padded = engine_encodes(e) ? s->height * s->width * 3 : 0;
        int64_t kept = e->job->dump ? (int64_t)o->num_frames * o->height * o->width * 3 : 0;
        floats = padded > floats ? padded : floats;
        bytes = kept > bytes ? kept : bytes;
    }
    e->codec.image = arena_floats(images, floats);
    e->codec.frames = arena_take(frames, (size_t)bytes);
    e->codec.bytes = arena_take(frames, (size_t)e->codec.bytes_size);
    e->codec.pictures = arena_take(frames, (size_t)e->codec.pictures_size);
}

static void lay_out_decoder(struct engine *e)
{
    struct arena *streams = &e->codec.streams;
    streams->base = arena_take(&e->arenas[ARENA_VAE], streams->size_bytes);
    lay_out_pixels(e, &e->arenas[ARENA_IMAGES], &e->arenas[ARENA_FRAMES]);
}

void engine_lay_out(struct engine *e)
{
    lay_out_latents(e, &e->arenas[ARENA_LATENTS]);
    lay_out_exchange(e, &e->arenas[ARENA_EXCHANGE]);
    lay_out_decoder(e);
}

static void take_decoder_memory(struct engine *e)
{
    for (int i = ARENA_VAE; i < ENGINE_ARENAS; i++) arena_commit(&e->arenas[i]);
    lay_out_decoder(e);
    if (!e->resident) return;
    reading_begin(&e->reading);
    vae_make_resident(e->codec.vae);
    reading_end(&e->reading);
}

static void take_memory(struct engine *e)
{
    arena_commit(&e->arenas[ARENA_LATENTS]);
    lay_out_latents(e, &e->arenas[ARENA_LATENTS]);
    arena_commit(&e->arenas[ARENA_EXCHANGE]);
    lay_out_exchange(e, &e->arenas[ARENA_EXCHANGE]);
    if (e->mesh.codes) take_decoder_memory(e);
    if (e->codec.t5) t5_take_memory(e->codec.t5);
    if (engine_encodes(e) && e->resident) vae_encoder_make_resident(e->codec.vae);
}

void engine_begin_helping(struct engine *e)
{
    phase_set("taking memory for the last decode");
    transformer_close(e->denoiser.transformer);
    e->denoiser.transformer = NULL;
    take_decoder_memory(e);
    heartbeat_worked();
}

/* Ranks that would not only decode help, if that costs nothing. */
static int plan_memory(struct engine *e, struct budget *b)
{
    struct budget helped;
    bool wanted = e->helping;
    e->helping = false;
    TRY(world_agree(e->world, budget_plan(b, e)));
    if (!wanted) return STATUS_OK;
    e->helping = true;
    TRY(world_agree(e->world, budget_plan(&helped, e)));
    if (e->job->dry_run || budget_has_room(&helped, b, e)) {
        *b = helped;
        return STATUS_OK;
    }
    if (e->world->rank == 0)
        log_info("too little memory for all ranks to decode the last shot: the codec ranks will");
    e->helping = e->balance.last_by_all = false;
    return world_agree(e->world, budget_plan(b, e));
}

/* ---- open, close ----------------------------------------------------------------------------- */

/* Each stage is agreed on before the next: no rank waits for one that has already failed. */
int engine_open(struct engine *e, struct world *world, const struct job_options *job)
{
    struct budget budget;
    *e = (struct engine){.world = world, .job = job};
    phase_set("opening the models");
    e->helping = world->size > 1 && job->last_decode == LAST_DECODE_AUTO;
    TRY(world_agree(world, device_choice_open(&e->dev, world, job, job->dry_run)));
    TRY(world_agree(world, checkpoint_open(&e->checkpoint, job->checkpoint_path)));
    TRY(world_agree(world, find_widths(e)));
    TRY(world_agree(world, vae_open(&e->codec.vae, e->dev, e->checkpoint)));
    TRY(world_agree(world, prepare_shots(e)));
    TRY(world_agree(world, make_mesh(e)));
    TRY(world_agree(world, open_transport(e)));
    phase_set("opening the models");
    TRY(world_agree(world, open_codec(e)));
    TRY(world_agree(world, check_widths(e)));
    TRY(world_agree(world, conditioning_open(e)));
    TRY(plan_memory(e, &budget));
    if (job->dry_run) {
        budget_print_ranks(&budget, e);
        return STATUS_OK;
    }
    TRY(world_agree(world, budget_decide(&budget, e)));
    budget_print(&budget, e);
    TRY(world_agree(world, check_outputs(e)));
    open_reading(e);
    TRY(world_agree(world, open_denoiser(e)));
    take_memory(e);
    reading_close(&e->reading);
    return STATUS_OK;
}

int engine_open_codec(struct engine *e, struct world *world, const struct job_options *job)
{
    *e = (struct engine){.world = world, .job = job, .codec_only = true};
    phase_set("opening the VAE");
    TRY(world_agree(world, mesh_create_codec(&e->mesh, world)));
    TRY(world_agree(world, device_choice_open(&e->dev, world, job, false)));
    TRY(world_agree(world, open_transport(e)));
    TRY(world_agree(world, checkpoint_open(&e->checkpoint, job->checkpoint_path)));
    TRY(world_agree(world, vae_open(&e->codec.vae, e->dev, e->checkpoint)));
    e->channels = vae_latent_channels(e->codec.vae);
    e->codec.self = comm_open_self();
    return STATUS_OK;
}

int engine_plan_codec(struct engine *e)
{
    struct budget budget;
    TRY(world_agree(e->world, budget_plan(&budget, e)));
    TRY(world_agree(e->world, budget_decide(&budget, e)));
    if (!e->job->quiet) budget_print(&budget, e);
    if (e->world->rank == 0 && e->transport[0]) log_info("%s", e->transport);
    TRY(world_agree(e->world, check_outputs(e)));
    open_reading(e);
    take_memory(e);
    reading_close(&e->reading);
    return STATUS_OK;
}

void engine_close(struct engine *e)
{
    transformer_close(e->denoiser.transformer);
    vae_close(e->codec.vae);
    comm_close(e->codec.self);
    t5_close(e->codec.t5);
    tokenizer_close(e->codec.tokenizer);
    checkpoint_close(e->codec.text_encoder);
    checkpoint_close(e->checkpoint);
    for (int i = 0; i < ENGINE_ARENAS; i++) arena_free(&e->arenas[i]);
    reading_close(&e->reading);
    mesh_free(&e->mesh); /* its messages may be the device's */
    if (e->dev) device_close(e->dev);
    workload_free(e);
    free(e->shots);
}
