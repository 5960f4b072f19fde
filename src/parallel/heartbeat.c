#include "parallel/heartbeat.h"

#include "base/error.h"
#include "base/log.h"
#include "parallel/comm_mpi.h"

#include <stdlib.h>

enum { TAG_BEAT = 1 };

static MPI_Comm channel = MPI_COMM_NULL; /* of its own, so that beats never match other messages */
static int my_rank, ranks;
static double interval_s = 5, last_sent_s, last_taken_s;
static double *last_seen_s; /* [ranks] */

void heartbeat_start(void)
{
    CHECK_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &channel));
    CHECK_MPI(MPI_Comm_rank(channel, &my_rank));
    CHECK_MPI(MPI_Comm_size(channel, &ranks));
    last_seen_s = xcalloc((size_t)ranks, sizeof *last_seen_s);
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

static void take_in(void)
{
    for (;;) {
        int arrived = 0;
        char sign;
        MPI_Status status;
        CHECK_MPI(MPI_Iprobe(MPI_ANY_SOURCE, TAG_BEAT, channel, &arrived, &status));
        if (!arrived)
            return;
        CHECK_MPI(MPI_Recv(&sign, 1, MPI_BYTE, status.MPI_SOURCE, TAG_BEAT, channel, MPI_STATUS_IGNORE));
        last_seen_s[status.MPI_SOURCE] = clock_s();
    }
}

void heartbeat(void)
{
    if (channel == MPI_COMM_NULL || ranks == 1)
        return;
    double now = clock_s();
    if (now - last_sent_s >= interval_s) {
        last_sent_s = now;
        if (my_rank != 0)
            beat(0);
        for (int r = 1; my_rank == 0 && r < ranks; r++)
            beat(r);
    }
    if (now - last_taken_s >= interval_s / 4) {
        last_taken_s = now;
        take_in();
    }
}

double heartbeat_last_s(int peer, int *rank)
{
    if (channel == MPI_COMM_NULL || ranks == 1)
        return 0;
    take_in();
    if (my_rank != 0)
        peer = 0;
    else if (peer <= 0) {
        peer = 1;
        for (int r = 2; r < ranks; r++)
            peer = last_seen_s[r] < last_seen_s[peer] ? r : peer;
    }
    *rank = peer;
    return last_seen_s[peer];
}

void heartbeat_stop(void)
{
    if (channel == MPI_COMM_NULL)
        return;
    CHECK_MPI(MPI_Barrier(channel));
    take_in(); /* nothing is left unreceived when MPI ends */
    CHECK_MPI(MPI_Comm_free(&channel));
    free(last_seen_s);
    last_seen_s = NULL;
}
