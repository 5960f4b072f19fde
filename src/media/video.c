#include "media/video.h"

#include "base/error.h"
#include "media/container.h"
#include "media/encoder.h"
#include "media/images.h"
#include "media/media.h"
#include "media/partial.h"
#include "media/pixels.h"
#include "media/segments.h"

#include <stdlib.h>

/* Frames go pixels -> segments (encoders, in threads) -> one of container and images. */
struct video_writer {
    struct video_settings settings; /* with words of its own */
    const AVCodec *codec;
    const AVOutputFormat *format; /* NULL for pictures */
    struct pixels *pixels;
    struct segments *segments;
    struct container *container;
    struct images *images;
    int status; /* of the first failure; nothing is written after it */
};

/* ---- settings -------------------------------------------------------------------------------- */

static char *copy(const char *text) { return text ? xstrdup(text) : NULL; }

static struct video_settings copy_settings(const struct video_settings *s)
{
    struct video_settings own = *s;
    own.path = copy(s->path);
    own.encoder = copy(s->encoder);
    own.encoder_options = copy(s->encoder_options);
    own.color_primaries = copy(s->color_primaries);
    own.color_transfer = copy(s->color_transfer);
    own.color_matrix = copy(s->color_matrix);
    own.color_range = copy(s->color_range);
    return own;
}

static void free_settings(struct video_settings *own)
{
    free((char *)own->path);
    free((char *)own->encoder);
    free((char *)own->encoder_options);
    free((char *)own->color_primaries);
    free((char *)own->color_transfer);
    free((char *)own->color_matrix);
    free((char *)own->color_range);
}

/* ---- how the work is shared ------------------------------------------------------------------ */

enum { MOST_ENCODERS = 48, MOST_BY_ITSELF = 16, THREADS_OF_ONE = 4 };

/* Of a video each encoder has threads of its own, of pictures it has none. */
static int encoders_of(const struct video_settings *s, bool is_video)
{
    if (s->encoders > 0) return s->encoders < MOST_ENCODERS ? s->encoders : MOST_ENCODERS;
    int n = is_video ? s->threads / THREADS_OF_ONE : s->threads;
    return n < 1 ? 1 : n < MOST_BY_ITSELF ? n : MOST_BY_ITSELF;
}

static int open_encoder(void *writer, AVCodecContext **encoder)
{
    struct video_writer *w = writer;
    return encoder_open(encoder, &w->settings, w->codec, w->format);
}

static int put_into_container(void *writer, AVPacket *packet)
{
    struct video_writer *w = writer;
    return container_put(w->container, packet);
}

static int put_image(void *writer, AVPacket *packet)
{
    struct video_writer *w = writer;
    int64_t step = w->settings.step > 0 ? w->settings.step : 1;
    return images_put(w->images, w->settings.first + packet->pts * step, packet->data,
                      (size_t)packet->size);
}

static struct segments_plan plan_of(struct video_writer *w)
{
    const struct video_settings *s = &w->settings;
    int length = w->format ? encoder_segment_frames(s, w->codec) : 1;
    return (struct segments_plan){.name = s->path,
                                  .length = length,
                                  .encoders = length > 0 ? encoders_of(s, w->format) : 1,
                                  .open = open_encoder,
                                  .put = w->format ? put_into_container : put_image,
                                  .in_threads = !w->format,
                                  .idle = s->idle,
                                  .argument = w,
                                  .idle_argument = s->idle_argument};
}

/* In bytes a pixel, what x264 was seen to take at 3840x2176, and a tenth more: three for each frame
 * of its lookahead (half sizes and motion are kept, too), five for each of some 16 references and
 * frames that its threads have begun. Others take less or a like amount. */
static int64_t encoder_pixel_bytes(const struct video_settings *s, int length)
{
    enum { LOOKAHEAD = 56, OTHERS = 16 };
    int64_t ahead = length > 0 && length < LOOKAHEAD ? length : LOOKAHEAD;
    if (s->frames > 0 && ahead > s->frames) ahead = s->frames;
    return 3 * ahead + 5 * OTHERS;
}

