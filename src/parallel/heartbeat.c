#include "parallel/heartbeat.h"

#include "base/error.h"
#include "base/log.h"
#include "parallel/comm_mpi.h"
#include "parallel/comm_nccl.h"

#include <stdbool.h>

enum { TAG_BEAT = 1 };

static MPI_Comm channel = MPI_COMM_NULL; /* of its own, so that beats never match other messages */
static int my_rank, ranks;
static double interval_s = 5, last_sent_s, last_listened_s, last_work_s;
static bool work_to_tell; /* since the last beat that was sent */
static bool silent;

void heartbeat_start(void)
{
    CHECK_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &channel));
    CHECK_MPI(MPI_Comm_rank(channel, &my_rank));
    CHECK_MPI(MPI_Comm_size(channel, &ranks));
}

void heartbeat_set_interval(double seconds) { interval_s = seconds; }

/* One byte goes out eagerly and is complete at once; nobody waits for it. */
static void beat(int to)
{
    static char sign;
    MPI_Request request;
    CHECK_MPI(MPI_Isend(&sign, 1, MPI_BYTE, to, TAG_BEAT, channel, &request));
    CHECK_MPI(MPI_Request_free(&request));
}

static void tell(double now)
{
    if (silent || !work_to_tell || now - last_sent_s < interval_s) return;
    last_sent_s = now;
    work_to_tell = false;
    if (my_rank != 0) beat(0);
    for (int r = 1; my_rank == 0 && r < ranks; r++) beat(r);
}

static void take_in(double now)
{
    for (;;) {
        int arrived = 0;
        char sign;
        MPI_Status status;
        CHECK_MPI(MPI_Iprobe(MPI_ANY_SOURCE, TAG_BEAT, channel, &arrived, &status));
        if (!arrived) return;
        CHECK_MPI(
            MPI_Recv(&sign, 1, MPI_BYTE, status.MPI_SOURCE, TAG_BEAT, channel, MPI_STATUS_IGNORE));
        last_work_s = now;
        work_to_tell |= my_rank == 0; /* rank 0 passes on what it hears */
    }
}

void heartbeat_worked(void)
{
    if (channel == MPI_COMM_NULL) return;
    last_work_s = clock_s();
    work_to_tell = true;
    heartbeat_listen();
    comm_mpi_advance_background();
}

void heartbeat_poll(void *unused)
{
    (void)unused;
    if (!comm_nccl_watch()) return heartbeat_worked();
    heartbeat_listen();
    comm_mpi_advance_background();
}

void heartbeat_listen(void)
{
    if (channel == MPI_COMM_NULL) return;
    double now = clock_s();
    if (now - last_listened_s >= interval_s / 8) {
        last_listened_s = now;
        take_in(now);
    }
    tell(now);
}

double heartbeat_last_work_s(void) { return last_work_s; }

void heartbeat_stop(void)
{
    if (channel == MPI_COMM_NULL) return;
    MPI_Request barrier;
    silent = true; /* a beat after the barrier would be a message that nobody takes */
    CHECK_MPI(MPI_Ibarrier(channel, &barrier));
    comm_mpi_wait(&barrier, "world", "leaving together", -1, 60);
    take_in(clock_s()); /* what has arrived is not left unreceived when MPI ends */
    CHECK_MPI(MPI_Comm_free(&channel));
}
