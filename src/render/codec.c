#include "render/codec.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "render/conditioning.h"
#include "render/decode.h"

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
    e->tally.text += clock_s() - start_s;
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

/* This rank's shots are codec_index, codec_index + C, ... */
struct queue {
    struct engine *e;
    int next; /* the first of them whose text has not been sent */
};

/* Texts are sent two of this rank's shots ahead. A slot frees when the denoise ranks begin the shot
 * before last, which they can without this rank: nobody waits in a circle. */
static int encode_ahead(struct queue *q, int shot)
{
    struct engine *e = q->e;
    int until = shot + HANDOVER_SLOTS * e->mesh.codec_ranks;
    for (; q->next < until && q->next < e->job->shot_count; q->next += e->mesh.codec_ranks) {
        struct shot_input input = handover_input_buffer(&e->handover);
        TRY(codec_encode_input(e, &e->shots[q->next], &input));
        handover_send_input(&e->handover, &input);
    }
    return STATUS_OK;
}

/* All codec ranks go on, or none. */
static int agree(struct engine *e, int mine)
{
    int worst = comm_max(e->mesh.codec_group, mine);
    return mine != STATUS_OK ? mine : worst != STATUS_OK ? STATUS_STOPPED : STATUS_OK;
}

/* The next latents of the shot that is decoded, from its owner to all. */
struct shared_latents {
    struct engine *e;
    const struct shot *shot;
};

static const float *next_shared_latents(void *argument, int64_t tokens)
{
    const struct shared_latents *shared = argument;
    struct engine *e = shared->e;
    struct transfer t = {0};
    int shot = shared->shot->number;
    float *latents = engine_owns(e, shot) ? handover_next_window(&e->handover) : e->codec.window;
    struct comm *group = engine_decode_group(e, shot);
    comm_broadcast_start(group, &t, latents, tokens, e->channels, mesh_codec_of(&e->mesh, shot));
    comm_wait(group, &t);
    return latents;
}

static int decode_shared(struct engine *e, const struct shot *s)
{
    struct shared_latents shared = {e, s};
    e->tally.last_decode = clock_s();
    TRY(decode_shot(e, s, (struct latents_source){next_shared_latents, &shared}));
    e->tally.end = clock_s();
    e->tally.decode += e->tally.end - e->tally.last_decode;
    return STATUS_OK;
}

/* Until its latents are ready to come. */
static int begin_shot(struct queue *q, const struct shot *s)
{
    struct engine *e = q->e;
    TRY(agree(e, encode_ahead(q, s->number)));
    phase_set("shot %d, waiting for its latents", s->number + 1);
    double start_s = clock_s();
    int mine = STATUS_OK;
    if (engine_owns(e, s->number)) mine = handover_receive_latents(&e->handover, s->number);
    TRY(agree(e, mine));
    if (s->number > 0) e->tally.latents_wait += clock_s() - start_s;
    trace_span("comm", "wait for latents", 1, s->number, -1, start_s);
    return agree(e, encode_ahead(q, s->number + 1)); /* the next text goes before this decode */
}

int codec_decode_last(struct engine *e, int status)
{
    if (e->helping) {
        phase_set("waiting for the last decode to begin");
        int worst = comm_max(e->mesh.everyone, status);
        if (status == STATUS_OK && worst != STATUS_OK) status = STATUS_STOPPED;
    }
    if (status != STATUS_OK || !engine_decodes(e, e->job->shot_count - 1)) return status;
    return decode_shared(e, &e->shots[e->job->shot_count - 1]);
}

int codec_loop(struct engine *e)
{
    struct queue q = {.e = e, .next = e->mesh.codec_index};
    int status = STATUS_OK, last = e->job->shot_count - 1;
    handover_start(&e->handover, engine_cut, e);
    for (int shot = 0; shot <= last && status == STATUS_OK; shot++) {
        status = begin_shot(&q, &e->shots[shot]);
        if (shot < last && status == STATUS_OK) status = decode_shared(e, &e->shots[shot]);
    }
    phase_set("waiting for the denoise ranks to finish");
    handover_end_codec(&e->handover, status);
    status = codec_decode_last(e, status);
    handover_finish(&e->handover);
    return status;
}
