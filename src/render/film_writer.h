/* The writing side of a film: whole frames, which the shot's owner has, into its file, their
 * SHA-256, and the copy for --dump. The pictures of a sequence are compressed and written by all
 * ranks of the group by turns: the owner hands them on. */
#ifndef RINGREEL_FILM_WRITER_H
#define RINGREEL_FILM_WRITER_H

#include "media/digest.h"
#include "render/engine.h"

struct film_writer {
    struct engine *e;
    const struct shot *shot;
    struct comm *group;
    bool owns, shared; /* shared: this rank writes its share */
    int owner;         /* in the group */
    struct video_writer *video;
    struct digest *digest; /* the owner's */
    int64_t come;          /* frames so far, on every rank */
    int status;
    double writing_s;
    int64_t arriving;           /* pictures from the owner, in e->codec.pictures */
    struct transfer *transfers; /* of a shared film: one for each frame of a batch */
    int64_t most_transfers;
};

int64_t film_writer_frame_bytes(const struct shot *s);
/* Bytes that a rank needs in e->codec.pictures when `frames` come at a time. Local. */
int64_t film_writer_bytes(const struct engine *e, const struct shot *s, int64_t frames);
/* How this rank writes the shot; false: it does not. Local. */
bool film_writer_settings(const struct engine *e, int shot, struct video_settings *settings);

/* Opens this rank's files. Local. */
int film_writer_open(struct film_writer *w, struct engine *e, const struct shot *s);
/* The next n of the frames that are written. frame(argument, i, room) gives the owner frame i of
 * them, in `room` or elsewhere until the next call; NULL on other ranks. Collective over the group;
 * it does not wait for other ranks to write. w->status: what went wrong. */
void film_writer_take(struct film_writer *w, int64_t n,
                      const uint8_t *(*frame)(void *argument, int64_t i, uint8_t *room),
                      void *argument);
/* This rank's files become whole where `status` is good, else only whole pictures stay. The worst
 * of all ranks is returned on all. Collective over the group. */
int film_writer_close(struct film_writer *w, int status, char sha256[65]);

#endif
