#include "parallel/handover.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"

enum { TAG_TEXT_HEAD = 21, TAG_TEXT, TAG_LATENTS_HEAD, TAG_LATENTS, TAG_STOP };
enum { LEADER = 0 }; /* world rank of the denoise leader */

void handover_lay_out(struct handover *h, struct arena *a, struct mesh *mesh, int64_t text_width, int64_t max_text_tokens,
                      int64_t max_tokens, int64_t channels)
{
    h->mesh = mesh;
    h->text_width = text_width;
    h->max_text_tokens = max_text_tokens;
    h->channels = channels;
    h->max_payload_rows = mesh->codes ? max_tokens : shard_most_tokens(max_tokens, mesh->denoise_ranks);
    for (int i = 0; i < HANDOVER_SLOTS; i++) {
        if (mesh->codes || i == 0)
            h->text[i].payload = arena_floats(a, HANDOVER_TEXTS * max_text_tokens * text_width);
        if (mesh->denoises || i == 0)
            h->latents[i].payload = arena_floats(a, h->max_payload_rows * channels);
    }
}

static struct comm *world_of(struct handover *h) { return h->mesh->world->comm; }

static void wait_for_slot(struct handover *h, struct handover_slot *slot)
{
    for (int i = 0; i < 2; i++)
        comm_wait_patiently(world_of(h), &slot->transfers[i]);
}

static void receive_head(struct handover *h, struct handover_head *head, int from, int tag, int shot)
{
    struct transfer t = {0};
    comm_receive_bytes_start(world_of(h), &t, head, sizeof *head, from, tag);
    comm_wait_patiently(world_of(h), &t);
    CHECK(head->shot == shot, "rank %d sent shot %lld where shot %d was due", from, (long long)head->shot, shot);
}

/* ---- codec ranks ----------------------------------------------------------------------------------------------- */

float *handover_text_buffer(struct handover *h, int shot_number)
{
    struct handover_slot *slot = &h->text[shot_number % HANDOVER_SLOTS];
    wait_for_slot(h, slot);
    return slot->payload;
}

void handover_send_text(struct handover *h, int shot_number, const struct handover_head *head)
{
    struct handover_slot *slot = &h->text[shot_number % HANDOVER_SLOTS];
    wait_for_slot(h, slot);
    slot->head = *head;
    comm_send_bytes_start(world_of(h), &slot->transfers[0], &slot->head, sizeof slot->head, LEADER, TAG_TEXT_HEAD);
    if (head->status == STATUS_OK)
        comm_send_start(world_of(h), &slot->transfers[1], slot->payload, head->tokens[0] + head->tokens[1], h->text_width,
                        LEADER, TAG_TEXT);
}

int handover_receive_latents(struct handover *h, int shot, const struct shard_plan *plan, float **latents)
{
    struct handover_slot *slot = &h->latents[0];
    double start_s = clock_s();
    receive_head(h, &slot->head, LEADER, TAG_LATENTS_HEAD, shot);
    if (slot->head.status != STATUS_OK)
        return (int)slot->head.status;
    CHECK(plan->tokens <= h->max_payload_rows, "latents of %lld tokens, room for %lld", (long long)plan->tokens,
          (long long)h->max_payload_rows);
    for (int r = 0; r < plan->ranks; r++) {
        if (shard_tokens(plan, r) == 0)
            continue;
        struct transfer t = {0};
        comm_receive_start(world_of(h), &t, slot->payload + shard_first_token(plan, r) * h->channels,
                           shard_tokens(plan, r), h->channels, r, TAG_LATENTS);
        comm_wait_patiently(world_of(h), &t);
    }
    trace_span("comm", "hand-over of latents", 1, shot, -1, start_s);
    *latents = slot->payload;
    return STATUS_OK;
}

void handover_poll(struct handover *h)
{
    for (int i = 0; i < HANDOVER_SLOTS; i++) {
        comm_test(world_of(h), h->text[i].transfers, 2);
        comm_test(world_of(h), h->latents[i].transfers, 2);
    }
}

