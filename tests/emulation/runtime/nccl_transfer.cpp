/* A group of calls carried out with MPI messages, step by step and never waiting.
 *
 * Between two ranks messages follow each other in the order of their groups: first the collectives
 * of a group, then what it sends and receives, each as it was called. Ahead of the data goes a
 * header; where the receiver means something else, both sides are printed and the job ends.
 * Collectives exchange headers between all ranks, so that none passes unnoticed.
 */
#include "tests/emulation/runtime/nccl_internal.h"

#include <algorithm>
#include <cstring>

namespace emulation::runtime
{

constexpr uint32_t magic = 0x4e43434c;
constexpr size_t chunk_bytes = size_t{1} << 30; /* MPI counts are int */
constexpr int tag = 0;

size_t bytes_of(ncclDataType_t type)
{
    static const size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return (unsigned)type < ncclNumTypes ? bytes[type] : 0;
}

const char *name_of(ncclDataType_t type)
{
    static const char *const names[] = {"int8", "uint8", "int32",  "uint32", "int64",  "uint64",
                                        "half", "float", "double", "bf16",   "fp8_e4", "fp8_e5"};
    return (unsigned)type < ncclNumTypes ? names[type] : "an unknown type";
}

struct Message {
    Header header;
    size_t bytes;
    int peer;
    std::vector<char> data;
    char *to; /* where incoming data goes: device memory, or part of `gathered` */
    std::vector<MPI_Request> requests;
    Header seen; /* incoming */
    bool checked = false;
};

struct Reduction {
    Call call;
    std::vector<char> gathered;
};

struct Group { /* one execution */
    std::shared_ptr<Communicator> comm;
    std::vector<Call> calls;
    std::vector<std::unique_ptr<Message>> out;
    std::vector<std::deque<std::unique_ptr<Message>>> in; /* per peer, in order */
    std::vector<std::unique_ptr<Reduction>> reductions;
    bool begun = false;
    ~Group();
};

/* MPI may still touch what a dropped group was sending: that is never given back. */
Group::~Group()
{
    int finalized = 1;
    MPI_Finalized(&finalized);
    auto drop = [&](std::unique_ptr<Message> &message) {
        bool pending = false;
        for (MPI_Request &request : message->requests) pending |= request != MPI_REQUEST_NULL;
        if (pending && !finalized) (void)message.release();
    };
    for (auto &message : out) drop(message);
    for (auto &queue : in)
        for (auto &message : queue) drop(message);
}

/* ---- beginning ---- */

static Header header_of(const Call &call, uint64_t sequence)
{
    int argument = call.kind == Kind::all_reduce  ? (int)call.reduction
                   : call.kind == Kind::broadcast ? call.peer
                                                  : 0;
    Kind kind = call.kind == Kind::receive ? Kind::send : call.kind; /* two sides of one thing */
    return {magic, (int32_t)kind, (int32_t)call.type, argument, call.count, sequence};
}

using Post = int (*)(void *, int, MPI_Datatype, int, int, MPI_Comm, MPI_Request *);

static void post_chunks(Message &m, char *data, Post post, MPI_Comm comm)
{
    for (size_t at = 0; at < m.bytes; at += chunk_bytes) {
        MPI_Request request;
        post(data + at, (int)std::min(chunk_bytes, m.bytes - at), MPI_BYTE, m.peer, tag, comm,
             &request);
        m.requests.push_back(request);
    }
}

static int issend(void *data, int count, MPI_Datatype type, int peer, int t, MPI_Comm comm,
                  MPI_Request *request)
{
    return MPI_Issend(data, count, type, peer, t, comm, request);
}

/* Synchronous sends: like NCCL's of more than its buffers, they complete when somebody receives. */
static void send_to(Group &g, const Call &call, int peer, const void *data, size_t bytes)
{
    auto m = std::make_unique<Message>();
    m->header = header_of(call, g.comm->sent[(size_t)peer]++);
    m->peer = peer;
    m->bytes = bytes;
    m->data.assign((const char *)data, (const char *)data + bytes);
    m->requests.emplace_back();
    issend(&m->header, sizeof m->header, MPI_BYTE, peer, tag, g.comm->mpi, &m->requests[0]);
    post_chunks(*m, m->data.data(), issend, g.comm->mpi);
    g.out.push_back(std::move(m));
}

static void expect_from(Group &g, const Call &call, int peer, void *to, size_t bytes)
{
    auto m = std::make_unique<Message>();
    m->header = header_of(call, g.comm->received[(size_t)peer]++);
    m->peer = peer;
    m->bytes = bytes;
    m->to = (char *)to;
    g.in[(size_t)peer].push_back(std::move(m));
}

static void begin_collective(Group &g, const Call &call)
{
    const Communicator &comm = *g.comm;
    size_t bytes = call.count * bytes_of(call.type);
    bool root = call.kind == Kind::broadcast && call.peer == comm.rank;
    bool sends = call.kind != Kind::broadcast || root;
    char *to = (char *)call.to;
    if (call.kind == Kind::all_reduce) {
        g.reductions.push_back(std::make_unique<Reduction>(
            Reduction{call, std::vector<char>((size_t)comm.size * bytes)}));
        to = g.reductions.back()->gathered.data();
    }
    for (int peer = 0; peer < comm.size; peer++) {
        char *part = call.kind == Kind::broadcast ? to : to + (size_t)peer * bytes;
        bool receives = call.kind != Kind::broadcast || peer == call.peer;
        if (peer != comm.rank) {
            send_to(g, call, peer, call.from, sends ? bytes : 0);
            expect_from(g, call, peer, part, receives ? bytes : 0);
        } else if (sends && part != call.from) {
            memmove(part, call.from, bytes);
        }
    }
}

/* What a rank sends to itself does not pass through MPI. */
static void copy_to_self(const Communicator &comm, const Call &to, std::deque<const Call *> &sends)
{
    if (sends.empty() || sends.front()->count != to.count || sends.front()->type != to.type)
        die("rank %d receives %zu %s from itself, and its group sends it nothing like that",
            comm.rank, to.count, name_of(to.type));
    memmove(to.to, sends.front()->from, to.count * bytes_of(to.type));
    sends.pop_front();
}

static void begin(Group &g)
{
    g.begun = true;
    g.in.resize((size_t)g.comm->size);
    std::deque<const Call *> to_self;
    for (const Call &call : g.calls) {
        if (call.kind != Kind::send && call.kind != Kind::receive)
            begin_collective(g, call);
        else if (call.kind == Kind::send && call.peer == g.comm->rank)
            to_self.push_back(&call);
    }
    for (const Call &call : g.calls) {
        size_t bytes = call.count * bytes_of(call.type);
        if (call.kind == Kind::send && call.peer != g.comm->rank)
            send_to(g, call, call.peer, call.from, bytes);
        else if (call.kind == Kind::receive && call.peer != g.comm->rank)
            expect_from(g, call, call.peer, call.to, bytes);
        else if (call.kind == Kind::receive)
            copy_to_self(*g.comm, call, to_self);
    }
    if (!to_self.empty()) die("rank %d sends to itself and does not receive it", g.comm->rank);
}

/* ---- going on ---- */

static bool sent(Message &m)
{
    int all = 0;
    MPI_Testall((int)m.requests.size(), m.requests.data(), &all, MPI_STATUSES_IGNORE);
    return all;
}

static std::string text_of(const Header &h)
{
    static const char *const kinds[] = {"ncclSend/ncclRecv", "", "ncclBroadcast", "ncclAllGather",
                                        "ncclAllReduce"};
    char text[160];
    if (h.magic != magic || (uint32_t)h.kind > (uint32_t)Kind::all_reduce)
        return "something that is no header";
    snprintf(text, sizeof text, "%s of %llu %s%s%s (message %llu)", kinds[h.kind],
             (unsigned long long)h.count, name_of((ncclDataType_t)h.type),
             h.kind == (int32_t)Kind::broadcast    ? ", root "
             : h.kind == (int32_t)Kind::all_reduce ? ", reduction "
                                                   : "",
             h.kind == (int32_t)Kind::broadcast || h.kind == (int32_t)Kind::all_reduce
                 ? std::to_string(h.argument).c_str()
                 : "",
             (unsigned long long)h.sequence);
    return text;
}

static void check(const Communicator &comm, Message &m)
{
    if (!memcmp(&m.seen, &m.header, sizeof m.header)) return;
    say("NCCL calls do not match: rank %d does %s; rank %d does %s", m.peer,
        text_of(m.seen).c_str(), comm.rank, text_of(m.header).c_str());
    MPI_Abort(MPI_COMM_WORLD, 3);
}

/* True when the message is there and its data in place. */
static bool arrived(const Communicator &comm, Message &m)
{
    if (m.requests.empty()) {
        m.requests.emplace_back();
        MPI_Irecv(&m.seen, sizeof m.seen, MPI_BYTE, m.peer, tag, comm.mpi, &m.requests[0]);
    }
    if (!sent(m)) return false;
    if (!m.checked) {
        check(comm, m);
        m.checked = true;
        m.data.resize(m.bytes);
        post_chunks(m, m.data.data(), MPI_Irecv, comm.mpi);
        if (!sent(m)) return false;
    }
    if (m.bytes) memcpy(m.to, m.data.data(), m.bytes);
    return true;
}

static bool advance(Group &g)
{
    Communicator &comm = *g.comm;
    if (comm.aborted) return true;
    for (const Call &call : g.calls) {
        if (call.fails) comm.state = ncclRemoteError;
        if (call.fails || call.hangs) return false;
    }
    if (comm.mpi != MPI_COMM_NULL && !is_mpi_thread()) return false;
    DeviceAccess access;
    if (!g.begun) begin(g);
    for (auto &queue : g.in)
        while (!queue.empty() && arrived(comm, *queue.front())) queue.pop_front();
    auto done = [](std::unique_ptr<Message> &message) { return sent(*message); };
    g.out.erase(std::remove_if(g.out.begin(), g.out.end(), done), g.out.end());
    auto empty = [](const auto &queue) { return queue.empty(); };
    if (!g.out.empty() || !std::all_of(g.in.begin(), g.in.end(), empty)) return false;
    for (auto &r : g.reductions)
        reduce(r->call.to, r->gathered.data(), comm.size, r->call.count, r->call.type,
               r->call.reduction);
    return true;
}

Operation transfer(std::shared_ptr<Communicator> comm, std::vector<Call> calls)
{
    return [comm = std::move(comm), calls = std::move(calls)] {
        auto group = std::make_shared<Group>();
        group->comm = comm;
        group->calls = calls;
        return [group] { return advance(*group); };
    };
}

} // namespace emulation::runtime
