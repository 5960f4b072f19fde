/* Fibers: stacks that are switched by hand. One runs until it gives the word back to its home. */
#ifndef RINGREEL_EMULATION_FIBERS_H
#define RINGREEL_EMULATION_FIBERS_H

#include <cstddef>

namespace emulation
{

struct Fiber {
    void *stack_pointer; /* where it left off */
    char *stack;         /* lowest byte; a page below it faults */
    void *fake_stack;    /* AddressSanitizer's */
    void *tsan;          /* ThreadSanitizer's name of it */
};

/* The OS thread's own stack, from which fibers are entered. */
struct Home : Fiber {
    size_t stack_bytes;
};

void fiber_home(Home *home);

/* `body` begins on the first switch and must never return. `number` staggers the stacks, so that
 * equal places on many of them do not share one set of the cache. */
void fiber_create(Fiber *fiber, void (*body)(), int number);

void fiber_enter(Home *home, Fiber *to); /* returns when `to` leaves */
void fiber_leave(Home *home, Fiber *from);
void fiber_begins(Home *home); /* the first thing a body calls */

} // namespace emulation

#endif
