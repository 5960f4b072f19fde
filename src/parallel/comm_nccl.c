#include "parallel/comm_nccl.h"

#include "base/log.h"
#include "kernels/link.h"
#include "parallel/comm_internal.h"
#include "parallel/heartbeat.h"
#include "parallel/patience.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double POLL_S = 1e-4;

struct batch { /* for messages */
    char what[112], phase[112];
};

struct nccl_group {
    struct nccl_group *next; /* all of this rank */
    const char *name;
    double *world_ranks; /* [ranks of the group] */
    double timeout_s;
    struct device *dev;
    const struct link_ops *ops;
    struct link *link;
    struct batch batches[LINK_BATCHES];
    int64_t marked, begun, arrived; /* batches; begun: nothing but other ranks can hold them up */
    bool filling, has_message;      /* a batch between comm_batch_begin and comm_batch_end */
    struct patience patience;       /* with the batch that is under way */
};

static struct nccl_group *groups;

static struct nccl_group *group_of(struct comm *c) { return c->own; }

/* ---- looking after --------------------------------------------------------------------------- */

static const char *describe(const struct batch *b)
{
    static char text[sizeof *b + 32];
    snprintf(text, sizeof text, "%s, asked for during %s", b->what, b->phase);
    return b->phase[0] ? text : b->what;
}

#define FAIL(g, b, format, ...)                                                                    \
    CHECK(false, "NCCL in group \"%s\": %s: " format, (g)->name, describe(b), __VA_ARGS__)

static void check_state(struct nccl_group *g, enum link_state state, const struct batch *b)
{
    if (state == LINK_FAILED) FAIL(g, b, "%s", g->ops->problem(g->link));
}

static void check_patience(struct nccl_group *g, struct patience *p, const struct batch *b)
{
    if (patience_is_over(p)) FAIL(g, b, "nothing has happened for %.0f s (timeout)", g->timeout_s);
}

/* What was begun last is complete, or the job ends. */
static void settle(struct nccl_group *g, const struct batch *b)
{
    enum link_state state;
    struct patience p = patience_for(g->name, NULL, -1, g->timeout_s);
    while ((state = g->ops->state(g->link)) == LINK_BUSY) {
        patience_pause(&p);
        check_patience(g, &p, b);
    }
    check_state(g, state, b);
}

static struct batch *batch_of(struct nccl_group *g, int64_t number)
{
    return &g->batches[(number - 1) % LINK_BATCHES];
}

static void restart_patience(struct nccl_group *g)
{
    g->patience = patience_for(g->name, NULL, -1, g->timeout_s);
}

/* That the device has come this far is a sign of work, also while the host waits for something
 * else. */
static void look(struct nccl_group *g)
{
    int64_t arrived = g->ops->arrived(g->link);
    int64_t begun = arrived + (arrived < g->marked && g->ops->under_way(g->link));
    bool moved = arrived > g->arrived || begun > g->begun;
    g->arrived = arrived;
    g->begun = begun;
    if (!moved) return;
    heartbeat_worked();
    restart_patience(g);
}

/* Batches follow one another: only the first that is not complete can wait for other ranks. */
static bool is_held_up(struct nccl_group *g)
{
    look(g);
    if (g->arrived == g->marked) return false;
    const struct batch *b = batch_of(g, g->arrived + 1);
    check_state(g, g->ops->state(g->link), b);
    if (g->begun == g->arrived) {
        restart_patience(g);
        return false;
    }
    check_patience(g, &g->patience, b);
    return true;
}

bool comm_nccl_watch(void)
{
    static double looked_s;
    static bool held_up;
    double now = clock_s();
    if (!groups || now - looked_s < POLL_S) return groups && held_up;
    looked_s = now;
    held_up = false;
    for (struct nccl_group *g = groups; g; g = g->next) held_up |= is_held_up(g);
    device_set_held_up(groups->dev, held_up);
    return held_up;
}

void comm_nccl_abort(void)
{
    for (; groups; groups = groups->next)
        if (groups->link) groups->ops->abort(groups->link);
}

/* ---- batches --------------------------------------------------------------------------------- */

/* The ops are waiting for all but the last batches: when these are done there is room. */
static void begin_batch(struct nccl_group *g)
{
    if (g->marked - g->arrived == LINK_BATCHES) look(g);
    if (g->marked - g->arrived == LINK_BATCHES) {
        device_finish(g->dev);
        look(g);
    }
    if (g->arrived == g->marked) restart_patience(g);
    g->ops->batch(g->link);
    struct batch *b = batch_of(g, g->marked + 1);
    b->what[0] = '\0';
    snprintf(b->phase, sizeof b->phase, "%s", phase_get());
    g->has_message = true;
}

