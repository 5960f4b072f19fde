#include "parallel/handover.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"

enum { TAG_TEXT_HEAD = 21, TAG_TEXT, TAG_CONDITION, TAG_LATENTS_HEAD, TAG_LATENTS, TAG_CODEC_END };
enum { LEADER = 0 }; /* world rank of the denoise leader */

static bool leads(const struct handover *h)
{
    return h->mesh->denoises && comm_rank(h->mesh->denoise_group) == 0;
}

void handover_lay_out(struct handover *h, struct arena *a, struct mesh *mesh,
                      const struct handover_sizes *sizes)
{
    h->mesh = mesh;
    h->text_width = sizes->text_width;
    h->channels = sizes->channels;
    h->max_payload_rows =
        mesh->codes ? sizes->tokens : shard_most_tokens(sizes->tokens, mesh->denoise_ranks);
    if (!mesh->codes && !mesh->denoises) return;
    for (int i = 0; i < HANDOVER_SLOTS; i++) {
        if (mesh->codes || i == 0) {
            h->text[i].payload =
                arena_floats(a, HANDOVER_TEXTS * sizes->text_tokens * sizes->text_width);
            h->text[i].condition = arena_floats(a, sizes->conditioned * sizes->channels);
        }
        if (mesh->denoises || i == 0)
            h->latents[i].payload = arena_floats(a, h->max_payload_rows * sizes->channels);
    }
    if (leads(h)) h->codecs = arena_take(a, (size_t)mesh->codec_ranks * sizeof *h->codecs);
}

static struct comm *world_of(struct handover *h) { return h->mesh->world->comm; }

static void wait_for_slot(struct handover *h, struct handover_slot *slot)
{
    for (int i = 0; i < 3; i++) comm_wait(world_of(h), &slot->transfers[i]);
}

static void receive_head(struct handover *h, struct handover_head *head, int from, int tag)
{
    struct transfer t = {0};
    comm_receive_bytes_start(world_of(h), &t, head, sizeof *head, from, tag);
    comm_wait(world_of(h), &t);
}

/* ---- codec ranks ----------------------------------------------------------------------------- */

static struct handover_slot *next_text_slot(struct handover *h)
{
    struct handover_slot *slot = &h->text[h->texts_sent % HANDOVER_SLOTS];
    wait_for_slot(h, slot);
    return slot;
}

struct shot_input handover_input_buffer(struct handover *h)
{
    struct handover_slot *slot = next_text_slot(h);
    return (struct shot_input){.embeds = slot->payload, .condition = slot->condition};
}

void handover_send_input(struct handover *h, const struct shot_input *input)
{
    struct handover_slot *slot = next_text_slot(h);
    const struct handover_head *head = &input->head;
    slot->head = *head;
    h->texts_sent++;
    comm_send_bytes_start(world_of(h), &slot->transfers[0], &slot->head, sizeof slot->head, LEADER,
                          TAG_TEXT_HEAD);
    comm_send_start(world_of(h), &slot->transfers[1], slot->payload,
                    head->tokens[0] + head->tokens[1], h->text_width, LEADER, TAG_TEXT);
    if (head->conditioned)
        comm_send_start(world_of(h), &slot->transfers[2], slot->condition, head->conditioned,
                        h->channels, LEADER, TAG_CONDITION);
}

static void receive_latents_payload(struct handover *h, const struct shard_plan *plan)
{
    float *payload = h->latents[0].payload;
    CHECK(plan->tokens <= h->max_payload_rows, "latents of %lld tokens, room for %lld",
          (long long)plan->tokens, (long long)h->max_payload_rows);
    for (int r = 0; r < plan->ranks; r++) {
        if (shard_tokens(plan, r) == 0) continue;
        struct transfer t = {0};
        comm_receive_start(world_of(h), &t, payload + shard_first_token(plan, r) * h->channels,
                           shard_tokens(plan, r), h->channels, r, TAG_LATENTS);
        comm_wait(world_of(h), &t);
    }
}

int handover_receive_latents(struct handover *h, int shot, const struct shard_plan *plan,
                             float **latents)
{
    struct handover_head *head = &h->latents[0].head;
    double start_s = clock_s();
    receive_head(h, head, LEADER, TAG_LATENTS_HEAD);
    h->denoise_ended = head->shot == HANDOVER_END;
    if (h->denoise_ended) return STATUS_STOPPED;
    CHECK(head->shot == shot, "latents of shot %lld came where shot %d was due",
          (long long)head->shot + 1, shot + 1);
    receive_latents_payload(h, plan);
    trace_span("comm", "hand-over of latents", 1, shot, -1, start_s);
    *latents = h->latents[0].payload;
    return STATUS_OK;
}

void handover_poll(struct handover *h) { comm_poll(world_of(h), h->text[0].transfers, 3); }

void handover_end_codec(struct handover *h, int status,
                        struct shard_plan (*plan_of)(void *argument, int shot), void *argument)
{
    h->end =
        (struct handover_head){.shot = HANDOVER_END, .status = status, .texts_sent = h->texts_sent};
    comm_send_bytes_start(world_of(h), &h->end_transfer, &h->end, sizeof h->end, LEADER,
                          TAG_CODEC_END);
    while (!h->denoise_ended) {
        struct handover_head head;
        receive_head(h, &head, LEADER, TAG_LATENTS_HEAD);
        h->denoise_ended = head.shot == HANDOVER_END;
        if (!h->denoise_ended) {
            struct shard_plan plan = plan_of(argument, (int)head.shot);
            receive_latents_payload(h, &plan);
        }
    }
    for (int i = 0; i < HANDOVER_SLOTS; i++) wait_for_slot(h, &h->text[i]);
    comm_wait(world_of(h), &h->end_transfer);
}

