/* What the emulated libraries share: operations on streams, device memory, faults.
 *
 * libcudart.so.13 defines all of this; libnccl.so.2 and libcublasLt.so.13 use it. One lock
 * (class Api) covers everything; an operation runs inside the runtime call that made it go on.
 *
 *     cudaError_t scale(float *x, size_t n, cudaStream_t stream)
 *     {
 *         Api api;
 *         if (api.error) return fail(api.error);
 *         return enqueue_operation(stream, "scale", at_once([=] {
 *             DeviceAccess access;
 *             for (size_t i = 0; i < n; i++) x[i] *= 2;
 *         }));
 *     }
 */
#ifndef RINGREEL_EMULATION_RUNTIME_H
#define RINGREEL_EMULATION_RUNTIME_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace emulation::runtime
{

/* Goes on with one execution of an operation as far as it can; true when complete. Never waits. */
using Step = std::function<bool()>;

/* Begins one execution. A graph executes an operation anew at every launch. */
using Operation = std::function<Step()>;

/* Operations of one order run one after another as they were issued, whatever their streams. */
struct Order {
    uint64_t issued = 0, finished = 0;
};

/* An operation that is complete when `work` returns. */
Operation at_once(std::function<void()> work);

/* Appends an operation to a stream, or to the graph that the stream is being captured into. */
cudaError_t enqueue_operation(cudaStream_t stream, const char *name, Operation operation,
                              std::shared_ptr<Order> order = nullptr);

/* Lets streams go on until `done`, or a sticky error. Aborts when nothing moves for
 * RINGREEL_EMULATION_STALL seconds, after saying where every stream stands. */
void wait_until(const char *what, const std::function<bool()> &done);

/* Lets every stream go on by at most one operation; never waits. */
void make_progress();

/* Is all of [pointer, pointer + bytes) in one allocation of device memory? */
bool device_range(const void *pointer, size_t bytes);

/* Records `error` as this thread's last error and returns it. */
cudaError_t fail(cudaError_t error);

/* The device is lost: every later call returns `error`. */
void fault(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
cudaError_t sticky_error();

/* A line on stderr, which names the rank. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The number that RINGREEL_EMULATION_NAME gives, where it is set. */
uint64_t number_setting(const char *name, uint64_t otherwise);

/* Counts a call of this kind; is it the one that RINGREEL_EMULATION_FAIL chose? */
bool failure_due(const char *kind);

/* Compute capability times ten: 80 or 90. */
int compute_capability();

/* Device memory can be touched while one of these exists. */
class DeviceAccess
{
  public:
    DeviceAccess();
    ~DeviceAccess();
    DeviceAccess(const DeviceAccess &) = delete;
    DeviceAccess &operator=(const DeviceAccess &) = delete;
};

/* Entered by every call of the libraries: takes the lock, reads the settings the first time. */
class Api
{
  public:
    cudaError_t error; /* no device, or a sticky error: what the call must return */
    Api();
    ~Api();
    Api(const Api &) = delete;
    Api &operator=(const Api &) = delete;
};

} // namespace emulation::runtime

#endif
