/* The functions of kernels/cuda/ptx.h on the CPU: same names, same arguments, and the place where
 * they were called for what may be wrong. */
#ifndef RINGREEL_EMULATION_PTX_TWINS_H
#define RINGREEL_EMULATION_PTX_TWINS_H

#include "device.h"
#include "mma.h"

#define TWIN static inline
#define PLACE emulation::Place at = emulation::here()

TWIN uint32_t shared_address(const void *p, PLACE) { return emulation::shared_address(p, at); }
TWIN float exp2_approx(float x) { return exp2f(x); }

TWIN void cp_async16(uint32_t to, const void *from, bool valid = true, PLACE)
{
    emulation::cp_async(to, from, valid, at);
}
TWIN void cp_async_commit() { emulation::cp_async_commit(); }
template <int N> TWIN void cp_async_wait(PLACE) { emulation::cp_async_wait(N, at); }

TWIN void ldmatrix_x4(uint32_t (&r)[4], uint32_t row, PLACE)
{
    emulation::load_matrices(r, row, false, at);
}
TWIN void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row, PLACE)
{
    emulation::load_matrices(r, row, true, at);
}
TWIN void stmatrix_x4(uint32_t row, const uint32_t (&r)[4], PLACE)
{
    emulation::store_matrices(row, r, false, at);
}
TWIN void stmatrix_x4_trans(uint32_t row, const uint32_t (&r)[4], PLACE)
{
    emulation::store_matrices(row, r, true, at);
}
TWIN void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, PLACE)
{
    emulation::mma_bf16(c, a, {b0, b1}, at);
}
TWIN void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, PLACE)
{
    emulation::mma_tf32(c, a, {b0, b1}, at);
}
TWIN uint32_t tf32_of(float x) { return (__float_as_uint(x) + 0x1000u) & 0xFFFFE000u; }

TWIN void barrier_sync(int id, int threads, PLACE) { emulation::barrier_sync(id, threads, at); }
TWIN void barrier_arrive(int id, int threads, PLACE) { emulation::barrier_arrive(id, threads, at); }

TWIN void mbarrier_init(uint32_t barrier, uint32_t arrivals, PLACE)
{
    emulation::mbarrier_init(barrier, arrivals, at);
}
TWIN void mbarrier_init_fence() { emulation::mbarrier_init_fence(); }
TWIN void mbarrier_arrive(uint32_t barrier, PLACE) { emulation::mbarrier_arrive(barrier, 0, at); }
TWIN void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes, PLACE)
{
    emulation::mbarrier_arrive(barrier, bytes, at);
}
TWIN void mbarrier_wait(uint32_t barrier, uint32_t parity, PLACE)
{
    emulation::mbarrier_wait(barrier, parity, at);
}
TWIN void fence_proxy_async() {}

TWIN void tma_prefetch(const CUtensorMap *) {}
TWIN void tma_load_2d(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, PLACE)
{
    const int corner[] = {x, y};
    emulation::tma_load(to, map, barrier, 2, corner, at);
}
TWIN void tma_load_3d(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z,
                      PLACE)
{
    const int corner[] = {x, y, z};
    emulation::tma_load(to, map, barrier, 3, corner, at);
}
TWIN void tma_load_4d(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z,
                      int u, PLACE)
{
    const int corner[] = {x, y, z, u};
    emulation::tma_load(to, map, barrier, 4, corner, at);
}
TWIN void tma_load_5d(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z,
                      int u, int v, PLACE)
{
    const int corner[] = {x, y, z, u, v};
    emulation::tma_load(to, map, barrier, 5, corner, at);
}
TWIN void tma_store_2d(const CUtensorMap *map, uint32_t from, int x, int y, PLACE)
{
    const int corner[] = {x, y};
    emulation::tma_store(map, from, 2, corner, at);
}
TWIN void tma_store_3d(const CUtensorMap *map, uint32_t from, int x, int y, int z, PLACE)
{
    const int corner[] = {x, y, z};
    emulation::tma_store(map, from, 3, corner, at);
}
TWIN void tma_commit() { emulation::tma_commit(); }
template <int N> TWIN void tma_wait(PLACE) { emulation::tma_wait(N, false, at); }
template <int N> TWIN void tma_wait_read(PLACE) { emulation::tma_wait(N, true, at); }

#endif
