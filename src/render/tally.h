/* What a rank did with its time, so that a run can say which side waited for the other. */
#ifndef RINGREEL_TALLY_H
#define RINGREEL_TALLY_H

struct engine;

/* Seconds of this rank; denoise and codec ranks fill in what is theirs. */
struct tally {
    double text, denoise, decode;   /* worked */
    double latents_wait;            /* codec: for those of every shot but the first */
    double begin, last_decode, end; /* clock: the first shot's first step, its last one's decode */
};

/* When the job is done: which side waited notably, and for how many codec ranks nobody would. One
 * line on rank 0, and an event. Collective over the world. */
void tally_report(const struct engine *e);

#endif
