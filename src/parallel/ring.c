#include "parallel/ring.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "parallel/heartbeat.h"

#include <stddef.h>

enum { TAG_RING = 101 };

void ring_lay_out(struct ring *r, struct arena *a, int64_t tokens)
{
    int64_t block = op_kv_granule_floats(r->dev, tokens, r->heads, r->head_dim);
    r->own = arena_floats(a, block);
    for (int i = 0; i < 2; i++)
        r->incoming[i] = comm_size(r->group) > 1 ? arena_floats(a, block) : NULL;
    r->state = arena_floats(a, op_attention_state_floats(tokens, r->heads, r->head_dim));
}

int64_t ring_staging_bytes(const struct ring *r, int64_t tokens)
{
    int64_t block =
        op_kv_granule_floats(r->dev, tokens, r->heads, r->head_dim) * (int64_t)sizeof(float);
    if (device_memory_is_host(r->dev) || comm_is_direct(r->group)) return 0;
    return r->order == ORDER_CANONICAL ? block : 2 * block; /* a broadcast, or a pair */
}

void ring_set_plan(struct ring *r, const struct shard_plan *plan)
{
    r->plan = *plan;
    r->granule_floats = op_kv_granule_floats(r->dev, plan->granule, r->heads, r->head_dim);
}

/* What the attention of one block keeps moving meanwhile: MPI makes no progress by itself. */
struct hop {
    struct comm *group;
    struct transfer transfers[2];
};

static void poll_hop(void *argument)
{
    struct hop *hop = argument;
    comm_poll(hop->group, hop->transfers, 2);
}

/* The block that is attended as number `turn` */
static void attend_block(struct ring *r, struct mat o, struct mat q, const float *block, int owner,
                         int turn, float scale, struct hop *hop)
{
    double start_s = clock_s();
    device_set_poll(r->dev, poll_hop, hop);
    op_attention_part(r->dev, o, r->state, q, block, shard_tokens(&r->plan, owner), r->plan.granule,
                      r->heads, scale, turn == 0, turn == comm_size(r->group) - 1);
    device_set_poll(r->dev, heartbeat_poll, NULL);
    trace_span("denoise", "attention", 0, r->shot, owner, start_s);
}

/* For messages of what goes wrong. */
static void name_hop(const struct ring *r, int hop_number)
{
    phase_set("shot %d step %d block %d hop %d", r->shot + 1, r->step + 1, r->block, hop_number);
}

static void wait_for_hop(struct ring *r, struct hop *hop, int hop_number)
{
    double start_s = clock_s();
    bool started = hop->transfers[0].active || hop->transfers[1].active;
    if (started) name_hop(r, hop_number);
    comm_wait(r->group, &hop->transfers[0]);
    comm_wait(r->group, &hop->transfers[1]);
    if (started) trace_span("comm", "hop wait", 1, r->shot, hop_number, start_s);
}

/* Blocks 0, 1, 2, ... in turn, each broadcast by its owner while the one before is attended. */
static void attend_canonical(struct ring *r, struct mat o, struct mat q, float scale)
{
    int ranks = comm_size(r->group), me = comm_rank(r->group);
    struct hop hop = {.group = r->group, .transfers = {{.device = r->dev}, {.device = r->dev}}};
    for (int j = 0; j <= ranks; j++) {
        float *arrived = NULL;
        if (j > 0) wait_for_hop(r, &hop, j - 1);
        if (j > 0) arrived = j - 1 == me ? r->own : r->incoming[(j - 1) % 2];
        if (j < ranks) {
            name_hop(r, j);
            comm_broadcast_start(r->group, &hop.transfers[0], j == me ? r->own : r->incoming[j % 2],
                                 shard_granules(&r->plan, j), r->granule_floats, j);
        }
        if (arrived) attend_block(r, o, q, arrived, j - 1, j - 1, scale, &hop);
    }
}

/* Own block first; blocks travel to the next rank while they are attended. */
static void attend_ring(struct ring *r, struct mat o, struct mat q, float scale)
{
    int ranks = comm_size(r->group), me = comm_rank(r->group);
    int next = (me + 1) % ranks, previous = (me + ranks - 1) % ranks;
    struct hop hop = {.group = r->group, .transfers = {{.device = r->dev}, {.device = r->dev}}};
    float *block = r->own;
    for (int j = 0; j < ranks; j++) {
        int owner = (me + ranks - j) % ranks, incoming_owner = (owner + ranks - 1) % ranks;
        float *incoming = r->incoming[j % 2];
        if (j + 1 < ranks) {
            name_hop(r, j);
            comm_batch_begin(r->group);
            comm_receive_start(r->group, &hop.transfers[0], incoming,
                               shard_granules(&r->plan, incoming_owner), r->granule_floats,
                               previous, TAG_RING);
            comm_send_start(r->group, &hop.transfers[1], block, shard_granules(&r->plan, owner),
                            r->granule_floats, next, TAG_RING);
            comm_batch_end(r->group);
        }
        attend_block(r, o, q, block, owner, j, scale, &hop);
        if (j + 1 < ranks) wait_for_hop(r, &hop, j);
        block = incoming;
    }
}

void ring_attend(struct ring *r, struct mat o, struct mat q, struct mat k, struct mat v,
                 float scale)
{
    int me = comm_rank(r->group);
    CHECK(q.rows == shard_tokens(&r->plan, me),
          "ring_attend: %lld rows, the plan gives this rank %lld", (long long)q.rows,
          (long long)shard_tokens(&r->plan, me));
    op_kv_pack(r->dev, r->own, k, v, r->heads, r->plan.granule);
    if (r->order == ORDER_CANONICAL)
        attend_canonical(r, o, q, scale);
    else
        attend_ring(r, o, q, scale);
    phase_set("shot %d step %d block %d", r->shot + 1, r->step + 1, r->block);
}
