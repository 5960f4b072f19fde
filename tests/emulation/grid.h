/* Launches, as the emulator and the emulated runtime library see them.
 *
 * launch_kernel (kernels/cuda/launch.h) turns a launch into a Launch and enqueues it. Without the
 * runtime library it runs at once; the library replaces enqueue() and device_memory(), keeps the
 * Launch in the stream's queue and calls run() when the stream's turn comes. */
#ifndef RINGREEL_EMULATION_GRID_H
#define RINGREEL_EMULATION_GRID_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

namespace emulation
{

struct Launch {
    const char *name; /* of the kernel; lives as long as the process */
    dim3 grid, block;
    size_t shared_bytes;          /* dynamic shared memory */
    std::function<void()> thread; /* what one thread does: the kernel, its arguments bound */
};

/* Runs all blocks of the grid now, one after the other, on this OS thread. A launch that the
 * hardware would refuse is refused with a line on stderr and CUDA's error code; a mistake inside
 * the kernel prints one line that names kernel, block, thread and file:line, and aborts. */
cudaError_t run(const Launch &launch);

/* Called by launch_kernel. Weak; as long as nobody replaces it: run(launch). */
cudaError_t enqueue(cudaStream_t stream, Launch launch);

/* Whether a kernel may be handed this pointer. Weak; as long as nobody replaces it: true. */
bool device_memory(const void *p);

} // namespace emulation

#endif