int64_t video_memory(const struct video_settings *s)
{
    bool is_video = !images_wanted(s->path);
    int length = !is_video               ? 1
                 : s->segment_frames > 0 ? s->segment_frames
                                         : encoder_usual_segment(s->width, s->height);
    if (is_video && s->frames > 0 && length >= s->frames) length = 0;
    struct segments_plan p = {.length = length, .encoders = 1};
    if (length > 0) p.encoders = encoders_of(s, is_video);
    int64_t pixels = (int64_t)s->width * s->height * (s->bit_depth > 8 ? 2 : 1);
    int64_t room = segments_room(&p) + 1;
    if (s->frames > 0 && room > s->frames) room = s->frames;
    int64_t encoder = is_video ? encoder_pixel_bytes(s, length) : 6; /* a picture and its PNG */
    return pixels * (room * (is_video ? 3 : 6) / 2 + encoder * p.encoders);
}

bool video_is_sequence(const char *path) { return images_are_many(path); }

/* ---- opening --------------------------------------------------------------------------------- */

static int check_segments(const struct video_writer *w)
{
    bool joins = w->format && encoder_segment_frames(&w->settings, w->codec) > 0;
    if (!joins || encoder_can_be_joined(w->codec)) return STATUS_OK;
    return error_set(STATUS_INPUT,
                     "%s: segment_frames %d: what encoder %s makes cannot be joined; leave it at 0",
                     w->settings.path, w->settings.segment_frames, w->codec->name);
}

static int open_parts(struct video_writer *w)
{
    const struct video_settings *s = &w->settings;
    AVCodecContext *encoder;
    if (!images_wanted(s->path)) TRY(container_find(&w->format, s->path));
    TRY(encoder_find(&w->codec, s, w->format));
    TRY(check_segments(w));
    TRY(open_encoder(w, &encoder));
    int status = w->format ? container_open(&w->container, s->path, w->format, encoder)
                           : images_open(&w->images, s->path, s->frames, s->first);
    if (status != STATUS_OK) {
        encoder_close(encoder);
        return status;
    }
    struct segments_plan plan = plan_of(w);
    w->pixels = pixels_open(encoder, s->bit_depth);
    w->segments = segments_open(&plan, encoder);
    return STATUS_OK;
}

int video_open(struct video_writer **out, const struct video_settings *s)
{
    media_start();
    *out = NULL;
    struct video_writer *w = xcalloc(1, sizeof *w);
    w->settings = copy_settings(s);
    int status = open_parts(w);
    if (status != STATUS_OK)
        video_abandon(w);
    else
        *out = w;
    return status;
}

/* The real thing, so that the check and the writing cannot disagree. */
int video_check(const struct video_settings *s)
{
    struct video_writer *w;
    TRY(video_open(&w, s));
    video_abandon(w);
    return STATUS_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

int video_write(struct video_writer *w, const void *rgb)
{
    if (w->status == STATUS_OK)
        w->status = segments_push(w->segments, pixels_convert(w->pixels, rgb));
    return w->status;
}

static void free_all_but_output(struct video_writer *w)
{
    segments_close(w->segments);
    pixels_close(w->pixels);
    free_settings(&w->settings);
    free(w);
}

int video_finish(struct video_writer *w)
{
    int status = w->status;
    if (status == STATUS_OK) status = segments_finish(w->segments);
    if (status != STATUS_OK) {
        video_abandon(w);
        return status;
    }
    status = w->container ? container_finish(w->container) : images_finish(w->images);
    free_all_but_output(w);
    return status;
}

void video_abandon(struct video_writer *w)
{
    segments_close(w->segments); /* its threads still write */
    w->segments = NULL;
    container_drop(w->container);
    images_drop(w->images);
    free_all_but_output(w);
}

void video_remove_partial_files(void) { partial_remove_all(); }
