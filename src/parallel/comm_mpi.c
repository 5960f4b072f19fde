#include "parallel/comm_mpi.h"

#include "base/log.h"
#include "kernels/ops.h"
#include "parallel/comm_internal.h"
#include "parallel/comm_nccl.h"
#include "parallel/heartbeat.h"
#include "parallel/patience.h"

#include <stdlib.h>
#include <string.h>

static const double POLL_S = 1e-4;

_Static_assert(sizeof(MPI_Request) <= sizeof(((struct transfer *)0)->request),
               "transfer.request is too small");

/* Rows of a device buffer that MPI cannot reach, on their way. Pieces grow to the largest request
 * and stay: after the first step nothing is taken any more. */
struct staging {
    struct staging *next; /* free ones */
    const struct arena_memory *memory;
    float *rows;
    size_t room, bytes;
    float *target; /* NULL: they are sent */
};

/* The MPI_Comm and a cached row type: a count in rows of `width` floats never overflows an int. */
struct mpi_group {
    MPI_Comm comm;
    MPI_Datatype row;
    int64_t row_width;
    struct staging *free;
};

const char *comm_mpi_error_text(int code)
{
    static char text[MPI_MAX_ERROR_STRING + 1];
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return "unknown error";
    text[length] = '\0';
    return text;
}

static struct mpi_group *group_of(struct comm *c) { return c->own; }

static MPI_Datatype row_type(struct mpi_group *g, int64_t width)
{
    if (g->row_width == width) return g->row;
    if (g->row_width) CHECK_MPI(MPI_Type_free(&g->row));
    CHECK(width > 0 && width <= INT32_MAX, "message row of %lld floats", (long long)width);
    CHECK_MPI(MPI_Type_contiguous((int)width, MPI_FLOAT, &g->row));
    CHECK_MPI(MPI_Type_commit(&g->row));
    g->row_width = width;
    return g->row;
}

static int row_count(int64_t rows)
{
    CHECK(rows >= 0 && rows <= INT32_MAX, "message of %lld rows", (long long)rows);
    return (int)rows;
}

/* ---- device memory --------------------------------------------------------------------------- */

static struct staging *take_staging(struct mpi_group *g, const struct device *dev, size_t bytes)
{
    struct staging *s = g->free;
    if (!s) {
        s = xcalloc(1, sizeof *s);
        s->memory = device_staging(dev);
    } else {
        g->free = s->next;
    }
    if (s->room < bytes) {
        if (s->rows) s->memory->give(s->rows, s->room);
        s->rows = s->memory->take(bytes, "messages");
        CHECK(s->rows, "out of memory: a message of %zu bytes", bytes);
        s->room = bytes;
    }
    s->bytes = bytes;
    return s;
}

/* What MPI is given in place of `buffer`, whose rows are sent, or received. */
static float *stage(struct comm *c, struct transfer *t, float *buffer, int64_t rows, int64_t width,
                    bool sends)
{
    size_t bytes = (size_t)(rows * width) * sizeof *buffer;
    if (t->device && device_memory_is_host(t->device)) {
        if (sends) device_finish(t->device);
        return buffer;
    }
    if (!t->device || bytes == 0) return buffer;
    CHECK(!t->staging, "group \"%s\": a transfer is started that was not waited for", c->name);
    struct staging *s = t->staging = take_staging(group_of(c), t->device, bytes);
    s->target = sends ? NULL : buffer;
    if (sends) {
        op_download(t->device, s->rows, buffer, bytes);
        device_finish(t->device);
    }
    return s->rows;
}

/* The transfer is complete: what came goes where it belongs. */
static void unstage(struct comm *c, struct transfer *t)
{
    struct staging *s = t->staging;
    if (!s) return;
    if (s->target) op_upload(t->device, s->target, s->rows, s->bytes);
    s->next = group_of(c)->free;
    group_of(c)->free = s;
    t->staging = NULL;
}

static void free_staging(struct mpi_group *g)
{
    while (g->free) {
        struct staging *s = g->free;
        g->free = s->next;
        s->memory->give(s->rows, s->room);
        free(s);
    }
}

/* ---- in the background ----------------------------------------------------------------------- */

