/* A group of ranks that exchange buffers. Model code sees this and never the kind behind it: `self`
 * (a group of one, no MPI call at all), `mpi` or `nccl`.
 *
 * Buffers lie in host memory, but those of a transfer whose `device` is set, which lie in that
 * device's: ring blocks and lines of the VAE's pictures. `mpi` sends these as they are where MPI
 * can read them (device_memory_is_host), and by way of the host where it cannot. Sends begin when
 * the device has finished what makes their rows; what was received is in its place after comm_wait,
 * for ops that are asked for from then on. `nccl` moves such transfers from device to device, in
 * the order in which they are started, and leaves all others to MPI (comm_nccl.h). Both move the
 * same bytes.
 *
 * While ops are recorded (kernels/ops.h), transfers of device memory are neither started nor waited
 * for; in replays of these ops they are, as ever. Groups that are direct can do that, host memory
 * cannot be sent meanwhile.
 *
 * No wait is unbounded: every wait polls, and past the deadline it CHECK-fails naming group,
 * operation and peer. Counts are int64_t rows of a fixed width, so no MPI count overflows. */
#ifndef RINGREEL_COMM_H
#define RINGREEL_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm;

int comm_rank(const struct comm *c); /* Local */
int comm_size(const struct comm *c); /* Local */
/* Local: does device memory go past the host? A group of one sends none. */
bool comm_is_direct(const struct comm *c);
/* Local: for how long a wait may see nothing happen. */
void comm_set_timeout(struct comm *c, double timeout_s);

/* A group of this rank alone. (Groups of several ranks are opened by the mesh: comm_mpi.h.) */
struct comm *comm_open_self(void);
void comm_close(struct comm *c);

struct device;
struct staging; /* the kind's own: host memory in place of a device's */

/* Local, for plans of memory: what the group's messages take of a device's memory, an estimate,
 * rounded up; and what of that is taken already. */
void comm_device_bytes(const struct comm *c, int64_t *planned, int64_t *taken);

/* A transfer under way. Zero-initialise; a finished or never started one waits for nothing. */
struct transfer {
    struct device *device;     /* whose memory the buffer is in; NULL: the host's. The caller's */
    unsigned char request[16]; /* the kind's own handle */
    bool active;
    const char *what; /* "broadcast", for messages */
    int peer;
    struct staging *staging; /* until the rows are in their place */
};

/* Collective over c: starts broadcasting rows*width floats from `root`; every rank passes the same
 * rows and width. */
void comm_broadcast_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                          int64_t width, int root);
/* Local starts of a matched pair. */
void comm_send_start(struct comm *c, struct transfer *t, const float *buffer, int64_t rows,
                     int64_t width, int to, int tag);
void comm_receive_start(struct comm *c, struct transfer *t, float *buffer, int64_t rows,
                        int64_t width, int from, int tag);
/* As comm_send_start, but not complete before the receiver has asked for it. (Small messages are
 * complete at once otherwise, and pile up at a receiver that does not.) */
void comm_send_asked_start(struct comm *c, struct transfer *t, const float *buffer, int64_t rows,
                           int64_t width, int to, int tag);
/* Local: transfers that are started between the two begin together, and are not waited for within.
 * Transfers of device memory that cross (each of two ranks sends to the other) must be in one batch
 * on both. */
void comm_batch_begin(struct comm *c);
void comm_batch_end(struct comm *c);
/* Local: waits for completion, polling. Past the group's timeout with nobody in the world having
 * done anything (heartbeat.h) it CHECK-fails, naming group, operation and peer. */
void comm_wait(struct comm *c, struct transfer *t);
/* Local: is it complete, or was it never started? Does not wait. */
bool comm_done(struct comm *c, struct transfer *t);
/* Local: `advance` is called now and then from every wait, and while this rank works from every
 * poll (heartbeat.h): for messages that must go on whatever this rank does. It must not wait
 * itself. NULL: nothing is called. */
void comm_set_background(void (*advance)(void *argument), void *argument);
/* Local: gives MPI a chance to progress the active ones of `transfers`, at most every 100 us
 * however often it is called. */
void comm_poll(struct comm *c, struct transfer *transfers, int count);

/* Local starts of a matched pair of a short control message. */
void comm_send_bytes_start(struct comm *c, struct transfer *t, const void *data, int bytes, int to,
                           int tag);
void comm_receive_bytes_start(struct comm *c, struct transfer *t, void *data, int bytes, int from,
                              int tag);
/* Local: has a message with this tag arrived, from anyone? Its sender in *from. */
bool comm_probe(struct comm *c, int tag, int *from);

/* Local: waits until a message with either tag has arrived from rank `from`; returns
 * that tag. */
int comm_await(struct comm *c, int from, int tag_a, int tag_b);

/* Collective over c, for small control data. */
void comm_broadcast_bytes(struct comm *c, void *data, int bytes, int root);
/* Collective over c: the largest value of any rank. */
int comm_max(struct comm *c, int value);
/* Collective over c: every rank contributes its own part of `all` (counts[r] doubles at
 * offsets[r]), all get the whole. */
void comm_all_gather_doubles(struct comm *c, double *all, const int *counts, const int *offsets);
/* The same where every rank has `each` of them, rank r's at all + r * each. */
void comm_all_gather_each(struct comm *c, double *all, int each);

#endif
