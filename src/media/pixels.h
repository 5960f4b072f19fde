/* RGB pictures into the encoder's pixel format. Every value is rounded to the nearest, once;
 * nothing is dithered, so that the same picture gives the same bytes. */
#ifndef RINGREEL_PIXELS_H
#define RINGREEL_PIXELS_H

#include <libavcodec/avcodec.h>
#include <stdint.h>

struct pixels;

/* Pictures of more than 8 bits a colour come as uint16_t, of the whole range. */
struct pixels *pixels_open(const AVCodecContext *encoder, int bit_depth);
/* rgb: [height][width][3]. The caller frees the frame. */
AVFrame *pixels_convert(struct pixels *p, const void *rgb);
void pixels_close(struct pixels *p); /* NULL is fine */

#endif
