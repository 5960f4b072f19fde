/* In which order threads and blocks run, and when asynchronous work is done.
 *
 *   RINGREEL_EMULATION_ORDER=forward|reverse|random:SEED
 *   RINGREEL_EMULATION_ASYNC=eager|late|random:SEED
 *
 * Read anew at every launch. With the same seeds a process does the same things. */
#ifndef RINGREEL_EMULATION_MODES_H
#define RINGREEL_EMULATION_MODES_H

#include <cstdint>

namespace emulation
{

struct Random {
    uint64_t state;
    uint32_t below(uint32_t n); /* 0 … n-1; n > 0 */
    bool coin() { return below(2) != 0; }
};

enum Order { FORWARD, REVERSE, RANDOM_ORDER };
enum Timing {
    EAGER, /* done when it is asked for */
    LATE,  /* done when it is waited for, and not before */
    RANDOM_TIMING
};

struct Modes {
    Order order;
    Timing timing;
    Random order_random, timing_random;
};

/* Every launch of this OS thread draws from its own part of the seeds' streams. */
Modes modes_of_launch();

} // namespace emulation

#endif
