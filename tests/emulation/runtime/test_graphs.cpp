/* Capture of streams into graphs, graphs that run, and what must not be captured. */
#include "tests/emulation/runtime/harness.h"

#include <vector>

static const std::string orders[] = {"STREAMS=eager", "STREAMS=fifo", "STREAMS=random:1",
                                     "STREAMS=random:2", "STREAMS=random:3"};

struct Streams { /* b takes part in what a captures */
    cudaStream_t a, b;
    cudaEvent_t fork, join;
};

static Streams make_streams()
{
    Streams s;
    OK(cudaStreamCreateWithFlags(&s.a, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&s.b, cudaStreamNonBlocking));
    OK(cudaEventCreateWithFlags(&s.fork, cudaEventDisableTiming));
    OK(cudaEventCreateWithFlags(&s.join, cudaEventDisableTiming));
    return s;
}

static void fork_off(const Streams &s)
{
    OK(cudaEventRecord(s.fork, s.a));
    OK(cudaStreamWaitEvent(s.b, s.fork, 0));
}

static void join(const Streams &s)
{
    OK(cudaEventRecord(s.join, s.b));
    OK(cudaStreamWaitEvent(s.a, s.join, 0));
}

static cudaGraphExec_t instantiate(cudaGraph_t graph)
{
    cudaGraphExec_t executable;
    OK(cudaGraphInstantiate(&executable, graph, 0));
    OK(cudaGraphDestroy(graph)); /* what has been made of it stays */
    return executable;
}

/* x = 10 x + 1 on a; y = x on b; x = 10 x + 2 on a, then z = x + y. */
static cudaGraphExec_t capture_diamond(const Streams &s, int *x, bool waits_for_b)
{
    cudaGraph_t graph;
    size_t nodes;
    cudaStreamCaptureStatus status;
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    OK(kernel(s.a, [=] { x[0] = 10 * x[0] + 1; }));
    fork_off(s);
    OK(kernel(s.b, [=] { x[1] = x[0]; }));
    if (waits_for_b) join(s);
    OK(kernel(s.a, [=] { x[2] = x[0] + x[1]; }));
    if (!waits_for_b) join(s);
    OK(cudaStreamIsCapturing(s.b, &status));
    EXPECT(status == cudaStreamCaptureStatusActive);
    OK(cudaStreamEndCapture(s.a, &graph));
    OK(cudaStreamIsCapturing(s.b, &status));
    EXPECT(status == cudaStreamCaptureStatusNone);
    OK(cudaGraphGetNodes(graph, nullptr, &nodes));
    EXPECT(nodes == 3);
    return instantiate(graph);
}

static void captured_work_runs_at_launch(void **)
{
    for (const std::string &order : orders)
        succeeds({order, "GUARD=1"}, [] {
            Streams s = make_streams();
            int *x = device_array<int>(3);
            OK(cudaMemset(x, 0, 12));
            OK(cudaDeviceSynchronize());
            cudaGraphExec_t graph = capture_diamond(s, x, true);
            OK(cudaDeviceSynchronize());
            EXPECT(read_back(x) == 0); /* not yet */
            OK(cudaGraphLaunch(graph, s.a));
            OK(kernel(s.a, [=] { x[0] += 3; }));
            OK(cudaGraphLaunch(graph, s.a));
            OK(cudaGraphExecDestroy(graph));
            OK(cudaStreamSynchronize(s.a));
            EXPECT(read_back(x) == 41 && read_back(x + 2) == 82);
        });
}

static void a_missing_edge_shows(void **)
{
    auto body = [] {
        Streams s = make_streams();
        int *x = device_array<int>(3);
        OK(cudaMemset(x, 0, 12));
        OK(cudaDeviceSynchronize());
        OK(cudaGraphLaunch(capture_diamond(s, x, false), s.a));
        OK(cudaStreamSynchronize(s.a));
        _exit(read_back(x + 2) == 2 ? 0 : 9);
    };
    assert_int_equal(in_process({"STREAMS=eager"}, body).code, 0);
    assert_int_equal(in_process({"STREAMS=fifo"}, body).code, 9);
}

