/* Pieces of a device's memory that are given back together. */
#ifndef RINGREEL_TESTS_HELD_H
#define RINGREEL_TESTS_HELD_H

#include "kernels/ops.h"

enum { MOST_HELD = 16 };

struct held {
    struct device *dev;
    struct {
        void *p;
        size_t bytes;
    } pieces[MOST_HELD];
    int count;
};
void *held_take(struct held *h, size_t bytes); /* zeroed; CHECK-fails where there is none */
void held_give(struct held *h);

#endif
