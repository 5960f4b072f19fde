/* Encoded packets into a container file (MP4, MKV, MOV, WebM, ...), through a partial file. */
#ifndef RINGREEL_CONTAINER_H
#define RINGREEL_CONTAINER_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <stdbool.h>

struct container;

/* The format that belongs to the name's ending. STATUS_INPUT when there is none. */
int container_find(const AVOutputFormat **out, const char *path);

/* MAYBE: only writing a header will tell. */
enum container_answer { CONTAINER_NO, CONTAINER_YES, CONTAINER_MAYBE };
enum container_answer container_takes(const AVOutputFormat *format, const AVCodec *encoder);

/* Creates the partial file and writes the header. */
int container_open(struct container **out, const char *path, const AVOutputFormat *format,
                   const AVCodecContext *encoder);
/* The packet's times count frames; its data is taken over. */
int container_put(struct container *c, AVPacket *packet);
int container_finish(struct container *c); /* trailer, sync, rename; frees c whatever happens */
void container_drop(struct container *c);  /* frees c and removes the partial file; NULL is fine */

#endif
