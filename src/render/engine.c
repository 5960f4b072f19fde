#include "render/engine.h"

#include "base/error.h"
#include "base/log.h"
#include "render/dump.h"
#include "render/guidance.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- device ----------------------------------------------------------------------------------------------------- */

/* Those this process may run on: a batch system's cpuset counts, not the machine. */
static int usable_processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* All ranks compute with the lowest instruction set of any host, so that mixed machines still give the same bytes. */
static int open_device(struct engine *e)
{
    static const char *const names[] = {"generic", "avx2", "avx512"};
    const struct job_options *job = e->job;
    int best = device_isa_level(device_best_isa());
    int level = strcmp(job->isa, "auto") == 0 ? best : device_isa_level(job->isa);
    if (strcmp(job->backend, "cuda") == 0)
        return error_set(STATUS_INPUT, "backend cuda: this build has the CPU backend only");
    if (level > best)
        return error_set(STATUS_INPUT, "isa %s: this CPU has %s at best", job->isa, device_best_isa());
    int threads = job->threads ? job->threads : usable_processors() / e->world->host_size;
    level = world_min(e->world, level);
    e->dev = device_open_cpu(threads < 1 ? 1 : threads, names[level]);
    return STATUS_OK;
}

/* Reordered fp32 weights on every rank of a host, or expanded from the file at every use. */
static bool weights_resident(const struct engine *e)
{
    if (e->job->weights != WEIGHTS_AUTO)
        return e->job->weights == WEIGHTS_RESIDENT;
    double memory = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    double needed = (double)transformer_packed_bytes(e->checkpoint) * e->world->host_size;
    return needed < 0.6 * memory;
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
    TRY(t5_open(&c->t5, e->dev, c->text_encoder, e->job->text_encoder_max_tokens));
    return vae_open(&c->vae, e->dev, e->checkpoint, weights_resident(e));
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
        if (!e->mesh.codes || mesh_codec_of(&e->mesh, i) != e->mesh.codec_index)
            continue;
        struct video_settings v = engine_output(e, i);
        TRY(video_check(&v));
    }
    return STATUS_OK;
}

static int open_denoiser(struct engine *e)
{
    const struct job_options *job = e->job;
    if (!e->mesh.denoises)
        return STATUS_OK;
    struct transformer_settings s = {.max_tokens = e->max_tokens,
                                     .max_text_tokens = job->text_encoder_max_tokens,
                                     .text_slots = HANDOVER_TEXTS,
                                     .max_times = 1,
                                     .order = job->attention_order,
                                     .resident = weights_resident(e)};
    double start_s = clock_s();
    TRY(transformer_open(&e->denoiser.transformer, e->dev, e->checkpoint, e->mesh.denoise_group, &s));
    if (e->world->rank == 0)
        log_info("opened %s: %d blocks; weights %s (%.2f GiB as fp32 on every denoise rank), in %.1f s",
                 checkpoint_path(e->checkpoint), transformer_blocks(e->denoiser.transformer),
                 s.resident ? "resident" : "expanded at every use",
                 (double)transformer_packed_bytes(e->checkpoint) / 0x1p30, clock_s() - start_s);
    for (int i = 0; i < job->shot_count; i++)
        TRY(guidance_check(&job->shots[i], e->shots[i].schedule.sigma, e->shots[i].schedule.count,
                           transformer_blocks(e->denoiser.transformer)));
    return STATUS_OK;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void lay_out(struct engine *e)
{
    struct arena *a = &e->arena;
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

static void take_memory(struct engine *e)
{
    arena_init(&e->arena, "latents and hand-over");
    lay_out(e);
    arena_commit(&e->arena);
    lay_out(e);
}

/* ---- open, close -------------------------------------------------------------------------------------------------- */

/* Each stage is agreed on before the next, so that no rank waits for one that has already failed. */
int engine_open(struct engine *e, struct world *world, const struct job_options *job)
{
    int factors[2];
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
    arena_free(&e->arena);
    mesh_free(&e->mesh);
    free(e->shots);
}
