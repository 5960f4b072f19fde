/* Ops that are asked for once and done again as a whole: CUDA graphs, captured from their stream.
 *
 * A graph keeps addresses, so those of the backend's own memory must not have moved since. While a
 * capture goes on, whatever cannot be captured says so and does nothing; the capture is then thrown
 * away, the ops are asked for as ever, and no other capture is tried. */
#include "kernels/cuda/cuda.h"

#include "base/error.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

struct recording {
    cudaGraphExec_t graph;
    uint64_t moves;
};

/* A process has one device, and one thread that asks it for ops. */
static struct {
    bool now, given_up;
    char why[128];  /* what goes on cannot be recorded; empty: it can */
    uint64_t moves; /* of the backend's memory, so far */
} state;

bool cuda_cannot_record(const char *what)
{
    if (state.now && !*state.why) snprintf(state.why, sizeof state.why, "%s", what);
    return state.now;
}

bool cuda_breaks_recording(int error)
{
    bool of_captures =
        error >= cudaErrorStreamCaptureUnsupported && error <= cudaErrorStreamCaptureWrongThread;
    return of_captures && cuda_cannot_record(cudaGetErrorString((cudaError_t)error));
}

void cuda_memory_moved(void) { state.moves++; }

/* Not tried again: what was in the way once is in the way in every step. */
static void give_up(const char *why)
{
    cudaGetLastError();
    state.given_up = true;
    log_info("CUDA graphs are not used: %s", why);
}

bool cuda_record_begin(struct device *dev)
{
    if (state.given_up) return false;
    cudaError_t error =
        cudaStreamBeginCapture(cuda_of(dev)->stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) give_up(cudaGetErrorString(error));
    state.now = error == cudaSuccess;
    state.why[0] = 0;
    return state.now;
}

struct recording *cuda_record_end(struct device *dev)
{
    cudaGraph_t captured = NULL;
    cudaGraphExec_t graph = NULL;
    cudaError_t error = cudaStreamEndCapture(cuda_of(dev)->stream, &captured);
    state.now = false;
    if (error == cudaSuccess && !*state.why)
        error = cudaGraphInstantiateWithFlags(&graph, captured, 0);
    if (captured) CHECK_CUDA(cudaGraphDestroy(captured));
    if (!graph) {
        give_up(*state.why ? state.why : cudaGetErrorString(error));
        return NULL;
    }
    struct recording *r = xcalloc(1, sizeof *r);
    *r = (struct recording){.graph = graph, .moves = state.moves};
    return r;
}

bool cuda_replay(struct device *dev, struct recording *r)
{
    if (r->moves != state.moves) return false;
    CHECK_CUDA(cudaGraphLaunch(r->graph, cuda_of(dev)->stream));
    cuda_long_op(dev);
    return true;
}

void cuda_recording_free(struct device *dev, struct recording *r)
{
    (void)dev;
    CHECK_CUDA(cudaGraphExecDestroy(r->graph)); /* CUDA waits for what still runs of it */
    free(r);
}
