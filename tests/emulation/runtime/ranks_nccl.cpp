/* ranks_nccl CASE...: what several ranks do with NCCL, under mpirun (nccl.sh); not a test by
 * itself. Exit code 0 and "good CASE" from rank 0 where all is as it should be on all ranks. */
#include "tests/emulation/runtime/harness.h"

#include <mpi.h>
#include <nccl.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#define NC(call)                                                                                   \
    do {                                                                                           \
        ncclResult_t got_ = (call);                                                                \
        if (got_ != ncclSuccess) {                                                                 \
            fprintf(stderr, "%s:%d: %s gave %s: %s\n", __FILE__, __LINE__, #call,                  \
                    ncclGetErrorString(got_), ncclGetLastError(nullptr));                          \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static int rank, size;
static cudaStream_t stream, other;

static ncclUniqueId common_id()
{
    ncclUniqueId id;
    if (rank == 0) NC(ncclGetUniqueId(&id));
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    return id;
}

static ncclComm_t make_comm()
{
    ncclComm_t comm;
    NC(ncclCommInitRank(&comm, size, common_id(), rank));
    return comm;
}

template <class T> static std::vector<T> host_copy(const T *device, size_t count)
{
    std::vector<T> values(count);
    OK(cudaMemcpy(values.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

template <class T> static T *device_copy(const std::vector<T> &values)
{
    T *p = device_array<T>(values.size());
    OK(cudaMemcpy(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return p;
}

static void fill(cudaStream_t s, int *p, size_t count, int value)
{
    OK(kernel(s, [=] { std::fill(p, p + count, value); }));
}

static bool all_are(const int *device, size_t count, int value)
{
    for (int x : host_copy(device, count))
        if (x != value) return false;
    return true;
}

/* Around the ring, size times: empty, small and large messages, on the heels of the kernel that
 * makes them, and a group to oneself. */
static void ring()
{
    ncclComm_t comm = make_comm();
    int n, r, device;
    NC(ncclCommCount(comm, &n));
    NC(ncclCommUserRank(comm, &r));
    NC(ncclCommCuDevice(comm, &device));
    EXPECT(n == size && r == rank && device == rank);
    for (size_t count : {size_t{0}, size_t{1}, size_t{1000}, size_t{300000}}) {
        int *now = device_array<int>(count), *next = device_array<int>(count);
        fill(stream, now, count, rank);
        for (int hop = 0; hop < size; hop++) {
            NC(ncclGroupStart());
            NC(ncclSend(now, count, ncclInt32, (rank + 1) % size, comm, stream));
            NC(ncclRecv(next, count, ncclInt32, (rank + size - 1) % size, comm, stream));
            NC(ncclGroupEnd());
            std::swap(now, next);
        }
        OK(cudaStreamSynchronize(stream));
        EXPECT(all_are(now, count, rank));
        EXPECT(all_are(next, count, (rank + 1) % size));
    }
    NC(ncclCommDestroy(comm));
}

template <class T> static std::vector<T> numbers(int of_rank, size_t count)
{
    std::vector<T> values(count);
    for (size_t i = 0; i < count; i++) values[i] = (T)(float)((i * 7 + (size_t)of_rank * 3) % 13);
    return values;
}

template <class T> static void reduces(ncclComm_t comm, ncclDataType_t type)
{
    const size_t count = 1003;
    T *mine = device_copy(numbers<T>(rank, count)), *out = device_array<T>(count);
    for (ncclRedOp_t op : {ncclSum, ncclMax}) {
        NC(ncclAllReduce(mine, out, count, type, op, comm, stream));
        OK(cudaStreamSynchronize(stream));
        std::vector<T> got = host_copy(out, count);
        for (size_t i = 0; i < count; i++) {
            double want = op == ncclMax ? -1 : 0;
            for (int r = 0; r < size; r++) {
                double x = (double)(float)numbers<T>(r, count)[i];
                want = op == ncclMax ? fmax(want, x) : want + x;
            }
            EXPECT((double)(float)got[i] == want);
            if (i > 40) i += 97;
        }
    }
    NC(ncclAllReduce(mine, mine, count, type, ncclSum, comm, stream)); /* in place */
    OK(cudaStreamSynchronize(stream));
    NC(ncclAllReduce(mine, out, count, type, ncclMax, comm, stream));
    OK(cudaStreamSynchronize(stream));
    EXPECT(!memcmp(host_copy(mine, count).data(), host_copy(out, count).data(), count * sizeof(T)));
}

static void collectives()
{
    ncclComm_t comm = make_comm();
    reduces<float>(comm, ncclFloat32);
    reduces<double>(comm, ncclFloat64);
    reduces<__nv_bfloat16>(comm, ncclBfloat16);
    reduces<int8_t>(comm, ncclInt8);
    reduces<uint8_t>(comm, ncclUint8);
    reduces<int32_t>(comm, ncclInt32);
    reduces<int64_t>(comm, ncclInt64);

    const size_t count = 5001;
    int *mine = device_array<int>(count), *all = device_array<int>(count * (size_t)size);
    fill(stream, mine, count, 10 + rank);
    NC(ncclAllGather(mine, all, count, ncclInt32, comm, stream));
    for (int root = 0; root < size; root++) {
        const int *from = rank == root ? mine : nullptr;
        NC(ncclBroadcast(from, all + (size_t)root * count, 1, ncclInt32, root, comm, stream));
    }
    OK(cudaStreamSynchronize(stream));
    for (int r = 0; r < size; r++) EXPECT(all_are(all + (size_t)r * count, count, 10 + r));
    NC(ncclCommDestroy(comm));
}

/* A sender's host goes on although nobody receives yet; the receiver learns of it from MPI. */
static void host_goes_on()
{
    ncclComm_t comm = make_comm();
    int *x = device_array<int>(200000);
    if (rank == 0) {
        fill(stream, x, 200000, 4);
        for (int r = 1; r < size; r++) NC(ncclSend(x, 200000, ncclInt32, r, comm, stream));
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank > 0) NC(ncclRecv(x, 200000, ncclInt32, 0, comm, stream));
    OK(cudaStreamSynchronize(stream));
    EXPECT(all_are(x, 200000, 4));
    NC(ncclCommDestroy(comm));
}

/* Two streams and one communicator: in the order of the calls; one group on both streams; and two
 * communicators, whose operations do not wait for each other. */
static void streams()
{
    ncclComm_t comm = make_comm(), second = make_comm();
    int *a = device_array<int>(8), *b = device_array<int>(8), *c = device_array<int>(8);
    fill(stream, a, 8, 1);
    fill(other, b, 8, 2);
    NC(ncclAllReduce(a, a, 8, ncclInt32, ncclSum, comm, stream));
    NC(ncclAllReduce(b, b, 7, ncclInt32, ncclSum, comm, other));
    fill(stream, a, 1, 5);
    NC(ncclGroupStart());
    NC(ncclBroadcast(a, a, 1, ncclInt32, 0, comm, stream));
    NC(ncclAllReduce(b, c, 7, ncclInt32, ncclMax, comm, other));
    NC(ncclGroupEnd());
    fill(stream, b, 1, 9); /* the group has read it: it held up both streams */
    NC(ncclAllReduce(a + 1, a + 1, 1, ncclInt32, ncclSum, second, stream));
    OK(cudaDeviceSynchronize());
    EXPECT(read_back(a) == 5 && read_back(a + 2) == size && read_back(a + 1) == size * size);
    EXPECT(all_are(c, 7, 2 * size) && read_back(b) == 9);
    NC(ncclCommDestroy(second));
    NC(ncclCommDestroy(comm));
}

static void graph()
{
    ncclComm_t comm = make_comm();
    int *x = device_array<int>(2);
    cudaGraph_t captured;
    cudaGraphExec_t executable;
    fill(stream, x, 2, 1);
    OK(cudaStreamSynchronize(stream));
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    NC(ncclAllReduce(x, x, 1, ncclInt32, ncclSum, comm, stream));
    NC(ncclGroupStart());
    NC(ncclSend(x, 1, ncclInt32, (rank + 1) % size, comm, stream));
    NC(ncclRecv(x + 1, 1, ncclInt32, (rank + size - 1) % size, comm, stream));
    NC(ncclGroupEnd());
    OK(cudaStreamEndCapture(stream, &captured));
    OK(cudaGraphInstantiate(&executable, captured, 0));
    int want = 1;
    for (int i = 0; i < 3; i++) {
        OK(cudaGraphLaunch(executable, stream));
        NC(ncclAllReduce(x, x, 1, ncclInt32, ncclMax, comm, stream));
        want *= size;
    }
    OK(cudaStreamSynchronize(stream));
    EXPECT(read_back(x) == want && read_back(x + 1) == want);
    NC(ncclCommDestroy(comm));
}

/* A start that does not wait; and one that never ends, because a rank stays away. */
static void starting()
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t state = ncclInProgress;
    ncclComm_t comm, lonely;
    ncclResult_t result = ncclCommInitRankConfig(&comm, size, common_id(), rank, &config);
    EXPECT(result == ncclInProgress);
    EXPECT(ncclAllReduce(nullptr, nullptr, 0, ncclInt8, ncclSum, comm, stream) ==
           ncclInvalidArgument);
    while (state == ncclInProgress) NC(ncclCommGetAsyncError(comm, &state));
    NC(state);
    NC(ncclCommDestroy(comm));

    ncclUniqueId id = common_id();
    if (rank == 0) {
        EXPECT(ncclCommInitRankConfig(&lonely, size, id, 0, &config) == ncclInProgress);
        for (int i = 0; i < 1000; i++) NC(ncclCommGetAsyncError(lonely, &state));
        EXPECT(size == 1 || state == ncclInProgress);
        NC(ncclCommAbort(lonely));
    }
    config.magic = 0;
    EXPECT(ncclCommInitRankConfig(&comm, size, id, rank, &config) == ncclInvalidArgument);
    ncclUniqueId never = {};
    EXPECT(ncclCommInitRank(&comm, size, never, rank) == ncclInvalidArgument);
    EXPECT(ncclCommInitRank(&comm, size, id, size) == ncclInvalidArgument);
}

static void until_ready(ncclComm_t comm)
{
    ncclResult_t state;
    do NC(ncclCommGetAsyncError(comm, &state));
    while (state == ncclInProgress);
    NC(state);
}

/* What a communicator that does not block is told is not on the stream before it is asked about. */
static void not_blocking()
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm;
    EXPECT(ncclCommInitRankConfig(&comm, size, common_id(), rank, &config) == ncclInProgress);
    until_ready(comm);
    int *x = device_array<int>(8);
    fill(stream, x, 8, rank + 1);
    OK(cudaStreamSynchronize(stream));
    EXPECT(ncclBroadcast(x, x, 8, ncclInt32, size - 1, comm, stream) == ncclInProgress);
    OK(cudaStreamSynchronize(stream));
    EXPECT(all_are(x, 8, rank + 1));
    EXPECT(ncclBroadcast(x, x, 8, ncclInt32, 0, comm, stream) == ncclInvalidArgument);
    until_ready(comm);
    OK(cudaStreamSynchronize(stream));
    EXPECT(all_are(x, 8, size));
    EXPECT(ncclCommFinalize(comm) == ncclInProgress);
    until_ready(comm);
    NC(ncclCommDestroy(comm));
}

/* Ranks on devices of one place, be their numbers equal or not. */
static void one_place()
{
    ncclComm_t comm;
    EXPECT(ncclCommInitRank(&comm, size, common_id(), rank) ==
           (size > 1 ? ncclInvalidUsage : ncclSuccess));
    EXPECT(size == 1 || strstr(ncclGetLastError(nullptr), "Duplicate GPU"));
}

/* All ranks on device 0, as on a machine with one GPU. */
static void one_device()
{
    OK(cudaSetDevice(0));
    one_place();
}

/* The same where each says that it is on a host of its own. */
static void own_hosts()
{
    cudaStream_t own;
    OK(cudaSetDevice(0));
    OK(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking));
    setenv("NCCL_HOSTID", std::to_string(rank).c_str(), 1);
    ncclComm_t comm = make_comm();
    unsetenv("NCCL_HOSTID");
    int *x = device_array<int>(8);
    fill(own, x, 8, rank);
    NC(ncclBroadcast(x, x, 8, ncclInt32, size - 1, comm, own));
    OK(cudaStreamSynchronize(own));
    EXPECT(all_are(x, 8, size - 1));
    NC(ncclCommDestroy(comm));
}

static void refused()
{
    ncclComm_t comm = make_comm();
    int *x = device_array<int>(4), host[4];
    EXPECT(ncclSend(host, 4, ncclInt32, 0, comm, stream) == ncclInvalidArgument);
    EXPECT(strstr(ncclGetLastError(comm), "device memory"));
    EXPECT(ncclRecv(x, 5, ncclInt32, 0, comm, stream) == ncclInvalidArgument);
    EXPECT(ncclRecv(x, 4, ncclInt32, size, comm, stream) == ncclInvalidArgument);
    EXPECT(ncclAllReduce(x, x, 4, ncclFloat8e4m3, ncclSum, comm, stream) == ncclInvalidArgument);
    EXPECT(ncclAllGather(x, x, 4, ncclInt32, comm, stream) ==
           (size > 1 ? ncclInvalidArgument : ncclSuccess));
    EXPECT(ncclGroupEnd() == ncclInvalidUsage);
    NC(ncclGroupStart());
    EXPECT(ncclSend(host, 4, ncclInt32, 0, comm, stream) == ncclInvalidArgument);
    EXPECT(ncclGroupEnd() == ncclInvalidArgument); /* the whole group */
    NC(ncclCommDestroy(comm));
}

/* ---- what must end the job ---- */

static void mismatch(const char *what)
{
    ncclComm_t comm = make_comm();
    int *x = device_array<int>(16);
    fill(stream, x, 16, 1);
    bool odd = rank == size - 1;
    if (!strcmp(what, "count"))
        NC(ncclAllReduce(x, x, odd ? 3 : 4, ncclInt32, ncclSum, comm, stream));
    else if (!strcmp(what, "type"))
        NC(ncclAllReduce(x, x, 4, odd ? ncclFloat32 : ncclInt32, ncclSum, comm, stream));
    else if (!strcmp(what, "reduction"))
        NC(ncclAllReduce(x, x, 4, ncclInt32, odd ? ncclMax : ncclSum, comm, stream));
    else if (!strcmp(what, "root"))
        NC(ncclBroadcast(x, x, 4, ncclInt32, odd ? 1 : 0, comm, stream));
    else if (odd)
        NC(ncclBroadcast(x, x, 4, ncclInt32, 0, comm, stream));
    else
        NC(ncclAllReduce(x, x, 4, ncclInt32, ncclSum, comm, stream));
    OK(cudaStreamSynchronize(stream));
}

/* Everybody sends before anybody receives, outside a group: NCCL hangs, and so does this. */
static void sends_first()
{
    ncclComm_t comm = make_comm();
    int *x = device_array<int>(16);
    fill(stream, x, 16, 1);
    NC(ncclSend(x, 4, ncclInt32, (rank + 1) % size, comm, stream));
    NC(ncclRecv(x, 4, ncclInt32, (rank + size - 1) % size, comm, stream));
    OK(cudaStreamSynchronize(stream));
}

/* ---- deadlines: the second operation fails, or hangs, on every rank ---- */

static ncclResult_t poll(ncclComm_t comm)
{
    ncclResult_t state = ncclSuccess;
    for (int i = 0; i < 2000; i++) {
        cudaError_t error = cudaStreamQuery(stream);
        NC(ncclCommGetAsyncError(comm, &state));
        if (state != ncclSuccess) return state;
        if (error == cudaSuccess) return ncclSuccess;
        EXPECT(error == cudaErrorNotReady);
        usleep(i < 100 ? 100 : 0);
    }
    return ncclInProgress; /* the deadline */
}

static void gives_up(ncclResult_t want)
{
    ncclComm_t comm = make_comm();
    int *x = device_array<int>(4);
    fill(stream, x, 4, 1);
    NC(ncclAllReduce(x, x, 4, ncclInt32, ncclSum, comm, stream));
    OK(cudaStreamSynchronize(stream));
    EXPECT(read_back(x) == size);
    NC(ncclAllReduce(x, x, 4, ncclInt32, ncclSum, comm, stream));
    EXPECT(poll(comm) == want);
    NC(ncclCommAbort(comm));
    OK(cudaStreamSynchronize(stream)); /* the stream is free again */
}

int main(int argc, char **argv)
{
    const std::map<std::string, std::function<void()>> cases = {
        {"ring", ring},
        {"collectives", collectives},
        {"host_goes_on", host_goes_on},
        {"streams", streams},
        {"graph", graph},
        {"starting", starting},
        {"not_blocking", not_blocking},
        {"one_place", one_place},
        {"one_device", one_device},
        {"own_hosts", own_hosts},
        {"refused", refused},
        {"mismatch-count", [] { mismatch("count"); }},
        {"mismatch-type", [] { mismatch("type"); }},
        {"mismatch-reduction", [] { mismatch("reduction"); }},
        {"mismatch-root", [] { mismatch("root"); }},
        {"mismatch-kind", [] { mismatch("kind"); }},
        {"sends_first", sends_first},
        {"error", [] { gives_up(ncclRemoteError); }},
        {"hang", [] { gives_up(ncclInProgress); }},
    };
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    OK(cudaSetDevice(rank));
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    for (int i = 1; i < argc; i++) {
        cases.at(argv[i])();
        MPI_Barrier(MPI_COMM_WORLD);
        if (rank == 0) printf("good %s\n", argv[i]);
    }
    MPI_Finalize();
}
