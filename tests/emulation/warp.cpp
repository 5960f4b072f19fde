#include "warp.h"
#include "block.h"
#include "sanitizers.h"

#include <cstring>

namespace emulation
{

namespace
{

Meeting *place_of(Meetings *m, uint32_t mask, Place at)
{
    for (int i = 0; i < m->count; i++)
        if (m->of_mask[i].mask == mask) return &m->of_mask[i];
    if (m->count == sizeof m->of_mask / sizeof *m->of_mask)
        fail(at, "more than %d different masks in one warp", m->count);
    Meeting *fresh = &m->of_mask[m->count++];
    fresh->mask = mask;
    fresh->arrived = fresh->generation = 0;
    return fresh;
}

void complete(Meeting *m)
{
    uint32_t turn = m->generation & 1;
    if (m->finish) {
        acquire(&m->order[turn]);
        m->finish(m->data[turn]);
        release(&m->order[turn]);
    }
    m->members[turn] = m->arrived;
    m->arrived = 0;
    m->generation++;
    wake(current->block, m);
}

/* The compiler mostly keeps one copy of a name, and threads meet a great deal. */
bool same(const char *a, const char *b) { return a == b || strcmp(a, b) == 0; }

void check_same(const Meeting *m, const char *what, Place at)
{
    if (same(m->what, what) && m->place.line == at.line && same(m->place.file, at.file)) return;
    fail(at, "%s: other lanes of mask 0x%08x are in %s at %s:%d", what, m->mask, m->what,
         m->place.file, m->place.line);
}

} // namespace

Met meet(uint32_t mask, const char *what, const void *in, size_t bytes, Place at,
         void (*finish)(LaneBytes *))
{
    Thread *me = current;
    uint32_t bit = 1u << me->lane;
    if (!(mask & bit)) fail(at, "%s: lane %u is not in its own mask 0x%08x", what, me->lane, mask);
    Meeting *m = place_of(&me->block->meetings[me->warp], mask, at);
    uint32_t turn = m->generation & 1;
    if (m->arrived) {
        check_same(m, what, at);
    } else {
        m->what = what;
        m->place = at;
        m->finish = finish;
    }
    if (bytes) memcpy(m->data[turn][me->lane], in, bytes);
    release(&m->order[turn]);
    m->arrived |= bit;
    if (m->arrived == (mask & me->block->alive_lanes[me->warp]))
        complete(m);
    else
        sleep_on(m, what, at);
    acquire(&m->order[turn]);
    return {m->data[turn], m->members[turn]};
}

LaneBytes *meet_whole_warp(const char *what, const void *in, size_t bytes, Place at,
                           void (*finish)(LaneBytes *))
{
    if (current->block->alive_lanes[current->warp] != ~0u)
        fail(at, "%s needs all 32 lanes of the warp", what);
    return meet(~0u, what, in, bytes, at, finish).data;
}

void lane_left(unsigned warp)
{
    Block *b = current->block;
    for (int i = 0; i < b->meetings[warp].count; i++) {
        Meeting *m = &b->meetings[warp].of_mask[i];
        if (!m->arrived || m->arrived != (m->mask & b->alive_lanes[warp])) continue;
        if (m->finish) fail(m->place, "%s needs all 32 lanes; one left instead", m->what);
        complete(m);
    }
}

void warp_sync(uint32_t mask, Place at) { meet(mask, "__syncwarp", nullptr, 0, at); }

void warp_shuffle(uint32_t mask, void *value, size_t bytes, int source, Place at)
{
    if (!(mask >> source & 1))
        fail(at, "shuffle: reads lane %d, which is not in mask 0x%08x", source, mask);
    Met met = meet(mask, "shuffle", value, bytes, at);
    if (!(met.members >> source & 1))
        fail(at, "shuffle: reads lane %d, which has left the kernel", source);
    memcpy(value, met.data[source], bytes);
}

unsigned warp_ballot(uint32_t mask, bool vote, Place at)
{
    Met met = meet(mask, "vote", &vote, sizeof vote, at);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++)
        if (met.members & 1u << lane && met.data[lane][0]) votes |= 1u << lane;
    return votes;
}

} // namespace emulation
