#include "media/reader.h"

#include "base/error.h"
#include "media/media.h"
#include "media/rgb.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libavformat/avformat.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 * 1024 };

struct reader {
    char *path;
    int fd;
    int read_error; /* errno of the first read that failed */
    AVFormatContext *format;
    AVIOContext *io;
    AVCodecContext *decoder;
    AVPacket *packet;
    AVFrame *frame;
    struct rgb_maker *rgb;
    int stream;
    int64_t frames; /* returned */
    int width, height;
    char *first_complaint; /* of the look ahead, which may have met the file's end; or NULL */
};

/* ---- the file under the container ------------------------------------------------------------ */

static int read_bytes(void *opaque, uint8_t *to, int bytes)
{
    struct reader *r = opaque;
    ssize_t n;
    do n = read(r->fd, to, (size_t)bytes);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        if (!r->read_error) r->read_error = errno;
        return AVERROR(errno);
    }
    return n == 0 ? AVERROR_EOF : (int)n;
}

static int64_t seek_bytes(void *opaque, int64_t offset, int whence)
{
    struct reader *r = opaque;
    if (whence == AVSEEK_SIZE) {
        struct stat st;
        return fstat(r->fd, &st) == 0 ? (int64_t)st.st_size : AVERROR(errno);
    }
    off_t at = lseek(r->fd, offset, whence & ~AVSEEK_FORCE);
    return at >= 0 ? (int64_t)at : AVERROR(errno);
}

