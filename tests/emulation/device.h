/* CUDA C++ as kernels see it, for g++: launches, threadIdx and its kin, shared memory, barriers,
 * warp functions, atomics. NVIDIA's own headers give the types; device_math.h the arithmetic.
 * Included by kernels/cuda/launch.h. */
#ifndef RINGREEL_EMULATION_DEVICE_H
#define RINGREEL_EMULATION_DEVICE_H

#include "device_math.h"

#include "block.h"
#include "grid.h"

#include <cuda.h> /* types only */
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

/* ---- words of the language ------------------------------------------------------------------- */

#undef __shared__
#define __shared__ static_assert(false, "SMEM_STATIC and SMEM_DYN declare shared memory");
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __maxnreg__
#define __maxnreg__(...)
#undef __cluster_dims__

#define threadIdx (::emulation::current->index)
#define blockIdx (::emulation::current->block->index)
#define blockDim (::emulation::current->block->size)
#define gridDim (::emulation::current->block->grid)
static constexpr int warpSize = 32; /* cudaDeviceProp has a member of that name: not a macro */

#define SMEM_STATIC(T, name, ...)                                                                  \
    using name##_shared_type = T __VA_ARGS__;                                                      \
    static const char name##_shared_tag = 0;                                                       \
    name##_shared_type &name = *static_cast<name##_shared_type *>(::emulation::shared_static(      \
        &name##_shared_tag, #name, sizeof(name##_shared_type), alignof(T), ::emulation::here()))
#define SMEM_DYN(T, name) T *const name = static_cast<T *>(::emulation::shared_dynamic())

/* ---- launches -------------------------------------------------------------------------------- */

namespace emulation
{

/* "scale<4, 2>" from the words "scale<4, 2>, x, 2.0f, n"; the result lives for ever. */
const char *kernel_name(const char *words);

template <class T> void check_argument(const char *name, const T &value)
{
    if constexpr (std::is_pointer_v<T>) {
        const void *p = reinterpret_cast<const void *>(value);
        if (!p || device_memory(p)) return;
        fprintf(stderr, "emulation: %s: launched with %p, which is not device memory\n", name, p);
        abort();
    }
}

template <class... Parameters, class... Arguments>
cudaError_t launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, void (*kernel)(Parameters...), Arguments &&...arguments)
{
    static_assert(sizeof...(Parameters) == sizeof...(Arguments), "arguments of the kernel");
    std::tuple<std::decay_t<Parameters>...> bound(std::forward<Arguments>(arguments)...);
    std::apply([&](const auto &...value) { (check_argument(name, value), ...); }, bound);
    return enqueue(stream, Launch{name, grid, block, shared_bytes,
                                  [kernel, bound] { std::apply(kernel, bound); }});
}

} // namespace emulation

