#include "parallel/patience.h"

#include "base/log.h"
#include "parallel/comm_mpi.h"
#include "parallel/comm_nccl.h"
#include "parallel/heartbeat.h"

#include <sched.h>
#include <unistd.h>

enum { SPINS = 2000 };
static const double LOOK_S = 0.02;

struct patience patience_for(const char *group, const char *what, int peer, double timeout_s)
{
    return (struct patience){.group = group,
                             .what = what,
                             .peer = peer,
                             .timeout_s = timeout_s,
                             .looked_s = clock_s(),
                             .worked_s = heartbeat_last_work_s()};
}

/* Peers compute for seconds between messages and ranks may outnumber cores: after a short spin the
 * core is given away. */
static void back_off(int turn)
{
    if (turn < SPINS)
        sched_yield();
    else
        usleep(50);
}

void patience_pause(struct patience *p)
{
    back_off(p->turn);
    p->turn += p->turn < SPINS;
    comm_mpi_advance_background();
    comm_nccl_watch();
}

/* Time counts in slices of at most a second: a job that was suspended as a whole (Slurm does that)
 * has not been quiet meanwhile. */
bool patience_is_over(struct patience *p)
{
    double now = clock_s();
    if (now - p->looked_s < LOOK_S) return false;
    p->quiet_s += now - p->looked_s < 1 ? now - p->looked_s : 1;
    p->looked_s = now;
    heartbeat_listen();
    if (heartbeat_last_work_s() > p->worked_s) p->quiet_s = 0;
    p->worked_s = heartbeat_last_work_s();
    return p->quiet_s >= p->timeout_s;
}