static struct {
    void (*advance)(void *argument);
    void *argument;
    double last_s;
    bool busy; /* what it calls may come here again */
} background;

void comm_set_background(void (*advance)(void *argument), void *argument)
{
    background.advance = advance;
    background.argument = argument;
}

void comm_mpi_advance_background(void)
{
    if (!background.advance || background.busy) return;
    double now = clock_s();
    if (now - background.last_s < POLL_S) return;
    background.busy = true;
    background.advance(background.argument);
    background.busy = false;
    background.last_s = clock_s();
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void keep_waiting(struct patience *p)
{
    patience_pause(p);
    /* A device that waits for another rank knows better for whom, and has a deadline too. */
    if (!patience_is_over(p) || comm_nccl_watch()) return;
    if (p->peer >= 0)
        CHECK(false, "%s with rank %d of group \"%s\": nothing has happened for %.0f s (timeout)",
              p->what, p->peer, p->group, p->timeout_s);
    CHECK(false, "%s in group \"%s\": nothing has happened for %.0f s (timeout)", p->what, p->group,
          p->timeout_s);
}

void comm_mpi_wait(MPI_Request *request, const char *group, const char *what, int peer,
                   double timeout_s)
{
    struct patience p = patience_for(group, what, peer, timeout_s);
    for (;;) {
        int done = 0;
        CHECK_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) break;
        keep_waiting(&p);
    }
    heartbeat_worked();
}

static int mpi_await(struct comm *c, int from, int tag_a, int tag_b)
{
    struct patience p = patience_for(c->name, "message", from, c->timeout_s);
    for (;;) {
        int arrived = 0;
        CHECK_MPI(MPI_Iprobe(from, tag_a, group_of(c)->comm, &arrived, MPI_STATUS_IGNORE));
        if (arrived) return tag_a;
        CHECK_MPI(MPI_Iprobe(from, tag_b, group_of(c)->comm, &arrived, MPI_STATUS_IGNORE));
        if (arrived) return tag_b;
        keep_waiting(&p);
    }
}

static void mpi_begin(struct transfer *t, MPI_Request request, const char *what, int peer)
{
    memcpy(t->request, &request, sizeof request);
    t->active = true;
    t->what = what;
    t->peer = peer;
}

/* Its message, be its rows in their place or not: it may be asked while the device is at work. */
static bool test(struct transfer *t)
{
    MPI_Request request;
    int done = 0;
    if (!t->active) return true;
    memcpy(&request, t->request, sizeof request);
    CHECK_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    memcpy(t->request, &request, sizeof request);
    t->active = !done;
    return done;
}

static bool mpi_done(struct comm *c, struct transfer *t)
{
    bool done = test(t);
    if (done) unstage(c, t);
    return done;
}

/* Looks at the transfer itself at every turn: it may be completed in the background. */
static void mpi_wait(struct comm *c, struct transfer *t)
{
    if (!t->active) {
        unstage(c, t);
        return;
    }
    struct patience p = patience_for(c->name, t->what, t->peer, c->timeout_s);
    while (!mpi_done(c, t)) keep_waiting(&p);
    heartbeat_worked();
}

static void mpi_poll(struct comm *c, struct transfer *transfers, int count)
{
    double now = clock_s();
    if (now - c->polled_s < POLL_S) return;
    c->polled_s = now;
    heartbeat_worked(); /* it is work that polls */
    for (int i = 0; i < count; i++) test(&transfers[i]);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void mpi_broadcast_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                                int64_t width, int root)
{
    struct mpi_group *g = group_of(c);
    MPI_Request request;
    if (rows == 0 || c->size == 1) return;
    buffer = stage(c, t, buffer, rows, width, root == c->rank);
    CHECK_MPI(MPI_Ibcast(buffer, row_count(rows), row_type(g, width), root, g->comm, &request));
    mpi_begin(t, request, "broadcast", root == c->rank ? -1 : root);
}

/* By MPI_Isend, or MPI_Issend, which is not complete before it is asked for. */
static void start_send(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                       int64_t width, int to, int tag, __typeof__(MPI_Isend) *send)
{
    struct mpi_group *g = group_of(c);
    MPI_Request request;
    buffer = stage(c, t, buffer, rows, width, true);
    CHECK_MPI(send(buffer, row_count(rows), row_type(g, width), to, tag, g->comm, &request));
    mpi_begin(t, request, "send", to);
}