static void end_batch(struct nccl_group *g)
{
    if (!g->has_message) return;
    g->has_message = false;
    g->ops->start(g->link);
    settle(g, batch_of(g, g->marked + 1));
    g->marked = g->ops->mark(g->link);
}

static void nccl_batch_begin(struct comm *c)
{
    CHECK(!group_of(c)->filling, "group \"%s\": a batch within a batch", c->name);
    group_of(c)->filling = true;
}

static void nccl_batch_end(struct comm *c)
{
    group_of(c)->filling = false;
    end_batch(group_of(c));
}

/* ---- transfers of device memory -------------------------------------------------------------- */

static int64_t number_of(const struct transfer *t)
{
    int64_t number;
    memcpy(&number, t->request, sizeof number);
    return number;
}

/* What a transfer is part of. */
static struct nccl_group *begin(struct comm *c, struct transfer *t, const char *what, int peer)
{
    struct nccl_group *g = group_of(c);
    CHECK(t->device == g->dev, "group \"%s\": %s of another device's memory", c->name, what);
    CHECK(!t->active, "group \"%s\": a transfer is started that was not waited for", c->name);
    if (!g->has_message) begin_batch(g);
    int64_t number = g->marked + 1;
    memcpy(t->request, &number, sizeof number);
    t->active = true;
    t->what = what;
    t->peer = peer;
    char *text = batch_of(g, number)->what;
    size_t used = strlen(text), room = sizeof batch_of(g, number)->what;
    snprintf(text + used, room - used, "%s%s rank %.0f", used ? ", " : "", what,
             g->world_ranks[peer]);
    return g;
}

enum message { BROADCAST, SEND, RECEIVE };

static void start(struct comm *c, struct transfer *t, enum message kind, float *buffer,
                  int64_t count, int peer)
{
    static const char *const names[] = {"broadcast from", "send to", "receive from"};
    if (count == 0) return;
    struct nccl_group *g = begin(c, t, names[kind], peer);
    if (kind == BROADCAST) g->ops->broadcast(g->link, buffer, count, peer);
    if (kind == SEND) g->ops->send(g->link, buffer, count, peer);
    if (kind == RECEIVE) g->ops->receive(g->link, buffer, count, peer);
    if (!g->filling) end_batch(g);
}

static void nccl_broadcast_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                                 int64_t width, int root)
{
    start(c, t, BROADCAST, buffer, rows * width, root);
}

/* Complete when it is received, and so as one that was asked for. */
static void nccl_send_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                            int64_t width, int to, int tag)
{
    (void)tag;
    start(c, t, SEND, buffer, rows * width, to);
}

static void nccl_receive_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                               int64_t width, int from, int tag)
{
    (void)tag;
    start(c, t, RECEIVE, buffer, rows * width, from);
}

/* Ops wait, the host goes on. */
static void nccl_wait(struct comm *c, struct transfer *t)
{
    struct nccl_group *g = group_of(c);
    if (!t->active) return;
    int64_t number = number_of(t);
    CHECK(number <= g->marked, "group \"%s\": waiting within a batch", c->name);
    g->ops->wait(g->link, number);
    t->active = false;
    comm_nccl_watch();
}

static bool nccl_done(struct comm *c, struct transfer *t)
{
    struct nccl_group *g = group_of(c);
    if (!t->active) return true;
    comm_nccl_watch();
    t->active = number_of(t) > g->arrived;
    return !t->active;
}

static void nccl_poll(struct comm *c, struct transfer *transfers, int count)
{
    double now = clock_s();
    if (now - c->polled_s < POLL_S) return;
    c->polled_s = now;
    heartbeat_poll(NULL);
    for (int i = 0; i < count; i++)
        if (!transfers[i].device) comm_done(c, &transfers[i]);
}

static void nccl_close(struct comm *c)
{
    struct nccl_group *g = group_of(c), **at = &groups;
    device_finish(g->dev); /* ops have waited for all that was started */
    g->ops->finish(g->link);
    settle(g, &(struct batch){.what = "leaving"});
    while (*at != g) at = &(*at)->next;
    *at = g->next;
    g->ops->close(g->link);
    comm_close(c->host);
    free(g->world_ranks);
    free(g);
}

