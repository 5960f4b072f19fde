/* Capture of streams into graphs, and graphs that run.
 *
 * A graph keeps the operations, not their results: every launch begins each of them anew. Nodes run
 * in an order that their edges allow: as captured (eager), the newest first (fifo), any (random).
 */
#include "tests/emulation/runtime/state.h"

#include <algorithm>

struct CUgraph_st {
    std::vector<emulation::runtime::Node> nodes;
};

struct CUgraphExec_st {
    std::shared_ptr<const std::vector<emulation::runtime::Node>> nodes;
    std::shared_ptr<emulation::runtime::Order>
        launches; /* one after another, on whatever streams */
};

namespace emulation::runtime
{

static std::set<std::shared_ptr<Capture>> captures; /* going on */
static std::set<cudaGraph_t> graphs;
static std::set<cudaGraphExec_t> executables;
static thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

/* ---- capturing ---- */

/* CUDA forbids them to this thread while it captures, and while any thread captures globally. */
cudaError_t refuse_in_capture()
{
    bool refused = false;
    for (auto &capture : captures) {
        bool own = capture->thread == std::this_thread::get_id();
        bool minds = capture->mode == cudaStreamCaptureModeGlobal ||
                     (capture->mode == cudaStreamCaptureModeThreadLocal && own);
        if (!minds || thread_mode == cudaStreamCaptureModeRelaxed) continue;
        capture->invalid = true;
        refused = true;
    }
    return refused ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t refuse_capturing_stream(CUstream_st *stream)
{
    if (!stream->capture) return cudaSuccess;
    stream->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
}

cudaError_t refuse_implicit(CUstream_st *stream)
{
    if (!stream->is_default) return cudaSuccess;
    bool refused = false;
    for (auto &capture : captures)
        for (CUstream_st *s : capture->streams)
            if (s->blocking && s->device == stream->device) capture->invalid = refused = true;
    return refused ? cudaErrorStreamCaptureImplicit : cudaSuccess;
}

cudaError_t capture_node(CUstream_st *stream, const char *name, Operation operation,
                         std::shared_ptr<Order> order)
{
    Capture &capture = *stream->capture;
    if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
    capture.nodes.push_back({name, std::move(operation), std::move(order), stream->tail});
    stream->tail = {capture.nodes.size() - 1};
    return cudaSuccess;
}

/* Does all that was captured lead to the origin's end? */
static bool joined(const Capture &capture)
{
    std::vector<bool> reached(capture.nodes.size());
    std::vector<size_t> open = capture.origin->tail;
    while (!open.empty()) {
        size_t node = open.back();
        open.pop_back();
        if (reached[node]) continue;
        reached[node] = true;
        open.insert(open.end(), capture.nodes[node].after.begin(), capture.nodes[node].after.end());
    }
    return std::all_of(reached.begin(), reached.end(), [](bool yes) { return yes; });
}

static void end_capture(const std::shared_ptr<Capture> &capture)
{
    for (CUstream_st *s : capture->streams) {
        s->capture = nullptr;
        s->tail.clear();
    }
    capture->streams.clear();
    captures.erase(capture);
}

/* ---- running ---- */

struct Run { /* one launch */
    std::shared_ptr<const std::vector<Node>> nodes;
    std::vector<uint64_t> tickets; /* of every node in its order */
    std::vector<Step> steps;
    std::vector<bool> done;
    size_t left;
};

static bool node_ready(const Run &run, size_t i)
{
    const Node &node = (*run.nodes)[i];
    if (run.done[i]) return false;
    if (node.order && node.order->finished != run.tickets[i]) return false;
    return std::all_of(node.after.begin(), node.after.end(),
                       [&](size_t before) { return run.done[before]; });
}

/* Completes at most one node; true when all are. */
static bool advance_run(Run &run)
{
    std::vector<size_t> ready;
    for (size_t i = 0; i < run.nodes->size(); i++)
        if (node_ready(run, i)) ready.push_back(i);
    if (settings().schedule == Schedule::fifo) std::reverse(ready.begin(), ready.end());
    if (settings().schedule == Schedule::random)
        for (size_t i = ready.size(); i > 1; i--) std::swap(ready[i - 1], ready[random_below(i)]);
    for (size_t i : ready) {
        const Node &node = (*run.nodes)[i];
        if (!run.steps[i]) run.steps[i] = node.operation();
        if (!run.steps[i]()) continue;
        if (node.order) node.order->finished++;
        run.steps[i] = nullptr;
        run.done[i] = true;
        run.left--;
        note_progress();
        break;
    }
    return run.left == 0;
}

static Operation running(std::shared_ptr<const std::vector<Node>> nodes)
{
    size_t count = nodes->size();
    std::vector<uint64_t> tickets(count);
    for (size_t i = 0; i < count; i++)
        if ((*nodes)[i].order) tickets[i] = (*nodes)[i].order->issued++;
    return [=] {
        auto run = std::make_shared<Run>(
            Run{nodes, tickets, std::vector<Step>(count), std::vector<bool>(count), count});
        return [run] { return advance_run(*run); };
    };
}

} // namespace emulation::runtime

using namespace emulation::runtime;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode)
{
    static uint64_t begun;
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (stream->is_default) return fail(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return fail(cudaErrorIllegalState);
    auto capture = std::make_shared<Capture>();
    capture->id = ++begun;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->origin = stream;
    capture->streams = {stream};
    stream->capture = capture;
    captures.insert(capture);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph)
{
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (graph) *graph = nullptr;
    std::shared_ptr<Capture> capture = stream->capture;
    if (!graph || !capture) return fail(cudaErrorIllegalState);
    if (capture->origin != stream) return fail(cudaErrorStreamCaptureUnmatched);
    if (capture->mode != cudaStreamCaptureModeRelaxed &&
        capture->thread != std::this_thread::get_id())
        return fail(cudaErrorStreamCaptureWrongThread);
    cudaError_t error = capture->invalid    ? cudaErrorStreamCaptureInvalidated
                        : !joined(*capture) ? cudaErrorStreamCaptureUnjoined
                                            : cudaSuccess;
    end_capture(capture);
    if (!error && failure_due("capture")) error = cudaErrorStreamCaptureInvalidated;
    if (error) return fail(error);
    *graph = new CUgraph_st{std::move(capture->nodes)};
    graphs.insert(*graph);
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status)
{
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    *status = !stream->capture           ? cudaStreamCaptureStatusNone
              : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode)
{
    Api api;
    if (!mode) return fail(cudaErrorInvalidValue);
    std::swap(*mode, thread_mode);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!executable || !graphs.count(graph) || flags) return fail(cudaErrorInvalidValue);
    *executable = new CUgraphExec_st{std::make_shared<const std::vector<Node>>(graph->nodes),
                                     std::make_shared<Order>()};
    executables.insert(*executable);
    count_made(Made::graphs);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *executable, cudaGraph_t graph,
                                          unsigned long long flags)
{
    return cudaGraphInstantiate(executable, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!executables.count(executable) || !find_stream(stream)) return fail(cudaErrorInvalidValue);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle)
{
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream || !executables.count(executable)) return fail(cudaErrorInvalidValue);
    if (stream->capture) { /* CUDA would make it a child graph */
        stream->capture->invalid = true;
        return fail(cudaErrorNotSupported);
    }
    if (cudaError_t error = refuse_implicit(stream)) return fail(error);
    count_made(Made::graph_launches);
    append(stream, {0, "graph", running(executable->nodes), nullptr, executable->launches, 0});
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!graphs.count(graph) || !count) return fail(cudaErrorInvalidValue);
    if (nodes) return fail(cudaErrorNotSupported); /* they can be counted, not handled */
    *count = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    Api api;
    if (!graphs.erase(graph)) return fail(cudaErrorInvalidValue);
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    Api api;
    if (!executables.erase(executable)) return fail(cudaErrorInvalidValue);
    delete executable; /* launches that are queued keep the nodes */
    return cudaSuccess;
}

} // extern "C"
