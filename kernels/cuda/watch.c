/* Waiting for the device, never without end, and what is said when it fails.
 *
 * Ops are queued for as long as a whole step, so how long a wait takes says little. What counts is
 * whether the device goes on: events among the long ops (milestones) are passed one after the
 * other, and only when none is passed for the time of the run's timeout is the device given up. */
#include "kernels/cuda/cuda.h"

#include "base/error.h"
#include "base/log.h"

#include <time.h>

struct device *cuda_opened;

/* ---- failures -------------------------------------------------------------------------------- */

/* After an error the runtime may not say which device this is. */
void cuda_check(const char *file, int line, const char *call, int error)
{
    const struct cuda *cuda = cuda_opened ? cuda_of(cuda_opened) : NULL;
    const char *asked = cuda && cuda_opened->asked ? cuda_opened->asked : "nothing";
    if (error == cudaSuccess || cuda_breaks_recording(error)) return;
    fatal(file, line, call, "CUDA device %d: %s (%s); %s at %s, asked for last: %s",
          cuda ? cuda->index : -1, cudaGetErrorString((cudaError_t)error),
          cudaGetErrorName((cudaError_t)error), cuda ? cuda->facts.model : "unknown",
          cuda ? cuda->facts.place : "an unknown place", asked);
}

/* ---- milestones ----------------------------------------------------------------------------- */

void cuda_watch_open(struct cuda_watch *w)
{
    for (int i = 0; i < MILESTONES; i++)
        CHECK_CUDA(cudaEventCreateWithFlags(&w->milestone[i], cudaEventDisableTiming));
}

void cuda_watch_close(struct cuda_watch *w)
{
    for (int i = 0; i < MILESTONES; i++) CHECK_CUDA(cudaEventDestroy(w->milestone[i]));
}

static void look_at_milestones(struct cuda_watch *w)
{
    while (w->passed < w->recorded &&
           cudaEventQuery(w->milestone[w->passed % MILESTONES]) == cudaSuccess)
        w->passed++;
}

/* Where so much is queued that none is free, this one is left out. */
static void set_milestone(struct cuda *cuda)
{
    struct cuda_watch *w = &cuda->watch;
    enum cudaStreamCaptureStatus capture;
    CHECK_CUDA(cudaStreamIsCapturing(cuda->stream, &capture));
    if (capture != cudaStreamCaptureStatusNone) return; /* milestones are no part of a graph */
    look_at_milestones(w);
    if (w->recorded - w->passed == MILESTONES) return;
    CHECK_CUDA(cudaEventRecord(w->milestone[w->recorded++ % MILESTONES], cuda->stream));
}

void cuda_long_op(struct device *dev)
{
    struct cuda *cuda = cuda_of(dev);
    if (++cuda->watch.ops % OPS_PER_MILESTONE == 0) set_milestone(cuda);
    device_poll(dev);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Time counts in slices of at most a second: a job that was suspended as a whole has not been quiet
 * meanwhile; nor has a device that waits for another rank, for which there is another deadline. */
void cuda_keep_waiting(struct device *dev, struct cuda_patience *p)
{
    const struct timespec pause = {.tv_nsec = 20000};
    struct cuda *cuda = cuda_of(dev);
    double now = clock_s(), waited = p->looked_s > 0 ? now - p->looked_s : 0;
    look_at_milestones(&cuda->watch);
    p->quiet_s += waited < 1 ? waited : 1;
    if (cuda->watch.passed > p->passed || dev->held_up) p->quiet_s = 0;
    p->passed = cuda->watch.passed;
    p->looked_s = now;
    CHECK(p->quiet_s < dev->timeout_s,
          "CUDA device %d: it has finished nothing for %.0f s (timeout); %s at %s, asked for last: "
          "%s",
          cuda->index, dev->timeout_s, cuda->facts.model, cuda->facts.place,
          dev->asked ? dev->asked : "nothing");
    device_poll(dev); /* messages of other ranks go on */
    nanosleep(&pause, NULL);
}

static void finish_stream(struct device *dev, cudaStream_t stream)
{
    struct cuda_patience patience = {0};
    cudaError_t state;
    while ((state = cudaStreamQuery(stream)) == cudaErrorNotReady)
        cuda_keep_waiting(dev, &patience);
    CHECK_CUDA(state);
}

void cuda_finish(struct device *dev)
{
    if (cuda_cannot_record("something waits for the device")) return;
    finish_stream(dev, cuda_of(dev)->stream);
    finish_stream(dev, cuda_of(dev)->copies);
}
