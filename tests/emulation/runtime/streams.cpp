/* Streams: queues of operations, and who goes on next.
 *
 *   eager    an operation runs when it is issued, if nothing holds it up; else the oldest first
 *   fifo     only when the host waits: first the stream it waits for, then the newest operation
 *   random   at any call, any stream whose head can go on
 *
 * So what is right only by luck (a missing cudaStreamWaitEvent) works in `eager`, and in `fifo` the
 * consumer runs before its producer.
 */
#include "tests/emulation/runtime/state.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace emulation::runtime
{

static std::vector<CUstream_st *> streams; /* all that may have work, the default ones included */
static std::set<CUevent_st *> events;
static uint64_t issued;     /* operations, over all streams */
static uint64_t progress;   /* operations and nodes that have run */
static const char *running; /* the operation that runs now */

static double now_s()
{
    auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(time).count();
}

const char *running_operation() { return running; }

void note_progress() { progress++; }

static CUstream_st *default_stream(int device)
{
    static CUstream_st of_device[64];
    CUstream_st *s = &of_device[device];
    if (!s->is_default) {
        s->device = device;
        s->is_default = true;
        streams.push_back(s);
    }
    return s;
}

CUstream_st *find_stream(cudaStream_t handle)
{
    if (!handle || handle == cudaStreamLegacy || handle == cudaStreamPerThread)
        return default_stream(current_device());
    auto found = std::find(streams.begin(), streams.end(), handle);
    if (found != streams.end() && !handle->destroyed) return handle;
    say("a stream is used that was never created or has been destroyed");
    return nullptr;
}

/* ---- what can go on ---- */

/* The default stream and the streams that are not cudaStreamNonBlocking hold each other up. */
static bool held_by_default_stream(const CUstream_st *s)
{
    uint64_t number = s->queue.front().number;
    for (const CUstream_st *other : streams) {
        bool bound = other->device == s->device && other != s && !other->queue.empty() &&
                     (s->is_default ? other->blocking : s->blocking && other->is_default);
        if (bound && other->queue.front().number < number) return true;
    }
    return false;
}

static bool can_go_on(const CUstream_st *s)
{
    if (s->queue.empty()) return false;
    const Queued &head = s->queue.front();
    if (head.order && head.order->finished != head.ticket) return false;
    return !held_by_default_stream(s);
}

static void forget_dry_streams()
{
    auto kept = std::stable_partition(streams.begin(), streams.end(), [](const CUstream_st *s) {
        return !s->destroyed || !s->queue.empty();
    });
    for (auto s = kept; s != streams.end(); s++) delete *s;
    streams.erase(kept, streams.end());
}

/* Lets the head of a stream go on; true when it has completed. */
static bool advance(CUstream_st *s)
{
    Queued &head = s->queue.front();
    running = head.name.c_str();
    if (!head.step) head.step = head.operation();
    bool complete = head.step();
    running = nullptr;
    if (!complete) return false;
    if (head.order) head.order->finished++;
    s->queue.pop_front();
    progress++;
    return true;
}

/* The streams that can go on, the one to try first in front. A destroyed stream is not known by
 * its address any longer but still has work. */
static std::vector<CUstream_st *> candidates(const CUstream_st *wanted)
{
    std::vector<CUstream_st *> list;
    for (CUstream_st *s : streams)
        if (can_go_on(s)) list.push_back(s);
    auto number = [](CUstream_st *s) { return s->queue.front().number; };
    switch (settings().schedule) {
    case Schedule::eager:
        std::sort(list.begin(), list.end(),
                  [&](CUstream_st *a, CUstream_st *b) { return number(a) < number(b); });
        break;
    case Schedule::fifo:
        std::sort(list.begin(), list.end(), [&](CUstream_st *a, CUstream_st *b) {
            if ((a == wanted) != (b == wanted)) return a == wanted;
            return number(a) > number(b);
        });
        break;
    case Schedule::random:
        for (size_t i = list.size(); i > 1; i--) std::swap(list[i - 1], list[random_below(i)]);
        break;
    }
    return list;
}

/* Completes at most one operation. */
static bool advance_one(const CUstream_st *wanted)
{
    if (running) return false; /* called by an operation: it is not its place to run others */
    for (CUstream_st *s : candidates(wanted)) {
        uint64_t before = progress;
        if (advance(s) || progress != before) {
            forget_dry_streams();
            return true;
        }
        if (sticky_error()) break;
    }
    return false;
}

/* After a sticky error nothing runs any more. */
static void drop_all()
{
    for (CUstream_st *s : streams) s->queue.clear();
}

void make_progress()
{
    if (sticky_error()) return drop_all();
    if (settings().schedule == Schedule::eager)
        while (advance_one(nullptr)) continue;
    else
        advance_one(nullptr);
}

static void print_queues(const char *what)
{
    say("%s: nothing moves for %g s", what, settings().stall_s);
    for (const CUstream_st *s : streams)
        if (!s->queue.empty())
            say("  stream %d of device %d: %s, then %zu more", s->id, s->device,
                s->queue.front().name.c_str(), s->queue.size() - 1);
}

static void wait_for(const char *what, const CUstream_st *wanted, const std::function<bool()> &done)
{
    double since = now_s();
    while (!done() && !sticky_error()) {
        uint64_t before = progress;
        if (advance_one(wanted) || progress != before) {
            since = now_s();
            continue;
        }
        yield_lock();
        if (now_s() - since > settings().stall_s) {
            print_queues(what);
            die("%s: given up", what);
        }
    }
    if (sticky_error()) drop_all();
}

void wait_until(const char *what, const std::function<bool()> &done)
{
    wait_for(what, nullptr, done);
}

/* ---- issuing ---- */

Operation at_once(std::function<void()> work)
{
    return [work = std::move(work)] {
        return [work] {
            work();
            return true;
        };
    };
}

void append(CUstream_st *stream, Queued operation)
{
    operation.number = ++issued;
    operation.ticket = operation.order ? operation.order->issued++ : 0;
    stream->queue.push_back(std::move(operation));
    if (settings().schedule == Schedule::eager)
        make_progress();
    else if (settings().schedule == Schedule::random && random_below(4) == 0)
        for (uint64_t i = random_below(4); i > 0 && !sticky_error(); i--) advance_one(nullptr);
}

cudaError_t enqueue_operation(cudaStream_t handle, const char *name, Operation operation,
                              std::shared_ptr<Order> order)
{
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (cudaError_t error = refuse_implicit(stream)) return fail(error);
    if (stream->capture)
        return fail(capture_node(stream, name, std::move(operation), std::move(order)));
    if (failure_due("ecc")) {
        operation = at_once(
            [] { fault(cudaErrorECCUncorrectable, "an uncorrectable ECC error, as told to"); });
    }
    append(stream, {0, name, std::move(operation), nullptr, std::move(order), 0});
    return cudaSuccess;
}

cudaError_t synchronize(CUstream_st *stream)
{
    if (stream && !stream->is_default) {
        wait_for("waiting for a stream", stream, [=] { return stream->queue.empty(); });
        return sticky_error();
    }
    auto matters = [=](const CUstream_st *s) {
        return !stream || s == stream || (s->device == stream->device && s->blocking);
    };
    wait_for("waiting for the device", stream, [=] {
        return std::all_of(streams.begin(), streams.end(),
                           [&](const CUstream_st *s) { return s->queue.empty() || !matters(s); });
    });
    return sticky_error();
}

} // namespace emulation::runtime