static void mpi_send_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                           int64_t width, int to, int tag)
{
    start_send(c, t, buffer, rows, width, to, tag, MPI_Isend);
}

static void mpi_send_asked_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                                 int64_t width, int to, int tag)
{
    start_send(c, t, buffer, rows, width, to, tag, MPI_Issend);
}

static void mpi_receive_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                              int64_t width, int from, int tag)
{
    struct mpi_group *g = group_of(c);
    MPI_Request request;
    buffer = stage(c, t, buffer, rows, width, false);
    CHECK_MPI(MPI_Irecv(buffer, row_count(rows), row_type(g, width), from, tag, g->comm, &request));
    mpi_begin(t, request, "receive", from);
}

static void mpi_send_bytes(struct comm *c, struct transfer *t, const void *data, int bytes, int to,
                           int tag)
{
    MPI_Request request;
    CHECK_MPI(MPI_Isend(data, bytes, MPI_BYTE, to, tag, group_of(c)->comm, &request));
    mpi_begin(t, request, "control message", to);
}

static void mpi_receive_bytes(struct comm *c, struct transfer *t, void *data, int bytes, int from,
                              int tag)
{
    MPI_Request request;
    CHECK_MPI(MPI_Irecv(data, bytes, MPI_BYTE, from, tag, group_of(c)->comm, &request));
    mpi_begin(t, request, "control message", from);
}

static bool mpi_probe(struct comm *c, int tag, int *from)
{
    int arrived = 0;
    MPI_Status status;
    CHECK_MPI(MPI_Iprobe(MPI_ANY_SOURCE, tag, group_of(c)->comm, &arrived, &status));
    if (arrived) *from = status.MPI_SOURCE;
    return arrived;
}

static void mpi_broadcast_bytes(struct comm *c, void *data, int bytes, int root)
{
    MPI_Request request;
    CHECK_MPI(MPI_Ibcast(data, bytes, MPI_BYTE, root, group_of(c)->comm, &request));
    comm_mpi_wait(&request, c->name, "broadcast", root == c->rank ? -1 : root, c->timeout_s);
}

static void mpi_all_gather(struct comm *c, double *all, const int *counts, const int *offsets)
{
    MPI_Request request;
    CHECK_MPI(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, counts, offsets, MPI_DOUBLE,
                              group_of(c)->comm, &request));
    comm_mpi_wait(&request, c->name, "all-gather", -1, c->timeout_s);
}

static void mpi_close(struct comm *c)
{
    struct mpi_group *g = group_of(c);
    free_staging(g);
    if (g->row_width) CHECK_MPI(MPI_Type_free(&g->row));
    if (g->comm != MPI_COMM_WORLD) CHECK_MPI(MPI_Comm_free(&g->comm));
    free(g);
}

static const struct comm_kind mpi_kind = {
    .broadcast_start = mpi_broadcast_start,
    .send_start = mpi_send_start,
    .receive_start = mpi_receive_start,
    .send_asked_start = mpi_send_asked_start,
    .send_bytes_start = mpi_send_bytes,
    .receive_bytes_start = mpi_receive_bytes,
    .probe = mpi_probe,
    .await = mpi_await,
    .wait = mpi_wait,
    .done = mpi_done,
    .poll = mpi_poll,
    .broadcast_bytes = mpi_broadcast_bytes,
    .all_gather_doubles = mpi_all_gather,
    .close = mpi_close,
};

struct comm *comm_open_mpi(MPI_Comm group, const char *name, double timeout_s)
{
    struct comm *c = xcalloc(1, sizeof *c);
    struct mpi_group *g = xcalloc(1, sizeof *g);
    g->comm = group;
    *c = (struct comm){.kind = &mpi_kind, .name = name, .timeout_s = timeout_s, .own = g};
    CHECK_MPI(MPI_Comm_rank(group, &c->rank));
    CHECK_MPI(MPI_Comm_size(group, &c->size));
    return c;
}
