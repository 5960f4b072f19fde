#include "render/decode.h"

#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/trace.h"
#include "media/digest.h"
#include "parallel/heartbeat.h"
#include "render/conditioning.h"
#include "render/dump.h"
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
        noise_draw(r, RNG_TORCH, s->tokens, channels, 0, 0, NULL);
}

/* In double and rounded once, so that every host gives the same bits. */
static float sigmoid(float x) { return (float)(1 / (1 + exp(-(double)x))); }

/* Official order (pipeline spec 1.12): decode noise on normalised latents, tone map, then
 * un-normalise. The noise is drawn as the reference draws it for a permuted tensor on the CPU:
 * scalar path, in token order. */
static void prepare_latents(struct engine *e, const struct shot *s, const float *latents, float *z,
                            struct rng *r)
{
    const struct shot_options *o = s->options;
    int64_t n = s->tokens * e->channels;
    double sigma = o->decode_noise_scale < 0 ? o->decode_timestep : o->decode_noise_scale;
    float k = 0.75f * (float)o->tone_map_compression_ratio;
    memcpy(z, latents, (size_t)n * sizeof *z);
    if (vae_wants_timestep(e->codec.vae)) {
        float noise[256], keep = 1 - (float)sigma;
        for (int64_t at = 0; at < n; at += 256) {
            int64_t count = n - at < 256 ? n - at : 256;
            rng_randn_strided(r, noise, (size_t)count);
            for (int64_t i = 0; i < count; i++)
                z[at + i] = z[at + i] * keep + noise[i] * (float)sigma;
        }
    }
    for (int64_t i = 0; k > 0 && i < n; i++)
        z[i] *= 1 - 0.8f * k * sigmoid(4 * k * (fabsf(z[i]) - 1));
    vae_unnormalize(e->codec.vae, z, s->tokens);
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* A shot on its way into its file. */
struct film {
    struct engine *e;
    const struct shot *shot;
    struct video_writer *writer;
    struct digest *digest;
    int64_t frames; /* written */
    int status;
    double writing_s;
};

/* Cuts the asked picture out of a padded frame [height, width, 3] and makes bytes of it. */
static void crop_frame(struct film *f, const float *frame, uint8_t *rgb)
{
    const struct shot *s = f->shot;
    const struct shot_options *o = s->options;
    for (int64_t y = 0; y < o->height; y++)
        op_to_bytes(f->e->dev, rgb + y * o->width * 3,
                    frame + ((s->top + y) * s->width + s->left) * 3, 3 * (int64_t)o->width);
}

/* The clip is padded at its end: frames beyond what was asked are dropped. */
static void write_frames(void *argument, const float *frames, int64_t n)
{
    struct film *f = argument;
    const struct shot_options *o = f->shot->options;
    size_t bytes = (size_t)o->height * (size_t)o->width * 3;
    double start_s = clock_s();
    for (int64_t i = 0; i < n && f->frames < o->num_frames && f->status == STATUS_OK; i++) {
        uint8_t *rgb = f->e->codec.frames + (f->e->job->dump ? (size_t)f->frames * bytes : 0);
        crop_frame(f, frames + i * f->shot->height * f->shot->width * 3, rgb);
        digest_add(f->digest, rgb, bytes);
        f->status = video_write(f->writer, rgb);
        f->frames++;
        handover_poll(&f->e->handover);
    }
    f->writing_s += clock_s() - start_s;
    trace_span("codec", "encode video", 1, f->shot->number, -1, start_s);
}

/* Progress of the decoder, and the moment when messages move. */
static void report_decode(void *argument, int64_t done, int64_t total)
{
    struct progress *p = argument;
    p->total = total;
    progress_advance(p, done);
}

enum { POSITIONS = 512 }; /* latents at a time, about */

struct vae_task decode_task(const struct engine *e, const struct shot *s)
{
    int64_t chunk = POSITIONS / (s->h * s->w);
    chunk = chunk < 1 ? 1 : chunk < s->f ? chunk : s->f;
    return (struct vae_task){.h = s->h, .w = s->w, .chunk = chunk, .group = e->codec.group};
}

/* z [S, C], un-normalised. */
static void decode(struct film *f, const float *z, struct rng *noise)
{
    struct engine *e = f->e;
    const struct shot *s = f->shot;
    struct progress progress;
    char label[48];
    snprintf(label, sizeof label, "shot %d/%d decode", s->number + 1, e->job->shot_count);
    phase_set("shot %d decode", s->number + 1);
    progress_start(&progress, label, NULL, 1);
    struct vae_progress report = {report_decode, &progress};
    struct vae_task task = decode_task(e, s);
    struct vae_stream *stream = engine_open_stream(e, &task);
    vae_stream_begin(stream, s->f, (float)s->options->decode_timestep, noise,
                     (struct vae_sink){write_frames, f}, &report);
    for (int64_t i = 0; i < s->f && f->status == STATUS_OK; i += task.chunk) {
        int64_t n = s->f - i < task.chunk ? s->f - i : task.chunk;
        vae_stream_push(stream, z + i * s->h * s->w * e->channels, n, i + n == s->f);
    }
    vae_stream_close(stream);
    progress_end(&progress);
}

/* The file is whole, or there is none. */
static int finish(struct film *f, char sha256[65])
{
    double start_s = clock_s();
    digest_close(f->digest, sha256);
    if (f->status != STATUS_OK) {
        video_abandon(f->writer);
        return f->status;
    }
    phase_set("shot %d finish video", f->shot->number + 1);
    heartbeat_worked();
    int status = video_finish(f->writer);
    heartbeat_worked();
    f->writing_s += clock_s() - start_s;
    return status;
}

static int film_shot(struct engine *e, const struct shot *s, const float *latents,
                     struct sidecar_facts *facts)
{
    struct film f = {.e = e, .shot = s};
    struct video_settings settings = engine_output(e, s->number);
    struct rng r = conditioning_global_stream(e, s);
    double start_s = clock_s();
    TRY(video_open(&f.writer, &settings));
    f.digest = digest_open();
    skip_step_noise(&r, s, e->channels);
    prepare_latents(e, s, latents, e->codec.latents, &r);
    decode(&f, e->codec.latents, &r);
    int status = finish(&f, facts->frames_sha256);
    facts->decode_s = clock_s() - start_s - f.writing_s;
    trace_span("codec", "decode", 0, s->number, -1, start_s);
    log_json("stage", "\"name\":\"decode\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             facts->decode_s);
    log_json("stage", "\"name\":\"write\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             f.writing_s);
    return status;
}

int decode_shot(struct engine *e, const struct shot *s, const float *latents)
{
    const struct shot_options *o = s->options;
    struct sidecar_facts facts = {0};
    digest_of(latents, (size_t)(s->tokens * e->channels) * sizeof *latents, facts.latents_sha256);
    if (e->job->dump)
        TRY(dump_latents(e->job->dump, s->number, latents, e->channels, s->f, s->h, s->w));
    TRY(film_shot(e, s, latents, &facts));
    if (e->job->dump)
        TRY(dump_frames(e->job->dump, s->number, e->codec.frames, o->num_frames, o->height,
                        o->width));
    TRY(sidecar_write(e, s, &facts));
    if (e->job->digest) {
        printf("digest shot %d latents %s frames %s\n", s->number + 1, facts.latents_sha256,
               facts.frames_sha256);
        if (fflush(stdout) != 0)
            return error_set(STATUS_INPUT, "digest: standard output: %s", strerror(errno));
    }
    log_info("shot %d/%d: wrote %s (%d frames, %dx%d)", s->number + 1, e->job->shot_count,
             o->output, o->num_frames, o->width, o->height);
    return STATUS_OK;
}
