#include "render/film.h"

#include "base/error.h"
#include "render/decode.h"

#include <limits.h>
#include <string.h>

enum { TAG_FRAMES = 51 };

/* ---- parts of the picture -------------------------------------------------------------------- */

/* What a rank has of the asked picture; may be empty. */
struct rect {
    int64_t x, y, width, height;
};

/* [from, from + count) of a padded extent, cut to `asked` pixels that begin at `start`. */
static void cut(int64_t *from, int64_t *count, int64_t start, int64_t asked)
{
    int64_t first = *from - start, end = first + *count;
    first = first < 0 ? 0 : first;
    end = end > asked ? asked : end;
    *from = first;
    *count = end > first ? end - first : 0;
}

static struct rect padded_rect(const struct film *f, int rank)
{
    const struct shot *s = f->shot;
    struct rect r = {0, 0, s->width, s->height};
    bool rows = f->axis == VAE_ROWS;
    struct vae_part part = vae_part_of(rows ? s->h : s->w, comm_size(f->group), rank);
    *(rows ? &r.y : &r.x) = part.first * s->space_factor;
    *(rows ? &r.height : &r.width) = part.count * s->space_factor;
    return r;
}

static struct rect rect_of(const struct film *f, int rank)
{
    struct rect r = padded_rect(f, rank);
    cut(&r.x, &r.width, f->shot->left, f->shot->options->width);
    cut(&r.y, &r.height, f->shot->top, f->shot->options->height);
    return r;
}

static int64_t rect_bytes(const struct film *f, struct rect r)
{
    return r.width * r.height * f->pixel_bytes;
}

static int bytes_of_pixel(const struct shot *s) { return s->options->bit_depth > 8 ? 6 : 3; }

int64_t film_bytes(const struct engine *e, const struct shot *s, int64_t frames)
{
    struct vae_task task = decode_task(e, s);
    struct film f = {
        .shot = s, .axis = task.axis, .group = task.group, .pixel_bytes = bytes_of_pixel(s)};
    if (engine_owns(e, s->number)) return frames * film_writer_frame_bytes(s);
    return frames * rect_bytes(&f, rect_of(&f, comm_rank(f.group)));
}

/* This rank's part of n padded frames as [n][height][width][3] of what the file needs. */
static void convert(struct film *f, const float *frames, int64_t n, uint8_t *out)
{
    int me = comm_rank(f->group);
    struct rect own = rect_of(f, me), padded = padded_rect(f, me);
    int64_t x = own.x + f->shot->left - padded.x, y = own.y + f->shot->top - padded.y;
    int64_t line = own.width * f->pixel_bytes;
    for (int64_t i = 0; i < n * own.height && own.width > 0; i++, out += line) {
        int64_t row = i / own.height * padded.height + y + i % own.height;
        const float *from = frames + (row * padded.width + x) * 3;
        if (f->shot->options->bit_depth > 8)
            op_to_words(f->e->dev, (uint16_t *)(void *)out, from, own.width * 3);
        else
            op_to_bytes(f->e->dev, out, from, own.width * 3);
    }
}

/* ---- whole frames ---------------------------------------------------------------------------- */

struct batch {
    const struct film *f;
    const uint8_t *parts; /* of all ranks, one after the other: [n] frames each */
    int64_t n;
};

/* Frame i. */
static const uint8_t *assemble(void *batch, int64_t i, uint8_t *room)
{
    const struct batch *b = batch;
    const struct film *f = b->f;
    const uint8_t *parts = b->parts;
    int ranks = comm_size(f->group);
    if (ranks == 1) return parts + i * film_writer_frame_bytes(f->shot);
    for (int r = 0; r < ranks; r++) {
        struct rect part = rect_of(f, r);
        int64_t line = part.width * f->pixel_bytes;
        const uint8_t *from = parts + i * rect_bytes(f, part);
        for (int64_t y = 0; y < part.height; y++)
            memcpy(room + ((part.y + y) * f->shot->options->width + part.x) * f->pixel_bytes,
                   from + y * line, (size_t)line);
        parts += b->n * rect_bytes(f, part);
    }
    return room;
}

/* The owner's: waits for the parts of the others. */
static void gather(struct film *f, uint8_t *parts, int64_t n)
{
    struct comm *group = f->group;
    for (int r = 0; r < comm_size(group); r++) {
        struct transfer t = {0};
        int64_t bytes = n * rect_bytes(f, rect_of(f, r));
        if (r != comm_rank(group) && bytes > 0) {
            CHECK(bytes <= INT_MAX, "%lld frames at a time", (long long)n);
            comm_receive_bytes_start(group, &t, parts, (int)bytes, r, TAG_FRAMES);
            comm_wait(group, &t);
        }
        parts += bytes;
    }
}

void film_take(void *film, const float *frames, int64_t n)
{
    struct film *f = film;
    struct comm *group = f->group;
    int me = comm_rank(group);
    uint8_t *parts = f->e->codec.bytes, *own = parts;
    struct batch batch = {f, parts, n};
    for (int r = 0; r < me && f->owns; r++) own += n * rect_bytes(f, rect_of(f, r));
    comm_wait(group, &f->sending);
    convert(f, frames, n, own);
    int64_t bytes = n * rect_bytes(f, rect_of(f, me));
    CHECK(f->owns || bytes <= INT_MAX, "%lld frames at a time", (long long)n);
    if (f->owns)
        gather(f, parts, n);
    else if (bytes > 0)
        comm_send_bytes_start(group, &f->sending, own, (int)bytes,
                              mesh_codec_of(&f->e->mesh, f->shot->number), TAG_FRAMES);
    film_writer_take(&f->writer, n, assemble, &batch);
}

int film_open(struct film *f, struct engine *e, const struct shot *s, enum vae_axis axis)
{
    *f = (struct film){.e = e,
                       .shot = s,
                       .axis = axis,
                       .group = engine_decode_group(e, s->number),
                       .owns = engine_owns(e, s->number),
                       .pixel_bytes = bytes_of_pixel(s)};
    return film_writer_open(&f->writer, e, s);
}

int film_close(struct film *f, int status, char sha256[65])
{
    comm_wait(f->group, &f->sending);
    return film_writer_close(&f->writer, status, sha256);
}
