/* The functions of kernels/cuda/wgmma.h on the CPU. */
#ifndef RINGREEL_EMULATION_WGMMA_TWINS_H
#define RINGREEL_EMULATION_WGMMA_TWINS_H

#include "ptx_twins.h"

TWIN void wgmma_fence(PLACE) { emulation::wgmma_fence(at); }
TWIN void wgmma_commit(PLACE) { emulation::wgmma_commit(at); }
template <int N> TWIN void wgmma_wait(PLACE) { emulation::wgmma_wait(N, at); }
template <int REGISTERS> TWIN void wgmma_pin(float (&)[REGISTERS]) {}
template <int N> TWIN void registers_increase()
{
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8, 24 to 256");
}
template <int N> TWIN void registers_decrease() { registers_increase<N>(); }

template <int N, int TA, int TB>
TWIN void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, PLACE)
{
    static_assert(N == 64 || N == 128 || N == 256, "N is 64, 128 or 256");
    emulation::wgmma(d, {a, b, nullptr, N, accumulate, TA != 0, TB != 0}, at);
}
template <int N, int TB>
TWIN void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, PLACE)
{
    static_assert(N == 64 || N == 128 || N == 256, "N is 64, 128 or 256");
    emulation::wgmma(d, {0, b, a, N, accumulate, false, TB != 0}, at);
}

#endif