void handover_send_stop(struct handover *h, int status)
{
    static int word; /* outlives the send */
    word = status;
    struct transfer t = {0};
    comm_send_bytes_start(world_of(h), &t, &word, sizeof word, LEADER, TAG_STOP);
    comm_wait_patiently(world_of(h), &t); /* a few bytes: sent eagerly */
}

/* ---- denoise ranks --------------------------------------------------------------------------------------------- */

int handover_receive_text(struct handover *h, int shot, struct handover_head *head, float **text)
{
    struct handover_slot *slot = &h->text[0];
    struct comm *group = h->mesh->denoise_group;
    if (comm_rank(group) == 0) {
        int from = mesh_codec_world_rank(h->mesh, mesh_codec_of(h->mesh, shot));
        double start_s = clock_s();
        receive_head(h, &slot->head, from, TAG_TEXT_HEAD, shot);
        struct transfer t = {0};
        if (slot->head.status == STATUS_OK)
            comm_receive_start(world_of(h), &t, slot->payload, slot->head.tokens[0] + slot->head.tokens[1], h->text_width,
                               from, TAG_TEXT);
        comm_wait_patiently(world_of(h), &t);
        trace_span("comm", "hand-over of text", 1, shot, -1, start_s);
    }
    comm_broadcast_bytes(group, &slot->head, sizeof slot->head, 0);
    *head = slot->head;
    *text = slot->payload;
    if (head->status != STATUS_OK)
        return (int)head->status;
    struct transfer t = {0};
    comm_broadcast_start(group, &t, slot->payload, head->tokens[0] + head->tokens[1], h->text_width, 0);
    comm_wait(group, &t);
    return STATUS_OK;
}

float *handover_latents_buffer(struct handover *h, int shot)
{
    struct handover_slot *slot = &h->latents[shot % HANDOVER_SLOTS];
    wait_for_slot(h, slot);
    return slot->payload;
}

static void send_latents_head(struct handover *h, int shot, int status)
{
    struct handover_slot *slot = &h->latents[shot % HANDOVER_SLOTS];
    if (comm_rank(h->mesh->denoise_group) != 0)
        return;
    comm_wait_patiently(world_of(h), &slot->transfers[0]);
    slot->head = (struct handover_head){.status = status, .shot = shot};
    comm_send_bytes_start(world_of(h), &slot->transfers[0], &slot->head, sizeof slot->head,
                          mesh_codec_world_rank(h->mesh, mesh_codec_of(h->mesh, shot)), TAG_LATENTS_HEAD);
}

void handover_send_latents(struct handover *h, int shot, int64_t rows)
{
    struct handover_slot *slot = &h->latents[shot % HANDOVER_SLOTS];
    send_latents_head(h, shot, STATUS_OK);
    if (rows)
        comm_send_start(world_of(h), &slot->transfers[1], slot->payload, rows, h->channels,
                        mesh_codec_world_rank(h->mesh, mesh_codec_of(h->mesh, shot)), TAG_LATENTS);
}

void handover_cancel_latents(struct handover *h, int shot) { send_latents_head(h, shot, STATUS_STOPPED); }

int handover_should_stop(struct handover *h)
{
    int status = STATUS_OK, from;
    if (h->mesh->world->size == 1)
        return STATUS_OK;
    if (comm_rank(h->mesh->denoise_group) == 0 && comm_probe(world_of(h), TAG_STOP, &from)) {
        struct transfer t = {0};
        comm_receive_bytes_start(world_of(h), &t, &status, sizeof status, from, TAG_STOP);
        comm_wait_patiently(world_of(h), &t);
    }
    comm_broadcast_bytes(h->mesh->denoise_group, &status, sizeof status, 0);
    return status;
}

void handover_finish(struct handover *h)
{
    for (int i = 0; i < HANDOVER_SLOTS; i++) {
        wait_for_slot(h, &h->text[i]);
        wait_for_slot(h, &h->latents[i]);
    }
}
