/* The two halves of `ringreel compare`, behind compare.h: pictures and tensors. */
#ifndef RINGREEL_COMPARE_PARTS_H
#define RINGREEL_COMPARE_PARTS_H

#include "model/safetensors.h"

#include <stdbool.h>
#include <stdio.h>

struct comparison {
    const char *path[2];            /* A and B */
    struct safetensors *tensors[2]; /* NULL where the file is not safetensors */
    bool tolerant;                  /* a tolerance was given */
    double tolerance;               /* the largest difference of a value that is accepted */
    bool frame_rows;                /* print a line for every frame */
    FILE *out;                      /* what was found, for people */
};

/* Both print what they found and set *same: the exit code. STATUS_INPUT for what cannot be read. */
int compare_pictures(const struct comparison *c, bool *same);
int compare_tensors(const struct comparison *c, bool *same);

#endif
