/* Ops that are asked for once and done again as a whole: CUDA graphs, captured from their stream,
 * one from cut to cut. Between two cuts no other stream is waited for and none waits.
 *
 * A graph keeps addresses, so those of the backend's own memory must not have moved since. While a
 * capture goes on, whatever cannot be captured says so and does nothing; the recording is then
 * thrown away, the ops are asked for as ever, and no other recording is tried. */
#include "kernels/cuda/cuda.h"

#include "base/error.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

struct part {
    cudaGraphExec_t graph; /* NULL: the ops of a rank without tokens launch nothing */
    uint64_t told;         /* which ops they were (struct device) */
};

struct recording {
    uint64_t moves;
    int count, next; /* parts; next: of the replay that goes on */
    struct part *part;
};

/* A process has one device, and one thread that asks it for ops. */
static struct {
    bool now, given_up;
    char why[128];  /* what goes on cannot be recorded; empty: it can */
    uint64_t moves; /* of the backend's memory, so far */
    struct recording *made, *replayed;
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

/* ---- recording ------------------------------------------------------------------------------- */

static bool begin_capture(struct device *dev)
{
    cudaError_t error =
        cudaStreamBeginCapture(cuda_of(dev)->stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) give_up(cudaGetErrorString(error));
    state.now = error == cudaSuccess;
    return state.now;
}

static cudaError_t make_graph(cudaGraphExec_t *out, cudaGraph_t captured)
{
    size_t nodes;
    cudaError_t error = cudaGraphGetNodes(captured, NULL, &nodes);
    if (error != cudaSuccess || nodes == 0) return error;
    return cudaGraphInstantiateWithFlags(out, captured, 0);
}

/* What has been captured is the next part. */
static bool end_capture(struct device *dev)
{
    struct recording *r = state.made;
    struct part part = {.told = dev->told};
    cudaGraph_t captured = NULL;
    cudaError_t error = cudaStreamEndCapture(cuda_of(dev)->stream, &captured);
    state.now = false;
    if (error == cudaSuccess && !*state.why) error = make_graph(&part.graph, captured);
    if (captured) CHECK_CUDA(cudaGraphDestroy(captured));
    if (error != cudaSuccess || *state.why) {
        give_up(*state.why ? state.why : cudaGetErrorString(error));
        return false;
    }
    r->part = xrealloc(r->part, ((size_t)r->count + 1) * sizeof part);
    r->part[r->count++] = part;
    return true;
}

bool cuda_record_begin(struct device *dev)
{
    state.why[0] = 0;
    if (state.given_up || !begin_capture(dev)) return false;
    state.made = xcalloc(1, sizeof *state.made);
    return true;
}

bool cuda_record_cut(struct device *dev) { return end_capture(dev) && begin_capture(dev); }

struct recording *cuda_record_end(struct device *dev)
{
    struct recording *r = state.made;
    r->moves = state.moves;
    bool whole = state.now && end_capture(dev);
    if (!whole) cuda_recording_free(dev, r);
    state.made = NULL;
    return whole ? r : NULL;
}

void cuda_recording_free(struct device *dev, struct recording *r)
{
    (void)dev;
    for (int i = 0; i < r->count; i++) /* CUDA waits for what still runs of them */
        if (r->part[i].graph) CHECK_CUDA(cudaGraphExecDestroy(r->part[i].graph));
    free(r->part);
    free(r);
}

/* ---- replaying ------------------------------------------------------------------------------- */

bool cuda_replay_begin(struct device *dev, struct recording *r)
{
    (void)dev;
    r->next = 0;
    state.replayed = r;
    return r->moves == state.moves;
}

bool cuda_replay_next(struct device *dev)
{
    struct recording *r = state.replayed;
    const struct part *part = &r->part[r->next];
    CHECK(r->next < r->count && part->told == dev->told,
          "a replay asks for other ops than were recorded, in part %d of %d", r->next + 1,
          r->count);
    if (part->graph) CHECK_CUDA(cudaGraphLaunch(part->graph, cuda_of(dev)->stream));
    cuda_long_op(dev);
    return ++r->next == r->count;
}
