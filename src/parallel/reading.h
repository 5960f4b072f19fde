/* Weights that several ranks of a host hold alike: one of them reads them from the checkpoint, the
 * others are given them over NCCL, in the form in which devices keep them (device_set_reading).
 *
 *     reading_open(&r, &mesh, dev, resident, announcement, sizeof announcement);
 *     reading_begin(&r);
 *     // ranks of one role bring the same tensors to their devices, in the same order
 *     reading_end(&r);
 *     reading_close(&r);
 *
 * Those that do it are the ranks of a host that have one role (denoise, codec), keep their weights,
 * and whose role's group moves by NCCL; the lowest of them reads. All others read for themselves,
 * and the functions below but for reading_open do nothing there. */
#ifndef RINGREEL_READING_H
#define RINGREEL_READING_H

#include "kernels/ops.h"
#include "parallel/mesh.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shared_reading {
    struct device *dev;
    struct comm *group; /* its rank 0 reads; NULL: each for itself */
    bool opened;        /* for this alone; else it is the role's */
    struct reading reading;
    char phase[160];     /* what it is part of */
    int64_t read_bytes;  /* by this rank, as they stand in the file */
    int64_t given_bytes; /* to it by the one that reads */
};

/* Collective over the world, between two uses of the mesh's groups. *announcement is one line for
 * the run's header; "" where nobody could share anything. */
void reading_open(struct shared_reading *r, struct mesh *m, struct device *dev, bool resident,
                  char *announcement, size_t room);
/* Collective over the group: what the device is asked for between the two is the same. At the end
 * it is there. `r` stays in its place meanwhile. */
void reading_begin(struct shared_reading *r);
void reading_end(struct shared_reading *r);
/* Collective over the group. Nothing is shared from then on. */
void reading_close(struct shared_reading *r);

#endif
