/* NCCL's calls: communicators, groups, and operations put on streams.
 *
 * Nothing blocks the host except where NCCL does. A communicator's operations run in the order in
 * which they were issued, on whatever streams; a group on several streams holds up all of them.
 */
#include "tests/emulation/runtime/nccl_internal.h"
#include "tests/emulation/runtime/nccl_start.h"

#include <algorithm>
#include <climits>
#include <cstdarg>
#include <cstdio>

struct ncclComm {
    std::shared_ptr<emulation::runtime::Communicator> state;
};

namespace emulation::runtime
{

struct Pending { /* in a group that has not ended */
    std::shared_ptr<Communicator> comm;
    cudaStream_t stream;
    Call call;
};

static int group_depth;
static std::vector<Pending> pending;
static ncclResult_t group_error;
static char last_error[256];

void note_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
}

static ncclResult_t refuse(ncclResult_t result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static ncclResult_t refuse(ncclResult_t result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    if (group_depth > 0 && !group_error) group_error = result;
    return result;
}

static ncclResult_t of_cuda(cudaError_t error)
{
    return error ? refuse(ncclUnhandledCudaError, "%s", cudaGetErrorString(error)) : ncclSuccess;
}

/* ---- issuing a group ---- */

/* `first` waits for the others before the group, and they for it after. */
static cudaError_t tie(cudaStream_t first, const std::vector<cudaStream_t> &streams, bool before)
{
    for (cudaStream_t other : streams) {
        if (other == first) continue;
        cudaEvent_t event;
        cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
        if (!error) error = cudaEventRecord(event, before ? other : first);
        if (!error) error = cudaStreamWaitEvent(before ? first : other, event, 0);
        if (!error) error = cudaEventDestroy(event);
        if (error) return error;
    }
    return cudaSuccess;
}

/* The calls of one communicator. */
static cudaError_t issue(const std::shared_ptr<Communicator> &comm, std::vector<Pending> calls)
{
    std::vector<cudaStream_t> streams;
    std::vector<Call> list;
    for (Pending &p : calls) {
        if (std::find(streams.begin(), streams.end(), p.stream) == streams.end())
            streams.push_back(p.stream);
        list.push_back(p.call);
    }
    static const char *const names[] = {"ncclSend", "ncclRecv", "ncclBroadcast", "ncclAllGather",
                                        "ncclAllReduce"};
    const char *name = list.size() > 1 ? "NCCL group" : names[(int)list[0].kind];
    if (cudaError_t error = tie(streams[0], streams, true)) return error;
    cudaError_t error =
        enqueue_operation(streams[0], name, transfer(comm, std::move(list)), comm->order);
    return error ? error : tie(streams[0], streams, false);
}

/* A group of a communicator that does not block is on no stream before it is asked about: what is
 * put on the stream in between comes before it. */
static ncclResult_t issue_later(Communicator &comm, std::vector<Pending> calls)
{
    comm.issuing = [calls = std::move(calls)] { return of_cuda(issue(calls[0].comm, calls)); };
    return ncclInProgress;
}

static ncclResult_t end_group()
{
    std::vector<Pending> calls;
    calls.swap(pending);
    ncclResult_t result = group_error;
    group_error = ncclSuccess;
    if (result) return result;
    while (!calls.empty()) {
        std::shared_ptr<Communicator> comm = calls[0].comm;
        auto others = std::stable_partition(calls.begin(), calls.end(),
                                            [&](const Pending &p) { return p.comm == comm; });
        std::vector<Pending> own(calls.begin(), others);
        calls.erase(calls.begin(), others);
        if (!comm->blocking)
            result = issue_later(*comm, std::move(own));
        else if (cudaError_t error = issue(comm, std::move(own)))
            return of_cuda(error);
    }
    return result;
}

/* What is wrong with a call, or nullptr. */
static const char *wrong(const Communicator &comm, const Call &call)
{
    size_t bytes;
    size_t parts = call.kind == Kind::all_gather ? (size_t)comm.size : 1;
    if (comm.state == ncclInProgress) return "the communicator is still being made";
    if (comm.issuing) return "the group before is still being issued";
    if (comm.finalizing) return "the communicator is being finalized";
    if (comm.state != ncclSuccess || comm.aborted) return "the communicator has failed";
    if (bytes_of(call.type) == 0) return "the data type is unknown";
    if (__builtin_mul_overflow(call.count, bytes_of(call.type) * parts, &bytes))
        return "the count is too large";
    if (call.peer < 0 || call.peer >= comm.size) return "there is no such rank";
    if (call.kind == Kind::all_reduce && !reducible(call.type, call.reduction))
        return "this type cannot be reduced so";
    bool root = call.kind != Kind::broadcast || call.peer == comm.rank;
    bool sends = call.kind != Kind::receive && root, receives = call.kind != Kind::send;
    if (bytes && sends && !device_range(call.from, bytes / parts))
        return "what is sent is not in device memory";
    if (bytes && receives && !device_range(call.to, bytes))
        return "what is received is not in device memory";
    return nullptr;
}

static ncclResult_t submit(ncclComm_t handle, cudaStream_t stream, Call call)
{
    Api api;
    if (api.error) return of_cuda(api.error);
    if (!handle) return refuse(ncclInvalidArgument, "the communicator is null");
    if (const char *why = wrong(*handle->state, call))
        return refuse(ncclInvalidArgument, "%s", why);
    call.fails = failure_due("nccl");
    call.hangs = failure_due("nccl-hang");
    pending.push_back({handle->state, stream, call});
    return group_depth > 0 ? ncclSuccess : end_group();
}

/* ---- communicators ---- */

static void go_on_joining(Communicator &comm)
{
    if (comm.joining && comm.joining()) comm.joining = nullptr;
}

static ncclResult_t init(ncclComm_t *out, int size, const ncclUniqueId &id, int rank, bool blocking)
{
    Api api;
    if (api.error) return of_cuda(api.error);
    if (!out || size < 1 || rank < 0 || rank >= size)
        return refuse(ncclInvalidArgument, "rank %d of %d", rank, size);
    if (group_depth > 0) return refuse(ncclInvalidUsage, "starting inside a group is not emulated");
    auto comm = std::make_shared<Communicator>();
    comm->rank = rank;
    comm->size = size;
    comm->blocking = blocking;
    cudaGetDevice(&comm->device);
    *out = nullptr;
    if (ncclResult_t result = start(comm, id)) return refuse(result, "the id is not valid here");
    if (blocking)
        wait_until("ncclCommInitRank: waiting for all ranks", [&] {
            go_on_joining(*comm);
            return comm->state != ncclInProgress;
        });
    if (comm->state != ncclSuccess && comm->state != ncclInProgress) return comm->state;
    *out = new ncclComm{comm};
    return blocking ? comm->state : ncclInProgress;
}

static bool is_dry(const Communicator &comm)
{
    return comm.order->finished == comm.order->issued || comm.state != ncclSuccess;
}

/* Waits for what has been issued; the stalled are told. */
static void drain(const Communicator &comm)
{
    wait_until("waiting for a communicator's operations", [&] { return is_dry(comm); });
}

} // namespace emulation::runtime

