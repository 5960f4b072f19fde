/* What the benches time, on any device: an op with random operands in the device's memory, or one
 * step of a whole model. */
#ifndef RINGREEL_TESTS_TIMING_H
#define RINGREEL_TESTS_TIMING_H

#include "kernels/ops.h"
#include "model/transformer.h"
#include "tests/support/held.h"

/* Called before every timed run, for whoever measures something beside it; may be NULL. */
typedef void before_run(void *argument, int run);

struct timed {
    struct device *dev;
    void (*once)(struct timed *);
    double flop, bytes; /* of one run; 0: not counted */
    /* the rest is its own */
    struct linear linear;
    struct conv conv;
    struct tensor weight;
    enum epilogue epilogue;
    int64_t tile, heads;
    struct mat x, y, scale, shift;
    struct clip from, to;
    float *state, *packed;
    struct held held;
};

/* Makes the operands. *t must not move until timed_close. */
typedef void timed_open(struct timed *t, struct device *dev, const int64_t *size);
/* size: rows, out, in, tile, epilogue. y [rows,out] = epilogue(x [rows,in] W^T), the weights being
 * packed. */
timed_open timed_linear;
/* size: tokens, heads, head width, granule. As many keys as queries, all of them in one block. */
timed_open timed_attention;
/* size: channels, frames, rows, columns, kernel. As many channels out as in; counts all taps, also
 * those outside the picture. */
timed_open timed_conv;
timed_open timed_norm, timed_silu; /* size: rows, columns */
/* size: bytes. Within the device's memory; what is read and what is written both count. */
timed_open timed_copy;
void timed_close(struct timed *t);

enum { MOST_RUNS = 16 };
/* Median seconds of `runs` (at most MOST_RUNS) runs of `calls` calls each, divided by `calls`,
 * after one to warm up. */
double timed_seconds(struct timed *t, int runs, int calls, before_run *before, void *argument);
double median(double *values, int count); /* sorts them */

/* One denoise step without guidance, which is one forward. flop: its operations, a multiply-add
 * counted as two. */
struct step_model {
    struct device *dev;
    struct comm *self;
    struct checkpoint *checkpoint;
    struct transformer *transformer;
    double flop;
    int64_t tokens;
};
/* STATUS_INPUT for what is wrong with the checkpoint. */
int step_model_open(struct step_model *m, struct device *dev, const char *checkpoint,
                    struct latent_grid grid);
/* Median of `runs` after one to warm up. */
double step_model_seconds(struct step_model *m, int runs);
void step_model_close(struct step_model *m);

#endif
