#include "render/decode.h"

#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "base/rng.h"
#include "base/trace.h"
#include "parallel/heartbeat.h"
#include "render/conditioning.h"
#include "render/dump.h"
#include "render/film.h"
#include "render/noise.h"
#include "render/sidecar.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- latents --------------------------------------------------------------------------------- */

/* The reference's global generator has drawn the stochastic steps' noise before it draws the decode
 * noise. */
static void skip_step_noise(struct rng *r, const struct shot *s, int64_t channels)
{
    if (!s->options->stochastic_sampling) return;
    for (int i = 0; i < s->schedule.count; i++, heartbeat_worked())
        noise_skip(r, s->tokens, channels);
}

/* In double and rounded once, so that every host gives the same bits. */
static float sigmoid(float x) { return (float)(1 / (1 + exp(-(double)x))); }

enum { DRAW = 256 }; /* numbers at a time */

/* Official order (pipeline spec 1.12): decode noise on normalised latents, tone map, then
 * un-normalise. The noise is drawn as the reference draws it for a permuted tensor on the CPU:
 * scalar path, in token order. latents [tokens, C], the next of the shot, become z. */
static void prepare_latents(struct engine *e, const struct shot *s, const float *latents,
                            int64_t tokens, float *z, struct rng *r)
{
    const struct shot_options *o = s->options;
    int64_t n = tokens * e->channels;
    double sigma = o->decode_noise_scale < 0 ? o->decode_timestep : o->decode_noise_scale;
    float noise[DRAW], keep = 1 - (float)sigma, k = 0.75f * (float)o->tone_map_compression_ratio;
    memcpy(z, latents, (size_t)n * sizeof *z);
    for (int64_t at = 0; vae_wants_timestep(e->codec.vae) && at < n; at += DRAW) {
        int64_t count = n - at < DRAW ? n - at : DRAW;
        rng_randn_strided(r, noise, (size_t)count);
        for (int64_t i = 0; i < count; i++) z[at + i] = z[at + i] * keep + noise[i] * (float)sigma;
    }
    for (int64_t i = 0; k > 0 && i < n; i++)
        z[i] *= 1 - 0.8f * k * sigmoid(4 * k * (fabsf(z[i]) - 1));
    vae_unnormalize(e->codec.vae, z, tokens);
}

/* The generator behind the decode noise of the whole shot: what the decoder itself draws from. */
static struct rng behind_decode_noise(struct engine *e, const struct shot *s, struct rng r)
{
    float noise[DRAW];
    bool both = vae_wants_timestep(e->codec.vae) && vae_wants_noise(e->codec.vae);
    int64_t n = both ? s->tokens * e->channels : 0;
    for (int64_t at = 0; at < n; at += DRAW)
        rng_randn_strided(&r, noise, (size_t)(n - at < DRAW ? n - at : DRAW));
    return r;
}

/* ---- the owner's record of them -------------------------------------------------------------- */

struct record {
    struct engine *e;
    struct digest *digest; /* NULL on other ranks */
    struct latents_dump dump;
    int status;
};

static int record_open(struct record *r, struct engine *e, const struct shot *s)
{
    if (!engine_owns(e, s->number)) return STATUS_OK;
    r->e = e;
    r->digest = digest_open();
    if (!e->job->dump) return STATUS_OK;
    return dump_latents_open(&r->dump, e->job->dump, s->number, e->channels, s->f, s->h, s->w);
}

static void record_add(struct record *r, const float *latents, int64_t tokens)
{
    if (!r->digest) return;
    digest_add(r->digest, latents, (size_t)(tokens * r->e->channels) * sizeof *latents);
    if (r->e->job->dump) r->status = dump_latents_add(&r->dump, latents, tokens);
}

