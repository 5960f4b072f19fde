/* What the two kinds of 3x3x3 convolution share: the packed weights and what a call is given. */
#ifndef RINGREEL_CPU_CONV_H
#define RINGREEL_CPU_CONV_H

#include "kernels/cpu/cpu.h"

/* Packed weights are [panel of 16 outputs][block of inputs][kt][ky][kx][input][16]. */
enum {
    CONV_TAPS_3 = 27,
    CONV_BLOCK = 32, /* inputs a block of a 3x3x3: the nine taps of one kt are 18 KiB of a panel and
                        stay in the first cache */
};
static inline int64_t conv_panels(const struct conv *c) { return (c->out + PANEL - 1) / PANEL; }

struct conv_job {
    const struct cpu *cpu;
    const struct clip *y, *x, *add;
    const struct conv *conv;
    int front; /* frames before x that output frame 0 would read first */
    struct conv_span span;
};

/* winograd.c: whether it serves a layer, which depends on the layer's shape alone; and does so. */
bool winograd_serves(const struct conv *c);
void winograd_conv3d(struct device *dev, const struct conv_job *j);

#endif
