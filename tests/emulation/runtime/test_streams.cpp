/* The order of streams, events, launches, and what fails when told to. */
#include "tests/emulation/runtime/harness.h"

#include <atomic>
#include <cmath>
#include <vector>

static const std::string orders[] = {"STREAMS=eager",    "STREAMS=fifo",     "STREAMS=random:1",
                                     "STREAMS=random:2", "STREAMS=random:3", "STREAMS=random:4"};

static cudaStream_t make_stream()
{
    cudaStream_t stream;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

static cudaEvent_t make_event()
{
    cudaEvent_t event;
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

/* One stream makes what another takes; exit code 9: it was taken too early. `consumer_first`: the
 * streams are created in that order. */
static void producer_and_consumer(bool waits, bool consumer_first, bool whole_device)
{
    cudaStream_t a = make_stream(), b = make_stream();
    cudaStream_t producer = consumer_first ? b : a, consumer = consumer_first ? a : b;
    float *made = device_array<float>(1), *taken = device_array<float>(1);
    cudaEvent_t ready = make_event();
    OK(kernel(producer, [=] { *made = 1; }));
    OK(cudaEventRecord(ready, producer));
    if (waits) OK(cudaStreamWaitEvent(consumer, ready, 0));
    OK(kernel(consumer, [=] { *taken = *made; }));
    OK(whole_device ? cudaDeviceSynchronize() : cudaStreamSynchronize(consumer));
    float value = read_back(taken);
    _exit(value == 1 ? 0 : 9);
}

static void a_missing_wait(void **)
{
    for (int variant = 0; variant < 4; variant++) {
        bool first = variant & 1, device = variant & 2;
        auto without = [=] { producer_and_consumer(false, first, device); };
        assert_int_equal(in_process({"STREAMS=eager"}, without).code, 0);
        assert_int_equal(in_process({"STREAMS=fifo"}, without).code, 9);
        for (const std::string &order : orders)
            succeeds({order, "GUARD=1"}, [=] { producer_and_consumer(true, first, device); });
    }
    int early = 0, seeds = 24;
    for (int seed = 0; seed < seeds; seed++)
        early += in_process({"STREAMS=random:" + std::to_string(seed)}, [] {
                     producer_and_consumer(false, false, true);
                 }).code == 9;
    assert_in_range(early, 1, seeds - 1); /* some seeds find it, some do not */
}

static void the_default_stream_holds_up_others(void **)
{
    for (const std::string &order : orders)
        succeeds({order}, [] {
            cudaStream_t bound;
            OK(cudaStreamCreate(&bound));
            float *x = device_array<float>(3);
            OK(kernel(bound, [=] { x[0] = 1; }));
            OK(kernel(nullptr, [=] { x[1] = x[0] + 1; }));
            OK(kernel(bound, [=] { x[2] = x[1] + 1; }));
            OK(cudaStreamSynchronize(bound));
            EXPECT(read_back(x + 2) == 3);
        });
    succeeds({"STREAMS=fifo"}, [] { /* a stream that is not bound does not wait */
                                    cudaStream_t free = make_stream();
                                    float *x = device_array<float>(2);
                                    OK(kernel(nullptr, [=] { x[0] = 1; }));
                                    OK(kernel(free, [=] { x[1] = x[0]; }));
                                    OK(cudaStreamSynchronize(free));
                                    EXPECT(std::isnan(read_back(x + 1)));
    });
}

static void queries(void **)
{
    succeeds({"STREAMS=fifo"}, [] {
        cudaStream_t stream = make_stream();
        cudaEvent_t event = make_event();
        int *x = device_array<int>(1);
        OK(cudaMemsetAsync(x, 0, 4, stream));
        OK(kernel(stream, [=] { ++*x; }));
        OK(cudaEventRecord(event, stream));
        GIVES(cudaErrorNotReady, cudaEventQuery(event));
        int asked = 0;
        while (cudaStreamQuery(stream) == cudaErrorNotReady) EXPECT(++asked < 10);
        OK(cudaEventQuery(event));
        OK(cudaGetLastError()); /* not ready is no error */
        EXPECT(read_back(x) == 1);
    });
}

static void events(void **)
{
    for (const std::string &order : orders)
        succeeds({order}, [] {
            cudaStream_t stream = make_stream();
            cudaEvent_t start, end, untimed = make_event();
            OK(cudaEventCreate(&start));
            OK(cudaEventCreate(&end));
            float ms = -1;
            OK(cudaEventQuery(start)); /* never recorded: nothing to wait for */
            OK(cudaStreamWaitEvent(stream, start, 0));
            GIVES(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, end));
            OK(cudaEventRecord(start, stream));
            OK(kernel(stream, [] { usleep(3000); }));
            OK(cudaEventRecord(end, stream));
            OK(cudaEventRecord(untimed, stream));
            OK(cudaEventSynchronize(end));
            OK(cudaEventElapsedTime(&ms, start, end));
            EXPECT(ms >= 3 && ms < 10000);
            GIVES(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, untimed));
            OK(cudaEventDestroy(start));
            GIVES(cudaErrorInvalidResourceHandle, cudaEventRecord(start, stream));
        });
    succeeds({"STREAMS=fifo"}, [] { /* a wait means the record before it, not a later one */
                                    cudaStream_t a = make_stream(), b = make_stream();
                                    cudaEvent_t event = make_event();
                                    int *x = device_array<int>(2);
                                    OK(cudaMemset(x, 0, 8));
                                    OK(cudaDeviceSynchronize());
                                    OK(cudaEventRecord(event, a));
                                    OK(cudaStreamWaitEvent(b, event, 0));
                                    OK(kernel(a, [=] { x[0] = 1; }));
                                    OK(cudaEventRecord(event, a));
                                    OK(kernel(b, [=] { x[1] = x[0] + 5; }));
                                    OK(cudaStreamSynchronize(b));
                                    EXPECT(read_back(x + 1) == 5);
    });
}

