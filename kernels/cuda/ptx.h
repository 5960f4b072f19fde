/* All inline PTX, one instruction to a function; names in comments are those of the PTX ISA. Each
 * has a twin in tests/emulation/ptx_twins.h and a test in tests/emulation/. wgmma is in wgmma.h.
 *
 * Addresses in shared memory are 32 bits wide: shared_address(pointer). What an architecture does
 * not have compiles to a trap there, so that one source serves all; the host chooses the kernel. */
#ifndef RINGREEL_CUDA_PTX_H
#define RINGREEL_CUDA_PTX_H

#include "kernels/cuda/launch.h"

#ifdef CUDA_EMULATION
#include "ptx_twins.h"
#else

#define PTX static __device__ __forceinline__
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define HOPPER_ASM(...) __trap()
#else
#define HOPPER_ASM(...) asm volatile(__VA_ARGS__)
#endif

/* cvta.to.shared */
PTX uint32_t shared_address(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/* ex2.approx.ftz.f32: 2^x within two units in the last place */
PTX float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* ---- cp.async: 16 bytes from global to shared memory ----------------------------------------- */

/* cp.async.cg, zeros if not valid; both addresses are multiples of 16 */
PTX void cp_async16(uint32_t to, const void *from, bool valid = true)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
/* cp.async.commit_group */
PTX void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* cp.async.wait_group: all but the last N groups of this thread have arrived */
template <int N> PTX void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- tensor cores, a warp at a time ---------------------------------------------------------- */

/* ldmatrix.x4: lane 8 j + i gives the address of row i of matrix j (8x8 of 16 bits); r[j] of lane t
 * is elements (t / 4, 2 (t % 4)) and its right neighbour */
PTX void ldmatrix_x4(uint32_t (&r)[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
/* ldmatrix.x4.trans: the same of the transposed matrices */
PTX void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
/* stmatrix.x4 (9.0 and later): the inverse of ldmatrix_x4 */
PTX void stmatrix_x4(uint32_t row, const uint32_t (&r)[4])
{
    HOPPER_ASM("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
               "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}
/* stmatrix.x4.trans */
PTX void stmatrix_x4_trans(uint32_t row, const uint32_t (&r)[4])
{
    HOPPER_ASM("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
               "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}

/* mma.sync.m16n8k16: c [16,8] fp32 += a [16,16] bf16 (row-major) b [16,8] bf16 (column-major) */
PTX void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/* mma.sync.m16n8k8: c [16,8] fp32 += a [16,8] tf32 b [8,8] tf32 */
PTX void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/* cvt.rna.tf32.f32: to the nearest, halves away from zero */
PTX uint32_t tf32_of(float x)
{
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

/* ---- barriers of part of a block ------------------------------------------------------------- */

/* bar.sync: id 1 to 15, threads a multiple of 32 that sync or arrive in all */
PTX void barrier_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/* bar.arrive: counts, and does not wait */
PTX void barrier_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- mbarriers (9.0 and later): a uint64_t in shared memory ---------------------------------- */

/* mbarrier.init: a phase ends after so many arrivals, and when all expected bytes have come */
PTX void mbarrier_init(uint32_t barrier, uint32_t arrivals)
{
    HOPPER_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/* fence.mbarrier_init: after the last mbarrier_init, before the barriers are used by TMA */
PTX void mbarrier_init_fence() { HOPPER_ASM("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/* mbarrier.arrive */
PTX void mbarrier_arrive(uint32_t barrier)
{
    HOPPER_ASM("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/* mbarrier.arrive.expect_tx */
PTX void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes)
{
    HOPPER_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
/* mbarrier.try_wait.parity, until it succeeds: phases 0, 1, 2, … have parity 0, 1, 0, …; waits
 * for the end of the one of this parity. A fresh barrier is as if parity 1 had ended. */
PTX void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    uint32_t ended = 0;
    do {
        HOPPER_ASM("{\n"
                   ".reg .pred p;\n"
                   "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                   "selp.u32 %0, 1, 0, p;\n"
                   "}"
                   : "=r"(ended)
                   : "r"(barrier), "r"(parity)
                   : "memory");
    } while (!ended);
}

/* fence.proxy.async: what this thread wrote to shared memory is seen by TMA and wgmma */
PTX void fence_proxy_async() { HOPPER_ASM("fence.proxy.async.shared::cta;" ::: "memory"); }

/* ---- TMA (9.0 and later) --------------------------------------------------------------------- */

/* prefetch.tensormap */
PTX void tma_prefetch(const CUtensorMap *map)
{
    HOPPER_ASM("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* cp.async.bulk.tensor, a tile with its corner at (x, y, …), x being the contiguous dimension, to
 * shared memory at a multiple of 128; its bytes count for `barrier` */
PTX void tma_load_2d(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y)
{
    HOPPER_ASM("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
               "l"(map), "r"(barrier), "r"(x), "r"(y)
               : "memory");
}
PTX void tma_load_3d(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z)
{
    HOPPER_ASM("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
               "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
               : "memory");
}
PTX void tma_load_4d(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z,
                     int u)
{
    HOPPER_ASM("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
               "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(u)
               : "memory");
}
PTX void tma_load_5d(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z,
                     int u, int v)
{
    HOPPER_ASM("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
               "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(u), "r"(v)
               : "memory");
}

/* cp.async.bulk.tensor, from shared to global memory; elements outside the tensor are left out */
PTX void tma_store_2d(const CUtensorMap *map, uint32_t from, int x, int y)
{
    HOPPER_ASM(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
        "r"(from), "r"(x), "r"(y)
        : "memory");
}
PTX void tma_store_3d(const CUtensorMap *map, uint32_t from, int x, int y, int z)
{
    HOPPER_ASM(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
            map),
        "r"(from), "r"(x), "r"(y), "r"(z)
        : "memory");
}
/* cp.async.bulk.commit_group */
PTX void tma_commit() { HOPPER_ASM("cp.async.bulk.commit_group;" ::: "memory"); }
/* cp.async.bulk.wait_group: all but the last N groups of stores of this thread are done … */
template <int N> PTX void tma_wait()
{
    HOPPER_ASM("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}
/* … or have at least read their shared memory, which may then be used again */
template <int N> PTX void tma_wait_read()
{
    HOPPER_ASM("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

#endif
#endif
