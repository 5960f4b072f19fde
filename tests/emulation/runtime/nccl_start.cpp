/* How the ranks of a communicator find each other.
 *
 * The id names the MPI rank that made it. Every rank tells that one who it is, is told who the
 * others are, and all of them make a communicator of their own. Nothing here waits until all ranks
 * have come, so that a start whose peer is missing can be given up.
 */
#include "tests/emulation/runtime/nccl_internal.h"
#include "tests/emulation/runtime/nccl_start.h"

#include <cstdlib>
#include <cstring>
#include <thread>
#include <unistd.h>

namespace emulation::runtime
{

constexpr uint32_t id_magic = 0x52524e43;

struct Id { /* inside ncclUniqueId */
    uint32_t magic;
    int32_t root, number;
};

struct Member {
    int32_t rank, size, mpi_rank, bus;
    uint64_t host;
};

static_assert(sizeof(Id) <= sizeof(ncclUniqueId), "an id has 128 bytes");

static bool mpi_is_up()
{
    int up = 0, down = 0;
    MPI_Initialized(&up);
    MPI_Finalized(&down);
    return up && !down;
}

bool is_mpi_thread()
{
    static const std::thread::id first = std::this_thread::get_id();
    return std::this_thread::get_id() == first;
}

ncclUniqueId make_id()
{
    static int made;
    Id id = {id_magic, 0, made++};
    if (mpi_is_up()) MPI_Comm_rank(MPI_COMM_WORLD, &id.root);
    ncclUniqueId out = {};
    memcpy(&out, &id, sizeof id);
    return out;
}

static uint64_t host_hash()
{
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    const char *id = getenv("NCCL_HOSTID");
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *c = id ? id : name; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    return hash;
}

struct Start {
    Communicator *comm; /* which owns this, through `joining` */
    Id id;
    int tag;
    Member me;
    std::vector<Member> members; /* by rank */
    std::vector<Member> arriving;
    std::vector<MPI_Request> requests;
    enum { calling, told, over } stage = calling;
};

static void call_root(Start &s)
{
    int mpi_rank = s.me.mpi_rank;
    s.members.resize((size_t)s.me.size);
    auto request = [&]() -> MPI_Request * {
        s.requests.emplace_back();
        return &s.requests.back();
    };
    if (mpi_rank == s.id.root) {
        s.arriving.resize((size_t)s.me.size);
        for (Member &m : s.arriving)
            MPI_Irecv(&m, sizeof m, MPI_BYTE, MPI_ANY_SOURCE, s.tag, MPI_COMM_WORLD, request());
    }
    MPI_Isend(&s.me, sizeof s.me, MPI_BYTE, s.id.root, s.tag, MPI_COMM_WORLD, request());
}

static bool complete(Start &s)
{
    int all = 0;
    MPI_Testall((int)s.requests.size(), s.requests.data(), &all, MPI_STATUSES_IGNORE);
    if (all) s.requests.clear();
    return all;
}

static void tell(Start &s)
{
    int bytes = (int)(s.members.size() * sizeof(Member));
    if (s.me.mpi_rank == s.id.root) {
        for (const Member &m : s.arriving) {
            if (m.size != s.me.size || m.rank < 0 || m.rank >= s.me.size)
                die("ncclCommInitRank: rank %d of %d joins a communicator of %d", m.rank, m.size,
                    s.me.size);
            s.members[(size_t)m.rank] = m;
        }
        for (const Member &m : s.members) {
            if (m.mpi_rank == s.me.mpi_rank) continue;
            s.requests.emplace_back();
            MPI_Isend(s.members.data(), bytes, MPI_BYTE, m.mpi_rank, s.tag + 1, MPI_COMM_WORLD,
                      &s.requests.back());
        }
    } else {
        s.requests.emplace_back();
        MPI_Irecv(s.members.data(), bytes, MPI_BYTE, s.id.root, s.tag + 1, MPI_COMM_WORLD,
                  &s.requests.back());
    }
}

static int32_t bus_of(int device)
{
    int bus = 0;
    cudaDeviceGetAttribute(&bus, cudaDevAttrPciBusId, device);
    return bus;
}

/* NCCL refuses two ranks on one GPU, which it knows by its host and its place there. */
static bool is_alone(const Member &me, const std::vector<Member> &members)
{
    for (const Member &m : members) {
        if (m.rank == me.rank || m.host != me.host || m.bus != me.bus) continue;
        note_error("Duplicate GPU detected: rank %d and rank %d both on CUDA device %x", me.rank,
                   m.rank, (unsigned)me.bus << 12);
        return false;
    }
    return true;
}

static void make_communicator(Start &s)
{
    std::vector<int> ranks;
    for (const Member &m : s.members) ranks.push_back(m.mpi_rank);
    MPI_Group world, group;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_incl(world, (int)ranks.size(), ranks.data(), &group);
    MPI_Comm_create_group(MPI_COMM_WORLD, group, s.tag, &s.comm->mpi);
    MPI_Group_free(&group);
    MPI_Group_free(&world);
}

static bool advance(Start &s)
{
    if (s.stage == Start::calling) {
        if (!complete(s)) return false;
        tell(s);
        s.stage = Start::told;
    }
    if (s.stage == Start::told) {
        if (!complete(s)) return false;
        s.stage = Start::over;
        bool alone = is_alone(s.me, s.members);
        if (alone) make_communicator(s);
        s.comm->state = alone ? ncclSuccess : ncclInvalidUsage;
    }
    return true;
}

/* A start that is given up leaves its requests, and the memory they use, to MPI. */
static void give_up(Start *s)
{
    if (s->requests.empty() || !mpi_is_up()) delete s;
}

ncclResult_t start(std::shared_ptr<Communicator> comm, const ncclUniqueId &unique)
{
    Id id;
    memcpy(&id, &unique, sizeof id);
    if (id.magic != id_magic) return ncclInvalidArgument;
    comm->sent.resize((size_t)comm->size);
    comm->received.resize((size_t)comm->size);
    if (!mpi_is_up()) {
        if (comm->size > 1) say("ncclCommInitRank: several ranks need MPI_Init before");
        return comm->size > 1 ? ncclSystemError : ncclSuccess;
    }
    if (!is_mpi_thread()) {
        say("NCCL is emulated for one thread, the one that used it first");
        return ncclInvalidUsage;
    }
    int flag = 0, *upper = nullptr, mpi_rank;
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &upper, &flag);
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi_rank);
    std::shared_ptr<Start> s(new Start, give_up);
    s->comm = comm.get();
    s->id = id;
    s->tag = (flag ? *upper : 32767) - 2 * (id.number % 1024 + 1);
    s->me = {comm->rank, comm->size, mpi_rank, bus_of(comm->device), host_hash()};
    comm->state = ncclInProgress;
    call_root(*s);
    comm->joining = [s] { return advance(*s); };
    return ncclSuccess;
}

} // namespace emulation::runtime
