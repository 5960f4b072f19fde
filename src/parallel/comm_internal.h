/* What a kind of communicator provides. Only the files comm*.c include this. One that moves nothing
 * but transfers of device memory has another for the rest (`host`), which has all functions. */
#ifndef RINGREEL_COMM_INTERNAL_H
#define RINGREEL_COMM_INTERNAL_H

#include "base/error.h"
#include "parallel/comm.h"

struct comm_kind {
    void (*broadcast_start)(struct comm *, struct transfer *, float *, int64_t rows, int64_t width,
                            int root);
    void (*send_start)(struct comm *, struct transfer *, float *, int64_t rows, int64_t width,
                       int to, int tag);
    void (*receive_start)(struct comm *, struct transfer *, float *, int64_t rows, int64_t width,
                          int from, int tag);
    void (*send_asked_start)(struct comm *, struct transfer *, float *, int64_t rows, int64_t width,
                             int to, int tag);
    void (*batch_begin)(struct comm *); /* NULL: transfers cross anyway */
    void (*batch_end)(struct comm *);
    void (*send_bytes_start)(struct comm *, struct transfer *, const void *, int bytes, int to,
                             int tag);
    void (*receive_bytes_start)(struct comm *, struct transfer *, void *, int bytes, int from,
                                int tag);
    bool (*probe)(struct comm *, int tag, int *from);
    int (*await)(struct comm *, int from, int tag_a, int tag_b);
    void (*wait)(struct comm *, struct transfer *);
    bool (*done)(struct comm *, struct transfer *);
    void (*poll)(struct comm *, struct transfer *, int count);
    void (*broadcast_bytes)(struct comm *, void *, int bytes, int root);
    void (*all_gather_doubles)(struct comm *, double *, const int *counts, const int *offsets);
    void (*close)(struct comm *);
};

struct comm {
    const struct comm_kind *kind;
    int rank, size;
    const char *name;
    double timeout_s;
    double polled_s;           /* when it last polled */
    struct device *started_on; /* whose memory was sent or received last */
    void *own;                 /* the kind's handle */
    struct comm *host; /* moves the host's memory, and control messages; NULL: this one does */
    bool direct;       /* device memory does not go by way of the host */
    int64_t device_planned, device_taken; /* bytes: comm_device_bytes */
};

#endif
