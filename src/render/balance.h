/* How many of the ranks should code: the expected time of a job that is denoised and decoded at the
 * same time, shot after shot, from what its parts cost on one rank. Arithmetic alone; costs are in
 * any unit (render/workload.h counts multiply-adds, render/tally.h measures seconds). All functions
 * are Local. */
#ifndef RINGREEL_BALANCE_H
#define RINGREEL_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

struct balance_cost {
    double text, denoise, decode;
};

struct balance_shot {
    int64_t tokens, h, w; /* what is shared out: granules of tokens; rows or columns of latents */
    struct balance_cost cost; /* of the whole shot on one rank */
};

struct balance {
    struct balance_shot *shots;
    int count;
    bool last_by_all; /* denoise ranks help to decode the last shot */
};

/* What each side does in all, on one of its ranks. */
struct balance_cost balance_work(const struct balance *b, int denoise_ranks, int codec_ranks);
/* From the first text to the last frame. */
double balance_time(const struct balance *b, int denoise_ranks, int codec_ranks);
/* The number of codec ranks with the shortest time, the smallest of those that are alike.
 * denoise_ranks: 0 = all others. 1 where there is nothing to choose. */
int balance_codec_ranks(const struct balance *b, int ranks, int denoise_ranks);
/* Makes b's costs such that balance_work is what was measured on these ranks. */
void balance_fit(struct balance *b, int denoise_ranks, int codec_ranks,
                 const struct balance_cost *measured);

#endif