static void host_functions_and_lost_streams(void **)
{
    succeeds({"STREAMS=fifo", "GUARD=1"}, [] {
        static int calls;
        cudaStream_t stream = make_stream();
        OK(cudaLaunchHostFunc(
            stream, [](void *n) { calls += *(int *)n; }, new int(3)));
        EXPECT(calls == 0);
        OK(cudaStreamDestroy(stream)); /* what it still has to do is done */
        GIVES(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(stream));
        OK(cudaDeviceSynchronize());
        EXPECT(calls == 3);
        GIVES(cudaErrorInvalidResourceHandle, kernel(stream, [] {}));
    });
}

static void launches(void **)
{
    succeeds({}, [] {
        auto launch = [](dim3 grid, dim3 block, size_t shared) {
            return emulation::enqueue(nullptr, {"test", grid, block, shared, [] {}});
        };
        OK(launch(dim3(2), dim3(32), 227 << 10));
        GIVES(cudaErrorInvalidConfiguration, launch(dim3(0), dim3(32), 0));
        GIVES(cudaErrorInvalidConfiguration, launch(dim3(1, 65536), dim3(32), 0));
        GIVES(cudaErrorInvalidConfiguration, launch(dim3(1), dim3(32, 33), 0));
        GIVES(cudaErrorInvalidConfiguration, launch(dim3(1), dim3(32), (227 << 10) + 1));
        GIVES(cudaErrorInvalidConfiguration, cudaGetLastError());
        OK(cudaGetLastError());
    });
    succeeds({"STREAMS=random:5"},
             [] { /* every thread of every block, once */
                  int *x = device_array<int>(1);
                  OK(cudaMemset(x, 0, 4));
                  OK(emulation::enqueue(nullptr, {"test", dim3(3), dim3(64), 0, [=] { ++*x; }}));
                  EXPECT(read_back(x) == 192);
             });
}

static void launches_fail_when_told(void **)
{
    auto body = [] {
        cudaStream_t stream = make_stream();
        int *x = device_array<int>(1);
        OK(cudaMemset(x, 0, 4));
        OK(kernel(stream, [=] { *x = 1; }));
        kernel(stream, [=] { *x = 2; }); /* fails when it runs, if not before */
        kernel(stream, [=] { *x = 3; });
        GIVES(cudaErrorLaunchFailure, cudaStreamSynchronize(stream));
        GIVES(cudaErrorLaunchFailure, cudaGetLastError());
        GIVES(cudaErrorLaunchFailure, cudaGetLastError()); /* sticky */
        GIVES(cudaErrorLaunchFailure, cudaMemset(x, 0, 4));
        GIVES(cudaErrorLaunchFailure, kernel(stream, [] {}));
        GIVES(cudaErrorLaunchFailure, cudaFree(x));
        cudaStreamDestroy(stream);
    };
    for (const std::string &order : orders) succeeds({order, "FAIL=launch:2"}, body);
    succeeds({"FAIL=launch:2@1"}, [] { /* of another rank */
                                       OK(kernel(nullptr, [] {}));
                                       OK(kernel(nullptr, [] {}));
                                       OK(cudaDeviceSynchronize());
    });
    succeeds({"FAIL=malloc:9,ecc:2", "STREAMS=fifo"}, [] {
        int *x = device_array<int>(1);
        OK(cudaMemsetAsync(x, 0, 4, nullptr));
        OK(cudaMemsetAsync(x, 0, 4, nullptr));
        GIVES(cudaErrorECCUncorrectable, cudaDeviceSynchronize());
        GIVES(cudaErrorECCUncorrectable, cudaMalloc((void **)&x, 4));
    });
}

static void kernels_hang_when_told(void **)
{
    auto body = [] {
        cudaStream_t stream = make_stream(), other = make_stream();
        bool behind = false, beside = false;
        OK(kernel(stream, [] {}));
        OK(cudaStreamSynchronize(stream));
        OK(kernel(stream, [] {}));
        OK(kernel(stream, [&] { behind = true; }));
        OK(kernel(other, [&] { beside = true; }));
        OK(cudaStreamSynchronize(other));
        for (int i = 0; i < 100; i++) GIVES(cudaErrorNotReady, cudaStreamQuery(stream));
        EXPECT(beside && !behind);
    };
    for (const std::string &order : orders) succeeds({order, "FAIL=hang:2"}, body);
}

int main(void)
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_wait),
        cmocka_unit_test(the_default_stream_holds_up_others),
        cmocka_unit_test(queries),
        cmocka_unit_test(events),
        cmocka_unit_test(host_functions_and_lost_streams),
        cmocka_unit_test(launches),
        cmocka_unit_test(launches_fail_when_told),
        cmocka_unit_test(kernels_hang_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
