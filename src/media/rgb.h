/* Decoded frames into RGB: 8 bits a colour, by the matrix and range that the frame's tags name. */
#ifndef RINGREEL_RGB_H
#define RINGREEL_RGB_H

#include <libavutil/frame.h>

struct rgb_maker;

struct rgb_maker *rgb_open(void);
/* STATUS_INPUT, beginning with `name`, for a pixel format or a matrix that cannot be converted. The
 * picture, RGB24, belongs to `m` and is valid until the next call. Alpha is dropped: what lies
 * under transparent pixels shows. */
int rgb_convert(struct rgb_maker *m, const AVFrame *frame, const char *name, const AVFrame **out);
void rgb_close(struct rgb_maker *m); /* NULL is fine */

#endif