/* Copies from pageable memory are read at every launch; launches of one graph do not overlap. */
static void launches_one_after_another(void **)
{
    for (const std::string &order : orders)
        succeeds({order}, [] {
            Streams s = make_streams();
            static int host[1] = {1};
            int *x = device_array<int>(2);
            cudaGraph_t graph;
            OK(cudaMemset(x, 0, 8));
            OK(cudaDeviceSynchronize());
            OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeRelaxed));
            OK(cudaMemcpyAsync(x, host, 4, cudaMemcpyHostToDevice, s.a));
            OK(kernel(s.a, [=] { x[1] = 2 * x[1] + x[0]; }));
            OK(cudaStreamEndCapture(s.a, &graph));
            cudaGraphExec_t executable = instantiate(graph);
            OK(cudaGraphUpload(executable, s.a));
            for (int i = 0; i < 5; i++) OK(cudaGraphLaunch(executable, i % 2 ? s.b : s.a));
            OK(cudaDeviceSynchronize());
            EXPECT(read_back(x + 1) == 31);
            host[0] = 0;
            OK(cudaGraphLaunch(executable, s.a));
            OK(cudaDeviceSynchronize());
            EXPECT(read_back(x + 1) == 62);
        });
}

/* Begins a capture, does something, and expects it to end with this error. */
static void capture_ends_with(cudaError_t error, const std::function<void(const Streams &)> &body)
{
    succeeds({}, [&] {
        Streams s = make_streams();
        cudaGraph_t graph;
        OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal));
        body(s);
        GIVES(error, cudaStreamEndCapture(s.a, &graph));
        EXPECT((graph != nullptr) == (error == cudaSuccess));
        OK(cudaStreamSynchronize(s.a)); /* usable again */
    });
}

static void what_breaks_a_capture(void **)
{
    static void *p;
    capture_ends_with(cudaSuccess, [](const Streams &) {});
    capture_ends_with(cudaErrorStreamCaptureInvalidated, [](const Streams &) {
        GIVES(cudaErrorStreamCaptureUnsupported, cudaMalloc(&p, 16));
    });
    capture_ends_with(cudaErrorStreamCaptureInvalidated, [](const Streams &s) {
        GIVES(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(s.a));
    });
    capture_ends_with(cudaErrorStreamCaptureInvalidated, [](const Streams &s) {
        GIVES(cudaErrorStreamCaptureUnsupported, cudaStreamQuery(s.a));
        GIVES(cudaErrorStreamCaptureInvalidated, kernel(s.a, [] {}));
    });
    capture_ends_with(cudaErrorStreamCaptureInvalidated, [](const Streams &) {
        GIVES(cudaErrorStreamCaptureUnsupported, cudaDeviceSynchronize());
    });
    capture_ends_with(cudaErrorStreamCaptureInvalidated, [](const Streams &s) {
        GIVES(cudaErrorStreamCaptureUnsupported, cudaEventQuery(s.join)); /* of any event */
    });
    capture_ends_with(cudaErrorStreamCaptureInvalidated, [](const Streams &s) {
        OK(cudaEventRecord(s.join, s.b)); /* outside */
        GIVES(cudaErrorStreamCaptureIsolation, cudaStreamWaitEvent(s.a, s.join, 0));
    });
    capture_ends_with(cudaErrorStreamCaptureUnjoined, [](const Streams &s) {
        fork_off(s);
        OK(kernel(s.b, [] {}));
    });
    capture_ends_with(cudaErrorStreamCaptureInvalidated, [](const Streams &s) {
        cudaGraph_t graph;
        GIVES(cudaErrorIllegalState, cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal));
        OK(cudaStreamBeginCapture(s.b, cudaStreamCaptureModeGlobal));
        OK(cudaEventRecord(s.fork, s.b));
        GIVES(cudaErrorStreamCaptureMerge, cudaStreamWaitEvent(s.a, s.fork, 0));
        GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(s.b, &graph));
    });
}

