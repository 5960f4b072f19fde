/* wgmma.mma_async m64nNk16, bf16 into fp32: a warpgroup multiplies tiles that lie in shared memory
 * (A may come from registers). Every thread of the group issues it; then it can be done. */
#include "block.h"
#include "sanitizers.h"
#include "warpgroup.h"

#include <vector>
#include <cmath>
#include <cstring>

namespace emulation
{

namespace
{

int in_group(const Thread *t) { return static_cast<int>(t->number % WARPGROUP); }

Warpgroup *group_of(Thread *t, Place at)
{
    Block *b = t->block;
    unsigned index = t->number / WARPGROUP;
    if ((static_cast<int>(index) + 1) * WARPGROUP > b->threads)
        fail(at, "wgmma: the block's last warpgroup has fewer than 128 threads");
    std::shared_ptr<Warpgroup> &w = b->async.warpgroups[index];
    Unseen making;
    if (w) return w.get();
    void *&tsan = b->async.wgmma_tsan[index];
    if (!tsan) tsan = new_tsan_fiber();
    w.reset(new Warpgroup());
    w->tsan = tsan;
    return w.get();
}

/* ---- operands in shared memory --------------------------------------------------------------- */

/* The fields of a descriptor, in bytes. PTX ISA, "Matrix Descriptor". */
struct Layout {
    uint32_t start, leading, stride;
    unsigned row_chunks;   /* 16-byte chunks in a row of the swizzle's atom: 1, 2, 4, 8 */
    unsigned swizzle_bits; /* 0 … 3 */
};

Layout layout_of(uint64_t descriptor, Place at)
{
    static const unsigned chunks[4] = {1, 8, 4, 2}, bits[4] = {0, 3, 2, 1};
    if (descriptor >> 49 & 7) fail(at, "wgmma: descriptors with a base offset are not emulated");
    auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3FFF) << 4; };
    return {field(0), field(16), field(32), chunks[descriptor >> 62], bits[descriptor >> 62]};
}

/* Address of element (mn, k) of an operand; 8 in a row along the operand's fast side stay together.
 * `transposed`: the fast side is mn, not k. */
uint32_t element_address(const Layout &l, int mn, int k, bool transposed)
{
    uint32_t r = static_cast<uint32_t>(mn), c = static_cast<uint32_t>(k), w = l.row_chunks, offset;
    if (!transposed && w == 1)
        offset = r % 8 * 16 + r / 8 * l.stride + c / 8 * l.leading;
    else if (!transposed)
        offset = r % 8 * 16 * w + r / 8 * l.stride + c * 2;
    else if (w == 1)
        offset = r / 8 * l.stride + c % 8 * 16 + c / 8 * l.leading;
    else
        offset = r % (8 * w) * 2 + r / (8 * w) * l.leading + c % 8 * 16 * w + c / 8 * l.stride;
    uint32_t address = l.start + offset;
    return address ^ (address >> 7 & ((1u << l.swizzle_bits) - 1)) << 4;
}

void read_chunk(uint32_t address, float (&to)[8], Place at)
{
    const unsigned char *p = shared_span(address, 16, 16, "wgmma", at);
    note_read(p, 16);
    for (int i = 0; i < 8; i++) {
        uint16_t bits;
        memcpy(&bits, p + 2 * i, 2);
        uint32_t wide = uint32_t{bits} << 16;
        memcpy(&to[i], &wide, 4);
    }
}

/* to [16][rows]: element (mn, k) at k * rows + mn */
void read_operand(uint64_t descriptor, int rows, bool transposed, float *to, Place at)
{
    Layout l = layout_of(descriptor, at);
    float eight[8];
    if (transposed) {
        for (int k = 0; k < WGMMA_K; k++)
            for (int r = 0; r < rows; r += 8) {
                read_chunk(element_address(l, r, k, true), eight, at);
                memcpy(to + k * rows + r, eight, sizeof eight);
            }
        return;
    }
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < WGMMA_K; k += 8) {
            read_chunk(element_address(l, r, k, false), eight, at);
            for (int i = 0; i < 8; i++) to[(k + i) * rows + r] = eight[i];
        }
}

