#include "render/film.h"

#include "base/error.h"
#include "render/decode.h"

#include <limits.h>
#include <string.h>

enum { TAG_FRAMES = 51, PIECE_ALIGNMENT = 64 };

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

/* Where a device works beside the host it converts one piece while the one before is written. */
static int pieces_at_a_time(const struct engine *e)
{
    return device_memory_is_host(e->dev) ? 1 : 2;
}

static int64_t piece_bytes(const struct engine *e, const struct shot *s, int64_t frames)
{
    struct vae_task task = decode_task(e, s);
    struct film f = {
        .shot = s, .axis = task.axis, .group = task.group, .pixel_bytes = bytes_of_pixel(s)};
    if (engine_owns(e, s->number)) return frames * film_writer_frame_bytes(s);
    return frames * rect_bytes(&f, rect_of(&f, comm_rank(f.group)));
}

int64_t film_bytes(const struct engine *e, const struct shot *s, int64_t frames)
{
    int64_t whole = (piece_bytes(e, s, frames) + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT;
    return pieces_at_a_time(e) * whole * PIECE_ALIGNMENT;
}

/* This rank's part of n padded frames as [n][height][width][3] of what the file needs. */
static void convert(struct film *f, const float *frames, int64_t n, uint8_t *out)
{
    int me = comm_rank(f->group);
    struct rect own = rect_of(f, me), padded = padded_rect(f, me);
    int64_t x = own.x + f->shot->left - padded.x, y = own.y + f->shot->top - padded.y;
    int64_t stride = padded.width * 3, line = own.width * 3;
    for (int64_t i = 0; i < n; i++, out += rect_bytes(f, own)) {
        const float *from = frames + ((i * padded.height + y) * padded.width + x) * 3;
        if (f->shot->options->bit_depth > 8)
            op_to_words(f->e->dev, (uint16_t *)(void *)out, from, stride, line, own.height);
        else
            op_to_bytes(f->e->dev, out, from, stride, line, own.height);
    }
}

/* ---- whole frames ---------------------------------------------------------------------------- */

struct batch {
    const struct film *f;
    const struct film_piece *piece;
};

/* Frame i. */
static const uint8_t *assemble(void *batch, int64_t i, uint8_t *room)
{
    const struct batch *b = batch;
    const struct film *f = b->f;
    const uint8_t *parts = b->piece->parts;
    int ranks = comm_size(f->group);
    if (ranks == 1) return parts + i * film_writer_frame_bytes(f->shot);
    for (int r = 0; r < ranks; r++) {
        struct rect part = rect_of(f, r);
        int64_t line = part.width * f->pixel_bytes;
        const uint8_t *from = parts + i * rect_bytes(f, part);
        for (int64_t y = 0; y < part.height; y++)
            memcpy(room + ((part.y + y) * f->shot->options->width + part.x) * f->pixel_bytes,
                   from + y * line, (size_t)line);
        parts += b->piece->n * rect_bytes(f, part);
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

/* This rank's own part among those of all. */
static uint8_t *own_part(const struct film *f, const struct film_piece *piece)
{
    uint8_t *own = piece->parts;
    for (int r = 0; r < comm_rank(f->group) && f->owns; r++)
        own += piece->n * rect_bytes(f, rect_of(f, r));
    return own;
}

/* To the file, or to the rank that has it. */
static void hand_on(struct film *f, const struct film_piece *piece)
{
    struct comm *group = f->group;
    struct batch batch = {f, piece};
    int64_t bytes = piece->n * rect_bytes(f, rect_of(f, comm_rank(group)));
    if (piece->n == 0) return;
    device_wait(f->e->dev, piece->mark);
    CHECK(f->owns || bytes <= INT_MAX, "%lld frames at a time", (long long)piece->n);
    if (f->owns)
        gather(f, piece->parts, piece->n);
    else if (bytes > 0)
        comm_send_bytes_start(group, &f->sending, own_part(f, piece), (int)bytes,
                              mesh_codec_of(&f->e->mesh, f->shot->number), TAG_FRAMES);
    film_writer_take(&f->writer, piece->n, assemble, &batch);
}

void film_take(void *film, const float *frames, int64_t n)
{
    struct film *f = film;
    struct engine *e = f->e;
    int pieces = pieces_at_a_time(e);
    struct film_piece fresh = {.parts = e->codec.bytes + f->turn * (e->codec.bytes_size / pieces),
                               .n = n};
    f->turn = (f->turn + 1) % pieces;
    comm_wait(f->group, &f->sending); /* of the last piece that was there */
    convert(f, frames, n, own_part(f, &fresh));
    fresh.mark = device_mark(e->dev);
    hand_on(f, pieces == 1 ? &fresh : &f->waiting);
    if (pieces > 1) f->waiting = fresh;
}

void film_end(struct film *f)
{
    comm_wait(f->group, &f->sending);
    hand_on(f, &f->waiting);
    f->waiting.n = 0;
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
