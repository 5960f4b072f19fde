/* 16-bit RGB into the frames of more than 8 bits that encoders take, as the frame's own tags say
 * (matrix, range, place of chroma: left, between the lines). Each value is computed with at least
 * six bits to spare and rounded once: it is within 0.6 of a step of the exact one. (swscale is up
 * to three steps of 10 bits off.) */
#ifndef RINGREEL_DEEP_H
#define RINGREEL_DEEP_H

#include <libavutil/frame.h>
#include <stdint.h>

/* rgb: [height][width][3]; the frame has samples of 16 bits a component. */
void deep_fill(AVFrame *frame, const uint16_t *rgb);

#endif
