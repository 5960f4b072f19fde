/* The wgmma instructions that four warps have issued and the hardware has not yet done. */
#ifndef RINGREEL_EMULATION_WARPGROUP_H
#define RINGREEL_EMULATION_WARPGROUP_H

#include "async.h"

namespace emulation
{

constexpr int WARPGROUP = 128, WGMMA_M = 64, WGMMA_K = 16, WGMMA_MAX_N = 256;

/* D of one or more instructions in flight. Registers of the threads hold NaN meanwhile. */
struct Accumulator {
    float *registers[WARPGROUP]; /* NULL: this thread has not come yet */
    int n, in_flight;
    float values[WGMMA_M * WGMMA_MAX_N]; /* [64][n] */
};

struct Instruction {
    WgmmaOperands operands;
    std::shared_ptr<Accumulator> d;
    uint32_t a[WARPGROUP][4];
    int arrived; /* threads that have issued it */
    int64_t group;
    Place at;
};

struct Warpgroup {
    std::deque<Instruction> queue; /* in order; done ones are gone */
    int64_t done;                  /* how many are gone */
    std::vector<std::shared_ptr<Accumulator>> accumulators;
    void *tsan; /* ThreadSanitizer's name of the hardware that does them */
};

} // namespace emulation

#endif
