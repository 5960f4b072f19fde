/* Passes through the network that are the same ops with the same arguments step after step: the
 * first is run as it is, the second recorded (kernels/ops.h, recordings), and every one from then
 * on is asked for in large parts. Kept are the few of one shot: without, with and against the
 * prompt. As collective as the passes are: whether a rank records is its own affair. */
#ifndef RINGREEL_REPLAY_H
#define RINGREEL_REPLAY_H

#include "kernels/ops.h"
#include "model/transformer.h"

enum { REPLAYS_MOST = 8, REPLAY_BLOCKS_MOST = 64 };

/* All that ops of a pass depend on beside the memory they read, between two calls of
 * replays_forget. */
struct replay_key {
    const void *to, *from, *row_index;
    int times, text_slot, text_tokens;
    struct skip_layers skip;
};

struct replays {
    struct device *dev;
    bool on; /* false: every pass is run as it is */
    int count;
    struct {
        struct replay_key key;
        int blocks[REPLAY_BLOCKS_MOST]; /* where key.skip looks */
        struct recording *recording;    /* NULL: has only run */
    } replay[REPLAYS_MOST];
};

/* Has the pass of this key done: pass(argument) asks for its ops and messages, the same ones
 * whenever it is called. */
void replays_run(struct replays *r, const struct replay_key *key, void (*pass)(void *argument),
                 void *argument);
/* What keys do not say has changed. */
void replays_forget(struct replays *r);

#endif
