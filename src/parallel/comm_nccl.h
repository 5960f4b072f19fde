/* Groups whose transfers of device memory go from device to device, by NCCL (kernels/link.h).
 *
 * A group embeds its MPI group, which moves everything else. Transfers of device memory go on a
 * stream of the group's own. They begin when what was asked of the device before has been done, and
 * comm_wait makes the ops that follow wait for them, not the host: it goes on asking for work, up
 * to LINK_BATCHES batches ahead.
 *
 * What holds a device up is looked at from every poll and every wait of the host. A communicator
 * that reports an error ends the job, and so does a transfer that has nothing left to wait for but
 * its peers, when for the whole time-out nobody in the world has done anything. A rank whose device
 * is waiting like that does not count as one that works (heartbeat.h), though its host polls.
 *
 * NCCL knows no tags: between two ranks, messages match in the order in which they are started. A
 * send and a receive that cross must be in one batch (comm_batch_begin), since the messages of a
 * stream follow one another: a rank that receives first waits for one that receives first, for
 * ever. So are those to both neighbours, or they would run down the ranks one by one. Each use has
 * a communicator of its own: blocks of keys in the denoise group, lines of a picture in the
 * codec group, lines of the last decode among everyone; and weights, when they are loaded, in one
 * of these or in one of the ranks of a host, which is closed before the others are used. A rank
 * uses one of them at a time, since a batch begins after all ops before it, which have waited for
 * the batches of the others: so never are two communicators' kernels in different order on two
 * devices, which NCCL cannot bear.
 *
 * Only src/parallel includes this. */
#ifndef RINGREEL_COMM_NCCL_H
#define RINGREEL_COMM_NCCL_H

#include "kernels/ops.h"
#include "parallel/comm.h"

#include <stdbool.h>

/* Collective over `mpi`, whose ranks have a device each and a backend with links; takes ownership
 * of it. It sends something around and looks at what came before it returns; CHECK-fails where that
 * does not work. Messages name ranks of the world. To be closed before the device. */
struct comm *comm_open_nccl(struct comm *mpi, struct device *dev, int world_rank);

/* Local, for plans: `mpi` only knows what its memory would be (comm_device_bytes) as the group that
 * comm_open_nccl makes of it. */
void comm_plan_nccl(struct comm *mpi, const struct device *dev);

/* Looks after what is under way in all groups of this rank, at most every 100 us. true: this rank's
 * device waits for another rank. CHECK-fails on errors and past the deadline. Local. */
bool comm_nccl_watch(void);
/* When the job ends badly: frees the device from transfers that will never complete. Local. */
void comm_nccl_abort(void);

#endif
