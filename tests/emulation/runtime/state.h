/* Inside libcudart.so.13: settings, streams, captures and what its files need of each other. */
#ifndef RINGREEL_EMULATION_STATE_H
#define RINGREEL_EMULATION_STATE_H

#include "tests/emulation/runtime/runtime.h"

#include <deque>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace emulation::runtime
{

/* ---- settings.cpp: the environment, read once ---- */

enum class Schedule { eager, fifo, random };

struct Failure { /* "launch:3@1": the third launch of rank 1; no rank: of every rank */
    std::string kind;
    uint64_t at = 0, seen = 0;
};

struct Settings {
    int devices = 8;
    int first_bus = 1; /* bus number of device 0 */
    int capability = 90;
    std::string name;                /* "": by the capability */
    int driver = 0;                  /* CUDA version of the driver */
    size_t memory = size_t{2} << 30; /* bytes of every device */
    Schedule schedule = Schedule::eager;
    uint64_t seed = 1;
    bool guard = false, count = false;
    double stall_s = 60;
    std::vector<Failure> failures;
};

Settings &settings();

/* What takes time and memory to make, or shows that it was used. */
enum class Made { memory, pinned, streams, events, graphs, graph_launches, kinds };
void count_made(Made what);
void count_memory(size_t bytes_in_use); /* of a device */

/* Lets other threads into the libraries while this one waits inside. */
void yield_lock();

/* The next of the seeded numbers, below `bound`. */
uint64_t random_below(uint64_t bound);

/* ---- memory.cpp ---- */

/* Pinned: from cudaHostAlloc or registered. */
bool pinned_range(const void *pointer, size_t bytes);

/* Has anything been written beside an allocation? Then it is said and the device is lost. */
void check_surroundings();

/* ---- streams.cpp and graphs.cpp ---- */

struct Node { /* of a graph; `after`: the nodes it waits for */
    std::string name;
    Operation operation;
    std::shared_ptr<Order> order;
    std::vector<size_t> after;
};

struct Capture {
    uint64_t id = 0;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    std::thread::id thread;
    CUstream_st *origin = nullptr;
    std::set<CUstream_st *> streams; /* all that take part */
    std::vector<Node> nodes;
    bool invalid = false;
};

struct Queued {
    uint64_t number; /* order of issue over all streams */
    std::string name;
    Operation operation;
    Step step; /* set while it runs */
    std::shared_ptr<Order> order;
    uint64_t ticket; /* its turn in `order` */
};

struct EventState {
    uint64_t recorded = 0, done = 0; /* how many times */
    double time_s = 0;
    bool timing = true;
    std::shared_ptr<Capture> capture; /* of the last record, where that was captured */
    std::vector<size_t> nodes;
};

/* nullptr and the handles of the default streams become the default stream of the current device;
 * nullptr where the handle is unknown. */
CUstream_st *find_stream(cudaStream_t handle);

/* Appends without regard to captures. */
void append(CUstream_st *stream, Queued operation);

/* A call that must not happen while streams are captured: nonzero, and the capture is broken. */
cudaError_t refuse_in_capture();
cudaError_t refuse_capturing_stream(CUstream_st *stream);

/* Adds a node behind what the stream has captured. */
cudaError_t capture_node(CUstream_st *stream, const char *name, Operation operation,
                         std::shared_ptr<Order> order);

/* The default stream is used while streams that wait for it are captured. */
cudaError_t refuse_implicit(CUstream_st *stream);

/* Counts what goes on inside an operation (the nodes of a graph) as progress. */
void note_progress();

/* Waits for this stream, or (nullptr) for all of them. */
cudaError_t synchronize(CUstream_st *stream);

int current_device();

} // namespace emulation::runtime

struct CUstream_st {
    int id = 0, device = 0, priority = 0;
    bool is_default = false;
    bool blocking = true;   /* waits for, and holds up, the default stream */
    bool destroyed = false; /* goes away when it has run dry */
    std::deque<emulation::runtime::Queued> queue;
    std::shared_ptr<emulation::runtime::Capture> capture;
    std::vector<size_t> tail; /* nodes that the next captured one waits for */
};

struct CUevent_st {
    std::shared_ptr<emulation::runtime::EventState> state;
};

#endif
