/* Messages between devices by NCCL (kernels/link.h). NCCL's library is opened when it is asked for:
 * without it, or built where its header is missing, the backend works and has no links.
 *
 * Communicators do not block: a call that takes time says ncclInProgress, and what it is for may be
 * built upon when ncclCommGetAsyncError says that it is complete. */
#include "kernels/cuda/cuda.h"

#include "base/error.h"
#include "kernels/link.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void place(char *out, size_t room)
{
    int index;
    CHECK_CUDA(cudaGetDevice(&index));
    CHECK_CUDA(cudaDeviceGetPCIBusId(out, (int)room, index));
}

#if __has_include(<nccl.h>)
#include <nccl.h>

/* ---- the library ----------------------------------------------------------------------------- */

static const char library_name[] = "libnccl.so.2";

#define NCCL_FUNCTIONS(X)                                                                          \
    X(GetVersion)                                                                                  \
    X(GetUniqueId)                                                                                 \
    X(CommInitRankConfig)                                                                          \
    X(CommGetAsyncError)                                                                           \
    X(CommFinalize)                                                                                \
    X(CommDestroy)                                                                                 \
    X(CommAbort)                                                                                   \
    X(GroupStart)                                                                                  \
    X(GroupEnd)                                                                                    \
    X(Send)                                                                                        \
    X(Recv)                                                                                        \
    X(Broadcast)                                                                                   \
    X(GetErrorString)                                                                              \
    X(GetLastError)

static struct {
#define MEMBER(name) __typeof__(nccl##name) *name;
    NCCL_FUNCTIONS(MEMBER)
} nccl;

static char missing[512]; /* why there is none */

static bool find(void *library, const char *symbol, void *function)
{
    void *found = dlsym(library, symbol);
    memcpy(function, &found, sizeof found);
    if (!found) snprintf(missing, sizeof missing, "%s lacks %s", library_name, symbol);
    return found;
}

static int load(void)
{
    int version = 0;
    void *library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL); /* stays open */
    if (!library) {
        snprintf(missing, sizeof missing, "no NCCL: %s", dlerror());
        return 0;
    }
