#include "render/codec.h"

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

enum { ENCODE_AHEAD = HANDOVER_SLOTS }; /* texts that are ready before they are asked for */

/* ---- text ------------------------------------------------------------------------------------ */

static int encode_one(struct engine *e, const char *text, float *embeds, int64_t *tokens)
{
    int32_t ids[MAX_TEXT_TOKENS];
    int count;
    TRY(tokenizer_encode(e->codec.tokenizer, text, e->job->text_encoder_max_tokens, ids, &count));
    *tokens = count;
    return t5_encode(e->codec.t5, ids, count, embeds);
}

static int encode_texts(struct engine *e, const struct shot *s, struct shot_input *input)
{
    double start_s = clock_s();
    struct handover_head *head = &input->head;
    phase_set("shot %d encode text", s->number + 1);
    if (s->uses_negative)
        TRY(encode_one(e, s->options->negative_prompt, input->embeds, &head->tokens[0]));
    TRY(encode_one(e, s->options->prompt, input->embeds + head->tokens[0] * e->text_width,
                   &head->tokens[1]));
    trace_span("codec", "encode text", 0, s->number, -1, start_s);
    log_debug("shot %d: %lld text tokens, negative %lld, in %.3f s", s->number + 1,
              (long long)head->tokens[1], (long long)head->tokens[0], clock_s() - start_s);
    log_json("stage", "\"name\":\"encode\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             clock_s() - start_s);
    return STATUS_OK;
}

int codec_encode_input(struct engine *e, const struct shot *s, struct shot_input *input)
{
    input->head = (struct handover_head){.shot = s->number, .conditioned = conditioning_tokens(s)};
    TRY(encode_texts(e, s, input));
    return input->head.conditioned ? conditioning_encode(e, s, input->condition) : STATUS_OK;
}

/* ---- latents to pixels ----------------------------------------------------------------------- */

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

/* Progress of the decoder, and the moment when messages move. */
static void report_decode(void *argument, int64_t done, int64_t total)
{
    struct progress *p = argument;
    p->total = total;
    progress_advance(p, done);
}

static void decode(struct engine *e, const struct shot *s, const float *latents)
{
    struct rng r = conditioning_global_stream(e, s);
    struct progress progress;
    char label[48];
    snprintf(label, sizeof label, "shot %d/%d decode", s->number + 1, e->job->shot_count);
    phase_set("shot %d decode", s->number + 1);
    progress_start(&progress, label, NULL, 1);
    struct vae_progress report = {report_decode, &progress};
    skip_step_noise(&r, s, e->channels);
    prepare_latents(e, s, latents, e->codec.latents, &r);
    vae_decode(e->codec.vae, &e->codec.decode, e->codec.video, e->codec.latents, s->f, s->h, s->w,
               (float)s->options->decode_timestep, &r, &report);
    progress_end(&progress);
}

/* Cuts the asked picture out of frame `index` of the padded video and makes bytes of it. */
static void crop_frame(struct engine *e, const struct shot *s, int64_t index, uint8_t *rgb)
{
    const struct shot_options *o = s->options;
    for (int64_t y = 0; y < o->height; y++) {
        const float *row =
            e->codec.video + ((index * s->height + s->top + y) * s->width + s->left) * 3;
        op_to_bytes(e->dev, rgb + y * o->width * 3, row, 3 * (int64_t)o->width);
    }
}

static int write_frames(struct engine *e, const struct shot *s, char sha256[65])
{
    const struct shot_options *o = s->options;
    size_t frame_bytes = (size_t)o->height * (size_t)o->width * 3;
    struct video_settings settings = engine_output(e, s->number);
    struct video_writer *writer;
    phase_set("shot %d encode video", s->number + 1);
    TRY(video_open(&writer, &settings));
    struct digest *digest = digest_open();
    int status = STATUS_OK;
    for (int64_t i = 0; i < o->num_frames && status == STATUS_OK; i++) {
        uint8_t *rgb = e->codec.frames + (e->job->dump ? (size_t)i * frame_bytes : 0);
        crop_frame(e, s, i, rgb);
        digest_add(digest, rgb, frame_bytes);
        status = video_write(writer, rgb);
        handover_poll(&e->handover);
    }
    digest_close(digest, sha256);
    if (status != STATUS_OK) {
        video_abandon(writer);
        return status;
    }
    heartbeat_worked();
    status = video_finish(writer);
    heartbeat_worked();
    return status;
}

static int encode_video(struct engine *e, const struct shot *s, struct sidecar_facts *facts)
{
    const struct shot_options *o = s->options;
    TRY(write_frames(e, s, facts->frames_sha256));
    if (e->job->dump)
        TRY(dump_frames(e->job->dump, s->number, e->codec.frames, o->num_frames, o->height,
                        o->width));
    return sidecar_write(e, s, facts);
}

static int decode_and_encode(struct engine *e, const struct shot *s, const float *latents,
                             struct sidecar_facts *facts)
{
    double start_s = clock_s();
    decode(e, s, latents);
    facts->decode_s = clock_s() - start_s;
    trace_span("codec", "decode", 0, s->number, -1, start_s);
    log_json("stage", "\"name\":\"decode\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             facts->decode_s);
    start_s = clock_s();
    TRY(encode_video(e, s, facts));
    trace_span("codec", "encode video", 0, s->number, -1, start_s);
    log_json("stage", "\"name\":\"write\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             clock_s() - start_s);
    return STATUS_OK;
}

int codec_decode_shot(struct engine *e, const struct shot *s, const float *latents)
{
    struct sidecar_facts facts = {0};
    digest_of(latents, (size_t)(s->tokens * e->channels) * sizeof *latents, facts.latents_sha256);
    if (e->job->dump)
        TRY(dump_latents(e->job->dump, s->number, latents, e->channels, s->f, s->h, s->w));
    TRY(decode_and_encode(e, s, latents, &facts));
    if (e->job->digest) {
        printf("digest shot %d latents %s frames %s\n", s->number + 1, facts.latents_sha256,
               facts.frames_sha256);
        if (fflush(stdout) != 0)
            return error_set(STATUS_INPUT, "digest: standard output: %s", strerror(errno));
    }
    log_info("shot %d/%d: wrote %s (%d frames, %dx%d)", s->number + 1, e->job->shot_count,
             s->options->output, s->options->num_frames, s->options->width, s->options->height);
    return STATUS_OK;
}

/* ---- the loop -------------------------------------------------------------------------------- */

/* This rank's shots are codec_index, codec_index + C, ...; `order` counts them. */
struct queue {
    struct engine *e;
    int encoded; /* texts sent so far */
};

static int shot_of(const struct engine *e, int order)
{
    return e->mesh.codec_index + order * e->mesh.codec_ranks;
}

static int shots_of_rank(const struct engine *e)
{
    int left = e->job->shot_count - e->mesh.codec_index;
    return left <= 0 ? 0 : (left + e->mesh.codec_ranks - 1) / e->mesh.codec_ranks;
}

static int encode_ahead(struct queue *q, int until)
{
    struct handover *h = &q->e->handover;
    for (; q->encoded < until && q->encoded < shots_of_rank(q->e); q->encoded++) {
        struct shot_input input = handover_input_buffer(h);
        TRY(codec_encode_input(q->e, &q->e->shots[shot_of(q->e, q->encoded)], &input));
        handover_send_input(h, &input);
    }
    return STATUS_OK;
}

static struct shard_plan plan_of_shot(void *argument, int shot)
{
    struct engine *e = argument;
    return shard_plan_make(e->shots[shot].tokens, e->mesh.denoise_ranks);
}

static int code_one(struct queue *q, int order)
{
    struct engine *e = q->e;
    const struct shot *s = &e->shots[shot_of(e, order)];
    struct shard_plan plan = plan_of_shot(e, s->number);
    float *latents;
    TRY(encode_ahead(q, order + ENCODE_AHEAD));
    phase_set("shot %d, waiting for its latents", s->number + 1);
    TRY(handover_receive_latents(&e->handover, s->number, &plan, &latents));
    TRY(encode_ahead(
        q, order + 1 + ENCODE_AHEAD)); /* the denoise ranks' next text goes before this decode */
    return codec_decode_shot(e, s, latents);
}

static void poll_messages(void *argument) { handover_poll(argument); }

int codec_loop(struct engine *e)
{
    struct queue q = {.e = e};
    int status = STATUS_OK;
    device_set_poll(e->dev, poll_messages, &e->handover);
    for (int order = 0; order < shots_of_rank(e) && status == STATUS_OK; order++)
        status = code_one(&q, order);
    phase_set("waiting for the denoise ranks to finish");
    handover_end_codec(&e->handover, status, plan_of_shot, e);
    device_set_poll(e->dev, heartbeat_poll, NULL);
    return status;
}
