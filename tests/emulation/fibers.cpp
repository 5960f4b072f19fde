#include "fibers.h"
#include "sanitizers.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation
{

namespace
{

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t STACK_BYTES = 256 * 1024; /* its frames are larger */
#else
constexpr size_t STACK_BYTES = 128 * 1024;
#endif
constexpr size_t PAGE_BYTES = 4096;

char *map_stack()
{
    void *p = mmap(nullptr, STACK_BYTES + PAGE_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, PAGE_BYTES, PROT_NONE) != 0) {
        perror("emulation: no memory for the stack of a thread");
        abort();
    }
    return static_cast<char *>(p) + PAGE_BYTES;
}

#if defined(__x86_64__)

/* Pushes what a called function must keep, stores the stack pointer, takes the other's. The
 * floating-point modes are left as they are: nothing here changes them. */
extern "C" void ringreel_switch_stacks(void **from, void *to);
asm(R"(
.text
.globl ringreel_switch_stacks
.hidden ringreel_switch_stacks
.type ringreel_switch_stacks,@function
ringreel_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size ringreel_switch_stacks, .-ringreel_switch_stacks
)");

void switch_stacks(Fiber *from, Fiber *to)
{
    ringreel_switch_stacks(&from->stack_pointer, to->stack_pointer);
}

void prepare_stack(Fiber *f, void (*body)(), int number)
{
    size_t stagger = static_cast<size_t>(number) * 832 % 16384 / 16 * 16;
    void **top = reinterpret_cast<void **>(f->stack + STACK_BYTES - stagger);
    *--top = nullptr; /* body's return address: none */
    *--top = reinterpret_cast<void *>(body);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    f->stack_pointer = top;
}

#else

ucontext_t *context(Fiber *f)
{
    if (!f->stack_pointer) f->stack_pointer = calloc(1, sizeof(ucontext_t));
    if (!f->stack_pointer) abort();
    return static_cast<ucontext_t *>(f->stack_pointer);
}

void switch_stacks(Fiber *from, Fiber *to) { swapcontext(context(from), context(to)); }

void prepare_stack(Fiber *f, void (*body)(), int)
{
    ucontext_t *c = context(f);
    getcontext(c);
    c->uc_stack.ss_sp = f->stack;
    c->uc_stack.ss_size = STACK_BYTES;
    makecontext(c, body, 0);
}

#endif

void announce_switch(Fiber *from, Fiber *to, size_t stack_bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, stack_bytes);
#endif
#if defined(EMULATION_TSAN)
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    (void)from, (void)to, (void)stack_bytes;
}

void arrived_back(Fiber *at)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(at->fake_stack, nullptr, nullptr);
#endif
    (void)at;
}

} // namespace

void fiber_home(Home *home)
{
#if defined(EMULATION_TSAN)
    home->tsan = __tsan_get_current_fiber();
#endif
    (void)home;
}

void fiber_create(Fiber *fiber, void (*body)(), int number)
{
    *fiber = {};
    fiber->stack = map_stack();
#if defined(EMULATION_TSAN)
    fiber->tsan = __tsan_create_fiber(0);
#endif
    prepare_stack(fiber, body, number);
}

void fiber_begins(Home *home)
{
#if defined(__SANITIZE_ADDRESS__)
    const void *stack;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &home->stack_bytes);
    home->stack = static_cast<char *>(const_cast<void *>(stack));
#endif
    (void)home;
}

void fiber_enter(Home *home, Fiber *to)
{
    announce_switch(home, to, STACK_BYTES);
    switch_stacks(home, to);
    arrived_back(home);
}

void fiber_leave(Home *home, Fiber *from)
{
    announce_switch(from, home, home->stack_bytes);
    switch_stacks(from, home);
    arrived_back(from);
}

} // namespace emulation