static void the_default_stream_and_captures(void **)
{
    succeeds({}, [] {
        cudaStream_t bound;
        cudaGraph_t graph;
        OK(cudaStreamCreate(&bound));
        int *x = device_array<int>(1);
        GIVES(cudaErrorStreamCaptureUnsupported,
              cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed));
        OK(cudaStreamBeginCapture(bound, cudaStreamCaptureModeRelaxed));
        GIVES(cudaErrorStreamCaptureImplicit, cudaMemset(x, 0, 4));
        GIVES(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(bound, &graph));
        GIVES(cudaErrorIllegalState, cudaStreamEndCapture(bound, &graph));
    });
    succeeds({}, [] { /* relaxed: memory may be allocated */
                      Streams s = make_streams();
                      cudaGraph_t graph;
                      OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeRelaxed));
                      OK(cudaMemsetAsync(device_array<int>(1), 0, 4, s.a));
                      fork_off(s);
                      GIVES(cudaErrorCapturedEvent, cudaEventQuery(s.fork));
                      GIVES(cudaErrorStreamCaptureUnmatched, cudaStreamEndCapture(s.b, &graph));
                      OK(cudaStreamEndCapture(s.a, &graph));
                      GIVES(cudaErrorStreamCaptureUnmatched, cudaStreamWaitEvent(s.b, s.fork, 0));
                      GIVES(cudaErrorInvalidValue, cudaGraphLaunch(nullptr, s.a));
    });
}

/* Settings that plant mistakes. */
static void planted_failures(void **)
{
    succeeds({"FAIL=capture:2"}, [] {
        Streams s = make_streams();
        cudaGraph_t graph;
        for (int i = 1; i <= 3; i++) {
            OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
            GIVES(i == 2 ? cudaErrorStreamCaptureInvalidated : cudaSuccess,
                  cudaStreamEndCapture(s.a, &graph));
            EXPECT((graph != nullptr) == (i != 2));
        }
    });
    succeeds({"FAIL=no-wait:2", "STREAMS=fifo"}, [] {
        Streams s = make_streams();
        int *x = device_array<int>(2);
        for (int i = 0; i < 2; i++) { /* b has newer work than a and goes first, unless it waits */
            OK(kernel(s.a, [=] { x[i] = 1; }));
            fork_off(s);
            OK(kernel(s.b, [=] { x[i] = 2; }));
            OK(cudaStreamSynchronize(s.b));
            OK(cudaStreamSynchronize(s.a));
        }
        EXPECT(read_back(x) == 2 && read_back(x + 1) == 1);
    });
}

static void what_was_made_is_counted(void **)
{
    auto body = [] {
        Streams s = make_streams();
        cudaGraph_t graph;
        int *x = device_array<int>(1);
        OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
        OK(cudaMemsetAsync(x, 0, 4, s.a));
        OK(cudaStreamEndCapture(s.a, &graph));
        cudaGraphExec_t executable = instantiate(graph);
        for (int i = 0; i < 3; i++) OK(cudaGraphLaunch(executable, s.b));
        OK(cudaDeviceSynchronize());
        exit(0);
    };
    Outcome outcome = in_process({"COUNT=1"}, body);
    assert_int_equal(outcome.code, 0);
    assert_non_null(strstr(outcome.said.c_str(),
                           "made 1 device allocations, 0 pinned allocations, 2 streams, 2 events, "
                           "1 graphs, 3 launches of graphs"));
    assert_null(strstr(in_process({}, body).said.c_str(), "made"));
}

int main(void)
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(captured_work_runs_at_launch),    cmocka_unit_test(a_missing_edge_shows),
        cmocka_unit_test(launches_one_after_another),      cmocka_unit_test(what_breaks_a_capture),
        cmocka_unit_test(the_default_stream_and_captures), cmocka_unit_test(planted_failures),
        cmocka_unit_test(what_was_made_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
