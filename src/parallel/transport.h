/* `transport: auto | nccl | mpi`: how transfers of device memory move (comm.h). */
#ifndef RINGREEL_TRANSPORT_H
#define RINGREEL_TRANSPORT_H

#include "config/options.h"
#include "kernels/ops.h"
#include "parallel/mesh.h"

#include <stddef.h>

/* What each rank tells all others; doubles, as they are gathered. */
struct transport_rank {
    double place;   /* of its device: equal where two ranks use the same one and NCCL_HOSTID does
                       not say that they are on different hosts; 0: it has none */
    double version; /* of NCCL; 0: there is none */
    double groups;  /* that it is in: bits, by the order of transport_group_names */
};
enum { TRANSPORT_GROUPS = 3 };
extern const char *const transport_group_names[TRANSPORT_GROUPS];

/* Local: can this group of all `count` ranks use NCCL? If not, `why` says who is in the way. A
 * group of one has nothing to send. */
bool transport_possible(const struct transport_rank *ranks, int count, int group, char *why,
                        size_t room);

/* Collective over the world: opens NCCL for the mesh's groups where `wanted` says so, and for auto
 * in each group whose ranks have a device each and the same NCCL. `last_by_all`: everyone will
 * decode together. STATUS_INPUT on all ranks where NCCL is wanted and cannot be. *announcement is
 * one line for the run's header, "" where nothing is exchanged. */
int transport_open(struct mesh *m, struct device *dev, enum transport wanted, bool last_by_all,
                   char *announcement, size_t room);
/* Collective over the world: the groups only know what transport_open would open for them here
 * (comm_is_direct, comm_device_bytes). Plans are for machines that may have other devices, so NCCL
 * that cannot be is no error. */
void transport_plan(struct mesh *m, struct device *dev, enum transport wanted, bool last_by_all);

#endif
