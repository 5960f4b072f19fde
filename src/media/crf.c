#include "media/crf.h"

#include "base/error.h"
#include "media/media.h"

#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

static int refuse(const char *name, const char *coder, int code)
{
    return error_set(STATUS_INPUT, "%s: conditioning_crf: %s: %s", name, coder,
                     media_complaint(code));
}

static AVFrame *new_frame(enum AVPixelFormat format, int width, int height)
{
    AVFrame *f = av_frame_alloc();
    CHECK(f, "out of memory");
    f->format = format;
    f->width = width;
    f->height = height;
    CHECK(av_frame_get_buffer(f, 0) >= 0, "out of memory for a frame of %dx%d", width, height);
    return f;
}

/* By swscale's plain habits (BT.601, limited range, chroma neither placed nor smoothed) and not as
 * our videos are converted (pixels.c): with these the result is the reference's, byte for byte. */
static void convert(AVFrame *to, const AVFrame *from)
{
    struct SwsContext *sws = sws_getContext(from->width, from->height, from->format, to->width,
                                            to->height, to->format, SWS_BILINEAR, NULL, NULL, NULL);
    CHECK(sws, "swscale refuses %s to %s", av_get_pix_fmt_name(from->format),
          av_get_pix_fmt_name(to->format));
    int rows = sws_scale(sws, (const uint8_t *const *)from->data, from->linesize, 0, from->height,
                         to->data, to->linesize);
    CHECK(rows == to->height, "swscale made %d of %d rows", rows, to->height);
    sws_freeContext(sws);
}

static int open_encoder(AVCodecContext **out, int width, int height, int crf, const char *name)
{
    const AVCodec *codec = avcodec_find_encoder_by_name("libx264");
    if (!codec)
        return error_set(STATUS_INPUT,
                         "%s: conditioning_crf %d needs libx264, which this FFmpeg lacks; set "
                         "conditioning_crf to 0",
                         name, crf);
    AVCodecContext *c = avcodec_alloc_context3(codec);
    CHECK(c, "out of memory");
    c->width = width;
    c->height = height;
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->time_base = c->framerate = (AVRational){1, 1};
    c->thread_count = 1;
    media_forget();
    int code = av_opt_set_int(c, "crf", crf, AV_OPT_SEARCH_CHILDREN);
    if (code >= 0) code = av_opt_set(c, "preset", "veryfast", AV_OPT_SEARCH_CHILDREN);
    if (code >= 0) code = avcodec_open2(c, codec, NULL);
    if (code < 0) {
        avcodec_free_context(&c);
        return refuse(name, "libx264", code);
    }
    *out = c;
    return STATUS_OK;
}

static int encode(AVPacket *packet, const AVFrame *rgb, int crf, const char *name)
{
    AVCodecContext *encoder;
    TRY(open_encoder(&encoder, rgb->width, rgb->height, crf, name));
    AVFrame *frame = new_frame(AV_PIX_FMT_YUV420P, rgb->width, rgb->height);
    convert(frame, rgb);
    frame->pts = 0;
    media_forget();
    int code = avcodec_send_frame(encoder, frame);
    if (code >= 0) code = avcodec_send_frame(encoder, NULL);
    if (code >= 0) code = avcodec_receive_packet(encoder, packet);
    int status = code < 0 ? refuse(name, "libx264", code) : STATUS_OK;
    av_frame_free(&frame);
    avcodec_free_context(&encoder);
    return status;
}

static int decode(AVFrame *frame, const AVPacket *packet, const char *name)
{
    const AVCodec *codec = avcodec_find_decoder(AV_CODEC_ID_H264);
    if (!codec)
        return error_set(STATUS_INPUT,
                         "%s: conditioning_crf: this FFmpeg has no decoder for H.264; set "
                         "conditioning_crf to 0",
                         name);
    AVCodecContext *decoder = avcodec_alloc_context3(codec);
    CHECK(decoder, "out of memory");
    decoder->thread_count = 1;
    media_forget();
    int code = avcodec_open2(decoder, codec, NULL);
    if (code >= 0) code = avcodec_send_packet(decoder, packet);
    if (code >= 0) code = avcodec_send_packet(decoder, NULL);
    if (code >= 0) code = avcodec_receive_frame(decoder, frame);
    int status = code < 0 ? refuse(name, "H.264 decoder", code) : STATUS_OK;
    avcodec_free_context(&decoder);
    return status;
}

int crf_round_trip(uint8_t *rgb, int width, int height, int crf, const char *name)
{
    CHECK(width > 0 && height > 0 && width % 2 == 0 && height % 2 == 0 && crf > 0,
          "a picture of %dx%d at crf %d", width, height, crf);
    media_start();
    AVPacket *packet = av_packet_alloc();
    AVFrame *picture = new_frame(AV_PIX_FMT_RGB24, width, height), *decoded = av_frame_alloc();
    CHECK(packet && decoded, "out of memory");
    av_image_copy_plane(picture->data[0], picture->linesize[0], rgb, 3 * width, 3 * width, height);
    int status = encode(packet, picture, crf, name);
    if (status == STATUS_OK) status = decode(decoded, packet, name);
    if (status == STATUS_OK) {
        CHECK(decoded->width == width && decoded->height == height, "H.264 made %dx%d of %dx%d",
              decoded->width, decoded->height, width, height);
        convert(picture, decoded);
        av_image_copy_plane(rgb, 3 * width, picture->data[0], picture->linesize[0], 3 * width,
                            height);
    }
    av_frame_free(&decoded);
    av_frame_free(&picture);
    av_packet_free(&packet);
    return status;
}