/* ---- operands in registers ------------------------------------------------------------------- */

/* A's fragments: register r of a thread holds two neighbours in k. to [16][64]. */
void spread_a(const uint32_t (*a)[4], float *to)
{
    for (int t = 0; t < WARPGROUP; t++)
        for (int r = 0; r < 4; r++) {
            int row = t / 32 * 16 + t % 32 / 4 + 8 * (r & 1), k = 2 * (t % 4) + 8 * (r >> 1);
            uint32_t low = a[t][r] << 16, high = a[t][r] & 0xFFFF0000u;
            memcpy(&to[k * WGMMA_M + row], &low, 4);
            memcpy(&to[(k + 1) * WGMMA_M + row], &high, 4);
        }
}

/* Where register i of thread t of the warpgroup lies in D. */
float *element_of(Accumulator *d, int t, int i)
{
    int row = t / 32 * 16 + t % 32 / 4 + 8 * (i >> 1 & 1),
        column = i / 4 * 8 + 2 * (t % 4) + (i & 1);
    return &d->values[row * d->n + column];
}

void take_registers(Accumulator *d, int t, float *registers)
{
    d->registers[t] = registers;
    for (int i = 0; i < d->n / 2; i++) {
        *element_of(d, t, i) = registers[i];
        registers[i] = NAN;
    }
}

void give_registers_back(Accumulator *d)
{
    for (int t = 0; t < WARPGROUP; t++)
        for (int i = 0; i < d->n / 2; i++) d->registers[t][i] = *element_of(d, t, i);
}

/* ---- doing it -------------------------------------------------------------------------------- */

/* d [64][n] += a^T b; a [16][64], b [16][n]. The 16 products are summed before they are added, as
 * in mma.cpp: hardware does not say how it does either. */
void multiply(float *__restrict__ d, const float *__restrict__ a, const float *__restrict__ b,
              int n)
{
    for (int m = 0; m < WGMMA_M; m++) {
        float sum[WGMMA_MAX_N] = {};
        for (int k = 0; k < WGMMA_K; k++) {
            float f = a[k * WGMMA_M + m];
            for (int c = 0; c < n; c++) sum[c] += f * b[k * n + c];
        }
        for (int c = 0; c < n; c++) d[m * n + c] += sum[c];
    }
}

void forget_first(Warpgroup *w)
{
    Accumulator *d = w->queue.front().d.get();
    if (--d->in_flight == 0) {
        give_registers_back(d);
        for (size_t i = 0; i < w->accumulators.size(); i++)
            if (w->accumulators[i].get() == d)
                w->accumulators.erase(w->accumulators.begin() + static_cast<std::ptrdiff_t>(i));
    }
    w->queue.pop_front();
    w->done++;
}

void run_first(Warpgroup *w)
{
    /* on the heap: a library opened late has little room for what threads own */
    static thread_local std::vector<float> room(WGMMA_K * (WGMMA_M + WGMMA_MAX_N));
    float *a = room.data(), *b = a + WGMMA_K * WGMMA_M;
    Instruction &first = w->queue.front();
    const WgmmaOperands &o = first.operands;
    {
        InTheNameOf hardware(w->tsan); /* all threads that wait come after it, not after this one */
        acquire(w);
        if (o.a_registers)
            spread_a(first.a, a);
        else
            read_operand(o.a, WGMMA_M, o.a_transposed, a, first.at);
        read_operand(o.b, o.n, o.b_transposed, b, first.at);
        release(&w->done);
    }
    Unseen computing;
    float *d = first.d->values;
    if (!o.accumulate) memset(d, 0, sizeof(float) * WGMMA_M * static_cast<size_t>(o.n));
    multiply(d, a, b, o.n);
    forget_first(w);
}

/* ---- issuing --------------------------------------------------------------------------------- */