/* Non-blocking, because opening a pipe would wait for its other end before it can be refused. */
static int open_file(struct reader *r)
{
    struct stat st;
    r->fd = open(r->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &st) != 0)
        return error_set(STATUS_INPUT, "%s: %s", r->path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return error_set(STATUS_INPUT, "%s: not a regular file", r->path);
    if (st.st_size == 0) return error_set(STATUS_INPUT, "%s: the file is empty", r->path);
    return STATUS_OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* The disk's error is the cause when there is one; what the library says then is only its
 * consequence. Of sizes beyond max_pixels it says more than the user needs. */
static int failed(const struct reader *r, const char *what, int code)
{
    unsigned width, height;
    if (sscanf(media_complaint(code), "Picture size %ux%u", &width, &height) == 2)
        return error_set(STATUS_INPUT,
                         "%s: a picture of %ux%u cannot be read; at most %d pixels can", r->path,
                         width, height, READER_MAX_PIXELS);
    return error_set(STATUS_INPUT, "%s: %s: %s", r->path, what,
                     r->read_error ? strerror(r->read_error) : media_complaint(code));
}

/* Formats that hold their frames themselves: a playlist would open other files. */
static const char formats[] = "png_pipe,apng,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,"
                              "pgm_pipe,gif,mov,mp4,matroska,webm,avi";

static int open_format(struct reader *r)
{
    uint8_t *buffer = av_malloc(BUFFER_BYTES);
    CHECK(buffer, "out of memory");
    r->io = avio_alloc_context(buffer, BUFFER_BYTES, 0, r, read_bytes, NULL, seek_bytes);
    r->format = avformat_alloc_context();
    CHECK(r->io && r->format, "out of memory");
    r->format->pb = r->io;
    r->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    r->format->format_whitelist = av_strdup(formats);
    r->format->protocol_whitelist = av_strdup("none");
    CHECK(r->format->format_whitelist && r->format->protocol_whitelist, "out of memory");
    int code = avformat_open_input(&r->format, NULL, NULL, NULL);
    if (code < 0 && r->read_error) return failed(r, "cannot be read", code);
    if (code < 0)
        return error_set(STATUS_INPUT,
                         "%s: not an image or a video; PNG, JPEG, WebP, BMP, TIFF, PNM, GIF, MP4, "
                         "MOV, MKV, WebM and AVI can be read",
                         r->path);
    return STATUS_OK;
}

/* The library decodes a frame of each stream to see what is in it: within our limits. */
static int look_into_streams(struct reader *r)
{
    unsigned n = r->format->nb_streams;
    AVDictionary **options = xcalloc(n ? n : 1, sizeof *options);
    for (unsigned i = 0; i < n; i++) {
        CHECK(av_dict_set_int(&options[i], "max_pixels", READER_MAX_PIXELS, 0) >= 0 &&
                  av_dict_set(&options[i], "threads", "1", 0) >= 0,
              "out of memory");
    }
    media_forget();
    int code = avformat_find_stream_info(r->format, options);
    if (media_complained()) r->first_complaint = xstrdup(media_complaint(code));
    for (unsigned i = 0; i < n; i++) av_dict_free(&options[i]);
    free(options);
    return code >= 0 ? STATUS_OK : failed(r, "damaged", code);
}

/* One thread: libavcodec's messages then belong to this call (media_complaint). */
static int open_decoder(struct reader *r)
{
    const AVCodec *codec = NULL;
    r->stream = av_find_best_stream(r->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (r->stream < 0) return error_set(STATUS_INPUT, "%s: has no picture", r->path);
    const AVCodecParameters *p = r->format->streams[r->stream]->codecpar;
    codec = avcodec_find_decoder(p->codec_id);
    if (!codec)
        return error_set(STATUS_INPUT, "%s: this FFmpeg has no decoder for %s", r->path,
                         avcodec_get_name(p->codec_id));
    r->decoder = avcodec_alloc_context3(codec);
    CHECK(r->decoder && avcodec_parameters_to_context(r->decoder, p) >= 0, "out of memory");
    r->decoder->thread_count = 1;
    r->decoder->max_pixels = READER_MAX_PIXELS;
    r->decoder->err_recognition = AV_EF_EXPLODE | AV_EF_CRCCHECK;
    int code = avcodec_open2(r->decoder, codec, NULL);
    return code >= 0 ? STATUS_OK : failed(r, "cannot be decoded", code);
}

static int open_parts(struct reader *r)
{
    TRY(open_file(r));
    media_forget();
    TRY(open_format(r));
    TRY(look_into_streams(r));
    TRY(open_decoder(r));
    r->packet = av_packet_alloc();
    r->frame = av_frame_alloc();
    CHECK(r->packet && r->frame, "out of memory");
    r->rgb = rgb_open();
    return STATUS_OK;
}

int reader_open(struct reader **out, const char *path)
{
    media_start();
    *out = NULL;
    struct reader *r = xcalloc(1, sizeof *r);
    r->fd = -1;
    r->path = xstrdup(path);
    int status = open_parts(r);
    if (status != STATUS_OK)
        reader_close(r);
    else
        *out = r;
    return status;
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* Of files cut short the library logs it and then says "end" as of any other. */
static int check_end(const struct reader *r)
{
    if (r->read_error) return failed(r, "cannot be read", 0);
    if (media_complained()) return failed(r, "damaged", AVERROR_INVALIDDATA);
    return r->first_complaint
               ? error_set(STATUS_INPUT, "%s: damaged: %s", r->path, r->first_complaint)
               : STATUS_OK;
}

/* Gives the decoder the next packet of the stream, or tells it that there is none. */
static int feed(struct reader *r)
{
    int code;
    media_forget();
    do {
        av_packet_unref(r->packet);
        code = av_read_frame(r->format, r->packet);
    } while (code >= 0 && r->packet->stream_index != r->stream);
    bool is_end = code == AVERROR_EOF;
    if (code < 0 && !is_end) return failed(r, "damaged", code);
    if (is_end) TRY(check_end(r));
    code = avcodec_send_packet(r->decoder, is_end ? NULL : r->packet);
    av_packet_unref(r->packet);
    return code >= 0 ? STATUS_OK : failed(r, "damaged", code);
}

static int check_frame(struct reader *r)
{
    const AVFrame *f = r->frame;
    if (f->decode_error_flags || (f->flags & AV_FRAME_FLAG_CORRUPT))
        return failed(r, "damaged", AVERROR_INVALIDDATA);
    if (r->frames > 0 && (f->width != r->width || f->height != r->height))
        return error_set(STATUS_INPUT,
                         "%s: frame %" PRId64 " is %dx%d, those before are %dx%d; all must have "
                         "one size",
                         r->path, r->frames, f->width, f->height, r->width, r->height);
    if ((int64_t)f->width * f->height > READER_MAX_PIXELS)
        return error_set(STATUS_INPUT, "%s: %dx%d is too large; at most %d pixels are read",
                         r->path, f->width, f->height, READER_MAX_PIXELS);
    r->width = f->width;
    r->height = f->height;
    return STATUS_OK;
}

/* The next decoded frame, or drained with nothing left: *found is false then. */
static int decode(struct reader *r, bool *found)
{
    media_forget();
    for (;;) {
        int code = avcodec_receive_frame(r->decoder, r->frame);
        *found = code >= 0;
        if (code >= 0 || code == AVERROR_EOF) return STATUS_OK;
        if (code != AVERROR(EAGAIN)) return failed(r, "damaged", code);
        TRY(feed(r));
    }
}

int reader_next(struct reader *r, struct rgb_frame *frame)
{
    const AVFrame *rgb;
    bool found;
    *frame = (struct rgb_frame){0};
    TRY(decode(r, &found));
    if (!found && r->frames == 0) return failed(r, "holds no frame", AVERROR_INVALIDDATA);
    if (!found) return STATUS_OK;
    TRY(check_frame(r));
    /* WebP has chroma in the middle of its pixels, but its decoder is one for video. */
    if (r->decoder->codec_id == AV_CODEC_ID_WEBP) r->frame->chroma_location = AVCHROMA_LOC_CENTER;
    TRY(rgb_convert(r->rgb, r->frame, r->path, &rgb));
    r->frames++;
    *frame = (struct rgb_frame){.width = rgb->width,
                                .height = rgb->height,
                                .stride = rgb->linesize[0],
                                .rgb = rgb->data[0]};
    return STATUS_OK;
}

void reader_close(struct reader *r)
{
    if (!r) return;
    rgb_close(r->rgb);
    av_frame_free(&r->frame);
    av_packet_free(&r->packet);
    avcodec_free_context(&r->decoder);
    avformat_close_input(&r->format);
    if (r->io) av_freep(&r->io->buffer);
    avio_context_free(&r->io);
    if (r->fd >= 0) close(r->fd);
    free(r->first_complaint);
    free(r->path);
    free(r);
}
