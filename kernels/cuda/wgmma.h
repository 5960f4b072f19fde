/* wgmma (9.0a): a warpgroup of 128 threads multiplies [64,16] by [16,N] bf16 into fp32 registers.
 *
 *     wgmma_fence();
 *     for (int k = 0; k < 4; k++)
 *         wgmma_ss<64, 0, 0>(d, descriptor of a at k, descriptor of b at k, k > 0);
 *     wgmma_commit();
 *     wgmma_wait<0>();
 *     wgmma_pin(d);
 *
 * Thread t of the group holds in d[i] row t / 32 * 16 + t % 32 / 4 + 8 (i / 2 % 2), column
 * i / 4 * 8 + 2 (t % 4) + i % 2. Every architecture but 9.0a traps. */
#ifndef RINGREEL_CUDA_WGMMA_H
#define RINGREEL_CUDA_WGMMA_H

#include "kernels/cuda/ptx.h"

/* How rows of an operand lie in shared memory, as the tensor map that loads them says. */
enum WgmmaSwizzle { WGMMA_PLAIN = 0, WGMMA_128_BYTES = 1, WGMMA_64_BYTES = 2, WGMMA_32_BYTES = 3 };

/* Matrix descriptor. With a swizzle of W bytes an atom is 8 rows of W bytes.
 *   k contiguous:  stride = bytes from 8 rows to the next 8; leading unused (plain: from one
 *                  16-byte column to the next); k advances by 32 bytes per 16 in `address`
 *   else (transposed = 1): leading = bytes from W / 2 columns to the next; stride = from 8 of k to
 *                  the next 8 (plain: the other way round) */
#ifdef CUDA_EMULATION
static inline
#else
static __host__ __device__ __forceinline__
#endif
    uint64_t
    wgmma_descriptor(uint32_t address, uint32_t leading_bytes, uint32_t stride_bytes,
                     WgmmaSwizzle swizzle)
{
    return static_cast<uint64_t>((address & 0x3FFFF) >> 4) |
           static_cast<uint64_t>(leading_bytes >> 4) << 16 |
           static_cast<uint64_t>(stride_bytes >> 4) << 32 | static_cast<uint64_t>(swizzle) << 62;
}

#ifdef CUDA_EMULATION
#include "wgmma_twins.h"
#else

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WGMMA_ASM(...) __trap()
#else
#define WGMMA_ASM(...) asm volatile(__VA_ARGS__)
#endif

/* wgmma.fence: before the first wgmma, and after registers of one have been touched */
PTX void wgmma_fence() { WGMMA_ASM("wgmma.fence.sync.aligned;" ::: "memory"); }
/* wgmma.commit_group */
PTX void wgmma_commit() { WGMMA_ASM("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* wgmma.wait_group: all but the last N groups are done */
template <int N> PTX void wgmma_wait()
{
    WGMMA_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* No instruction: uses of d do not move over this line, in either direction. */
template <int REGISTERS> PTX void wgmma_pin(float (&d)[REGISTERS])
{
#pragma unroll
    for (int i = 0; i < REGISTERS; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* setmaxnreg (9.0a; nothing elsewhere): registers per thread of this warpgroup from now on */
template <int N> PTX void registers_increase()
{
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8, 24 to 256");
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
#endif
}
template <int N> PTX void registers_decrease()
{
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8, 24 to 256");
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#endif
}

/* ---- the instruction, for N of 64, 128 and 256 ----------------------------------------------- */

#define WGMMA_D32                                                                                  \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                      \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define WGMMA_D64                                                                                  \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                      \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define WGMMA_D128                                                                                 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                      \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "   \
    "%127}"
#define WGMMA_OUT8(i)                                                                              \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_OUT32(i) WGMMA_OUT8(i), WGMMA_OUT8(i + 8), WGMMA_OUT8(i + 16), WGMMA_OUT8(i + 24)
#define WGMMA_OUT64(i) WGMMA_OUT32(i), WGMMA_OUT32(i + 32)
#define WGMMA_OUT128(i) WGMMA_OUT64(i), WGMMA_OUT64(i + 64)

/* Behind the registers of d come the other operands. */
/* wgmma.mma_async.m64nNk16: d = a b (+ d if accumulate), both from shared memory by descriptor.
 * TA, TB 1: that operand is transposed, its k is not the contiguous side. */
template <int N, int TA, int TB>
PTX void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate)
{
    static_assert(N == 64 || N == 128 || N == 256, "N is 64, 128 or 256");
    if constexpr (N == 64) {
        WGMMA_ASM("{\n"
                  ".reg .pred p;\n"
                  "setp.ne.b32 p, %34, 0;\n"
                  "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " WGMMA_D32
                  ", %32, %33, p, 1, 1, %35, %36;\n"
                  "}"
                  : WGMMA_OUT32(0)
                  : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(TA), "n"(TB)
                  : "memory");
    } else if constexpr (N == 128) {
        WGMMA_ASM("{\n"
                  ".reg .pred p;\n"
                  "setp.ne.b32 p, %66, 0;\n"
                  "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " WGMMA_D64
                  ", %64, %65, p, 1, 1, %67, %68;\n"
                  "}"
                  : WGMMA_OUT64(0)
                  : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(TA), "n"(TB)
                  : "memory");
    } else {
        WGMMA_ASM("{\n"
                  ".reg .pred p;\n"
                  "setp.ne.b32 p, %130, 0;\n"
                  "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " WGMMA_D128
                  ", %128, %129, p, 1, 1, %131, %132;\n"
                  "}"
                  : WGMMA_OUT128(0)
                  : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(TA), "n"(TB)
                  : "memory");
    }
}

/* The same with A in registers: a[r] of thread t is row t / 32 * 16 + t % 32 / 4 + 8 (r % 2), k of
 * 2 (t % 4) + 8 (r / 2) and the next. They must not change before wgmma_wait. */
template <int N, int TB>
PTX void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate)
{
    static_assert(N == 64 || N == 128 || N == 256, "N is 64, 128 or 256");
    if constexpr (N == 64) {
        WGMMA_ASM("{\n"
                  ".reg .pred p;\n"
                  "setp.ne.b32 p, %37, 0;\n"
                  "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " WGMMA_D32
                  ", {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n"
                  "}"
                  : WGMMA_OUT32(0)
                  : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),
                    "r"(static_cast<int>(accumulate)), "n"(TB)
                  : "memory");
    } else if constexpr (N == 128) {
        WGMMA_ASM("{\n"
                  ".reg .pred p;\n"
                  "setp.ne.b32 p, %69, 0;\n"
                  "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " WGMMA_D64
                  ", {%64, %65, %66, %67}, %68, p, 1, 1, %70;\n"
                  "}"
                  : WGMMA_OUT64(0)
                  : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),
                    "r"(static_cast<int>(accumulate)), "n"(TB)
                  : "memory");
    } else {
        WGMMA_ASM("{\n"
                  ".reg .pred p;\n"
                  "setp.ne.b32 p, %133, 0;\n"
                  "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " WGMMA_D128
                  ", {%128, %129, %130, %131}, %132, p, 1, 1, %134;\n"
                  "}"
                  : WGMMA_OUT128(0)
                  : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),
                    "r"(static_cast<int>(accumulate)), "n"(TB)
                  : "memory");
    }
}

#endif
#endif
