#include "render/render.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/trace.h"
#include "render/codec.h"
#include "render/decode.h"
#include "render/denoise.h"
#include "render/version.h"
#include "render/workload.h"

#include <stdio.h>
#include <stdlib.h>

enum { JOB_FILE_LIMIT = 4 << 20 };

/* Without a job file everything comes from flags. */
static int read_job_file(const char *path, char **text, size_t *bytes)
{
    *text = NULL;
    *bytes = 0;
    return path ? file_read(path, JOB_FILE_LIMIT, text, bytes) : STATUS_OK;
}

int render_configure(struct job_options *job, struct world *world, int argc, char **argv,
                     bool *help)
{
    const char *path = NULL;
    char *text = NULL;
    size_t bytes = 0;
    *help = false;
    TRY(world_agree(world, options_find_job_file(argc, argv, &path, help)));
    if (*help) return STATUS_OK;
    int status =
        world_agree(world, world->rank == 0 ? read_job_file(path, &text, &bytes) : STATUS_OK);
    if (status == STATUS_OK) {
        world_share_bytes(world, &text, &bytes);
        status = world_agree(world,
                             options_parse(job, path ? text : NULL, bytes, path, argc, argv, help));
    }
    free(text);
    if (status == STATUS_OK) world_set_timeout(world, job->timeout_s);
    return status;
}

/* ---- announcing ------------------------------------------------------------------------------ */

static void print_mesh(const struct engine *e)
{
    const struct mesh *m = &e->mesh;
    log_info("version %s, %d rank%s: %d denoise, %d codec%s; %s (%s, %s), %d thread%s a rank",
             RINGREEL_VERSION, e->world->size, e->world->size == 1 ? "" : "s", m->denoise_ranks,
             m->codec_ranks, e->world->size == 1 ? " (one rank in both roles)" : "",
             device_name(e->dev), device_isa(e->dev),
             device_precision(e->dev) == PRECISION_BF16 ? "bf16" : "fp32", device_threads(e->dev),
             device_threads(e->dev) == 1 ? "" : "s");
    if (e->transport[0]) log_info("%s", e->transport);
    if (m->idle_ranks)
        log_warn("%d rank%s idle: denoise_ranks and codec_ranks leave nothing to do for them",
                 m->idle_ranks, m->idle_ranks == 1 ? " is" : "s are");
    workload_announce(e);
    if (e->helping)
        log_info("all ranks decode the last shot, once they have denoised it (last_decode: auto)");
    for (int i = 0; i < e->job->shot_count; i++) {
        const struct shot *s = &e->shots[i];
        struct shard_plan p = shard_plan_make(s->tokens, m->denoise_ranks);
        log_info("shot %d/%d: %dx%d, %d frames at %g fps: %lld tokens in %lld granules of %lld, %d "
                 "steps",
                 i + 1, e->job->shot_count, s->options->width, s->options->height,
                 s->options->num_frames, s->options->frame_rate, (long long)s->tokens,
                 (long long)p.granules, (long long)p.granule, s->schedule.count);
        if (s->options->conditioning.count)
            log_info("shot %d/%d: begins from %s", i + 1, e->job->shot_count,
                     s->options->conditioning.items[0].media);
        if (p.granules < m->denoise_ranks)
            log_warn(
                "shot %d: %lld granules for %d denoise ranks: %lld rank(s) idle during this shot",
                i + 1, (long long)p.granules, m->denoise_ranks,
                (long long)(m->denoise_ranks - p.granules));
    }
}

static void report_reading(const struct shared_reading *r)
{
    if (r->read_bytes + r->given_bytes > 0)
        log_json("weights", "\"read_bytes\":%lld,\"given_bytes\":%lld", (long long)r->read_bytes,
                 (long long)r->given_bytes);
}

int render_announce(const struct engine *e)
{
    const struct job_options *job = e->job;
    int status = STATUS_OK;
    if (e->world->rank == 0 && !job->quiet) {
        options_print_header(stderr, job);
        print_mesh(e);
    }
    if (job->trace) status = world_open_trace(e->world, job->trace);
    if (job->log_json && status == STATUS_OK) status = log_json_open(job->log_json, e->world->rank);
    if (status == STATUS_OK) report_reading(&e->reading);
    status = world_agree(e->world, status);
    if (status != STATUS_OK) trace_free(); /* nobody sends spans that nobody writes */
    return status;
}

/* ---- a world of one -------------------------------------------------------------------------- */

/* The next window is on its way to the host while one is decoded. */
struct own_latents {
    struct engine *e;
    const float *next; /* of the device, not yet asked for */
    int64_t left;      /* values from there on */
    int64_t window;    /* values of one, but for the last */
    int turn;
    uint64_t mark;
};

static float *own_window(const struct own_latents *own, int turn)
{
    return own->e->codec.window + turn % 2 * own->window;
}

static void ask_for_window(struct own_latents *own)
{
    int64_t n = own->left < own->window ? own->left : own->window;
    op_download(own->e->dev, own_window(own, own->turn), own->next, (size_t)n * sizeof *own->next);
    own->mark = device_mark(own->e->dev);
    own->next += n;
    own->left -= n;
}

static struct own_latents own_latents_of(struct engine *e, const struct shot *s)
{
    struct own_latents own = {.e = e,
                              .next = e->denoiser.x,
                              .left = s->tokens * e->channels,
                              .window = engine_cut(e, s->number).window * e->channels};
    ask_for_window(&own);
    return own;
}

static const float *next_own_latents(void *argument, int64_t tokens)
{
    struct own_latents *own = argument;
    device_wait(own->e->dev, own->mark);
    const float *window = own_window(own, own->turn++);
    CHECK(tokens * own->e->channels <= own->window, "%lld latents at a time", (long long)tokens);
    if (own->left > 0) ask_for_window(own);
    return window;
}

static int render_shot_alone(struct engine *e, struct shot *s)
{
    struct shot_input input = handover_input_buffer(&e->handover);
    TRY(codec_encode_input(e, s, &input));
    TRY(denoise_shot(e, s, &input));
    struct own_latents own = own_latents_of(e, s);
    return decode_shot(e, s, (struct latents_source){next_own_latents, &own});
}

int render_alone(struct engine *e)
{
    for (int i = 0; i < e->job->shot_count; i++) TRY(render_shot_alone(e, &e->shots[i]));
    return STATUS_OK;
}