std::shared_ptr<Accumulator> accumulator_of(Warpgroup *w, int t, float *registers, int n)
{
    for (auto &a : w->accumulators)
        if (a->registers[t] == registers && a->n == n) return a;
    std::shared_ptr<Accumulator> fresh(new Accumulator());
    fresh->n = n;
    w->accumulators.push_back(fresh);
    return fresh;
}

/* The instruction that the current thread issues: the next of the queue, or a new one. */
Instruction *next_instruction(Warpgroup *w, float *d, const WgmmaOperands &o, Place at)
{
    Thread *me = current;
    Unseen queueing;
    size_t index = static_cast<size_t>(me->async.wgmmas++ - w->done);
    if (index < w->queue.size()) return &w->queue[index];
    w->queue.emplace_back();
    Instruction *i = &w->queue.back();
    i->operands = o;
    i->group = me->async.wgmma_groups;
    i->at = at;
    i->d = accumulator_of(w, in_group(me), d, o.n);
    i->d->in_flight++;
    return i;
}

void check_same(const Instruction *i, float *d, const WgmmaOperands &o, Place at)
{
    const WgmmaOperands &first = i->operands;
    if (i->group != current->async.wgmma_groups || first.a != o.a || first.b != o.b ||
        first.n != o.n || first.accumulate != o.accumulate ||
        !first.a_registers != !o.a_registers || first.a_transposed != o.a_transposed ||
        first.b_transposed != o.b_transposed)
        fail(at, "wgmma: operands differ from those of other threads of the warpgroup (%s:%d)",
             i->at.file, i->at.line);
    const float *known = i->d->registers[in_group(current)];
    if (known && known != d)
        fail(at, "wgmma: accumulates elsewhere than other threads of the warpgroup");
}

} // namespace

/* Stricter than PTX, which lets it out where no register has been touched since. */
void wgmma_fence(Place at)
{
    meet_whole_warp("wgmma_fence", nullptr, 0, at);
    current->async.wgmma_fenced = true;
}

void wgmma(float *d, const WgmmaOperands &o, Place at)
{
    Thread *me = current;
    Warpgroup *w = group_of(me, at);
    if (!me->async.wgmma_fenced) fail(at, "wgmma: no wgmma_fence since the last wgmma_commit");
    me->async.wgmma_open = true;
    me->async.wgmma_at = at;
    Instruction *i = next_instruction(w, d, o, at);
    check_same(i, d, o, at);
    int t = in_group(me);
    if (!i->d->registers[t]) take_registers(i->d.get(), t, d);
    if (o.a_registers) memcpy(i->a[t], o.a_registers, sizeof i->a[t]);
    release(w);
    if (++i->arrived < WARPGROUP) return;
    wake(me->block, w);
    if (done_at_once())
        while (!w->queue.empty() && w->queue.front().arrived == WARPGROUP) run_first(w);
}

void wgmma_commit(Place at)
{
    group_of(current, at);
    current->async.wgmma_groups++;
    current->async.wgmma_fenced = current->async.wgmma_open = false;
}

void wgmma_wait(int64_t groups, Place at)
{
    Thread *me = current;
    Warpgroup *w = group_of(me, at);
    int64_t waited = me->async.wgmma_groups - groups;
    if (waited > me->async.wgmma_groups_waited) me->async.wgmma_groups_waited = waited;
    if (!w->queue.empty() && w->queue.front().group < waited) let_others_go_first(at);
    while (!w->queue.empty() && w->queue.front().group < waited) {
        if (w->queue.front().arrived == WARPGROUP)
            run_first(w);
        else
            sleep_on(w, "wgmma_wait", at);
    }
    acquire(&w->done);
}

void wgmma_end(Thread *t)
{
    const ThreadAsync &a = t->async;
    if (!a.wgmma_open && a.wgmma_groups == a.wgmma_groups_waited) return;
    fail(a.wgmma_at, "wgmma: the kernel ended before it was waited for");
}

} // namespace emulation
