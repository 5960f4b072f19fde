/* Groups of MPI ranks behind comm.h. Only src/parallel includes this. */
#ifndef RINGREEL_COMM_MPI_H
#define RINGREEL_COMM_MPI_H

#include "base/error.h"
#include "parallel/comm.h"

#include <mpi.h>

#define CHECK_MPI(call)                                                                            \
    do {                                                                                           \
        int mpi_rc_ = (call);                                                                      \
        CHECK(mpi_rc_ == MPI_SUCCESS, "MPI: %s", comm_mpi_error_text(mpi_rc_));                    \
    } while (0)
const char *comm_mpi_error_text(int code);

/* Takes ownership of `group` (freed by comm_close unless it is MPI_COMM_WORLD). name: "denoise",
 * "world". Local. */
struct comm *comm_open_mpi(MPI_Comm group, const char *name, double timeout_s);

/* Waits for an MPI request; after timeout_s in which nobody in the world has done anything
 * (heartbeat.h) it CHECK-fails naming what and peer (-1: everyone). Local. */
void comm_mpi_wait(MPI_Request *request, const char *group, const char *what, int peer,
                   double timeout_s);

/* Calls what comm_set_background was given, at most every 100 us. Local. */
void comm_mpi_advance_background(void);

/* Inside MPI's own blocking calls (starting, splitting, ending) no deadline of ours reaches: an
 * alarm of so many seconds does (world.c says what it means). */
enum { MPI_PATIENCE_S = 120 };

#endif
