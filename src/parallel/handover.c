#include "parallel/handover.h"

#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "base/trace.h"

enum { TAG_TEXT_HEAD = 21, TAG_TEXT, TAG_CONDITION, TAG_LATENTS_HEAD, TAG_LATENTS, TAG_CODEC_END };
enum { LEADER = 0 }; /* world rank of the denoise leader */

static bool leads(const struct handover *h)
{
    return h->mesh->denoises && comm_rank(h->mesh->denoise_group) == 0;
}

static void lay_out_latents(struct handover *h, struct arena *a, const struct handover_sizes *sizes)
{
    const struct mesh *m = h->mesh;
    h->most_rows = m->codes ? sizes->window : shard_most_tokens(sizes->tokens, m->denoise_ranks);
    for (int i = 0; i < HANDOVER_SLOTS && m->denoises; i++)
        h->shards[i].rows = arena_floats(a, h->most_rows * h->channels);
    for (int i = 0; i < HANDOVER_AHEAD && m->codes; i++) {
        struct handover_windows *w = &h->incoming;
        w->rows[i] = arena_floats(a, h->most_rows * h->channels);
        w->transfers[i] = arena_take(a, (size_t)m->denoise_ranks * sizeof *w->transfers[i]);
    }
}

void handover_lay_out(struct handover *h, struct arena *a, struct mesh *mesh,
                      const struct handover_sizes *sizes)
{
    h->mesh = mesh;
    h->text_width = sizes->text_width;
    h->channels = sizes->channels;
    if (!mesh->codes && !mesh->denoises) return;
    for (int i = 0; i < HANDOVER_SLOTS; i++) {
        if (!mesh->codes && i > 0) continue;
        h->text[i].embeds =
            arena_floats(a, HANDOVER_TEXTS * sizes->text_tokens * sizes->text_width);
        h->text[i].condition = arena_floats(a, sizes->conditioned * sizes->channels);
    }
    bool alone = mesh->codes && mesh->denoises;
    if (!alone && mesh->denoise_ranks > 0) lay_out_latents(h, a, sizes);
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

/* ---- in the background ----------------------------------------------------------------------- */

/* Starts the next pieces of a shard, up to the end of a window each. false: some have to wait. */
static bool send_pieces(struct handover *h, struct handover_shard *s)
{
    for (; s->next < s->end; s->pieces++) {
        struct transfer *t = &s->transfers[s->pieces % HANDOVER_AHEAD];
        int64_t end = smaller((s->next / s->window + 1) * s->window, s->end);
        if (!comm_done(world_of(h), t)) return false;
        comm_send_asked_start(world_of(h), t, s->rows + (s->next - s->first) * h->channels,
                              end - s->next, h->channels, s->to, TAG_LATENTS);
        s->next = end;
    }
    return true;
}

/* The older shard's pieces go first: that is the order in which they are received. */
static void send_shards(struct handover *h)
{
    for (int i = 0; i < HANDOVER_SLOTS; i++)
        if (!send_pieces(h, &h->shards[(h->shards_sent + i) % HANDOVER_SLOTS])) return;
}

/* MPI moves everything at once, whichever of its messages is asked about. */
static void advance(void *argument)
{
    struct handover *h = argument;
    const struct handover_windows *w = &h->incoming;
    for (int i = 0; i < HANDOVER_SLOTS; i++)
        for (int k = 0; k < 3; k++) comm_done(world_of(h), &h->text[i].transfers[k]);
    for (int i = 0; i < HANDOVER_AHEAD && w->taken < w->asked; i++)
        for (int r = 0; r < w->cut.plan.ranks; r++) comm_done(world_of(h), &w->transfers[i][r]);
    send_shards(h);
}

void handover_start(struct handover *h, struct handover_cut (*cut_of)(void *argument, int shot),
                    void *argument)
{
    h->cut_of = cut_of;
    h->argument = argument;
    comm_set_background(advance, h);
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
    return (struct shot_input){.embeds = slot->embeds, .condition = slot->condition};
}

void handover_send_input(struct handover *h, const struct shot_input *input)
{
    struct handover_slot *slot = next_text_slot(h);
    const struct handover_head *head = &input->head;
    slot->head = *head;
    h->texts_sent++;
    comm_send_bytes_start(world_of(h), &slot->transfers[0], &slot->head, sizeof slot->head, LEADER,
                          TAG_TEXT_HEAD);
    comm_send_start(world_of(h), &slot->transfers[1], slot->embeds,
                    head->tokens[0] + head->tokens[1], h->text_width, LEADER, TAG_TEXT);
    if (head->conditioned)
        comm_send_start(world_of(h), &slot->transfers[2], slot->condition, head->conditioned,
                        h->channels, LEADER, TAG_CONDITION);
}

/* The rows of a window come from all denoise ranks that have some. */
static void ask_for_window(struct handover *h)
{
    struct handover_windows *w = &h->incoming;
    const struct shard_plan *plan = &w->cut.plan;
    int64_t end = smaller(w->asked + w->cut.window, plan->tokens);
    int room = (int)(w->asked / w->cut.window % HANDOVER_AHEAD);
    for (int r = 0; r < plan->ranks; r++) {
        int64_t from = larger(shard_first_token(plan, r), w->asked);
        int64_t to = smaller(shard_first_token(plan, r + 1), end);
        if (from < to)
            comm_receive_start(world_of(h), &w->transfers[room][r],
                               w->rows[room] + (from - w->asked) * h->channels, to - from,
                               h->channels, r, TAG_LATENTS);
    }
    w->asked = end;
}

static void begin_windows(struct handover *h, int shot)
{
    struct handover_windows *w = &h->incoming;
    CHECK(w->taken == w->asked, "shot %d: latents of the one before are left", shot + 1);
    w->cut = h->cut_of(h->argument, shot);
    CHECK(w->cut.window > 0 && w->cut.window <= h->most_rows &&
              w->cut.plan.ranks <= h->mesh->denoise_ranks,
          "latents in windows of %lld tokens, room for %lld", (long long)w->cut.window,
          (long long)h->most_rows);
    w->asked = w->taken = 0;
    ask_for_window(h);
}

int handover_receive_latents(struct handover *h, int shot)
{
    struct handover_head *head = &h->incoming.head;
    double start_s = clock_s();
    receive_head(h, head, LEADER, TAG_LATENTS_HEAD);
    h->denoise_ended = head->shot == HANDOVER_END;
    if (h->denoise_ended) return STATUS_STOPPED;
    CHECK(head->shot == shot, "latents of shot %lld came where shot %d was due",
          (long long)head->shot + 1, shot + 1);
    begin_windows(h, shot);
    trace_span("comm", "hand-over of latents", 1, shot, -1, start_s);
    return STATUS_OK;
}

float *handover_next_window(struct handover *h)
{
    struct handover_windows *w = &h->incoming;
    int64_t number = w->taken / w->cut.window;
    int room = (int)(number % HANDOVER_AHEAD);
    double start_s = clock_s();
    CHECK(w->taken < w->asked, "shot %lld has no more latents", (long long)w->head.shot + 1);
    for (int r = 0; r < w->cut.plan.ranks; r++) comm_wait(world_of(h), &w->transfers[room][r]);
    trace_span("comm", "window of latents", 1, (int)w->head.shot, (int)number, start_s);
    w->taken = w->asked;
    if (w->asked < w->cut.plan.tokens) ask_for_window(h);
    return w->rows[room];
}

/* What is left of a shot that is not decoded to its end. */
static void drop_windows(struct handover *h)
{
    while (h->incoming.taken < h->incoming.asked) handover_next_window(h);
}

void handover_end_codec(struct handover *h, int status)
{
    h->end =
        (struct handover_head){.shot = HANDOVER_END, .status = status, .texts_sent = h->texts_sent};
    comm_send_bytes_start(world_of(h), &h->end_transfer, &h->end, sizeof h->end, LEADER,
                          TAG_CODEC_END);
    if (status != STATUS_OK) drop_windows(h);
    while (!h->denoise_ended) {
        struct handover_head head;
        receive_head(h, &head, LEADER, TAG_LATENTS_HEAD);
        h->denoise_ended = head.shot == HANDOVER_END;
        if (h->denoise_ended) break;
        begin_windows(h, (int)head.shot);
        drop_windows(h);
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
    comm_receive_start(world_of(h), &t, slot->embeds, slot->head.tokens[0] + slot->head.tokens[1],
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
    *input = (struct shot_input){*head, slot->embeds, slot->condition};
    if (head->shot == HANDOVER_END) return STATUS_STOPPED;
    CHECK(head->shot == shot, "the text of shot %lld came where shot %d was due",
          (long long)head->shot + 1, shot + 1);
    share_rows(group, slot->embeds, head->tokens[0] + head->tokens[1], h->text_width);
    if (head->conditioned) share_rows(group, slot->condition, head->conditioned, h->channels);
    trace_span("comm", "hand-over of text", 1, shot, -1, start_s);
    return STATUS_OK;
}

/* A transfer that is waited for may be started again in the background: all pieces are sent first.
 */
static void wait_for_shard(struct handover *h, struct handover_shard *s)
{
    while (s->next < s->end) {
        comm_wait(world_of(h), &s->transfers[s->pieces % HANDOVER_AHEAD]);
        send_shards(h);
    }
    for (int i = 0; i < HANDOVER_AHEAD; i++) comm_wait(world_of(h), &s->transfers[i]);
    comm_wait(world_of(h), &s->head_transfer);
}

static struct handover_shard *next_shard(struct handover *h)
{
    return &h->shards[h->shards_sent % HANDOVER_SLOTS];
}

float *handover_latents_buffer(struct handover *h)
{
    wait_for_shard(h, next_shard(h));
    return next_shard(h)->rows;
}

void handover_send_latents(struct handover *h, int shot)
{
    struct handover_shard *s = next_shard(h);
    struct handover_cut cut = h->cut_of(h->argument, shot);
    int me = comm_rank(h->mesh->denoise_group);
    s->head = (struct handover_head){.shot = shot};
    s->to = codec_rank_of(h, mesh_codec_of(h->mesh, shot));
    s->first = s->next = shard_first_token(&cut.plan, me);
    s->end = shard_first_token(&cut.plan, me + 1);
    s->window = cut.window;
    s->pieces = 0;
    CHECK(s->end - s->first <= h->most_rows, "latents of %lld tokens, room for %lld",
          (long long)(s->end - s->first), (long long)h->most_rows);
    if (leads(h))
        comm_send_bytes_start(world_of(h), &s->head_transfer, &s->head, sizeof s->head, s->to,
                              TAG_LATENTS_HEAD);
    h->shards_sent++;
    send_shards(h);
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
}

/* ---- either ---------------------------------------------------------------------------------- */

void handover_finish(struct handover *h)
{
    drop_windows(h);
    for (int i = 0; i < HANDOVER_SLOTS; i++)
        wait_for_shard(h, &h->shards[(h->shards_sent + i) % HANDOVER_SLOTS]);
    comm_set_background(NULL, NULL);
}
