/* device_passes canonical|ring STEPS [MISTAKE]: passes of ring attention over a sequence that ranks
 * share, with messages from device to device, are asked for op by op and then recorded and
 * replayed; both must give the same bytes on every rank. Rank 0 prints how many parts a
 * rank has replayed at most. Exit code 2 where bytes differ.
 *
 * MISTAKE is made on purpose in the replays: "wait": ops do not wait for messages; "late": a part
 * is done after the message that it comes before; "other": a pass asks for an op more than was
 * recorded. Run under mpirun by tests/emulation/graphs_ranks.sh; not a test by itself. */
#include "base/error.h"
#include "kernels/backend.h"
#include "kernels/link.h"
#include "model/replay.h"
#include "parallel/comm_mpi.h"
#include "parallel/comm_nccl.h"
#include "parallel/ring.h"
#include "parallel/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 2, HEAD_DIM = 32, WIDTH = HEADS * HEAD_DIM, BLOCKS = 3 };

struct passes {
    struct device *dev;
    struct ring ring;
    struct arena memory;
    struct mat x, q, k, v; /* [S_loc, WIDTH] */
    bool asks_more;
};

/* ---- mistakes -------------------------------------------------------------------------------- */

static struct ops table; /* in place of the device's */
static struct link_ops links;
static bool (*replay_next)(struct device *);
static int replayed, parts; /* so far; of the first pass that was */

static bool count_part(struct device *dev)
{
    bool last = replay_next(dev);
    replayed++;
    if (last && parts == 0) parts = replayed;
    return last;
}

static bool late_part(struct device *dev)
{
    static uint64_t before;
    static int asked;
    uint64_t told = dev->told;
    bool last = false;
    dev->told = before;
    if (asked++ > 0) count_part(dev);
    dev->told = before = told;
    if (asked == parts) {
        last = count_part(dev);
        asked = 0;
    }
    return last;
}

static void wait_for_nothing(struct link *l, int64_t batch) { (void)l, (void)batch; }

/* Before anybody asks for the tables. */
static void replace_tables(struct device *dev)
{
    table = *dev->ops;
    links = *table.links;
    replay_next = table.replay_next;
    table.replay_next = count_part;
    table.links = &links;
    dev->ops = &table;
}

static void make_mistake(struct passes *p, const char *mistake)
{
    if (strcmp(mistake, "wait") == 0) links.wait = wait_for_nothing;
    if (strcmp(mistake, "late") == 0) table.replay_next = late_part;
    if (strcmp(mistake, "other") == 0) p->asks_more = true;
}

/* ---- passes ---------------------------------------------------------------------------------- */

static void lay_out(struct passes *p)
{
    int64_t tokens = p->ring.plan.tokens, ranks = p->ring.plan.ranks;
    int64_t own = shard_tokens(&p->ring.plan, comm_rank(p->ring.group));
    struct mat *mats[] = {&p->x, &p->q, &p->k, &p->v};
    for (int i = 0; i < 4; i++)
        *mats[i] = mat_f32(arena_floats(&p->memory, own * WIDTH), own, WIDTH);
    ring_lay_out(&p->ring, &p->memory, shard_most_tokens(tokens, (int)ranks));
}

static void open_passes(struct passes *p, struct device *dev, struct comm *group,
                        enum attention_order order, int64_t tokens)
{
    struct shard_plan plan = shard_plan_make(tokens, comm_size(group));
    *p = (struct passes){
        .dev = dev,
        .ring = {.dev = dev, .group = group, .order = order, .heads = HEADS, .head_dim = HEAD_DIM}};
    ring_set_plan(&p->ring, &plan);
    arena_init_on(&p->memory, "passes", device_memory(dev));
    lay_out(p);
    arena_commit(&p->memory);
    lay_out(p);
}

static size_t bytes_of(struct mat m) { return (size_t)(m.rows * m.cols) * sizeof(float); }