using namespace emulation::runtime;

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
    if (!version) return ncclInvalidArgument;
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    Api api;
    if (!id) return refuse(ncclInvalidArgument, "the id is null");
    *id = make_id();
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    return init(comm, size, id, rank, true);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    const ncclConfig_t fresh = NCCL_CONFIG_INITIALIZER;
    if (config && (config->magic != fresh.magic || config->size != fresh.size))
        return refuse(ncclInvalidArgument, "the configuration is not initialized");
    return init(comm, size, id, rank, !config || config->blocking != 0);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    Api api;
    if (!comm) return ncclInvalidArgument;
    if (api.error) return of_cuda(api.error);
    comm->state->finalizing = true;
    if (!comm->state->blocking) return ncclInProgress;
    drain(*comm->state);
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    Api api;
    if (!comm) return ncclSuccess;
    if (!api.error) drain(*comm->state);
    delete comm;
    return of_cuda(api.error);
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    Api api;
    if (!comm) return ncclSuccess;
    comm->state->aborted = true;
    comm->state->joining = nullptr;
    comm->state->issuing = nullptr;
    delete comm; /* operations that are under way keep the state, and end at their next step */
    make_progress();
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    Api api;
    if (!comm || !state) return refuse(ncclInvalidArgument, "an argument is null");
    Communicator &c = *comm->state;
    bool busy = c.issuing || (c.finalizing && !is_dry(c));
    *state = c.state == ncclSuccess && busy ? ncclInProgress : c.state;
    if (api.error) return ncclSuccess;
    if (c.issuing) {
        std::function<ncclResult_t()> issuing;
        issuing.swap(c.issuing);
        if (ncclResult_t result = issuing()) c.state = result;
    }
    make_progress();
    go_on_joining(c);
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
    if (!comm || !count) return ncclInvalidArgument;
    *count = comm->state->size;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    if (!comm || !rank) return ncclInvalidArgument;
    *rank = comm->state->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device)
{
    if (!comm || !device) return ncclInvalidArgument;
    *device = comm->state->device;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    Api api;
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    Api api;
    if (group_depth == 0) return refuse(ncclInvalidUsage, "no group has been started");
    return --group_depth > 0 ? ncclSuccess : end_group();
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return submit(comm, stream,
                  {Kind::send, from, nullptr, count, type, ncclSum, peer, false, false});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return submit(comm, stream,
                  {Kind::receive, nullptr, to, count, type, ncclSum, peer, false, false});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    return submit(comm, stream,
                  {Kind::broadcast, from, to, count, type, ncclSum, root, false, false});
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return submit(comm, stream,
                  {Kind::all_gather, from, to, count, type, ncclSum, 0, false, false});
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream)
{
    return submit(comm, stream,
                  {Kind::all_reduce, from, to, count, type, reduction, 0, false, false});
}

ncclResult_t ncclMemAlloc(void **pointer, size_t bytes)
{
    return of_cuda(cudaMalloc(pointer, bytes));
}

ncclResult_t ncclMemFree(void *pointer) { return of_cuda(cudaFree(pointer)); }

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "operation in progress"};
    return (unsigned)result < ncclNumResults ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t) { return last_error; }

} // extern "C"
