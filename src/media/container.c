#include "media/container.h"

#include "base/error.h"
#include "media/media.h"
#include "media/partial.h"

#include <errno.h>
#include <libavutil/opt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024 };

struct container {
    struct partial file;
    AVFormatContext *format;
    AVStream *stream;
    AVRational frame_time; /* seconds a frame */
};

/* ---- choosing -------------------------------------------------------------------------------- */

int container_find(const AVOutputFormat **out, const char *path)
{
    const char *slash = strrchr(path, '/');
    const AVOutputFormat *format = av_guess_format(NULL, slash ? slash + 1 : path, NULL);
    if (!format || (format->flags & AVFMT_NOFILE) || format->video_codec == AV_CODEC_ID_NONE)
        return error_set(STATUS_INPUT,
                         "%s: the name's ending tells the container, and this one is none for "
                         "video; use .mp4, .mkv, .mov or .webm, or .png for pictures",
                         path);
    *out = format;
    return STATUS_OK;
}

enum container_answer container_takes(const AVOutputFormat *format, const AVCodec *encoder)
{
    int answer = avformat_query_codec(format, encoder->id, FF_COMPLIANCE_NORMAL);
    return answer == 1 ? CONTAINER_YES : answer == 0 ? CONTAINER_NO : CONTAINER_MAYBE;
}

/* ---- the file under the container ------------------------------------------------------------ */

#if LIBAVFORMAT_VERSION_MAJOR >= 61
typedef const uint8_t *written_bytes;
#else
typedef uint8_t *written_bytes;
#endif

static int write_bytes(void *file, written_bytes data, int bytes)
{
    int code = partial_write(file, data, (size_t)bytes);
    return code < 0 ? code : bytes;
}

static int64_t seek_bytes(void *opaque, int64_t offset, int whence)
{
    struct partial *file = opaque;
    if (whence == AVSEEK_SIZE) {
        struct stat st;
        return fstat(file->fd, &st) == 0 ? (int64_t)st.st_size : -errno;
    }
    off_t at = lseek(file->fd, offset, whence & ~AVSEEK_FORCE);
    return at >= 0 ? (int64_t)at : -errno;
}

/* The disk's error is the cause when there is one; what the library says then is only its
 * consequence. */
static int failed(const struct container *c, int status, int code)
{
    if (c->file.error) return partial_failed(&c->file);
    return error_set(status, "%s: container %s: %s", c->file.path, c->format->oformat->name,
                     media_complaint(code));
}

/* ---- writing --------------------------------------------------------------------------------- */

static void take_buffer(struct container *c)
{
    uint8_t *buffer = av_malloc(BUFFER_BYTES);
    CHECK(buffer, "out of memory: %d bytes", BUFFER_BYTES);
    c->format->pb =
        avio_alloc_context(buffer, BUFFER_BYTES, 1, &c->file, NULL, write_bytes, seek_bytes);
    CHECK(c->format->pb, "out of memory");
    c->format->flags |= AVFMT_FLAG_CUSTOM_IO;
}

static void describe_stream(struct container *c, const AVCodecContext *encoder)
{
    c->stream = avformat_new_stream(c->format, NULL);
    CHECK(c->stream, "out of memory");
    int code = avcodec_parameters_from_context(c->stream->codecpar, encoder);
    CHECK(code >= 0, "out of memory");
    c->frame_time = c->stream->time_base = encoder->time_base;
    c->stream->avg_frame_rate = c->stream->r_frame_rate = encoder->framerate;
    c->stream->sample_aspect_ratio = c->stream->codecpar->sample_aspect_ratio = (AVRational){1, 1};
    /* Some players know H.265 in this family only under this tag. */
    bool is_mov = strcmp(c->format->oformat->name, "mp4") == 0 ||
                  strcmp(c->format->oformat->name, "mov") == 0;
    if (is_mov && encoder->codec_id == AV_CODEC_ID_HEVC)
        c->stream->codecpar->codec_tag = MKTAG('h', 'v', 'c', '1');
}

static int write_header(struct container *c)
{
    AVFormatContext *f = c->format;
    /* No random identifiers, no dates: the same frames make the same file. */
    f->flags |= AVFMT_FLAG_BITEXACT;
    if (f->oformat->priv_class && av_opt_find(f->priv_data, "movflags", NULL, 0, 0))
        av_opt_set(f->priv_data, "movflags", "+faststart", 0);
    media_forget();
    int code = avformat_write_header(f, NULL);
    if (code >= 0) avio_flush(f->pb);
    return code < 0 || c->file.error ? failed(c, STATUS_INPUT, code) : STATUS_OK;
}

int container_open(struct container **out, const char *path, const AVOutputFormat *format,
                   const AVCodecContext *encoder)
{
    struct container *c = xcalloc(1, sizeof *c);
    int status = partial_open(&c->file, path);
    if (status == STATUS_OK) {
        /* Moving the index to the front reads the file back under this name; "file:" keeps colons
         * in it harmless. */
        char *url = xasprintf("file:%s", c->file.name);
        int code = avformat_alloc_output_context2(&c->format, format, NULL, url);
        CHECK(code >= 0, "%s: %s", path, media_complaint(code));
        free(url);
        take_buffer(c);
        describe_stream(c, encoder);
        status = write_header(c);
    }
    if (status != STATUS_OK) {
        container_drop(c);
        return status;
    }
    *out = c;
    return STATUS_OK;
}

int container_put(struct container *c, AVPacket *packet)
{
    packet->stream_index = c->stream->index;
    packet->duration = 1;
    av_packet_rescale_ts(packet, c->frame_time, c->stream->time_base);
    media_forget();
    int code = av_interleaved_write_frame(c->format, packet);
    return code < 0 || c->file.error ? failed(c, STATUS_MACHINE, code) : STATUS_OK;
}

static void free_format(struct container *c)
{
    if (!c->format) return;
    if (c->format->pb) av_freep(&c->format->pb->buffer);
    avio_context_free(&c->format->pb);
    avformat_free_context(c->format);
    c->format = NULL;
}

int container_finish(struct container *c)
{
    media_forget();
    int code = av_write_trailer(c->format);
    if (code >= 0) avio_flush(c->format->pb);
    if (code < 0 || c->file.error) {
        int status = failed(c, STATUS_MACHINE, code);
        container_drop(c);
        return status;
    }
    free_format(c);
    int status = partial_commit(&c->file);
    free(c);
    return status;
}

void container_drop(struct container *c)
{
    if (!c) return;
    free_format(c);
    partial_drop(&c->file);
    free(c);
}