/* A value depends on where it stands in the whole sequence. */
static void set_start(const struct passes *p)
{
    float *start = xmalloc(bytes_of(p->x) + 1);
    int64_t first = shard_first_token(&p->ring.plan, comm_rank(p->ring.group)) * WIDTH;
    for (int64_t i = 0; i < p->x.rows * WIDTH; i++) {
        uint32_t mixed = (uint32_t)(first + i) * 2654435761u;
        start[i] = (float)(mixed >> 8) * 0x1p-23f - 1;
    }
    op_upload(p->dev, p->x.p, start, bytes_of(p->x));
    free(start);
}

/* x += attention of x with itself, some times */
static void run_pass(void *argument)
{
    struct passes *p = argument;
    int64_t n = p->x.rows * WIDTH;
    for (p->ring.block = 0; p->ring.block < BLOCKS; p->ring.block++) {
        op_lincomb(p->dev, p->q.p, 1, p->x.p, 0, NULL, n);
        op_lincomb(p->dev, p->k.p, 0.5f, p->x.p, 0, NULL, n);
        op_lincomb(p->dev, p->v.p, -1, p->x.p, 2, p->k.p, n);
        op_lincomb(p->dev, p->v.p, 1, p->v.p, 1, p->q.p, n);
        ring_attend(&p->ring, p->q, p->q, p->k, p->v, 0.3f);
        op_lincomb(p->dev, p->x.p, 1, p->x.p, 0.5f, p->q.p, n);
    }
    if (p->asks_more) op_lincomb(p->dev, p->x.p, 1, p->x.p, 0, NULL, n);
}

/* What x is after so many passes; freed by the caller. */
static float *run(struct passes *p, int steps, bool recorded, const char *mistake)
{
    float *result = xcalloc(1, bytes_of(p->x) + 1);
    struct replays replays = {.dev = p->dev, .on = recorded};
    set_start(p);
    for (int i = 0; i < steps; i++) {
        if (recorded && i == 2) make_mistake(p, mistake);
        replays_run(&replays, &(struct replay_key){.times = 1}, run_pass, p);
        op_lincomb(p->dev, p->x.p, 0.75f, p->x.p, 0, NULL, p->x.rows * WIDTH);
    }
    op_download(p->dev, result, p->x.p, bytes_of(p->x));
    device_finish(p->dev);
    replays_forget(&replays);
    return result;
}

static int check(struct device *dev, struct comm *group, int argc, char **argv)
{
    static const int64_t sequences[] = {90, 40}; /* the second is too short for four ranks */
    enum attention_order order = strcmp(argv[1], "ring") == 0 ? ORDER_RING : ORDER_CANONICAL;
    int steps = atoi(argv[2]), wrong = 0;
    for (int i = 0; i < 2; i++) {
        struct passes p;
        open_passes(&p, dev, group, order, sequences[i]);
        float *asked = run(&p, steps, false, "");
        float *recorded = run(&p, steps, true, argc > 3 ? argv[3] : "");
        wrong += memcmp(asked, recorded, bytes_of(p.x)) != 0;
        free(asked);
        free(recorded);
        arena_free(&p.memory);
    }
    return wrong ? error_set(STATUS_INPUT, "what was replayed differs") : STATUS_OK;
}

static struct comm *open_group(const struct world *w, struct device *dev)
{
    MPI_Comm own;
    const char *why;
    if (w->size == 1) return comm_open_self();
    CHECK(device_links(dev)->version(&why) > 0, "%s", why);
    CHECK_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &own));
    return comm_open_nccl(comm_open_mpi(own, "passes", w->timeout_s), dev, w->rank);
}

static void nothing(void) {}

int main(int argc, char **argv)
{
    struct world w;
    int status = world_start(&w, &argc, &argv, nothing);
    if (status != STATUS_OK || argc < 3) return world_stop(&w, status);
    world_set_timeout(&w, 20);
    struct device *dev = device_open_cuda(w.host_rank, 1, PRECISION_F32);
    replace_tables(dev);
    struct comm *group = open_group(&w, dev);
    status = world_agree(&w, check(dev, group, argc, argv));
    replayed = comm_max(w.comm, replayed);
    if (w.rank == 0) printf("%d parts\n", replayed);
    comm_close(group);
    device_close(dev);
    return world_stop(&w, status);
}
