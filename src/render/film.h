/* Frames on their way into a file: every rank that decodes gives its part of the picture as
 * integers, the one that owns the shot puts them together, a few frames at a time, and has them
 * written. */
#ifndef RINGREEL_FILM_H
#define RINGREEL_FILM_H

#include "render/film_writer.h"

/* Frames that are being made into integers, or have been. */
struct film_piece {
    uint8_t *parts; /* of all ranks, one after the other: [n] frames each */
    int64_t n;      /* 0: no piece */
    uint64_t mark;  /* of the device: then they are there */
};

struct film {
    struct engine *e;
    const struct shot *shot;
    enum vae_axis axis;
    struct comm *group; /* who decodes */
    bool owns;
    int pixel_bytes;
    struct film_writer writer;
    struct film_piece waiting; /* for the next: the device goes on while this one is written */
    int turn;                  /* which half of e->codec.bytes the next has */
    struct transfer sending;   /* of other ranks */
};

/* Bytes for the parts of `frames` frames at a time, in e->codec.bytes. Local. */
int64_t film_bytes(const struct engine *e, const struct shot *s, int64_t frames);

/* Opens the files of this rank. Local. */
int film_open(struct film *f, struct engine *e, const struct shot *s, enum vae_axis axis);
/* A sink for the decoder's stream; f->writer.status says what went wrong on this rank. Collective
 * over the group. */
void film_take(void *film, const float *frames, int64_t n);
/* What was taken and not yet written. Collective over the group, where all went well. */
void film_end(struct film *f);
/* The file is whole, or there is none. Where `status` says so on one rank, none; the worst of all
 * ranks is returned on all. Collective over the group. */
int film_close(struct film *f, int status, char sha256[65]);

#endif