/* ---- denoise ranks --------------------------------------------------------------------------- */

static int codec_rank_of(const struct handover *h, int codec)
{
    return mesh_codec_world_rank(h->mesh, codec);
}

static void hear_end(struct handover *h, int codec)
{
    receive_head(h, &h->codecs[codec].its_end, codec_rank_of(h, codec), TAG_CODEC_END);
}

static bool has_ended(const struct handover *h, int codec)
{
    return h->codecs[codec].its_end.shot == HANDOVER_END;
}

/* Into slot 0. false: the codec rank has ended and no text of it is under way. */
static bool take_text(struct handover *h, int codec)
{
    struct handover_codec *c = &h->codecs[codec];
    struct handover_slot *slot = &h->text[0];
    int from = codec_rank_of(h, codec);
    if (!has_ended(h, codec) &&
        comm_await(world_of(h), from, TAG_TEXT_HEAD, TAG_CODEC_END) == TAG_CODEC_END)
        hear_end(h, codec);
    if (has_ended(h, codec) && c->texts_taken == c->its_end.texts_sent) return false;
    struct transfer t = {0};
    receive_head(h, &slot->head, from, TAG_TEXT_HEAD);
    comm_receive_start(world_of(h), &t, slot->payload, slot->head.tokens[0] + slot->head.tokens[1],
                       h->text_width, from, TAG_TEXT);
    comm_wait(world_of(h), &t);
    if (slot->head.conditioned) {
        comm_receive_start(world_of(h), &t, slot->condition, slot->head.conditioned, h->channels,
                           from, TAG_CONDITION);
        comm_wait(world_of(h), &t);
    }
    c->texts_taken++;
    return true;
}

static void share_rows(struct comm *group, float *rows, int64_t count, int64_t cols)
{
    struct transfer t = {0};
    comm_broadcast_start(group, &t, rows, count, cols, 0);
    comm_wait(group, &t);
}

int handover_receive_input(struct handover *h, int shot, struct shot_input *input)
{
    struct handover_slot *slot = &h->text[0];
    const struct handover_head *head = &slot->head;
    struct comm *group = h->mesh->denoise_group;
    double start_s = clock_s();
    if (leads(h) && !take_text(h, mesh_codec_of(h->mesh, shot))) slot->head.shot = HANDOVER_END;
    comm_broadcast_bytes(group, &slot->head, sizeof slot->head, 0);
    *input = (struct shot_input){*head, slot->payload, slot->condition};
    if (head->shot == HANDOVER_END) return STATUS_STOPPED;
    CHECK(head->shot == shot, "the text of shot %lld came where shot %d was due",
          (long long)head->shot + 1, shot + 1);
    share_rows(group, slot->payload, head->tokens[0] + head->tokens[1], h->text_width);
    if (head->conditioned) share_rows(group, slot->condition, head->conditioned, h->channels);
    trace_span("comm", "hand-over of text", 1, shot, -1, start_s);
    return STATUS_OK;
}

float *handover_latents_buffer(struct handover *h, int shot)
{
    struct handover_slot *slot = &h->latents[shot % HANDOVER_SLOTS];
    wait_for_slot(h, slot);
    return slot->payload;
}

void handover_send_latents(struct handover *h, int shot, int64_t rows)
{
    struct handover_slot *slot = &h->latents[shot % HANDOVER_SLOTS];
    int to = codec_rank_of(h, mesh_codec_of(h->mesh, shot));
    slot->head = (struct handover_head){.shot = shot};
    if (leads(h))
        comm_send_bytes_start(world_of(h), &slot->transfers[0], &slot->head, sizeof slot->head, to,
                              TAG_LATENTS_HEAD);
    if (rows)
        comm_send_start(world_of(h), &slot->transfers[1], slot->payload, rows, h->channels, to,
                        TAG_LATENTS);
}

int handover_should_stop(struct handover *h)
{
    int status = STATUS_OK, from;
    if (h->mesh->world->size == 1) return STATUS_OK;
    if (leads(h)) {
        while (comm_probe(world_of(h), TAG_CODEC_END, &from))
            hear_end(h, from - codec_rank_of(h, 0));
        for (int c = 0; c < h->mesh->codec_ranks; c++)
            if (has_ended(h, c) && h->codecs[c].its_end.status != STATUS_OK)
                status = STATUS_STOPPED;
    }
    comm_broadcast_bytes(h->mesh->denoise_group, &status, sizeof status, 0);
    return status;
}

void handover_end_denoise(struct handover *h, int status)
{
    int codecs = leads(h) ? h->mesh->codec_ranks : 0;
    for (int c = 0; c < codecs; c++) {
        struct handover_codec *codec = &h->codecs[c];
        codec->our_end = (struct handover_head){.shot = HANDOVER_END, .status = status};
        comm_send_bytes_start(world_of(h), &codec->transfer, &codec->our_end, sizeof codec->our_end,
                              codec_rank_of(h, c), TAG_LATENTS_HEAD);
    }
    for (int c = 0; c < codecs; c++) {
        while (take_text(h, c)) continue;
        comm_wait(world_of(h), &h->codecs[c].transfer);
    }
    for (int i = 0; i < HANDOVER_SLOTS; i++) wait_for_slot(h, &h->latents[i]);
}
