/* What the hardware does beside the threads: cp.async, mbarriers, TMA, wgmma.
 *
 * When a result appears is RINGREEL_EMULATION_ASYNC's choice (modes.h). Until then the place where
 * it will appear holds NaN, so that reading too early is seen. */
#ifndef RINGREEL_EMULATION_ASYNC_H
#define RINGREEL_EMULATION_ASYNC_H

#include "place.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

struct CUtensorMap_st;

namespace emulation
{

struct Block;
struct Thread;
struct Warpgroup;

/* cp.async of 16 bytes */
struct Copy {
    unsigned char *to;
    const void *from; /* NULL: zeros */
    bool done;
    Place at;
};

/* A tensor map as cuTensorMapEncodeTiled of the emulator writes it. */
struct TensorMap {
    uint32_t magic;
    uint8_t rank, element_bytes, swizzle, nan_outside;
    unsigned char *base;
    uint64_t extent[5], stride[5]; /* elements; bytes, [0] unused */
    uint16_t box[5];
};

/* One tile on its way between global and shared memory. */
struct Transfer {
    TensorMap map;
    int corner[5];
    uint32_t shared, barrier; /* addresses; barrier of loads only */
    Thread *by;
    Place at;
};

/* Of one bulk commit group. `bytes` is what was read, once it was. */
struct Store {
    Transfer transfer;
    std::vector<unsigned char> bytes;
    bool read, done;
};

struct ThreadAsync {
    std::vector<Copy> copies; /* not yet committed */
    std::vector<std::vector<Copy>> copy_groups;
    std::vector<Store> stores;
    std::vector<std::vector<Store>> store_groups;
    int64_t wgmmas, wgmma_groups, wgmma_groups_waited; /* issued, committed, waited for */
    bool wgmma_fenced, wgmma_open;                     /* fence seen; some not committed */
    Place wgmma_at;                                    /* the last one */
};

struct BlockAsync {
    std::vector<Transfer> loads;
    bool barriers_unfenced; /* an mbarrier_init that no fence has published */
    std::shared_ptr<Warpgroup> warpgroups[8];
    void *wgmma_tsan[8]; /* by warpgroup, of all blocks */
};

void block_async_begin(Block *b);
bool block_async_work(Block *b); /* does something if its time has come; false: there is nothing */
void block_async_end(Block *b);
void thread_async_end(Thread *t); /* fails where something was never waited for */

/* Whether the current thread's work is to be done at once. */
bool done_at_once();
/* Called where late work is waited for: returns when nobody else can go on. */
void let_others_go_first(Place at);

/* ---- async.cpp ------------------------------------------------------------------------------- */

void cp_async(uint32_t to, const void *from, bool valid, Place at);
void cp_async_commit();
void cp_async_wait(size_t groups, Place at);

void mbarrier_init(uint32_t barrier, uint32_t arrivals, Place at);
void mbarrier_init_fence();
void mbarrier_arrive(uint32_t barrier, uint32_t expected_bytes, Place at);
void mbarrier_wait(uint32_t barrier, uint32_t parity, Place at);
void mbarrier_complete_bytes(Block *b, uint32_t barrier, uint32_t bytes, Place at);

/* ---- tma.cpp --------------------------------------------------------------------------------- */

void tma_load(uint32_t to, const CUtensorMap_st *map, uint32_t barrier, int rank, const int *corner,
              Place at);
void tma_store(const CUtensorMap_st *map, uint32_t from, int rank, const int *corner, Place at);
void tma_commit();
void tma_wait(size_t groups, bool only_read, Place at);
void tma_finish_load(Block *b, const Transfer &load);
void tma_finish_store(Store *store);

/* ---- wgmma.cpp ------------------------------------------------------------------------------- */

struct WgmmaOperands {
    uint64_t a, b;               /* descriptors; a unused where A comes from registers */
    const uint32_t *a_registers; /* [4], or NULL */
    int n;                       /* columns of D */
    bool accumulate, a_transposed, b_transposed;
};
void wgmma_fence(Place at);
void wgmma(float *d, const WgmmaOperands &operands, Place at); /* d [n / 2] */
void wgmma_commit(Place at);
void wgmma_wait(int64_t groups, Place at);
void wgmma_end(Thread *t);

} // namespace emulation

#endif
