/* Inside libnccl.so.2: communicators, calls, messages. */
#ifndef RINGREEL_EMULATION_NCCL_INTERNAL_H
#define RINGREEL_EMULATION_NCCL_INTERNAL_H

#include "tests/emulation/runtime/runtime.h"

#include <mpi.h>
#include <nccl.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace emulation::runtime
{

enum class Kind : int32_t { send, receive, broadcast, all_gather, all_reduce };

struct Call { /* of ncclSend and so on */
    Kind kind;
    const void *from;
    void *to;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t reduction;
    int peer; /* of a send or receive; the root of a broadcast */
    bool fails, hangs;
};

/* Goes ahead of the data: both sides must mean the same. */
struct Header {
    uint32_t magic;
    int32_t kind, type, argument; /* the reduction or the root */
    uint64_t count;
    uint64_t sequence; /* of messages from this rank to that one */
};

struct Communicator {
    MPI_Comm mpi = MPI_COMM_NULL; /* stays null for one rank without MPI */
    int rank = 0, size = 0, device = 0;
    std::shared_ptr<Order> order = std::make_shared<Order>();
    std::vector<uint64_t> sent, received; /* messages so far, per peer */
    ncclResult_t state = ncclSuccess;     /* what ncclCommGetAsyncError gives */
    bool aborted = false;
    std::function<bool()> joining; /* goes on with the start; true when complete */
    bool blocking = true;
    std::function<ncclResult_t()> issuing; /* a group of a communicator that does not block */
    bool finalizing = false;
};

/* nccl_transfer.cpp */

size_t bytes_of(ncclDataType_t type); /* 0: unknown */
const char *name_of(ncclDataType_t type);

/* The operation on a stream that carries out the calls of one group. */
Operation transfer(std::shared_ptr<Communicator> comm, std::vector<Call> calls);

/* nccl_reduce.cpp */

bool reducible(ncclDataType_t type, ncclRedOp_t reduction);

/* All ranks' data, one rank behind the other, reduced in the order of the ranks. */
void reduce(void *to, const char *data, int ranks, size_t count, ncclDataType_t type,
            ncclRedOp_t reduction);

/* nccl.cpp */

/* Only the thread that made the first communicator may call MPI. */
bool is_mpi_thread();

/* What ncclGetLastError gives from now on. */
void note_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace emulation::runtime

#endif
