#include "media/segments.h"

#include "base/error.h"
#include "media/encoder.h"
#include "media/media.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- lists ----------------------------------------------------------------------------------- */

struct link {
    struct link *next;
    void *what; /* AVFrame or AVPacket */
};
struct list {
    struct link *first, *last;
};

static void list_add(struct list *l, void *what)
{
    struct link *n = xmalloc(sizeof *n);
    *n = (struct link){.what = what};
    *(l->first ? &l->last->next : &l->first) = n;
    l->last = n;
}

static void *list_take(struct list *l) /* NULL: it is empty */
{
    struct link *n = l->first;
    if (!n) return NULL;
    void *what = n->what;
    l->first = n->next;
    free(n);
    return what;
}

/* ---- what is shared -------------------------------------------------------------------------- */

struct segment {
    struct segment *next;
    int64_t number, first; /* of all segments; of all frames */
    int64_t pushed;        /* frames */
    bool whole;            /* no more frames come */
    bool done;             /* no more packets come */
    struct list frames, packets;
    int64_t put; /* packets; of the thread that joins */
};

struct segments {
    struct segments_plan plan;
    AVCodecContext *first_encoder; /* until the first segment is begun */
    uint8_t *header;               /* what every encoder must say of its stream */
    int header_bytes;

    pthread_t threads[64];
    int running;
    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t work;  /* frames, a segment or the end has come */
    pthread_cond_t news;  /* a frame was taken, packets have come, something failed */
    struct segment *oldest, *unbegun, *newest; /* a list from oldest to newest */
    int64_t segments, frames;                  /* so far */
    int64_t waiting;                           /* frames */
    bool ended;                                /* no more segments come */
    bool stopped;                              /* leave as soon as possible */
    int status;
    char why[1024]; /* of the first failure */

    int64_t packets, delay; /* put so far, and by how much the first one's dts is before its pts */
};

enum { MORE_ROOM = 8 }; /* so that whoever makes frames in batches can go on meanwhile */

int64_t segments_room(const struct segments_plan *p)
{
    return (int64_t)(p->encoders - 1) * p->length + MORE_ROOM;
}

static void lock(struct segments *s)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0, "a lock is broken");
}

static void unlock(struct segments *s)
{
    CHECK(pthread_mutex_unlock(&s->lock) == 0, "a lock is broken");
}

/* Records this thread's failure, unless there is one; all threads leave. */
static void fail(struct segments *s, int status)
{
    lock(s);
    if (s->status == STATUS_OK) {
        s->status = status;
        snprintf(s->why, sizeof s->why, "%s", error_message());
    }
    s->stopped = true;
    pthread_cond_broadcast(&s->work);
    pthread_cond_broadcast(&s->news);
    unlock(s);
    error_clear(); /* the next failure of this thread is another */
}

/* ---- the encoders' threads ------------------------------------------------------------------- */

/* The next segment that nobody has begun, or NULL in the end. Not one that is far ahead of the
 * oldest: its packets would have to wait. */
static struct segment *begin_segment(struct segments *s)
{
    struct segment *found = NULL;
    lock(s);
    for (;;) {
        bool near = s->unbegun && s->unbegun->number < s->oldest->number + 2 * s->plan.encoders;
        if (s->stopped || near || (s->ended && !s->unbegun)) break;
        pthread_cond_wait(&s->work, &s->lock);
    }
    if (!s->stopped && s->unbegun) {
        found = s->unbegun;
        s->unbegun = found->next;
    }
    unlock(s);
    return found;
}

/* Waits for the segment's next frame; NULL after its last, and when all shall stop. */
static AVFrame *take_frame(struct segments *s, struct segment *segment)
{
    lock(s);
    while (!s->stopped && !segment->frames.first && !segment->whole)
        pthread_cond_wait(&s->work, &s->lock);
    AVFrame *frame = s->stopped ? NULL : list_take(&segment->frames);
    if (frame) {
        s->waiting--;
        pthread_cond_broadcast(&s->news);
    }
    unlock(s);
    return frame;
}

static bool is_stopped(struct segments *s)
{
    lock(s);
    bool stopped = s->stopped;
    unlock(s);
    return stopped;
}

static int encoder_failed(const struct segments *s, const AVCodecContext *e, int64_t frame,
                          int code)
{
    return error_set(STATUS_MACHINE, "%s: encoder %s, frame %" PRId64 ": %s", s->plan.name,
                     e->codec->name, frame, media_complaint(code));
}