using namespace emulation::runtime;

/* ---- streams ---- */

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    static int created;
    Api api;
    if (api.error) return fail(api.error);
    if (!stream || (flags & ~(unsigned)cudaStreamNonBlocking)) return fail(cudaErrorInvalidValue);
    default_stream(current_device());
    auto *s = new CUstream_st;
    s->id = ++created;
    s->device = current_device();
    s->priority = priority;
    s->blocking = !(flags & cudaStreamNonBlocking);
    streams.push_back(s);
    count_made(Made::streams);
    *stream = s;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    Api api;
    CUstream_st *stream = find_stream(handle);
    if (!stream || stream->is_default) return fail(cudaErrorInvalidResourceHandle);
    if (cudaError_t error = refuse_capturing_stream(stream)) return fail(error);
    stream->destroyed = true;
    if (sticky_error()) drop_all();
    forget_dry_streams();
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (cudaError_t error = refuse_capturing_stream(stream)) return fail(error);
    return fail(synchronize(stream));
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (cudaError_t error = refuse_capturing_stream(stream)) return fail(error);
    advance_one(stream);
    if (sticky_error()) return fail(sticky_error());
    return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned *flags)
{
    Api api;
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    *flags = stream->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
    return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority)
{
    Api api;
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    *priority = stream->priority;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    Api api;
    if (api.error) return fail(api.error);
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    Api api;
    if (api.error) return fail(api.error);
    if (cudaError_t error = refuse_in_capture()) return fail(error);
    if (cudaError_t error = synchronize(nullptr)) return fail(error);
    check_surroundings();
    return fail(sticky_error());
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!function) return fail(cudaErrorInvalidValue);
    return enqueue_operation(stream, "host function", at_once([=] { function(data); }));
}

