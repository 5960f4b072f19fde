/* One block of a grid: its threads, who may run, what each waits for, and its barriers.
 *
 * A thread is a fiber. It runs until it has to wait; then the scheduler picks another that may run.
 * Nothing else interrupts it, so that a run can be repeated exactly; threads that only spin must
 * give way by __nanosleep or __threadfence. When nobody may run, asynchronous work is done; when
 * there is none either, that is a deadlock, and who waits where is printed. */
#ifndef RINGREEL_EMULATION_BLOCK_H
#define RINGREEL_EMULATION_BLOCK_H

#include "async.h"
#include "fibers.h"
#include "grid.h"
#include "modes.h"
#include "place.h"
#include "shared.h"
#include "warp.h"

namespace emulation
{

constexpr int MAX_THREADS = 1024, WARP = 32, MAX_WARPS = MAX_THREADS / WARP, BARRIERS = 16;

struct Block;

struct Thread {
    uint3 index;                 /* threadIdx */
    unsigned number, lane, warp; /* in the block; number = warp * 32 + lane */
    Block *block;
    const void *awaits; /* what it sleeps on; NULL: it may run */
    const char *awaits_name;
    Place awaits_at;
    ThreadAsync async;
    Fiber fiber;
};

struct Barrier {
    int arrived, expected; /* expected 0: all threads that have not left */
    Place place;
    uint32_t generation;
    int votes[2];  /* of __syncthreads_count, by generation */
    char order[2]; /* for the race check, by generation */
};

struct Block {
    const Launch *launch;
    uint3 index;
    dim3 grid, size;
    int threads, warps, alive;
    uint32_t runnable_warps, runnable[MAX_WARPS], alive_lanes[MAX_WARPS];
    int last_warp, last_lane; /* the one that ran last */
    bool gave_way;            /* … and wants others to be picked */
    Modes modes;
    Barrier barriers[BARRIERS];
    SharedMemory shared;
    Meetings meetings[MAX_WARPS];
    BlockAsync async;
    Thread all[MAX_THREADS];
    Home home;
};

extern __thread Thread *current __attribute__((tls_model("initial-exec")));

/* Runs block `index` of the launch to its end. */
void block_run(Block *b, const Launch &launch, uint3 index, const Modes &modes);

/* The current thread sleeps until wake(block, key). */
void sleep_on(const void *key, const char *what, Place at);
void wake(Block *b, const void *key);
void wake_thread(Thread *t);
void give_way();
void at_atomic(); /* gives way now and then, in random order */

/* bar.sync and bar.arrive; count 0: __syncthreads. */
void barrier_sync(int id, int count, Place at);
void barrier_arrive(int id, int count, Place at);
int barrier_vote(bool vote, Place at); /* __syncthreads_count */
void thread_fence();

} // namespace emulation

#endif
