/* Frames on their way into a video file: every rank that decodes gives its part of the picture as
 * bytes, the one that owns the shot puts them together and writes them, a few frames at a time. */
#ifndef RINGREEL_FILM_H
#define RINGREEL_FILM_H

#include "media/digest.h"
#include "render/engine.h"

struct film {
    struct engine *e;
    const struct shot *shot;
    enum vae_axis axis;
    struct comm *group; /* who decodes */
    bool owns;
    struct video_writer *writer; /* the rest is the owner's */
    struct digest *digest;
    int64_t frames; /* written */
    int status;
    double writing_s;
    struct transfer sending; /* of other ranks */
};

/* Bytes that this rank needs for `frames` frames at a time of a shot. Local. */
int64_t film_bytes(const struct engine *e, const struct shot *s, int64_t frames);

/* Opens the file on the owner. Local. */
int film_open(struct film *f, struct engine *e, const struct shot *s, enum vae_axis axis);
/* A sink for the decoder's stream; f->status says what went wrong. Collective over
 * the group. */
void film_take(void *film, const float *frames, int64_t n);
/* The file is whole, or there is none. Local. */
int film_close(struct film *f, int status, char sha256[65]);

#endif
