#include "render/film.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "media/video.h"
#include "parallel/heartbeat.h"
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

static int64_t rect_bytes(struct rect r) { return r.width * r.height * 3; }
static int64_t frame_bytes(const struct shot *s)
{
    return (int64_t)s->options->width * s->options->height * 3;
}

int64_t film_bytes(const struct engine *e, const struct shot *s, int64_t frames)
{
    struct vae_task task = decode_task(e, s);
    struct film f = {.shot = s, .axis = task.axis, .group = task.group};
    if (!engine_owns(e, s->number)) return frames * rect_bytes(rect_of(&f, comm_rank(f.group)));
    return (frames + (comm_size(f.group) > 1)) * frame_bytes(s);
}

/* This rank's part of n padded frames as bytes [n][height][width][3]. */
static void convert(struct film *f, const float *frames, int64_t n, uint8_t *out)
{
    int me = comm_rank(f->group);
    struct rect own = rect_of(f, me), padded = padded_rect(f, me);
    int64_t x = own.x + f->shot->left - padded.x, y = own.y + f->shot->top - padded.y;
    for (int64_t i = 0; i < n * own.height && own.width > 0; i++, out += own.width * 3) {
        int64_t row = i / own.height * padded.height + y + i % own.height;
        op_to_bytes(f->e->dev, out, frames + (row * padded.width + x) * 3, own.width * 3);
    }
}

/* ---- the owner's file ------------------------------------------------------------------------ */

/* Frame i of n from the parts of all ranks, which lie one after the other. */
static const uint8_t *assemble(const struct film *f, const uint8_t *parts, int64_t i, int64_t n,
                               uint8_t *frame)
{
    int ranks = comm_size(f->group);
    if (ranks == 1) return parts + i * frame_bytes(f->shot);
    for (int r = 0; r < ranks; r++) {
        struct rect part = rect_of(f, r);
        const uint8_t *from = parts + i * rect_bytes(part);
        for (int64_t y = 0; y < part.height; y++)
            memcpy(frame + ((part.y + y) * f->shot->options->width + part.x) * 3,
                   from + y * part.width * 3, (size_t)(part.width * 3));
        parts += n * rect_bytes(part);
    }
    return frame;
}

/* The clip is padded at its end: frames beyond what was asked are dropped. */
static void write_frames(struct film *f, const uint8_t *parts, int64_t n)
{
    double start_s = clock_s();
    size_t bytes = (size_t)frame_bytes(f->shot);
    uint8_t *room = f->e->codec.bytes + n * (int64_t)bytes;
    for (int64_t i = 0; i < n && f->frames < f->shot->options->num_frames; i++) {
        if (f->status != STATUS_OK) break;
        const uint8_t *rgb = assemble(f, parts, i, n, room);
        if (f->e->job->dump) memcpy(f->e->codec.frames + (size_t)f->frames * bytes, rgb, bytes);
        digest_add(f->digest, rgb, bytes);
        f->status = video_write(f->writer, rgb);
        f->frames++;
        heartbeat_worked();
    }
    f->writing_s += clock_s() - start_s;
    trace_span("codec", "encode video", 1, f->shot->number, -1, start_s);
}

void film_take(void *film, const float *frames, int64_t n)
{
    struct film *f = film;
    struct comm *group = f->group;
    int me = comm_rank(group);
    uint8_t *parts = f->e->codec.bytes, *own = parts;
    for (int r = 0; r < me && f->owns; r++) own += n * rect_bytes(rect_of(f, r));
    comm_wait(group, &f->sending);
    convert(f, frames, n, own);
    int64_t bytes = n * rect_bytes(rect_of(f, me));
    CHECK(n * frame_bytes(f->shot) <= INT_MAX, "%lld frames at a time", (long long)n);
    if (!f->owns) {
        if (bytes > 0)
            comm_send_bytes_start(group, &f->sending, own, (int)bytes,
                                  mesh_codec_of(&f->e->mesh, f->shot->number), TAG_FRAMES);
        return;
    }
    uint8_t *at = parts;
    for (int r = 0; r < comm_size(group); r++, at += bytes) {
        struct transfer t = {0};
        bytes = n * rect_bytes(rect_of(f, r));
        if (r == me || bytes == 0) continue;
        comm_receive_bytes_start(group, &t, at, (int)bytes, r, TAG_FRAMES);
        comm_wait(group, &t);
    }
    write_frames(f, parts, n);
}

int film_open(struct film *f, struct engine *e, const struct shot *s, enum vae_axis axis)
{
    *f = (struct film){.e = e,
                       .shot = s,
                       .axis = axis,
                       .group = engine_decode_group(e, s->number),
                       .owns = engine_owns(e, s->number)};
    if (!f->owns) return STATUS_OK;
    struct video_settings settings = engine_output(e, s->number);
    TRY(video_open(&f->writer, &settings));
    f->digest = digest_open();
    return STATUS_OK;
}

int film_close(struct film *f, int status, char sha256[65])
{
    double start_s = clock_s();
    comm_wait(f->group, &f->sending);
    if (!f->owns) return status;
    if (f->writer) digest_close(f->digest, sha256);
    if (status != STATUS_OK) {
        if (f->writer) video_abandon(f->writer);
        return f->status != STATUS_OK ? f->status : status;
    }
    phase_set("shot %d finish video", f->shot->number + 1);
    heartbeat_worked();
    status = video_finish(f->writer);
    heartbeat_worked();
    f->writing_s += clock_s() - start_s;
    return status;
}
