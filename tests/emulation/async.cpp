/* cp.async and mbarriers, and what all asynchronous work of a block has in common. */
#include "block.h"
#include "sanitizers.h"
#include "warpgroup.h"

#include <cstring>

namespace emulation
{

bool done_at_once()
{
    Modes *m = &current->block->modes;
    return m->timing == EAGER || (m->timing == RANDOM_TIMING && m->timing_random.coin());
}

namespace
{

void thread_async_begin(ThreadAsync *a)
{
    a->copies.clear();
    a->copy_groups.clear();
    a->stores.clear();
    a->store_groups.clear();
    a->wgmmas = a->wgmma_groups = a->wgmma_groups_waited = 0;
    a->wgmma_fenced = a->wgmma_open = false;
}

} // namespace

void block_async_begin(Block *b)
{
    Unseen clearing;
    b->async.loads.clear();
    b->async.barriers_unfenced = false;
    for (auto &w : b->async.warpgroups) w.reset();
    for (int i = 0; i < b->threads; i++) thread_async_begin(&b->all[i].async);
}

void let_others_go_first(Place at)
{
    Block *b = current->block;
    if (b->modes.timing == LATE) sleep_on(&b->async, "a wait", at);
}

namespace
{

Transfer take_out(std::vector<Transfer> *loads, size_t i)
{
    Unseen moving;
    Transfer load = (*loads)[i];
    loads->erase(loads->begin() + static_cast<std::ptrdiff_t>(i));
    return load;
}

} // namespace

bool block_async_work(Block *b)
{
    std::vector<Transfer> &loads = b->async.loads;
    Modes *m = &b->modes;
    bool others_can_run = b->runnable_warps != 0;
    if (loads.empty()) {
        if (others_can_run) return false;
        wake(b, &b->async); /* those that let others go first */
        return b->runnable_warps != 0;
    }
    if (others_can_run && (m->timing == LATE || m->timing_random.below(4))) return false;
    size_t i = 0;
    if (m->timing == RANDOM_TIMING) i = m->timing_random.below(static_cast<uint32_t>(loads.size()));
    Transfer load = take_out(&loads, i);
    current = load.by; /* for what it may complain of */
    {
        InTheNameOf thread(load.by->fiber.tsan);
        tma_finish_load(b, load);
    }
    current = nullptr;
    return true;
}

void block_async_end(Block *b)
{
    if (b->async.loads.empty()) return;
    const Transfer &load = b->async.loads.front();
    current = load.by;
    fail(load.at, "tma_load: the block ended before it was waited for");
}

void thread_async_end(Thread *t)
{
    ThreadAsync *a = &t->async;
    if (!a->copies.empty()) fail(a->copies.front().at, "cp_async: never committed");
    for (const auto &group : a->copy_groups)
        if (!group.empty()) fail(group.front().at, "cp_async: never waited for");
    if (!a->stores.empty()) fail(a->stores.front().transfer.at, "tma_store: never committed");
    for (auto &group : a->store_groups)
        for (Store &store : group) {
            if (!store.read) fail(store.transfer.at, "tma_store: never waited for");
            tma_finish_store(&store);
        }
    wgmma_end(t);
}

/* ---- cp.async -------------------------------------------------------------------------------- */

namespace
{

constexpr size_t COPY_BYTES = 16;

void finish_copy(Copy *copy)
{
    if (copy->done) return;
    copy->done = true;
    note_write(copy->to, COPY_BYTES);
    if (!copy->from) {
        memset(copy->to, 0, COPY_BYTES);
        return;
    }
    note_read(copy->from, COPY_BYTES);
    memcpy(copy->to, copy->from, COPY_BYTES);
}

} // namespace

void cp_async(uint32_t to, const void *from, bool valid, Place at)
{
    Copy copy = {};
    copy.to = shared_span(to, COPY_BYTES, COPY_BYTES, "cp_async", at);
    if (reinterpret_cast<uintptr_t>(from) % COPY_BYTES != 0)
        fail(at, "cp_async: global address %p is not a multiple of 16", from);
    copy.from = valid ? from : nullptr;
    copy.at = at;
    if (done_at_once())
        finish_copy(&copy);
    else
        memset(copy.to, 0xFF, COPY_BYTES);
    current->async.copies.push_back(copy);
}

void cp_async_commit()
{
    ThreadAsync *a = &current->async;
    a->copy_groups.push_back(std::move(a->copies));
    a->copies.clear();
}

void cp_async_wait(size_t groups, Place at)
{
    ThreadAsync *a = &current->async;
    if (a->copy_groups.size() > groups) let_others_go_first(at);
    while (a->copy_groups.size() > groups) {
        for (Copy &copy : a->copy_groups.front()) finish_copy(&copy);
        a->copy_groups.erase(a->copy_groups.begin());
    }
}

/* ---- mbarriers ------------------------------------------------------------------------------- */

namespace
{

/* The 64 bits in shared memory. Fresh memory is all ones, so `valid` tells one that was never
 * initialised. */
struct Mbarrier {
    uint64_t pending : 20, arrivals : 20, phase : 1, valid : 2;
    int64_t bytes : 21; /* expected, less those that came */
};
static_assert(sizeof(Mbarrier) == 8, "an mbarrier has 64 bits");
constexpr unsigned VALID = 2;
constexpr uint32_t MOST_ARRIVALS = (1 << 20) - 1;

Mbarrier *mbarrier_at(uint32_t address, const char *what, Place at)
{
    Mbarrier *m = reinterpret_cast<Mbarrier *>(shared_span(address, sizeof *m, 8, what, at));
    if (m->valid != VALID) fail(at, "%s: 0x%x is not an initialised mbarrier", what, address);
    return m;
}

void end_phase_if_complete(Block *b, Mbarrier *m)
{
    if (m->pending != 0 || m->bytes != 0) return;
    m->phase ^= 1;
    m->pending = m->arrivals;
    wake(b, m);
}

} // namespace

void mbarrier_init(uint32_t barrier, uint32_t arrivals, Place at)
{
    unsigned char *p = shared_span(barrier, sizeof(Mbarrier), 8, "mbarrier_init", at);
    if (arrivals < 1 || arrivals > MOST_ARRIVALS)
        fail(at, "mbarrier_init: %u arrivals; allowed are 1 to %u", arrivals, MOST_ARRIVALS);
    Mbarrier fresh = {};
    fresh.pending = fresh.arrivals = arrivals & MOST_ARRIVALS;
    fresh.valid = VALID;
    memcpy(p, &fresh, sizeof fresh);
    current->block->async.barriers_unfenced = true;
}

void mbarrier_init_fence() { current->block->async.barriers_unfenced = false; }

void mbarrier_arrive(uint32_t barrier, uint32_t expected_bytes, Place at)
{
    Mbarrier *m = mbarrier_at(barrier, "mbarrier_arrive", at);
    if (m->pending == 0)
        fail(at, "mbarrier_arrive: more than its %u arrivals", unsigned(m->arrivals));
    release(m);
    m->bytes += expected_bytes;
    m->pending--;
    end_phase_if_complete(current->block, m);
}

void mbarrier_complete_bytes(Block *b, uint32_t barrier, uint32_t bytes, Place at)
{
    Mbarrier *m = mbarrier_at(barrier, "tma_load", at);
    release(m);
    m->bytes -= bytes;
    end_phase_if_complete(b, m);
}

void mbarrier_wait(uint32_t barrier, uint32_t parity, Place at)
{
    Mbarrier *m = mbarrier_at(barrier, "mbarrier_wait", at);
    while (m->phase == (parity & 1)) sleep_on(m, "mbarrier_wait", at);
    acquire(m);
}

} // namespace emulation