/* ---- events ---- */

static CUevent_st *find_event(cudaEvent_t event)
{
    if (events.count(event)) return event;
    say("an event is used that was never created or has been destroyed");
    return nullptr;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    Api api;
    if (api.error) return fail(api.error);
    const unsigned known = cudaEventBlockingSync | cudaEventDisableTiming;
    if (!event || (flags & ~known)) return fail(cudaErrorInvalidValue);
    auto *e = new CUevent_st{std::make_shared<EventState>()};
    e->state->timing = !(flags & cudaEventDisableTiming);
    events.insert(e);
    count_made(Made::events);
    *event = e;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    Api api;
    if (!find_event(event)) return fail(cudaErrorInvalidResourceHandle);
    events.erase(event);
    delete event; /* what is queued keeps its state */
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream || !find_event(event)) return fail(cudaErrorInvalidResourceHandle);
    std::shared_ptr<EventState> state = event->state;
    state->capture = stream->capture;
    state->nodes = stream->tail;
    if (stream->capture) return cudaSuccess;
    uint64_t count = ++state->recorded;
    return enqueue_operation(handle, "event record", at_once([=] {
                                 state->done = std::max(state->done, count);
                                 state->time_s = now_s();
                             }));
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
    return flags == cudaEventRecordDefault ? cudaEventRecord(event, stream)
                                           : fail(cudaErrorNotSupported);
}

/* The stream's part in the capture that the event was recorded in. */
static cudaError_t join_capture(CUstream_st *stream, const EventState &event)
{
    if (event.capture->streams.empty()) return cudaErrorStreamCaptureUnmatched; /* it has ended */
    if (stream->is_default) return cudaErrorStreamCaptureImplicit;
    if (stream->capture && stream->capture != event.capture) {
        stream->capture->invalid = event.capture->invalid = true;
        return cudaErrorStreamCaptureMerge;
    }
    stream->capture = event.capture;
    event.capture->streams.insert(stream);
    for (size_t node : event.nodes)
        if (std::find(stream->tail.begin(), stream->tail.end(), node) == stream->tail.end())
            stream->tail.push_back(node);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags)
{
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream || !find_event(event)) return fail(cudaErrorInvalidResourceHandle);
    if (flags) return fail(cudaErrorNotSupported);
    std::shared_ptr<EventState> state = event->state;
    if (state->capture) return fail(join_capture(stream, *state));
    if (stream->capture) {
        if (state->recorded == 0) return cudaSuccess;
        stream->capture->invalid = true;
        return fail(cudaErrorStreamCaptureIsolation);
    }
    if (failure_due("no-wait")) return cudaSuccess;
    uint64_t count = state->recorded;
    return enqueue_operation(handle, "wait for an event",
                             [=] { return [=] { return state->done >= count; }; });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!find_event(event)) return fail(cudaErrorInvalidResourceHandle);
    std::shared_ptr<EventState> state = event->state;
    if (state->capture) return fail(cudaErrorCapturedEvent);
    if (cudaError_t error = refuse_in_capture()) return fail(error);
    uint64_t count = state->recorded;
    wait_until("waiting for an event", [=] { return state->done >= count; });
    return fail(sticky_error());
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!find_event(event)) return fail(cudaErrorInvalidResourceHandle);
    if (event->state->capture) return fail(cudaErrorCapturedEvent);
    if (cudaError_t error = refuse_in_capture()) return fail(error);
    advance_one(nullptr);
    if (sticky_error()) return fail(sticky_error());
    return event->state->done >= event->state->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!find_event(start) || !find_event(end)) return fail(cudaErrorInvalidResourceHandle);
    const EventState &a = *start->state, &b = *end->state;
    if (!ms || !a.timing || !b.timing || a.recorded == 0 || b.recorded == 0)
        return fail(cudaErrorInvalidResourceHandle);
    if (a.done < a.recorded || b.done < b.recorded) return cudaErrorNotReady;
    *ms = (float)((b.time_s - a.time_s) * 1e3);
    return cudaSuccess;
}

} // extern "C"
