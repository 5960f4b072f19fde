/* Copies and fills, one-dimensional ones being those of one row.
 *
 * Pinned memory is read and written when the copy runs. Pageable memory is not: it is read before
 * the call returns, and has been written when the call returns, as CUDA's staging does.
 */
#include "tests/emulation/runtime/state.h"

#include <cstring>

namespace emulation::runtime
{

struct Plane { /* `rows` rows of `width` bytes, `pitch` bytes apart */
    char *address;
    size_t pitch;
};

enum class Place { device, pinned, pageable };

/* Bytes from the first to the last, which may not be counted in size_t: then false. */
static bool extent(size_t pitch, size_t width, size_t rows, size_t *bytes)
{
    return !__builtin_mul_overflow(rows - 1, pitch, bytes) &&
           !__builtin_add_overflow(*bytes, width, bytes);
}

/* Where it is, or an error where it begins in device memory and goes on beyond it. */
static cudaError_t locate(const void *address, size_t bytes, Place *place)
{
    if (device_range(address, bytes)) {
        *place = Place::device;
    } else if (device_range(address, 1)) {
        say("a copy of %zu bytes goes beyond its allocation", bytes);
        return cudaErrorInvalidValue;
    } else {
        *place = pinned_range(address, bytes) ? Place::pinned : Place::pageable;
    }
    return cudaSuccess;
}

static bool kind_fits(cudaMemcpyKind kind, Place to, Place from)
{
    bool to_device = to == Place::device, from_device = from == Place::device;
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    default:
        return kind == cudaMemcpyDefault;
    }
}

static void copy_rows(Plane to, Plane from, size_t width, size_t rows)
{
    for (size_t i = 0; i < rows; i++)
        memmove(to.address + i * to.pitch, from.address + i * from.pitch, width);
}

/* The bytes of pageable memory as they are now. */
static std::shared_ptr<std::vector<char>> staged(Plane from, size_t width, size_t rows)
{
    auto bytes = std::make_shared<std::vector<char>>(width * rows);
    copy_rows({bytes->data(), width}, from, width, rows);
    return bytes;
}

static Operation copying(Plane to, Plane from, size_t width, size_t rows,
                         std::shared_ptr<std::vector<char>> stage)
{
    return at_once([=] { /* `stage` is kept alive with the operation */
                         DeviceAccess access;
                         copy_rows(to, stage ? Plane{stage->data(), width} : from, width, rows);
    });
}

/* `waits`: the call is one of those that return when host memory is done with. */
static cudaError_t copy(Plane to, Plane from, size_t width, size_t rows, cudaMemcpyKind kind,
                        cudaStream_t handle, bool waits)
{
    Api api;
    if (api.error) return fail(api.error);
    CUstream_st *stream = find_stream(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle);
    if (width == 0 || rows == 0) return cudaSuccess;
    if (rows > 1 && (to.pitch < width || from.pitch < width))
        return fail(cudaErrorInvalidPitchValue);

    size_t to_bytes, from_bytes;
    Place to_place, from_place;
    if (!extent(to.pitch, width, rows, &to_bytes) || !extent(from.pitch, width, rows, &from_bytes))
        return fail(cudaErrorInvalidValue);
    if (cudaError_t error = locate(to.address, to_bytes, &to_place)) return fail(error);
    if (cudaError_t error = locate(from.address, from_bytes, &from_place)) return fail(error);
    if (!kind_fits(kind, to_place, from_place)) {
        say("a copy of %zu bytes says kind %d, which is not where its pointers are", width * rows,
            kind);
        return fail(cudaErrorInvalidMemcpyDirection);
    }
    if (waits)
        if (cudaError_t error = refuse_in_capture()) return fail(error);

    bool captured = stream->capture != nullptr;
    std::shared_ptr<std::vector<char>> stage;
    if (from_place == Place::pageable && !captured) stage = staged(from, width, rows);
    cudaError_t error =
        enqueue_operation(handle, "copy", copying(to, from, width, rows, std::move(stage)));
    if (error || captured) return error;
    bool in_device = to_place == Place::device && from_place == Place::device;
    if (to_place == Place::pageable || (waits && !in_device)) return fail(synchronize(stream));
    return cudaSuccess;
}

static cudaError_t fill(Plane to, int value, size_t width, size_t rows, cudaStream_t stream)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!find_stream(stream)) return fail(cudaErrorInvalidResourceHandle);
    if (width == 0 || rows == 0) return cudaSuccess;
    size_t bytes;
    if (rows > 1 && to.pitch < width) return fail(cudaErrorInvalidPitchValue);
    if (!extent(to.pitch, width, rows, &bytes) ||
        !(device_range(to.address, bytes) || pinned_range(to.address, bytes)))
        return fail(cudaErrorInvalidValue);
    return enqueue_operation(stream, "fill", at_once([=] {
                                 DeviceAccess access;
                                 for (size_t i = 0; i < rows; i++)
                                     memset(to.address + i * to.pitch, value, width);
                             }));
}

} // namespace emulation::runtime

using namespace emulation::runtime;

static Plane plane(const void *address, size_t pitch) { return {(char *)address, pitch}; }

extern "C" {

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return copy(plane(to, bytes), plane(from, bytes), bytes, 1, kind, stream, false);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    return copy(plane(to, bytes), plane(from, bytes), bytes, 1, kind, nullptr, true);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t rows, cudaMemcpyKind kind, cudaStream_t stream)
{
    return copy(plane(to, to_pitch), plane(from, from_pitch), width, rows, kind, stream, false);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t rows, cudaMemcpyKind kind)
{
    return copy(plane(to, to_pitch), plane(from, from_pitch), width, rows, kind, nullptr, true);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    return fill(plane(to, bytes), value, bytes, 1, stream);
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    return fill(plane(to, bytes), value, bytes, 1, nullptr);
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t rows,
                              cudaStream_t stream)
{
    return fill(plane(to, pitch), value, width, rows, stream);
}

cudaError_t cudaMemset2D(void *to, size_t pitch, int value, size_t width, size_t rows)
{
    return fill(plane(to, pitch), value, width, rows, nullptr);
}

} // extern "C"
