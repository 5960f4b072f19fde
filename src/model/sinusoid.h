/* The timestep's sinusoid, which the transformer and the VAE decoder share (spec transformer 2.3,
 * vae 1.8). */
#ifndef RINGREEL_SINUSOID_H
#define RINGREEL_SINUSOID_H

/* row [channels] = [cos(tau w_i), sin(tau w_i)], cosines first, w_i = 10000^(-2i/channels): the
 * divisor is half the width, not half - 1. Arguments are fp32 as in the reference; the functions
 * are taken in double and rounded once, so that every host gives the same bits, whichever variant
 * of the mathematics library it picks. */
void sinusoid_fill(float *row, int channels, float tau);

#endif
