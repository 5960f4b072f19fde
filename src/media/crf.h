/* A picture there and back through H.264, so that a clean still looks like a frame of a compressed
 * video, which is what the model learnt to continue (the official "CRF compression"). */
#ifndef RINGREEL_CRF_H
#define RINGREEL_CRF_H

#include <stdint.h>

/* libx264's own limit. */
enum { CRF_MAX_SIDE = 16384 };

/* In place, rgb: [height][width][3]; width and height even, crf 1 to 51. Encoded as the only frame
 * of a video of one frame a second, preset veryfast, 4:2:0; in memory and on one thread, so that
 * the same picture gives the same bytes. STATUS_INPUT, beginning with `name`, when this FFmpeg has
 * no libx264 or no H.264 decoder. */
int crf_round_trip(uint8_t *rgb, int width, int height, int crf, const char *name);

#endif
