#include "render/film_writer.h"

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "parallel/heartbeat.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { TAG_PICTURE = 52 };

/* ---- shares ---------------------------------------------------------------------------------- */

static bool is_shared(const struct engine *e, int shot)
{
    return comm_size(engine_decode_group(e, shot)) > 1 &&
           video_is_sequence(e->job->shots[shot].output);
}

bool film_writer_settings(const struct engine *e, int shot, struct video_settings *v)
{
    struct comm *group = engine_decode_group(e, shot);
    if (!group) return false;
    *v = engine_output(e, shot);
    if (!is_shared(e, shot)) return engine_owns(e, shot);
    int ranks = comm_size(group), me = comm_rank(group);
    v->first += me;
    v->step = ranks;
    v->frames = (v->frames - me + ranks - 1) / ranks;
    return v->frames > 0;
}

int64_t film_writer_frame_bytes(const struct shot *s)
{
    const struct shot_options *o = s->options;
    return (int64_t)o->width * o->height * 3 * (o->bit_depth > 8 ? 2 : 1);
}

int64_t film_writer_bytes(const struct engine *e, const struct shot *s, int64_t frames)
{
    if (is_shared(e, s->number)) return frames * film_writer_frame_bytes(s);
    bool assembles = engine_owns(e, s->number) && comm_size(engine_decode_group(e, s->number)) > 1;
    return assembles && frames > 0 ? film_writer_frame_bytes(s) : 0;
}

/* Which rank writes the k-th frame. */
static int writer_of(const struct film_writer *w, int64_t k)
{
    return w->shared ? (int)(k % comm_size(w->group)) : w->owner;
}

/* ---- opening --------------------------------------------------------------------------------- */

static void while_waiting(void *unused, bool worked)
{
    (void)unused;
    if (worked)
        heartbeat_worked();
    else
        heartbeat_listen();
}

int film_writer_open(struct film_writer *w, struct engine *e, const struct shot *s)
{
    struct comm *group = engine_decode_group(e, s->number);
    *w = (struct film_writer){.e = e,
                              .shot = s,
                              .group = group,
                              .owns = engine_owns(e, s->number),
                              .shared = is_shared(e, s->number),
                              .owner = mesh_codec_of(&e->mesh, s->number)};
    struct video_settings v;
    CHECK(!w->shared || film_writer_frame_bytes(s) <= INT_MAX, "pictures of %dx%d",
          s->options->width, s->options->height);
    if (w->owns) w->digest = digest_open();
    if (!film_writer_settings(e, s->number, &v)) return STATUS_OK;
    v.idle = while_waiting;
    return video_open(&w->video, &v);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_frame(struct film_writer *w, const uint8_t *rgb)
{
    if (w->status == STATUS_OK) w->status = video_write(w->video, rgb);
    heartbeat_worked();
}

/* The pictures that the owner sent after the last call are written; those that this rank, being the
 * owner, has sent can be overwritten. */
static void end_transfers(struct film_writer *w)
{
    const uint8_t *picture = w->e->codec.pictures;
    for (int64_t i = 0; i < w->most_transfers; i++) comm_wait(w->group, &w->transfers[i]);
    for (; w->arriving > 0; w->arriving--, picture += film_writer_frame_bytes(w->shot))
        write_frame(w, picture);
}

static void make_transfers(struct film_writer *w, int64_t n)
{
    if (n <= w->most_transfers) return;
    free(w->transfers);
    w->transfers = xcalloc((size_t)n, sizeof *w->transfers);
    w->most_transfers = n;
}

/* As bytes, which a render of 8 bits would have made of nearly all values. */
static void keep_for_dump(struct film_writer *w, const uint8_t *rgb)
{
    const struct shot_options *o = w->shot->options;
    int64_t n = (int64_t)o->width * o->height * 3;
    uint8_t *to = w->e->codec.frames + w->come * n;
    if (o->bit_depth == 8) memcpy(to, rgb, (size_t)n);
    const uint16_t *words = (const uint16_t *)(const void *)rgb;
    for (int64_t i = 0; i < n && o->bit_depth > 8; i++) to[i] = (uint8_t)(words[i] / 257);
}

static void take_as_owner(struct film_writer *w, int64_t i, const uint8_t *rgb)
{
    int64_t bytes = film_writer_frame_bytes(w->shot);
    int to = writer_of(w, w->come);
    if (w->e->job->dump) keep_for_dump(w, rgb);
    digest_add(w->digest, rgb, (size_t)bytes);
    if (to == w->owner)
        write_frame(w, rgb);
    else
        comm_send_bytes_start(w->group, &w->transfers[i], rgb, (int)bytes, to, TAG_PICTURE);
}

static void take_as_other(struct film_writer *w, int64_t i)
{
    int64_t bytes = film_writer_frame_bytes(w->shot);
    if (writer_of(w, w->come) != comm_rank(w->group)) return;
    uint8_t *room = w->e->codec.pictures + w->arriving++ * bytes;
    comm_receive_bytes_start(w->group, &w->transfers[i], room, (int)bytes, w->owner, TAG_PICTURE);
}

void film_writer_take(struct film_writer *w, int64_t n,
                      const uint8_t *(*frame)(void *argument, int64_t i, uint8_t *room),
                      void *argument)
{
    double start_s = clock_s();
    int64_t bytes = film_writer_frame_bytes(w->shot);
    end_transfers(w);
    if (w->shared) make_transfers(w, n);
    for (int64_t i = 0; i < n; i++, w->come++) {
        if (w->owns)
            take_as_owner(w, i,
                          frame(argument, i, w->e->codec.pictures + (w->shared ? i * bytes : 0)));
        else if (w->shared)
            take_as_other(w, i);
    }
    w->writing_s += clock_s() - start_s;
    if (w->video) trace_span("codec", "encode video", 1, w->shot->number, -1, start_s);
}

/* ---- closing --------------------------------------------------------------------------------- */

static int finish(struct film_writer *w, int status)
{
    if (!w->video) return status;
    if (status != STATUS_OK) {
        video_abandon(w->video);
        return status;
    }
    phase_set("shot %d finish video", w->shot->number + 1);
    heartbeat_worked();
    status = video_finish(w->video);
    heartbeat_worked();
    return status;
}

int film_writer_close(struct film_writer *w, int status, char sha256[65])
{
    double start_s = clock_s();
    w->status = w->status != STATUS_OK ? w->status : status;
    end_transfers(w);
    if (w->digest) digest_close(w->digest, sha256);
    int mine = finish(w, w->status);
    free(w->transfers);
    w->writing_s += clock_s() - start_s;
    return comm_max(w->group, mine);
}