static int record_close(struct record *r, int status, char sha256[65])
{
    if (!r->digest) return status;
    digest_close(r->digest, sha256);
    status = r->status != STATUS_OK ? r->status : status;
    return r->e->job->dump ? dump_latents_close(&r->dump, status) : status;
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* Progress of the decoder, and the moment when messages move. */
static void report_decode(void *argument, int64_t done, int64_t total)
{
    struct progress *p = argument;
    p->total = total;
    progress_advance(p, done);
}

enum { POSITIONS = 512, FRAMES = 4 }; /* latents at a time, about, in at most so many frames */

static int64_t largest_share(int64_t extent, int ranks) { return (extent + ranks - 1) / ranks; }

enum vae_axis decode_axis(int64_t h, int64_t w, int ranks)
{
    int64_t by_rows = largest_share(h, ranks) * w;
    int64_t by_columns = largest_share(w, ranks) * h;
    return by_rows <= by_columns ? VAE_ROWS : VAE_COLUMNS;
}

int64_t decode_chunk(const struct shot *s)
{
    int64_t chunk = POSITIONS / (s->h * s->w), most = s->f < FRAMES ? s->f : FRAMES;
    return chunk < 1 ? 1 : chunk < most ? chunk : most;
}

struct vae_span decode_span(const struct shot *s)
{
    return (struct vae_span){s->first_frame, s->first_frame + s->written};
}

struct vae_task decode_task(const struct engine *e, const struct shot *s)
{
    struct comm *group = engine_decode_group(e, s->number);
    return (struct vae_task){.h = s->h,
                             .w = s->w,
                             .chunk = decode_chunk(s),
                             .group = group,
                             .axis = decode_axis(s->h, s->w, comm_size(group))};
}

static int worse(int a, int b) { return a > b ? a : b; }

/* Latents that no wanted frame comes from are taken all the same: the noise on all of them is one
 * chain, and the record is of the whole shot. All ranks leave when one of the owner's files cannot
 * be written. */
static int decode(struct film *f, const struct vae_task *task, struct latents_source source,
                  struct record *record, struct rng *r)
{
    struct engine *e = f->e;
    const struct shot *s = f->shot;
    struct progress progress;
    char label[48];
    snprintf(label, sizeof label, "shot %d/%d decode", s->number + 1, e->job->shot_count);
    phase_set("shot %d decode", s->number + 1);
    if (f->owns) progress_start(&progress, label, NULL, 1);
    struct vae_progress report = {report_decode, &progress};
    struct rng maps = behind_decode_noise(e, s, *r);
    struct vae_stream *stream = engine_open_stream(e, task);
    int64_t frame = s->h * s->w;
    vae_stream_begin(stream, s->f, (float)s->options->decode_timestep, &maps,
                     (struct vae_sink){film_take, f}, f->owns ? &report : NULL);
    struct vae_span wanted = vae_stream_narrow(stream, decode_span(s)); /* latents */
    int status = STATUS_OK;
    for (int64_t i = 0; i < s->f && status == STATUS_OK; i += task->chunk) {
        int64_t n = smaller(s->f - i, task->chunk), tokens = n * frame;
        int64_t first = larger(i, wanted.first), end = smaller(i + n, wanted.end);
        const float *latents = source.next(source.argument, tokens);
        record_add(record, latents, tokens);
        if (i < wanted.end) prepare_latents(e, s, latents, tokens, e->codec.latents, r);
        if (first < end)
            vae_stream_push(stream, e->codec.latents + (first - i) * frame * e->channels,
                            end - first, end == wanted.end);
        status = comm_max(f->group, worse(f->writer.status, record->status));
    }
    if (status == STATUS_OK) film_end(f);
    vae_stream_close(stream);
    if (f->owns && status == STATUS_OK) progress_end(&progress);
    return status;
}

static int decode_into_file(struct engine *e, const struct shot *s, struct latents_source source,
                            struct sidecar_facts *facts)
{
    struct film f;
    struct record record = {0};
    struct vae_task task = decode_task(e, s);
    struct rng r = conditioning_global_stream(e, s);
    double start_s = clock_s();
    int opened = film_open(&f, e, s, task.axis);
    if (opened == STATUS_OK) opened = record_open(&record, e, s);
    int status = comm_max(f.group, opened);
    if (status == STATUS_OK) {
        skip_step_noise(&r, s, e->channels);
        status = decode(&f, &task, source, &record, &r);
    }
    status = record_close(&record, status, facts->latents_sha256);
    status = film_close(&f, status, facts->frames_sha256);
    facts->decode_s = clock_s() - start_s - f.writer.writing_s;
    trace_span("codec", "decode", 0, s->number, -1, start_s);
    log_json("stage", "\"name\":\"decode\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             facts->decode_s);
    if (f.owns)
        log_json("stage", "\"name\":\"write\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
                 f.writer.writing_s);
    return opened != STATUS_OK ? opened : status;
}

/* ---- the owner's report ---------------------------------------------------------------------- */

static int report_shot(struct engine *e, const struct shot *s, const struct sidecar_facts *facts)
{
    const struct shot_options *o = s->options;
    if (e->job->dump)
        TRY(dump_frames(e->job->dump, s->number, e->codec.frames, s->written, o->height, o->width));
    TRY(sidecar_write(e, s, facts));
    if (e->job->digest) {
        printf("digest shot %d latents %s frames %s\n", s->number + 1, facts->latents_sha256,
               facts->frames_sha256);
        if (fflush(stdout) != 0)
            return error_set(STATUS_INPUT, "digest: standard output: %s", strerror(errno));
    }
    log_info("shot %d/%d: wrote %s (%d frames, %dx%d)", s->number + 1, e->job->shot_count,
             o->output, (int)s->written, o->width, o->height);
    return STATUS_OK;
}

int decode_shot(struct engine *e, const struct shot *s, struct latents_source latents)
{
    struct sidecar_facts facts = {0};
    bool owns = engine_owns(e, s->number);
    int mine = decode_into_file(e, s, latents, &facts);
    if (mine == STATUS_OK && owns) mine = report_shot(e, s, &facts);
    int status = comm_max(engine_decode_group(e, s->number), mine);
    if (mine != STATUS_OK) return *error_message() ? mine : STATUS_STOPPED; /* who knows says why */
    return status != STATUS_OK ? STATUS_STOPPED : STATUS_OK;
}
