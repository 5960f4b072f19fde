#include "parallel/transport.h"

#include "base/error.h"
#include "kernels/link.h"
#include "parallel/comm_nccl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const transport_group_names[TRANSPORT_GROUPS] = {"denoise", "codec", "everyone"};

static bool is_in(const struct transport_rank *r, int group) { return (int)r->groups >> group & 1; }

static void version_text(double version, char out[32])
{
    int v = (int)version;
    snprintf(out, 32, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
}

/* What keeps two ranks of a group from using NCCL together. */
static bool pair_possible(const struct transport_rank *ranks, int a, int b, char *why, size_t room)
{
    if (ranks[a].place == ranks[b].place) {
        snprintf(why, room, "ranks %d and %d share a device", a, b);
        return false;
    }
    if (ranks[a].version == ranks[b].version) return true;
    char of_a[32], of_b[32];
    version_text(ranks[a].version, of_a);
    version_text(ranks[b].version, of_b);
    snprintf(why, room, "rank %d has NCCL %s, rank %d %s", a, of_a, b, of_b);
    return false;
}

bool transport_possible(const struct transport_rank *ranks, int count, int group, char *why,
                        size_t room)
{
    for (int b = 0; b < count; b++) {
        if (!is_in(&ranks[b], group)) continue;
        if (ranks[b].place == 0 || ranks[b].version == 0) {
            snprintf(why, room, "rank %d has no %s", b, ranks[b].place == 0 ? "device" : "NCCL");
            return false;
        }
        for (int a = 0; a < b; a++)
            if (is_in(&ranks[a], group) && !pair_possible(ranks, a, b, why, room)) return false;
    }
    return true;
}

static int size_of(const struct transport_rank *ranks, int count, int group)
{
    int size = 0;
    for (int r = 0; r < count; r++) size += is_in(&ranks[r], group);
    return size;
}

/* ---- this rank ------------------------------------------------------------------------------- */

/* Host and place on its bus as 52 bits, which a double holds. NCCL wants no two ranks in one place,
 * either, and takes NCCL_HOSTID, where it is set, for the host. */
static double place_of(const struct link_ops *links, const struct world *w)
{
    char text[256] = "";
    const char *host = getenv("NCCL_HOSTID");
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    links->place(text, sizeof text);
    const char *const parts[] = {host ? host : w->host, "/", text};
    for (int i = 0; i < 3; i++)
        for (const char *c = parts[i]; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    return (double)(hash >> 12 | 1);
}

static struct comm **slot_of(struct mesh *m, int group)
{
    return group == 0 ? &m->denoise_group : group == 1 ? &m->codec_group : &m->everyone;
}

static struct transport_rank tell(struct mesh *m, const struct link_ops *links, bool last_by_all)
{
    const char *why;
    struct transport_rank mine = {0};
    if (links) mine.place = place_of(links, m->world);
    if (links) mine.version = links->version(&why);
    for (int g = 0; g < TRANSPORT_GROUPS; g++)
        if (*slot_of(m, g) && (g < 2 || last_by_all))
            mine.groups = (double)((int)mine.groups | 1 << g);
    return mine;
}

/* Why this rank alone could not, whoever the others are. */
static int check_own(const struct link_ops *links, const struct device *dev)
{
    const char *why = "";
    if (!links)
        return error_set(
            STATUS_INPUT,
            "transport nccl: it moves the memory of CUDA devices, and this run computes "
            "on the %s backend; auto and mpi do there",
            device_name(dev));
    if (!links->version(&why)) return error_set(STATUS_INPUT, "transport nccl: %s", why);
    return STATUS_OK;
}

/* ---- all ----------------------------------------------------------------------------------- */

struct choice {
    bool by_nccl[TRANSPORT_GROUPS];
    int nccl, mpi;    /* groups */
    char other[256];  /* who goes by MPI, and why */
    char version[32]; /* of rank 0's NCCL */
};

static void decide(struct choice *c, const struct transport_rank *ranks, int count)
{
    char why[160];
    for (int g = 0; g < TRANSPORT_GROUPS; g++) {
        if (size_of(ranks, count, g) < 2) continue;
        c->by_nccl[g] = transport_possible(ranks, count, g, why, sizeof why);
        c->nccl += c->by_nccl[g];
        if (c->by_nccl[g]) continue;
        size_t used = strlen(c->other);
        snprintf(c->other + used, sizeof c->other - used, "%s%s: %s", c->mpi ? "; " : "",
                 transport_group_names[g], why);
        c->mpi++;
    }
}

/* Collective over the world. */
static struct choice choose(struct mesh *m, const struct link_ops *links, bool last_by_all)
{
    struct world *w = m->world;
    struct choice choice = {.other = ""};
    struct transport_rank *ranks = xcalloc((size_t)w->size, sizeof *ranks);
    ranks[w->rank] = tell(m, links, last_by_all);
    comm_all_gather_each(w->comm, &ranks[0].place, sizeof *ranks / sizeof ranks->place);
    decide(&choice, ranks, w->size);
    version_text(ranks[0].version, choice.version);
    free(ranks);
    return choice;
}

static void announce(const struct choice *c, bool device, char *out, size_t room)
{
    if (c->nccl)
        snprintf(out, room, "transport: nccl %s%s%s%s", c->version, c->mpi ? " (mpi for " : "",
                 c->other, c->mpi ? ")" : "");
    else if (c->mpi)
        snprintf(out, room, "transport: mpi%s%s%s", device ? " (" : "", device ? c->other : "",
                 device ? ")" : "");
}

int transport_open(struct mesh *m, struct device *dev, enum transport wanted, bool last_by_all,
                   char *announcement, size_t room)
{
    struct world *w = m->world;
    const struct link_ops *links = device_links(dev);
    announcement[0] = '\0';
    if (wanted == TRANSPORT_MPI) {
        if (w->size > 1) snprintf(announcement, room, "transport: mpi");
        return STATUS_OK;
    }
    TRY(world_agree(w, wanted == TRANSPORT_NCCL ? check_own(links, dev) : STATUS_OK));
    struct choice choice = choose(m, links, last_by_all);
    announce(&choice, links, announcement, room);
    if (wanted == TRANSPORT_NCCL && choice.mpi)
        return error_set(STATUS_INPUT, "transport nccl: group %s; auto and mpi do there",
                         choice.other);
    for (int g = 0; g < TRANSPORT_GROUPS; g++)
        if (choice.by_nccl[g] && *slot_of(m, g))
            *slot_of(m, g) = comm_open_nccl(*slot_of(m, g), dev, w->rank);
    return STATUS_OK;
}

void transport_plan(struct mesh *m, struct device *dev, enum transport wanted, bool last_by_all)
{
    if (wanted == TRANSPORT_MPI) return;
    struct choice choice = choose(m, device_links(dev), last_by_all);
    for (int g = 0; g < TRANSPORT_GROUPS; g++)
        if (choice.by_nccl[g] && *slot_of(m, g)) comm_plan_nccl(*slot_of(m, g), dev);
}
