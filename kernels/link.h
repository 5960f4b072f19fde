/* Messages from the memory of one rank's device to another's, past the host: what a backend
 * provides that can (CUDA, by NCCL) and what src/parallel/comm_nccl.c makes a communicator of. A
 * link is this rank's end of a group of devices.
 *
 * Messages go in batches. All of a batch begin together, so that a send and a receive may cross;
 * batches follow each other as they were asked for, beside the ops. A batch waits for the ops that
 * were asked for before its start: what it sends has been made, and nobody reads what it overwrites
 * any more. Ops wait for a batch where `wait` says so.
 *
 * Nothing here waits for another rank. What another rank holds up is asked about by `state` and
 * `arrived`, so that the caller can look at the clock meanwhile. All functions are Local; the ranks
 * of a group ask for the same messages in the same order. */
#ifndef RINGREEL_LINK_H
#define RINGREEL_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;
struct link;

struct link_id { /* by which the ranks of a group find each other */
    unsigned char bytes[128];
};

enum link_state { LINK_READY, LINK_BUSY, LINK_FAILED };
enum { LINK_BATCHES = 64 }; /* as many may be marked and not have arrived */

struct link_ops {
    /* Of the library that moves messages, 22809 for 2.28.9. 0: there is none, *why says what is
     * missing. */
    int (*version)(const char **why);
    /* Names the device among those of this host. */
    void (*place)(char *out, size_t room);
    /* false: *why says what failed */
    bool (*make_id)(struct link_id *id, const char **why);

    /* Begins to; it is open when `state` says LINK_READY. */
    struct link *(*open)(struct device *dev, const struct link_id *id, int rank, int size);
    /* LINK_BUSY: what was begun last (open, start, finish) is not complete. LINK_FAILED is for
     * good; then `problem` says why. */
    enum link_state (*state)(struct link *l);
    const char *(*problem)(struct link *l);

    void (*batch)(struct link *l); /* messages until `start` are one batch */
    void (*send)(struct link *l, const float *from, int64_t count, int to);
    void (*receive)(struct link *l, float *to, int64_t count, int from);
    void (*broadcast)(struct link *l, float *buffer, int64_t count, int root);
    void (*start)(struct link *l); /* then LINK_BUSY until it may be marked */
    /* The number of the batch that was started: 1, 2, ... */
    int64_t (*mark)(struct link *l);

    /* Ops that are asked for from now on come after this batch. */
    void (*wait)(struct link *l, int64_t batch);
    int64_t (*arrived)(struct link *l); /* batches up to this one are complete */
    /* Has the batch after these nothing to wait for any more but other ranks? */
    bool (*under_way)(struct link *l);

    void (*finish)(struct link *l); /* no batch will follow; then LINK_BUSY until `close` */
    void (*close)(struct link *l);
    void (*abort)(struct link *l); /* gives up what is under way; no other call follows */

    /* What a link among so many ranks takes of this device's memory: an estimate, rounded up. */
    int64_t (*bytes)(int ranks);
};

#endif
