#include "media/video.h"

#include "base/error.h"
#include "media/container.h"
#include "media/encoder.h"
#include "media/images.h"
#include "media/media.h"
#include "media/partial.h"
#include "media/pixels.h"

#include <stdlib.h>

/* Frames go pixels -> encoder -> one of container and images. */
struct video_writer {
    char *path;
    struct pixels *pixels;
    AVCodecContext *encoder;
    AVPacket *packet;
    struct container *container;
    struct images *images;
    int64_t frames;
    int status; /* of the first failure; nothing is written after it */
};

static int open_parts(struct video_writer *w, const struct video_settings *s)
{
    const AVCodec *codec;
    const AVOutputFormat *format = NULL;
    if (!images_wanted(s->path)) TRY(container_find(&format, s->path));
    TRY(encoder_find(&codec, s, format));
    TRY(encoder_open(&w->encoder, s, codec, format));
    w->pixels = pixels_open(w->encoder);
    w->packet = av_packet_alloc();
    CHECK(w->packet, "out of memory");
    return format ? container_open(&w->container, s->path, format, w->encoder)
                  : images_open(&w->images, s->path, s->frames);
}

int video_open(struct video_writer **out, const struct video_settings *s)
{
    media_start();
    *out = NULL;
    struct video_writer *w = xcalloc(1, sizeof *w);
    w->path = xstrdup(s->path);
    int status = open_parts(w, s);
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

static int encoder_failed(const struct video_writer *w, int code)
{
    return error_set(STATUS_MACHINE, "%s: encoder %s, frame %" PRId64 ": %s", w->path,
                     w->encoder->codec->name, w->frames, media_complaint(code));
}

/* Gives the encoder a frame, NULL for the end, and passes on all it has ready. */
static int encode(struct video_writer *w, const AVFrame *frame)
{
    media_forget();
    int code = avcodec_send_frame(w->encoder, frame);
    if (code < 0) return encoder_failed(w, code);
    while ((code = avcodec_receive_packet(w->encoder, w->packet)) >= 0) {
        int status = w->container ? container_put(w->container, w->packet)
                                  : images_put(w->images, w->packet->data, (size_t)w->packet->size);
        av_packet_unref(w->packet);
        TRY(status);
    }
    return code == AVERROR(EAGAIN) || code == AVERROR_EOF ? STATUS_OK : encoder_failed(w, code);
}

int video_write(struct video_writer *w, const uint8_t *rgb)
{
    if (w->status != STATUS_OK) return w->status;
    AVFrame *frame = pixels_convert(w->pixels, rgb);
    frame->pts = w->frames;
    w->status = encode(w, frame);
    w->frames++;
    return w->status;
}

static void free_all_but_output(struct video_writer *w)
{
    pixels_close(w->pixels);
    encoder_close(w->encoder);
    av_packet_free(&w->packet);
    free(w->path);
    free(w);
}

int video_finish(struct video_writer *w)
{
    int status = w->status;
    if (status == STATUS_OK) status = encode(w, NULL);
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
    container_drop(w->container);
    images_drop(w->images);
    free_all_but_output(w);
}

void video_remove_partial_files(void) { partial_remove_all(); }