/* The packet's data is taken over. */
static int give(struct segments *s, struct segment *segment, AVPacket *packet)
{
    if (s->plan.in_threads) {
        packet->pts += segment->first;
        return s->plan.put(s->plan.argument, packet);
    }
    AVPacket *kept = av_packet_alloc();
    CHECK(kept, "out of memory");
    av_packet_move_ref(kept, packet);
    lock(s);
    list_add(&segment->packets, kept);
    pthread_cond_broadcast(&s->news);
    unlock(s);
    return STATUS_OK;
}

/* Gives the encoder a frame, NULL for the end, and passes on all it has ready. */
static int encode(struct segments *s, struct segment *segment, AVCodecContext *e,
                  const AVFrame *frame, AVPacket *packet)
{
    int64_t number = segment->first + (frame ? frame->pts : 0);
    media_forget();
    int code = avcodec_send_frame(e, frame);
    if (code < 0) return encoder_failed(s, e, number, code);
    while ((code = avcodec_receive_packet(e, packet)) >= 0) {
        int status = give(s, segment, packet);
        av_packet_unref(packet);
        TRY(status);
    }
    return code == AVERROR(EAGAIN) || code == AVERROR_EOF ? STATUS_OK
                                                          : encoder_failed(s, e, number, code);
}

static int encode_frames(struct segments *s, struct segment *segment, AVCodecContext *e,
                         AVPacket *packet)
{
    AVFrame *frame;
    while ((frame = take_frame(s, segment))) {
        int status = encode(s, segment, e, frame, packet);
        av_frame_free(&frame);
        TRY(status);
    }
    bool is_empty = segment->pushed == 0; /* some encoders cannot end before they begin */
    return is_empty || is_stopped(s) ? STATUS_OK : encode(s, segment, e, NULL, packet);
}

static int encode_segment(struct segments *s, struct segment *segment)
{
    AVCodecContext *e = segment->number == 0 ? s->first_encoder : NULL;
    if (e)
        s->first_encoder = NULL;
    else
        TRY(s->plan.open(s->plan.argument, &e));
    int status = STATUS_OK;
    bool same = e->extradata_size == s->header_bytes &&
                (!s->header_bytes || memcmp(e->extradata, s->header, (size_t)s->header_bytes) == 0);
    AVPacket *packet = av_packet_alloc();
    CHECK(packet, "out of memory");
    if (!same)
        status = error_set(STATUS_MACHINE,
                           "%s: encoder %s describes segment %" PRId64
                           " otherwise than the first, so they cannot be joined; set "
                           "segment_frames to the length of the video",
                           s->plan.name, e->codec->name, segment->number);
    if (status == STATUS_OK) status = encode_frames(s, segment, e, packet);
    av_packet_free(&packet);
    encoder_close(e);
    return status;
}

static void *work(void *argument)
{
    struct segments *s = argument;
    struct segment *segment;
    while ((segment = begin_segment(s))) {
        int status = encode_segment(s, segment);
        if (status != STATUS_OK) fail(s, status);
        lock(s);
        segment->done = true;
        pthread_cond_broadcast(&s->news);
        unlock(s);
    }
    return NULL;
}

/* ---- joining --------------------------------------------------------------------------------- */

static int refuse_to_join(const struct segments *s, const struct segment *g, const char *why)
{
    return error_set(STATUS_MACHINE,
                     "%s: segment %" PRId64 " %s, so it cannot be joined; set segment_frames to "
                     "the length of the video",
                     s->plan.name, g->number, why);
}

/* An encoder counts from its own first frame. In the whole video, packets are decoded one a frame's
 * time, beginning as long before the first frame is shown as the first segment needs. */
static int set_times(struct segments *s, const struct segment *g, AVPacket *p)
{
    if (s->plan.length == 0) return STATUS_OK; /* already as they shall be */
    if (s->packets == 0) s->delay = p->pts - p->dts;
    bool is_first = g->put == 0;
    if (is_first && (!(p->flags & AV_PKT_FLAG_KEY) || p->pts != 0))
        return refuse_to_join(s, g, "does not begin with a key frame");
    p->pts += g->first;
    p->dts = s->packets - s->delay;
    if (p->dts > p->pts) return refuse_to_join(s, g, "reorders frames otherwise than the first");
    return STATUS_OK;
}

static int put(struct segments *s, struct segment *g, AVPacket *packet)
{
    TRY(set_times(s, g, packet));
    s->packets++;
    g->put++;
    return s->plan.put(s->plan.argument, packet);
}

static void drop_oldest(struct segments *s)
{
    struct segment *g = s->oldest;
    s->oldest = g->next;
    if (!s->oldest) s->newest = NULL;
    pthread_cond_broadcast(&s->work); /* the next may be near enough now */
    free(g);
}