static const struct comm_kind nccl_kind = {
    .broadcast_start = nccl_broadcast_start,
    .send_start = nccl_send_start,
    .receive_start = nccl_receive_start,
    .send_asked_start = nccl_send_start,
    .batch_begin = nccl_batch_begin,
    .batch_end = nccl_batch_end,
    .wait = nccl_wait,
    .done = nccl_done,
    .poll = nccl_poll,
    .close = nccl_close,
};

/* ---- opening --------------------------------------------------------------------------------- */

enum { SAMPLE = 256 }; /* floats */

static void send_around(struct comm *c, float *out, float *in, int root)
{
    struct device *dev = group_of(c)->dev;
    struct transfer t[3] = {{.device = dev}, {.device = dev}, {.device = dev}};
    int next = (c->rank + 1) % c->size, previous = (c->rank + c->size - 1) % c->size;
    comm_batch_begin(c);
    comm_receive_start(c, &t[0], in, 1, SAMPLE, previous, 0);
    comm_send_start(c, &t[1], out, 1, SAMPLE, next, 0);
    comm_batch_end(c);
    comm_broadcast_start(c, &t[2], c->rank == root ? out : in + SAMPLE, 1, SAMPLE, root);
    for (int i = 0; i < 3; i++) comm_wait(c, &t[i]);
}

static void expect(struct comm *c, const float *sample, int from)
{
    for (int i = 0; i < SAMPLE; i++)
        CHECK(sample[i] == (float)(from * SAMPLE + i),
              "NCCL in group \"%s\": what came from rank %.0f is not what that sent", c->name,
              group_of(c)->world_ranks[from]);
}

/* Connections are made now and not in the first step; and links between GPUs that do not keep what
 * they are given (by the machine's configuration) are met before anything depends on them. */
static void try_out(struct comm *c)
{
    struct device *dev = group_of(c)->dev;
    const struct arena_memory *memory = device_memory(dev);
    float sample[2 * SAMPLE], *rows = memory->take(3 * SAMPLE * sizeof *rows, "messages");
    int root = c->size - 1;
    CHECK(rows, "group \"%s\": no device memory to try its messages with", c->name);
    for (int i = 0; i < SAMPLE; i++) sample[i] = (float)(c->rank * SAMPLE + i);
    op_upload(dev, rows, sample, SAMPLE * sizeof *rows);
    send_around(c, rows, rows + SAMPLE, root);
    op_download(dev, sample, rows + SAMPLE, 2 * SAMPLE * sizeof *rows);
    device_finish(dev);
    look(group_of(c)); /* while nothing is under way, watching asks the device nothing */
    expect(c, sample, (c->rank + c->size - 1) % c->size);
    if (c->rank != root) expect(c, sample + SAMPLE, root);
    memory->give(rows, 3 * SAMPLE * sizeof *rows);
}

void comm_plan_nccl(struct comm *mpi, const struct device *dev)
{
    mpi->direct = true;
    mpi->device_planned = device_links(dev)->bytes(mpi->size);
}

/* What it has taken by now is seen; more may come, when ranks first send to each other. */
static void count_memory(struct comm *c, const struct device *dev, int64_t left_before)
{
    int64_t left, all;
    device_memory_left(dev, &left, &all);
    c->device_taken = left < left_before ? left_before - left : 0;
    if (c->device_planned < c->device_taken) c->device_planned = c->device_taken;
}

struct comm *comm_open_nccl(struct comm *mpi, struct device *dev, int world_rank)
{
    struct comm *c = xcalloc(1, sizeof *c);
    struct nccl_group *g = xcalloc(1, sizeof *g);
    const struct batch opening = {.what = "opening"};
    struct link_id id = {{0}};
    const char *why = "";
    int64_t left, all;
    device_memory_left(dev, &left, &all);
    comm_plan_nccl(mpi, dev);
    *c = *mpi;
    c->kind = &nccl_kind;
    c->own = g;
    c->host = mpi;
    *g = (struct nccl_group){
        .name = mpi->name, .timeout_s = mpi->timeout_s, .dev = dev, .ops = device_links(dev)};
    g->world_ranks = xcalloc((size_t)mpi->size, sizeof *g->world_ranks);
    g->world_ranks[mpi->rank] = world_rank;
    comm_all_gather_each(mpi, g->world_ranks, 1);
    if (mpi->rank == 0 && !g->ops->make_id(&id, &why)) FAIL(g, &opening, "%s", why);
    comm_broadcast_bytes(mpi, &id, sizeof id, 0);
    g->link = g->ops->open(dev, &id, mpi->rank, mpi->size);
    g->next = groups;
    groups = g;
    restart_patience(g);
    settle(g, &opening);
    try_out(c);
    count_memory(c, dev, left);
    return c;
}
