#include "render/codec.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "parallel/heartbeat.h"
#include "render/conditioning.h"
#include "render/decode.h"

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
    return decode_shot(e, s, latents);
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