#define FIND(name)                                                                                 \
    if (!find(library, "nccl" #name, &nccl.name)) return 0;
    NCCL_FUNCTIONS(FIND)
    ncclResult_t result = nccl.GetVersion(&version);
    if (result != ncclSuccess)
        snprintf(missing, sizeof missing, "%s: %s", library_name, nccl.GetErrorString(result));
    return result == ncclSuccess ? version : 0;
}

static int version(const char **why)
{
    static bool tried;
    static int found;
    if (!tried) found = load();
    tried = true;
    *why = missing;
    return found;
}

static bool make_id(struct link_id *id, const char **why)
{
    _Static_assert(sizeof id->bytes == sizeof(ncclUniqueId), "an id has another size");
    ncclResult_t result = nccl.GetUniqueId((ncclUniqueId *)id->bytes);
    *why = nccl.GetErrorString(result);
    return result == ncclSuccess;
}

/* ---- links ----------------------------------------------------------------------------------- */

struct link {
    struct cuda *cuda;
    ncclComm_t comm;
    cudaStream_t stream;                                  /* of its own, beside the ops' */
    cudaEvent_t ready[LINK_BATCHES], there[LINK_BATCHES]; /* a batch's: it may begin; complete */
    int64_t marked, arrived;
    char problem[512]; /* the first that failed */
};

static bool has_failed(const struct link *l) { return l->problem[0] != '\0'; }

static void note(struct link *l, const char *call, ncclResult_t result)
{
    if (result == ncclSuccess || result == ncclInProgress || has_failed(l)) return;
    const char *more = nccl.GetLastError(l->comm);
    bool told = more && more[0];
    snprintf(l->problem, sizeof l->problem, "%s: %s%s%s", call, nccl.GetErrorString(result),
             told ? ": " : "", told ? more : "");
}

static cudaEvent_t make_event(void)
{
    cudaEvent_t event;
    CHECK_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

/* Messages go before ops where both could begin: they are short, and ops wait for them. */
static struct link *open_link(struct device *dev, const struct link_id *id, int rank, int size)
{
    struct link *l = xcalloc(1, sizeof *l);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId unique;
    int least, greatest;
    l->cuda = cuda_of(dev);
    CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CHECK_CUDA(cudaStreamCreateWithPriority(&l->stream, cudaStreamNonBlocking, greatest));
    for (int i = 0; i < LINK_BATCHES; i++) l->ready[i] = make_event(), l->there[i] = make_event();
    memcpy(&unique, id->bytes, sizeof unique);
    config.blocking = 0;
    note(l, "ncclCommInitRankConfig",
         nccl.CommInitRankConfig(&l->comm, size, unique, rank, &config));
    return l;
}

static enum link_state state(struct link *l)
{
    ncclResult_t now = ncclSuccess;
    if (has_failed(l)) return LINK_FAILED;
    note(l, "ncclCommGetAsyncError", nccl.CommGetAsyncError(l->comm, &now));
    note(l, "asynchronous error", now);
    if (has_failed(l)) return LINK_FAILED;
    return now == ncclInProgress ? LINK_BUSY : LINK_READY;
}

static const char *problem(struct link *l) { return l->problem; }

/* NCCL does not say what it takes; this is as its sources have it (2.28, computeBuffSizes of init.cc
 * and transport/p2p.cc). For each connection to another rank the one that receives has buffers of
 * three protocols, 0.5, 4.7 and 4 MiB, and the one that sends a page: 12 MiB of both kinds, in pages
 * of 2 MiB. There is one for each channel: its logs from Hopper have up to 32, from Blackwell 64,
 * which is its limit, and NCCL_MAX_CTAS sets a lower one. Broadcasts have connections of their own,
 * to one rank, sends to a neighbour on either side. */
static int64_t link_bytes(int ranks)
{
    const int64_t connection = 12 << 20;
    const char *most = getenv("NCCL_MAX_CTAS");
    int64_t channels = cuda_of(cuda_opened)->capability < 100 ? 32 : 64;
    int64_t allowed = most ? strtol(most, NULL, 10) : 0, peers = ranks > 2 ? 2 : ranks - 1;
    if (allowed > 0 && allowed < channels) channels = allowed;
    return channels * connection * (1 + peers);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void begin_batch(struct link *l)
{
    CHECK(l->marked - l->arrived < LINK_BATCHES, "%d batches of messages are under way",
          LINK_BATCHES);
    note(l, "ncclGroupStart", nccl.GroupStart());
}

static void send_floats(struct link *l, const float *from, int64_t count, int to)
{
    note(l, "ncclSend", nccl.Send(from, (size_t)count, ncclFloat32, to, l->comm, l->stream));
}

static void receive_floats(struct link *l, float *to, int64_t count, int from)
{
    note(l, "ncclRecv", nccl.Recv(to, (size_t)count, ncclFloat32, from, l->comm, l->stream));
}

static void broadcast(struct link *l, float *buffer, int64_t count, int root)
{
    note(l, "ncclBroadcast",
         nccl.Broadcast(buffer, buffer, (size_t)count, ncclFloat32, root, l->comm, l->stream));
}

/* What the batch sends may have been made by ops between its messages. */
static void start_batch(struct link *l)
{
    cudaEvent_t ready = l->ready[l->marked % LINK_BATCHES];
    CHECK_CUDA(cudaEventRecord(ready, l->cuda->stream));
    CHECK_CUDA(cudaStreamWaitEvent(l->stream, ready, 0));
    note(l, "ncclGroupEnd", nccl.GroupEnd());
}

static int64_t mark(struct link *l)
{
    CHECK_CUDA(cudaEventRecord(l->there[l->marked % LINK_BATCHES], l->stream));
    return ++l->marked;
}

static void wait_for_batch(struct link *l, int64_t batch)
{
    if (batch > l->arrived)
        CHECK_CUDA(cudaStreamWaitEvent(l->cuda->stream, l->there[(batch - 1) % LINK_BATCHES], 0));
}

static bool has_happened(cudaEvent_t event)
{
    cudaError_t answer = cudaEventQuery(event);
    if (answer == cudaErrorNotReady) return false;
    CHECK_CUDA(answer);
    return true;
}

static int64_t arrived(struct link *l)
{
    while (l->arrived < l->marked && has_happened(l->there[l->arrived % LINK_BATCHES]))
        l->arrived++;
    return l->arrived;
}

static bool under_way(struct link *l)
{
    return l->arrived < l->marked && has_happened(l->ready[l->arrived % LINK_BATCHES]);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void finish_link(struct link *l) { note(l, "ncclCommFinalize", nccl.CommFinalize(l->comm)); }

static void close_link(struct link *l)
{
    nccl.CommDestroy(l->comm);
    CHECK_CUDA(cudaStreamSynchronize(l->stream)); /* nothing is left on it */
    CHECK_CUDA(cudaStreamDestroy(l->stream));
    for (int i = 0; i < LINK_BATCHES; i++) {
        CHECK_CUDA(cudaEventDestroy(l->ready[i]));
        CHECK_CUDA(cudaEventDestroy(l->there[i]));
    }
    free(l);
}

static void abort_link(struct link *l)
{
    if (l->comm) nccl.CommAbort(l->comm);
    l->comm = NULL;
}
const struct link_ops cuda_links = {
    .version = version,
    .place = place,
    .make_id = make_id,
    .open = open_link,
    .state = state,
    .problem = problem,
    .batch = begin_batch,
    .send = send_floats,
    .receive = receive_floats,
    .broadcast = broadcast,
    .start = start_batch,
    .mark = mark,
    .wait = wait_for_batch,
    .arrived = arrived,
    .under_way = under_way,
    .finish = finish_link,
    .close = close_link,
    .abort = abort_link,
    .bytes = link_bytes,
};
#else

static int version(const char **why)
{
    *why = "this build has no NCCL (nccl.h was not found)";
    return 0;
}

const struct link_ops cuda_links = {.version = version, .place = place};
#endif
