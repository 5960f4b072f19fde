/* Which encoder, with which pixel format and settings, and opening it. */
#ifndef RINGREEL_ENCODER_H
#define RINGREEL_ENCODER_H

#include "media/video.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <stdbool.h>

/* The encoder `s` names, or the best for the container when that is "auto"; `container` is NULL for
 * .png pictures. */
int encoder_find(const AVCodec **out, const struct video_settings *s,
                 const AVOutputFormat *container);

/* Picks the pixel format, applies defaults and encoder_options, opens. Times count frames. The same
 * settings make the same bytes, on any machine. From any thread. */
int encoder_open(AVCodecContext **out, const struct video_settings *s, const AVCodec *codec,
                 const AVOutputFormat *container);

/* How many frames one encoder makes before the next begins, each beginning with a key frame; 0: one
 * encoder makes all. By the settings and the size alone, never by the machine. */
int encoder_segment_frames(const struct video_settings *s, const AVCodec *codec);
int encoder_usual_segment(int width, int height); /* without a setting */
/* Do such parts make one stream, one after the other? */
bool encoder_can_be_joined(const AVCodec *codec);

/* At any time, also with frames still inside; NULL is fine. */
void encoder_close(AVCodecContext *ctx);

/* Can it be given frames of this depth (8, 10 or 16 bits a component)? */
bool encoder_does_depth(const AVCodec *codec, int bit_depth);

#endif