/* Puts what is there, in order. With the lock, which is let go while a packet is put. */
static int join(struct segments *s)
{
    int status = STATUS_OK;
    while (s->oldest && !s->stopped && status == STATUS_OK) {
        struct segment *g = s->oldest;
        AVPacket *packet = list_take(&g->packets);
        if (packet) {
            unlock(s);
            status = put(s, g, packet);
            av_packet_free(&packet);
            lock(s);
        } else if (g->done && s->plan.length > 0 && !s->plan.in_threads && g->put != g->pushed) {
            status = refuse_to_join(s, g, "has not one packet a frame");
        } else if (g->done) {
            drop_oldest(s);
        } else {
            break;
        }
    }
    return status;
}

/* ---- the thread that has the frames ---------------------------------------------------------- */

/* Until a thread reports something or some time has passed. With the lock. */
static void wait_for_news(struct segments *s)
{
    enum { MOMENT_NS = 20000000 };
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += MOMENT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    bool worked = pthread_cond_timedwait(&s->news, &s->lock, &until) == 0;
    if (!s->plan.idle) return;
    unlock(s);
    s->plan.idle(s->plan.idle_argument, worked);
    lock(s);
}

/* Joins what there is until `ready`. */
static int wait_until(struct segments *s, bool (*ready)(const struct segments *))
{
    int status = STATUS_OK;
    lock(s);
    for (;;) {
        status = join(s);
        if (status != STATUS_OK || s->stopped || ready(s)) break;
        wait_for_news(s);
    }
    unlock(s);
    if (status != STATUS_OK) fail(s, status);
    lock(s);
    status = s->status == STATUS_OK ? STATUS_OK : error_set(s->status, "%s", s->why);
    unlock(s);
    return status;
}

static bool has_room(const struct segments *s) { return s->waiting < segments_room(&s->plan); }
static bool is_all_done(const struct segments *s) { return !s->oldest; }

static void add_segment(struct segments *s)
{
    struct segment *g = xcalloc(1, sizeof *g);
    g->number = s->segments++;
    g->first = s->frames;
    *(s->newest ? &s->newest->next : &s->oldest) = g;
    if (!s->unbegun) s->unbegun = g;
    s->newest = g;
}

int segments_push(struct segments *s, AVFrame *frame)
{
    int status = wait_until(s, has_room);
    if (status != STATUS_OK) {
        av_frame_free(&frame);
        return status;
    }
    lock(s);
    if (!s->newest || s->newest->whole) add_segment(s);
    struct segment *g = s->newest;
    frame->pts = g->pushed;
    list_add(&g->frames, frame);
    s->frames++;
    s->waiting++;
    g->whole = ++g->pushed == s->plan.length;
    pthread_cond_broadcast(&s->work);
    unlock(s);
    return STATUS_OK;
}

int segments_finish(struct segments *s)
{
    lock(s);
    if (s->newest) s->newest->whole = true;
    s->ended = true;
    pthread_cond_broadcast(&s->work);
    unlock(s);
    return wait_until(s, is_all_done);
}

/* Signals are for the thread that talks to the other ranks. */
static void start_threads(struct segments *s)
{
    enum { MOST = sizeof s->threads / sizeof *s->threads };
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; s->running < s->plan.encoders && s->running < MOST; s->running++)
        if (pthread_create(&s->threads[s->running], NULL, work, s) != 0) break;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CHECK(s->running > 0, "%s: no thread can be started for its encoder", s->plan.name);
}

struct segments *segments_open(const struct segments_plan *plan, AVCodecContext *first)
{
    struct segments *s = xcalloc(1, sizeof *s);
    s->plan = *plan;
    s->first_encoder = first;
    s->header_bytes = first->extradata_size;
    s->header = xmalloc((size_t)s->header_bytes + 1);
    if (s->header_bytes > 0) memcpy(s->header, first->extradata, (size_t)s->header_bytes);
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0 && pthread_cond_init(&s->work, NULL) == 0 &&
              pthread_cond_init(&s->news, NULL) == 0,
          "out of memory");
    add_segment(s);
    start_threads(s);
    return s;
}

static void free_segment(struct segment *g)
{
    AVFrame *frame;
    AVPacket *packet;
    while ((frame = list_take(&g->frames))) av_frame_free(&frame);
    while ((packet = list_take(&g->packets))) av_packet_free(&packet);
    free(g);
}

void segments_close(struct segments *s)
{
    if (!s) return;
    lock(s);
    s->stopped = true;
    pthread_cond_broadcast(&s->work);
    unlock(s);
    for (int i = 0; i < s->running; i++) pthread_join(s->threads[i], NULL);
    for (struct segment *g = s->oldest, *next; g; g = next) {
        next = g->next;
        free_segment(g);
    }
    if (s->first_encoder) encoder_close(s->first_encoder);
    pthread_cond_destroy(&s->news);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s->header);
    free(s);
}
