/* Kernel launches: the emulator's core runs them when their stream comes to them. */
#include "tests/emulation/grid.h"
#include "tests/emulation/runtime/state.h"

namespace emulation::runtime
{

static bool fits_device(const Launch &launch)
{
    const dim3 &g = launch.grid, &b = launch.block;
    size_t most = compute_capability() == 90 ? 227 * 1024 : 163 * 1024;
    bool grid = g.x && g.y && g.z && g.x <= 0x7fffffffu && g.y <= 65535 && g.z <= 65535;
    bool block = b.x && b.y && b.z && b.x <= 1024 && b.y <= 1024 && b.z <= 64 &&
                 (size_t)b.x * b.y * b.z <= 1024;
    return grid && block && launch.shared_bytes <= most;
}

} // namespace emulation::runtime

cudaError_t emulation::enqueue(cudaStream_t stream, Launch launch)
{
    using namespace runtime;
    Api api;
    if (api.error) return fail(api.error);
    if (!fits_device(launch)) return fail(cudaErrorInvalidConfiguration);
    const char *name = launch.name;
    if (failure_due("hang")) {
        say("kernel %s never ends, as told to", name);
        return enqueue_operation(stream, name, [] { return [] { return false; }; });
    }
    auto work = [launch = std::move(launch), fails = failure_due("launch")] {
        if (fails) return fault(cudaErrorLaunchFailure, "kernel %s fails, as told to", launch.name);
        DeviceAccess access;
        if (cudaError_t error = run(launch))
            fault(error, "kernel %s: %s", launch.name, cudaGetErrorName(error));
    };
    return enqueue_operation(stream, name, at_once(std::move(work)));
}
