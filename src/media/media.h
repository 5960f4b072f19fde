/* FFmpeg's libraries as a whole: silenced logging whose complaints end up in our messages, and what
 * differs between their releases. For the files of this folder only. */
#ifndef RINGREEL_MEDIA_H
#define RINGREEL_MEDIA_H

#include <libavcodec/avcodec.h>
#include <stdbool.h>

/* Takes over the libraries' logging. Any number of calls, from any thread. */
void media_start(void);

/* What the libraries complained about in this thread since media_forget: the first error they
 * logged, or the meaning of `code` when they logged none. The text lives until the next call in the
 * same thread. */
void media_forget(void);
const char *media_complaint(int code);
bool media_complained(void); /* did they log an error? */
/* The first warning since media_forget that an encoder skipped one of its private settings ("Error
 * parsing option 'aq-mod = 3'"); "" when there is none. x264 and x265 go on then; we do not. */
const char *media_skipped_setting(void);

/* The pixel formats an encoder takes, ended by AV_PIX_FMT_NONE; NULL when it takes any. */
const enum AVPixelFormat *media_pixel_formats(const AVCodec *encoder);

struct SwsContext;
/* A conversion of pictures of one size, exact to the bit on every machine; range: from 0 to the
 * largest number (true), or the studio's. The caller adds where chroma lies, initialises and frees
 * it. */
struct SwsContext *media_open_sws(int width, int height, enum AVPixelFormat from, bool from_full,
                                  enum AVPixelFormat to, bool to_full);

/* Names in a message, separated by spaces, at first none; "..." stands for what does not fit. */
struct name_list {
    char text[900];
};
void name_list_add(struct name_list *list, const char *name);

#endif
