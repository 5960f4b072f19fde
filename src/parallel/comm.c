#include "parallel/comm_internal.h"

#include "kernels/ops.h"

#include <stdlib.h>

/* ---- the group of one: nothing to exchange --------------------------------------------------- */

static void self_broadcast_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                                 int64_t width, int root)
{
    (void)c, (void)t, (void)buffer, (void)rows, (void)width;
    CHECK(root == 0, "broadcast from rank %d in a group of one", root);
}

static void self_pair_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                            int64_t width, int peer, int tag)
{
    (void)c, (void)t, (void)buffer, (void)rows, (void)width;
    CHECK(false, "message %d to rank %d in a group of one", tag, peer);
}

static void self_send_bytes(struct comm *c, struct transfer *t, const void *data, int bytes, int to,
                            int tag)
{
    (void)c, (void)t, (void)data, (void)bytes;
    CHECK(false, "message %d to rank %d in a group of one", tag, to);
}

static void self_receive_bytes(struct comm *c, struct transfer *t, void *data, int bytes, int from,
                               int tag)
{
    self_send_bytes(c, t, data, bytes, from, tag);
}

static bool self_probe(struct comm *c, int tag, int *from)
{
    (void)c, (void)tag, (void)from;
    return false;
}

static int self_await(struct comm *c, int from, int tag_a, int tag_b)
{
    (void)c, (void)tag_b;
    CHECK(false, "waiting for message %d from rank %d in a group of one", tag_a, from);
}

static void self_wait(struct comm *c, struct transfer *t) { (void)c, (void)t; }

static bool self_done(struct comm *c, struct transfer *t)
{
    (void)c, (void)t;
    return true;
}

static void self_poll(struct comm *c, struct transfer *t, int count)
{
    (void)c, (void)t, (void)count;
}

static void self_broadcast_bytes(struct comm *c, void *data, int bytes, int root)
{
    (void)c, (void)data, (void)bytes, (void)root;
}

static void self_all_gather(struct comm *c, double *all, const int *counts, const int *offsets)
{
    (void)c, (void)all, (void)counts, (void)offsets;
}

static void self_close(struct comm *c) { (void)c; }

static const struct comm_kind self_kind = {
    .broadcast_start = self_broadcast_start,
    .send_start = self_pair_start,
    .receive_start = self_pair_start,
    .send_asked_start = self_pair_start,
    .send_bytes_start = self_send_bytes,
    .receive_bytes_start = self_receive_bytes,
    .probe = self_probe,
    .await = self_await,
    .wait = self_wait,
    .done = self_done,
    .poll = self_poll,
    .broadcast_bytes = self_broadcast_bytes,
    .all_gather_doubles = self_all_gather,
    .close = self_close,
};

struct comm *comm_open_self(void)
{
    struct comm *c = xcalloc(1, sizeof *c);
    *c = (struct comm){.kind = &self_kind, .rank = 0, .size = 1};
    return c;
}

/* ---- the front ------------------------------------------------------------------------------- */

int comm_rank(const struct comm *c) { return c->rank; }
int comm_size(const struct comm *c) { return c->size; }
bool comm_is_direct(const struct comm *c) { return c->size == 1 || c->direct; }
void comm_set_timeout(struct comm *c, double timeout_s) { c->timeout_s = timeout_s; }

void comm_device_bytes(const struct comm *c, int64_t *planned, int64_t *taken)
{
    *planned = c->device_planned;
    *taken = c->device_taken;
}

static struct comm *host_of(struct comm *c) { return c->host ? c->host : c; }

static struct comm *mover(struct comm *c, const struct transfer *t)
{
    return t->device ? c : host_of(c);
}

/* Transfers have their place among the ops. While these are recorded, nothing is done of either. */
static bool is_due(struct comm *c, const struct transfer *t)
{
    if (c->size == 1 || !t->device) return true;
    c->started_on = t->device;
    if (op_cut(t->device)) return true;
    CHECK(c->direct, "group \"%s\": messages by way of the host among recorded ops", c->name);
    return false;
}

void comm_broadcast_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                          int64_t width, int root)
{
    if (!is_due(c, t)) return;
    c = mover(c, t);
    c->kind->broadcast_start(c, t, buffer, rows, width, root);
}

void comm_send_start(struct comm *c, struct transfer *t, const float *buffer, int64_t rows,
                     int64_t width, int to, int tag)
{
    if (!is_due(c, t)) return;
    c = mover(c, t);
    c->kind->send_start(c, t, (float *)buffer, rows, width, to, tag);
}

void comm_receive_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                        int64_t width, int from, int tag)
{
    if (!is_due(c, t)) return;
    c = mover(c, t);
    c->kind->receive_start(c, t, buffer, rows, width, from, tag);
}

void comm_send_asked_start(struct comm *c, struct transfer *t, const float *buffer, int64_t rows,
                           int64_t width, int to, int tag)
{
    if (!is_due(c, t)) return;
    c = mover(c, t);
    c->kind->send_asked_start(c, t, (float *)buffer, rows, width, to, tag);
}

void comm_wait(struct comm *c, struct transfer *t)
{
    if (!is_due(c, t)) return;
    c = mover(c, t);
    c->kind->wait(c, t);
}

bool comm_done(struct comm *c, struct transfer *t)
{
    c = mover(c, t);
    return c->kind->done(c, t);
}

void comm_poll(struct comm *c, struct transfer *transfers, int count)
{
    c->kind->poll(c, transfers, count);
}

void comm_send_bytes_start(struct comm *c, struct transfer *t, const void *data, int bytes, int to,
                           int tag)
{
    c = host_of(c);
    c->kind->send_bytes_start(c, t, data, bytes, to, tag);
}

void comm_batch_begin(struct comm *c)
{
    if (c->kind->batch_begin) c->kind->batch_begin(c);
}

void comm_batch_end(struct comm *c)
{
    if (c->started_on) op_cut(c->started_on); /* the batch waits for these ops too */
    if (c->kind->batch_end) c->kind->batch_end(c);
}

void comm_receive_bytes_start(struct comm *c, struct transfer *t, void *data, int bytes, int from,
                              int tag)
{
    c = host_of(c);
    c->kind->receive_bytes_start(c, t, data, bytes, from, tag);
}

bool comm_probe(struct comm *c, int tag, int *from)
{
    c = host_of(c);
    return c->kind->probe(c, tag, from);
}

int comm_await(struct comm *c, int from, int tag_a, int tag_b)
{
    c = host_of(c);
    return c->kind->await(c, from, tag_a, tag_b);
}

void comm_broadcast_bytes(struct comm *c, void *data, int bytes, int root)
{
    c = host_of(c);
    c->kind->broadcast_bytes(c, data, bytes, root);
}

int comm_max(struct comm *c, int value)
{
    double all[c->size];
    all[c->rank] = value;
    comm_all_gather_each(c, all, 1);
    for (int r = 0; r < c->size; r++) value = all[r] > value ? (int)all[r] : value;
    return value;
}

void comm_all_gather_doubles(struct comm *c, double *all, const int *counts, const int *offsets)
{
    c = host_of(c);
    c->kind->all_gather_doubles(c, all, counts, offsets);
}

void comm_all_gather_each(struct comm *c, double *all, int each)
{
    int counts[c->size], offsets[c->size];
    for (int r = 0; r < c->size; r++) counts[r] = each, offsets[r] = r * each;
    comm_all_gather_doubles(c, all, counts, offsets);
}

void comm_close(struct comm *c)
{
    if (!c) return;
    c->kind->close(c);
    free(c);
}
