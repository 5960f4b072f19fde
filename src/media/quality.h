/* How far two pictures of one size are apart: 8-bit RGB as the reader gives it.
 *
 * PSNR is over all three colours. SSIM is that of Wang, Bovik, Sheikh and Simoncelli (2004): an
 * 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, variances divided by the sum
 * of the weights. It is taken of luma, 0.299 R + 0.587 G + 0.114 B of the gamma-coded values,
 * unrounded, and averaged over the windows that lie wholly inside the picture, so the outer five
 * rows and columns are seen but are the centre of none; the picture is not shrunk first. */
#ifndef RINGREEL_QUALITY_H
#define RINGREEL_QUALITY_H

#include "media/reader.h"

enum { QUALITY_WINDOW = 11 };

struct quality; /* memory for pictures of one size */

struct picture_difference {
    int64_t bytes;    /* that differ, of 3 * width * height */
    int largest;      /* absolute difference */
    uint64_t squares; /* of all differences, summed */
    double ssim;      /* 1 for equal pictures; NaN for those smaller than the window */
};

struct quality *quality_open(int width, int height);
/* Both pictures must have the size that was opened for. */
struct picture_difference quality_measure(struct quality *q, const struct rgb_frame *a,
                                          const struct rgb_frame *b);
void quality_close(struct quality *q); /* NULL is fine */

/* In dB, from squared differences of `bytes` bytes; INFINITY when they are 0. */
double quality_psnr(uint64_t squares, int64_t bytes);

#endif
