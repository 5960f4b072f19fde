/* What the lanes of a warp do together: they meet, and go on when all of the mask have come. */
#ifndef RINGREEL_EMULATION_WARP_H
#define RINGREEL_EMULATION_WARP_H

#include "place.h"

#include <cstddef>
#include <cstdint>

namespace emulation
{

/* What each lane brings and takes home. */
typedef unsigned char LaneBytes[64];

/* One mask's meeting place. Two sets of data in turn: lanes of the next meeting may come while the
 * last ones of this have not yet read. */
struct Meeting {
    uint32_t mask, arrived, generation;
    const char *what;
    Place place;
    char order[2];       /* for the race check */
    uint32_t members[2]; /* who came */
    void (*finish)(LaneBytes *data);
    alignas(16) LaneBytes data[2][32];
};
struct Meetings {
    Meeting of_mask[16];
    int count;
};

struct Met {
    LaneBytes *data;
    uint32_t members;
};

/* All lanes of `mask` that have not left bring `bytes` bytes. The last one to come calls `finish`,
 * which may rewrite them; then all get the 32 lanes' data. Fails where lanes of one mask are at
 * different places: stricter than the hardware, and almost always a mistake. */
Met meet(uint32_t mask, const char *what, const void *in, size_t bytes, Place at,
         void (*finish)(LaneBytes *data) = nullptr);
/* For instructions that are .aligned: all 32 lanes must come. */
LaneBytes *meet_whole_warp(const char *what, const void *in, size_t bytes, Place at,
                           void (*finish)(LaneBytes *data) = nullptr);
void lane_left(unsigned warp); /* the current thread ends */

void warp_sync(uint32_t mask, Place at);
void warp_shuffle(uint32_t mask, void *value, size_t bytes, int source, Place at);
unsigned warp_ballot(uint32_t mask, bool vote, Place at);

} // namespace emulation

#endif
