/* RGB frames into the encoder's pixel format. */
#ifndef RINGREEL_PIXELS_H
#define RINGREEL_PIXELS_H

#include <libavcodec/avcodec.h>
#include <stdint.h>

struct pixels;

struct pixels *pixels_open(const AVCodecContext *encoder);
/* rgb: [height][width][3]. The frame belongs to `p` and is valid until the next call. */
AVFrame *pixels_convert(struct pixels *p, const uint8_t *rgb);
void pixels_close(struct pixels *p); /* NULL is fine */

#endif