#define launch_kernel(grid, block, shared_bytes, stream, ...)                                      \
    ::emulation::launch(::emulation::kernel_name(#__VA_ARGS__), grid, block, shared_bytes, stream, \
                        __VA_ARGS__)

/* ---- barriers -------------------------------------------------------------------------------- */

static inline void __syncthreads(emulation::Place at = emulation::here())
{
    emulation::barrier_sync(0, 0, at);
}
static inline int __syncthreads_count(int vote, emulation::Place at = emulation::here())
{
    return emulation::barrier_vote(vote != 0, at);
}
static inline int __syncthreads_or(int vote, emulation::Place at = emulation::here())
{
    return emulation::barrier_vote(vote != 0, at) != 0;
}
static inline int __syncthreads_and(int vote, emulation::Place at = emulation::here())
{
    return emulation::barrier_vote(vote == 0, at) == 0;
}
static inline void __threadfence() { emulation::thread_fence(); }
static inline void __threadfence_block() { emulation::thread_fence(); }
static inline void __threadfence_system() { emulation::thread_fence(); }
static inline void __nanosleep(unsigned) { emulation::give_way(); }
[[noreturn]] static inline void __trap(emulation::Place at = emulation::here())
{
    emulation::fail(at, "__trap");
}

/* ---- warps ----------------------------------------------------------------------------------- */

static inline void __syncwarp(unsigned mask = ~0u, emulation::Place at = emulation::here())
{
    emulation::warp_sync(mask, at);
}
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32,
              emulation::Place at = emulation::here())
{
    int lane = static_cast<int>(emulation::current->lane);
    emulation::warp_shuffle(mask, &v, sizeof v, (lane & -width) | (source & (width - 1)), at);
    return v;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int flip, int width = 32,
                  emulation::Place at = emulation::here())
{
    int lane = static_cast<int>(emulation::current->lane), source = lane ^ flip;
    if (source / width > lane / width) source = lane;
    emulation::warp_shuffle(mask, &v, sizeof v, source, at);
    return v;
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned distance, int width = 32,
                   emulation::Place at = emulation::here())
{
    int lane = static_cast<int>(emulation::current->lane), source = lane + int(distance);
    if (source / width != lane / width) source = lane;
    emulation::warp_shuffle(mask, &v, sizeof v, source, at);
    return v;
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned distance, int width = 32,
                 emulation::Place at = emulation::here())
{
    int lane = static_cast<int>(emulation::current->lane), source = lane - int(distance);
    if (source < (lane & -width)) source = lane;
    emulation::warp_shuffle(mask, &v, sizeof v, source, at);
    return v;
}
static inline unsigned __ballot_sync(unsigned mask, int vote,
                                     emulation::Place at = emulation::here())
{
    return emulation::warp_ballot(mask, vote != 0, at);
}
static inline int __any_sync(unsigned mask, int vote, emulation::Place at = emulation::here())
{
    return emulation::warp_ballot(mask, vote != 0, at) != 0;
}
static inline int __all_sync(unsigned mask, int vote, emulation::Place at = emulation::here())
{
    return emulation::warp_ballot(mask, vote == 0, at) == 0;
}
static inline unsigned __activemask()
{
    return emulation::current->block->alive_lanes[emulation::current->warp];
}

/* ---- atomics: relaxed, as CUDA's --------------------------------------------------------------
 */

namespace emulation
{

/* *p = change(*p) in one step; returns what was there. */
template <class T, class Change> T atomic_change(T *p, Change change)
{
    using Bits = std::conditional_t<sizeof(T) == 8, uint64_t,
                                    std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
    static_assert(sizeof(T) == sizeof(Bits), "2, 4 or 8 bytes");
    at_atomic();
    Bits *place = reinterpret_cast<Bits *>(p), old = __atomic_load_n(place, __ATOMIC_RELAXED), to;
    T was;
    do {
        memcpy(static_cast<void *>(&was), &old, sizeof was);
        T is = change(was);
        memcpy(&to, static_cast<const void *>(&is), sizeof to);
    } while (
        !__atomic_compare_exchange_n(place, &old, to, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return was;
}
template <class T> struct Same {
    using type = T;
};

} // namespace emulation

#define EMULATED_ATOMIC(name, result)                                                              \
    template <class T> T name(T *p, typename emulation::Same<T>::type v)                           \
    {                                                                                              \
        return emulation::atomic_change(p, [v](T x) { return static_cast<T>(result); });           \
    }
EMULATED_ATOMIC(atomicAdd, x + v)
EMULATED_ATOMIC(atomicSub, x - v)
EMULATED_ATOMIC(atomicMin, x < v ? x : v)
EMULATED_ATOMIC(atomicMax, x > v ? x : v)
EMULATED_ATOMIC(atomicAnd, x &v)
EMULATED_ATOMIC(atomicOr, x | v)
EMULATED_ATOMIC(atomicXor, x ^ v)
EMULATED_ATOMIC(atomicExch, (static_cast<void>(x), v))
#undef EMULATED_ATOMIC
template <class T>
T atomicCAS(T *p, typename emulation::Same<T>::type expected, typename emulation::Same<T>::type v)
{
    emulation::give_way(); /* whoever spins on it waits for another */
    return emulation::atomic_change(p, [=](T x) { return x == expected ? v : x; });
}

#endif
