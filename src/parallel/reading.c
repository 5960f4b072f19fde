#include "parallel/reading.h"

#include "base/error.h"
#include "parallel/comm_nccl.h"
#include "parallel/heartbeat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum role { DENOISES, CODES, ROLES, NO_ROLE = ROLES };
static const char *const role_names[ROLES] = {"denoise", "codec"};

/* How a rank comes by its weights. */
enum way { READS, IS_GIVEN, STREAMS, WITHOUT_NCCL, ALONE };
static const char *const reasons[] = {[STREAMS] = "expanded at every use",
                                      [WITHOUT_NCCL] = "no NCCL between them",
                                      [ALONE] = "each alone on its host"};

/* ---- one tensor ------------------------------------------------------------------------------ */

static bool is_reader(const struct shared_reading *r) { return comm_rank(r->group) == 0; }

/* The phase is what a message names whose reader is lost. */
static bool reads(void *argument, const struct tensor *t)
{
    struct shared_reading *r = argument;
    phase_set("loading %s", t->name);
    if (!is_reader(r)) return false;
    heartbeat_worked();
    r->read_bytes += (int64_t)t->bytes;
    return true;
}

static void pass_on(void *argument, float *memory, int64_t floats)
{
    struct shared_reading *r = argument;
    struct transfer t = {.device = r->dev};
    comm_broadcast_start(r->group, &t, memory, 1, floats, 0);
    comm_wait(r->group, &t);
    if (!is_reader(r)) r->given_bytes += floats * (int64_t)sizeof *memory;
}

void reading_begin(struct shared_reading *r)
{
    if (!r->group) return;
    r->reading = (struct reading){.reads = reads, .pass_on = pass_on, .argument = r};
    snprintf(r->phase, sizeof r->phase, "%s", phase_get());
    device_set_reading(r->dev, &r->reading);
}

void reading_end(struct shared_reading *r)
{
    if (!r->group) return;
    device_set_reading(r->dev, NULL);
    device_finish(r->dev);
    phase_set("%s", r->phase);
}

/* ---- who shares with whom -------------------------------------------------------------------- */

/* In a world of several ranks nobody has both. */
static enum role role_of(const struct mesh *m)
{
    return m->denoises ? DENOISES : m->codes ? CODES : NO_ROLE;
}

static struct comm *group_of(const struct mesh *m, enum role role)
{
    return role == DENOISES ? m->denoise_group : m->codec_group;
}

/* What this rank alone knows. */
static enum way way_by_itself(const struct mesh *m, enum role role, bool resident)
{
    if (role == NO_ROLE || !resident) return STREAMS;
    return comm_is_direct(group_of(m, role)) ? IS_GIVEN : WITHOUT_NCCL;
}

/* Collective over the world: how many ranks of this host would share with this one. */
static int sharers(struct world *w, enum role role, enum way way)
{
    int mine = way == IS_GIVEN ? (int)role : NO_ROLE, count = 0;
    int *all = xcalloc((size_t)w->host_size, sizeof *all);
    world_host_gather(w, &mine, all, sizeof mine);
    for (int r = 0; r < w->host_size; r++) count += way == IS_GIVEN && all[r] == mine;
    free(all);
    return count;
}

/* Where the whole group is on one host, nothing has to be opened. */
static void open_group(struct shared_reading *r, struct mesh *m, enum role role, int count)
{
    bool shares = count > 1, all = shares && count == comm_size(group_of(m, role));
    struct comm *mpi = world_host_split(m->world, shares && !all ? (int)role : -1, "weights");
    r->opened = mpi;
    if (mpi)
        r->group = comm_open_nccl(mpi, r->dev, m->world->rank);
    else if (all)
        r->group = group_of(m, role);
}

/* ---- telling --------------------------------------------------------------------------------- */

struct said { /* by each rank to all; doubles, as they are gathered */
    double role, way;
};

static void tell_role(const struct said *ranks, int count, enum role role, char *out, size_t room)
{
    int all = 0, given = 0;
    enum way way = READS;
    for (int r = 0; r < count; r++) {
        if (ranks[r].role != role) continue;
        all++;
        given += ranks[r].way == IS_GIVEN;
        way = (enum way)ranks[r].way;
    }
    size_t used = strlen(out);
    if (all < 2) return;
    used += (size_t)snprintf(out + used, room - used, used ? "; " : "weights: ");
    if (given)
        snprintf(out + used, room - used, "read by %d of %d %s ranks, broadcast over NCCL to %d",
                 all - given, all, role_names[role], given);
    else
        snprintf(out + used, room - used, "read by each of %d %s ranks (%s)", all, role_names[role],
                 reasons[way]);
}

/* Collective over the world. */
static void tell(struct world *w, enum role role, enum way way, char *out, size_t room)
{
    struct said *ranks = xcalloc((size_t)w->size, sizeof *ranks);
    ranks[w->rank] = (struct said){role, way};
    comm_all_gather_each(w->comm, &ranks[0].role, sizeof *ranks / sizeof ranks->role);
    for (int i = 0; i < ROLES; i++) tell_role(ranks, w->size, i, out, room);
    free(ranks);
}

/* ---- opening, closing ------------------------------------------------------------------------ */

void reading_open(struct shared_reading *r, struct mesh *m, struct device *dev, bool resident,
                  char *announcement, size_t room)
{
    enum role role = role_of(m);
    enum way way = way_by_itself(m, role, resident);
    *r = (struct shared_reading){.dev = dev};
    announcement[0] = '\0';
    if (m->world->size == 1 || !device_links(dev)) return;
    int count = sharers(m->world, role, way);
    open_group(r, m, role, count);
    if (way == IS_GIVEN && count == 1) way = ALONE;
    if (r->group && is_reader(r)) way = READS;
    tell(m->world, role, way, announcement, room);
}

void reading_close(struct shared_reading *r)
{
    if (r->opened) comm_close(r->group);
    r->group = NULL;
    r->opened = false;
}
