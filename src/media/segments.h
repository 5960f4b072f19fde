/* Frames into packets by several encoders at a time, each in a thread of its own: one makes the
 * first so many frames, another the next, and their packets are joined in order as if one had made
 * them. What comes out depends on the length of the segments, not on how many encoders are at work.
 *
 * Memory does not grow with the video: frames wait in a queue of fixed length, and no encoder
 * begins a segment that is more than twice as many segments ahead of the oldest as there are
 * encoders. */
#ifndef RINGREEL_SEGMENTS_H
#define RINGREEL_SEGMENTS_H

#include <libavcodec/avcodec.h>
#include <stdbool.h>
#include <stdint.h>

struct segments;

/* What is different from one kind of file to the other. The three functions say why they fail
 * (error_set). */
struct segments_plan {
    const char *name; /* of the file, for messages */
    int length;       /* frames of a segment; 0: one segment, however long */
    int encoders;     /* at work at a time */
    int (*open)(void *argument, AVCodecContext **encoder);
    /* Packets of the whole video in order, called by the thread that owns the segments; or, with
     * in_threads, by the encoders' threads, at any time, and then pts is the frame's index. */
    int (*put)(void *argument, AVPacket *packet);
    bool in_threads;
    /* Or NULL. Called while encoders are waited for; have they done something since? */
    void (*idle)(void *argument, bool worked);
    void *argument, *idle_argument;
};

/* How many frames wait at most. */
int64_t segments_room(const struct segments_plan *plan);

/* `first` is an open encoder, the first segment's; it is taken over. */
struct segments *segments_open(const struct segments_plan *plan, AVCodecContext *first);
/* Takes over the frame, whatever happens. Waits for room. */
int segments_push(struct segments *s, AVFrame *frame);
/* Waits until all is encoded and put. */
int segments_finish(struct segments *s);
void segments_close(struct segments *s); /* also in the middle; NULL is fine */

#endif
