#include "block.h"
#include "sanitizers.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulation
{

__thread Thread *current;

/* ---- failing --------------------------------------------------------------------------------- */

namespace
{

/* "kernel: block (0,0,0), thread (1,0,0): " */
void print_where(const Block *b, const Thread *t)
{
    fprintf(stderr, "emulation: %s: block (%u,%u,%u)", b->launch->name, b->index.x, b->index.y,
            b->index.z);
    if (t) fprintf(stderr, ", thread (%u,%u,%u)", t->index.x, t->index.y, t->index.z);
    fputs(": ", stderr);
}

[[noreturn]] void fail_block(const Block *b, const char *message, const char *detail)
{
    print_where(b, nullptr);
    fprintf(stderr, "%s%s\n", message, detail);
    abort();
}

} // namespace

void fail(Place at, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_where(current->block, current);
    fprintf(stderr, "%s:%d: ", at.file, at.line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

#if defined(__SANITIZE_ADDRESS__)
/* Called by AddressSanitizer when it has found something, before its report. */
extern "C" void __asan_on_error()
{
    if (!current) return;
    print_where(current->block, current);
    fputs("AddressSanitizer says:\n", stderr);
}
#endif

/* ---- sleeping and waking --------------------------------------------------------------------- */

namespace
{

void set_runnable(Thread *t)
{
    t->block->runnable[t->warp] |= 1u << t->lane;
    t->block->runnable_warps |= 1u << t->warp;
}

void unset_runnable(Thread *t)
{
    uint32_t *lanes = &t->block->runnable[t->warp];
    *lanes &= ~(1u << t->lane);
    if (!*lanes) t->block->runnable_warps &= ~(1u << t->warp);
}

} // namespace

void sleep_on(const void *key, const char *what, Place at)
{
    Thread *me = current;
    me->awaits = key;
    me->awaits_name = what;
    me->awaits_at = at;
    unset_runnable(me);
    fiber_leave(&me->block->home, &me->fiber);
}

void wake_thread(Thread *t)
{
    t->awaits = nullptr;
    set_runnable(t);
}

void wake(Block *b, const void *key)
{
    for (int i = 0; i < b->threads; i++)
        if (b->all[i].awaits == key) wake_thread(&b->all[i]);
}

void give_way()
{
    current->block->gave_way = true;
    fiber_leave(&current->block->home, &current->fiber);
}

void at_atomic()
{
    Modes *m = &current->block->modes;
    if (m->order == RANDOM_ORDER && m->order_random.below(4) == 0) give_way();
}

/* ---- barriers -------------------------------------------------------------------------------- */

namespace
{

const char *barrier_name(int id)
{
    static const char *const names[BARRIERS] = {
        "__syncthreads", "barrier 1",  "barrier 2",  "barrier 3", "barrier 4",  "barrier 5",
        "barrier 6",     "barrier 7",  "barrier 8",  "barrier 9", "barrier 10", "barrier 11",
        "barrier 12",    "barrier 13", "barrier 14", "barrier 15"};
    return names[id];
}

void complete(Block *b, Barrier *bar)
{
    bar->arrived = 0;
    bar->generation++;
    bar->votes[bar->generation & 1] = 0;
    wake(b, bar);
}

void check_arrival(const Barrier *bar, int id, int count, Place at)
{
    if (!bar->arrived) return;
    if (bar->expected != count)
        fail(at, "%s for %d threads; others arrived for %d at %s:%d", barrier_name(id), count,
             bar->expected, bar->place.file, bar->place.line);
    if (count == 0 && (bar->place.line != at.line || strcmp(bar->place.file, at.file) != 0))
        fail(at, "__syncthreads: other threads are in the one at %s:%d", bar->place.file,
             bar->place.line);
}

/* Whether the current thread was the last one. */
bool arrive(int id, int count, Place at)
{
    Block *b = current->block;
    if (id < 0 || id >= BARRIERS) fail(at, "barrier %d: there are 0 to 15", id);
    if (count % WARP != 0 || count < 0 || count > b->threads)
        fail(at, "%s for %d threads: allowed are multiples of 32 up to the block's %d",
             barrier_name(id), count, b->threads);
    Barrier *bar = &b->barriers[id];
    check_arrival(bar, id, count, at);
    if (!bar->arrived) {
        bar->expected = count;
        bar->place = at;
    }
    release(&bar->order[bar->generation & 1]);
    bar->arrived++;
    if (bar->arrived < (count ? count : b->alive)) return false;
    complete(b, bar);
    return true;
}

} // namespace

void barrier_sync(int id, int count, Place at)
{
    Barrier *bar = &current->block->barriers[id & (BARRIERS - 1)];
    char *order = &bar->order[bar->generation & 1];
    if (!arrive(id, count, at)) sleep_on(bar, barrier_name(id), at);
    acquire(order);
}

void barrier_arrive(int id, int count, Place at) { arrive(id, count, at); }

int barrier_vote(bool vote, Place at)
{
    Barrier *bar = &current->block->barriers[0];
    int *votes = &bar->votes[bar->generation & 1];
    *votes += vote;
    barrier_sync(0, 0, at);
    return *votes;
}

/* Orders the thread after all fences before it. The hardware does so only where another thread
 * reads what was written behind the fence; the race check may miss a race because of this, but
 * invents none. */
void thread_fence()
{
    static char order;
    release(&order);
    acquire(&order);
    give_way();
}

/* ---- scheduling ------------------------------------------------------------------------------ */

namespace
{

/* The set bit next to `after` in the wanted direction, around the end; set is not empty. */
int next_bit(uint32_t set, int after, bool upward)
{
    uint32_t below = (1u << after) - 1, above = ~below & ~(1u << after);
    if (upward) return __builtin_ctz(set & above ? set & above : set);
    return 31 - __builtin_clz(set & below ? set & below : set);
}

int random_bit(uint32_t set, Random *random)
{
    uint32_t skip = random->below(static_cast<uint32_t>(__builtin_popcount(set)));
    while (skip--) set &= set - 1;
    return __builtin_ctz(set);
}

/* In order, a warp goes on as long as one of its lanes can. */
Thread *pick(Block *b)
{
    if (!b->runnable_warps) return nullptr;
    bool upward = b->modes.order == FORWARD;
    int warp = b->last_warp, lane;
    if (b->modes.order == RANDOM_ORDER) {
        warp = random_bit(b->runnable_warps, &b->modes.order_random);
        lane = random_bit(b->runnable[warp], &b->modes.order_random);
    } else {
        if (b->gave_way || !b->runnable[warp]) warp = next_bit(b->runnable_warps, warp, upward);
        lane = next_bit(b->runnable[warp],
                        warp == b->last_warp ? b->last_lane
                        : upward             ? 31
                                             : 0,
                        upward);
    }
    b->gave_way = false;
    b->last_warp = warp;
    b->last_lane = lane;
    return &b->all[warp * WARP + lane];
}

/* "31 threads from (1,0,0) in __syncthreads at file:line; …" */
[[noreturn]] void report_deadlock(const Block *b)
{
    char text[1024];
    size_t used = 0;
    for (int i = 0; i < b->threads; i++) {
        const Thread *t = &b->all[i];
        if (!t->awaits) continue;
        int count = 0;
        bool first = true;
        for (int k = 0; k < b->threads; k++) {
            const Thread *o = &b->all[k];
            if (!o->awaits || o->awaits_at.line != t->awaits_at.line ||
                strcmp(o->awaits_name, t->awaits_name) != 0)
                continue;
            count++;
            if (k < i) first = false;
        }
        if (!first || used >= sizeof text - 1) continue;
        int n = snprintf(text + used, sizeof text - used,
                         "%s%d thread%s from (%u,%u,%u) in %s at %s:%d", used ? "; " : "", count,
                         count == 1 ? "" : "s", t->index.x, t->index.y, t->index.z, t->awaits_name,
                         t->awaits_at.file, t->awaits_at.line);
        used += static_cast<size_t>(n);
    }
    fail_block(b, "deadlock: ", text);
}

/* The current thread has come to the kernel's end; others may have waited only for it. */
void leave_kernel(Thread *t)
{
    Block *b = t->block;
    thread_async_end(t);
    b->alive--;
    b->alive_lanes[t->warp] &= ~(1u << t->lane);
    unset_runnable(t);
    lane_left(t->warp);
    Barrier *bar = &b->barriers[0];
    if (bar->arrived && bar->expected == 0 && bar->arrived == b->alive) complete(b, bar);
}

/* What every fiber does: one thread of one block after the other. */
void thread_main()
{
    fiber_begins(&current->block->home);
    for (;;) {
        Thread *me = current;
        acquire(const_cast<Launch *>(me->block->launch));
        me->block->launch->thread();
        leave_kernel(me);
        release(&me->block->home);
        fiber_leave(&me->block->home, &me->fiber);
    }
}

void begin_threads(Block *b)
{
    dim3 size = b->size;
    for (int i = 0; i < b->threads; i++) {
        Thread *t = &b->all[i];
        unsigned n = static_cast<unsigned>(i);
        t->index = {n % size.x, n / size.x % size.y, n / size.x / size.y};
        t->number = n;
        t->lane = n % WARP;
        t->warp = n / WARP;
        t->block = b;
        t->awaits = nullptr;
        if (!t->fiber.stack) fiber_create(&t->fiber, thread_main, i);
    }
    b->runnable_warps = 0;
    for (int w = 0; w < b->warps; w++) {
        int lanes = b->threads - w * WARP;
        b->alive_lanes[w] = b->runnable[w] = lanes >= WARP ? ~0u : (1u << lanes) - 1;
        b->runnable_warps |= 1u << w;
        b->meetings[w].count = 0;
    }
}

void begin_block(Block *b, const Launch &launch, uint3 index, const Modes &modes)
{
    b->launch = &launch;
    b->index = index;
    b->grid = launch.grid;
    b->size = launch.block;
    b->threads = b->alive = static_cast<int>(b->size.x * b->size.y * b->size.z);
    b->warps = (b->threads + WARP - 1) / WARP;
    b->modes = modes;
    b->gave_way = false;
    b->last_warp = modes.order == REVERSE ? b->warps - 1 : 0;
    b->last_lane = modes.order == REVERSE ? 0 : 31;
    memset(b->barriers, 0, sizeof b->barriers);
    shared_begin(&b->shared, launch.shared_bytes);
    block_async_begin(b);
    begin_threads(b);
}

} // namespace

void block_run(Block *b, const Launch &launch, uint3 index, const Modes &modes)
{
    begin_block(b, launch, index, modes);
    release(const_cast<Launch *>(&launch));
    while (b->alive) {
        bool worked = block_async_work(b);
        Thread *next = pick(b);
        if (next) {
            current = next;
            fiber_enter(&b->home, &next->fiber);
            current = nullptr;
        } else if (!worked) {
            report_deadlock(b);
        }
    }
    block_async_end(b);
    const char *beside = shared_end(&b->shared);
    if (beside) fail_block(b, "something was written out of bounds, behind ", beside);
}

} // namespace emulation
