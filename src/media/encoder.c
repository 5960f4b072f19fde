#include "media/encoder.h"

#include "base/error.h"
#include "base/log.h"
#include "media/container.h"
#include "media/media.h"

#include <libavutil/cpu.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- which encoder --------------------------------------------------------------------------- */

static const AVCodec *video_encoder(const char *name)
{
    const AVCodec *codec = avcodec_find_encoder_by_name(name);
    return codec && codec->type == AVMEDIA_TYPE_VIDEO ? codec : NULL;
}

static struct name_list encoders_for(const AVOutputFormat *container)
{
    const int skipped = AV_CODEC_CAP_EXPERIMENTAL | AV_CODEC_CAP_HARDWARE | AV_CODEC_CAP_HYBRID;
    struct name_list list = {""};
    const AVCodec *codec;
    for (void *at = NULL; (codec = av_codec_iterate(&at));) {
        if (!av_codec_is_encoder(codec) || codec->type != AVMEDIA_TYPE_VIDEO) continue;
        if (codec->capabilities & skipped) continue;
        if (container_takes(container, codec) != CONTAINER_YES) continue;
        if (encoder_does_depth(codec, 8) || encoder_does_depth(codec, 10))
            name_list_add(&list, codec->name);
    }
    return list;
}

static int find_automatically(const AVCodec **out, const char *path,
                              const AVOutputFormat *container)
{
    static const char *const preferred[] = {"libx264", "libvpx-vp9", "libopenh264", "mpeg4"};
    const AVCodec *codec = NULL;
    for (size_t i = 0; i < sizeof preferred / sizeof *preferred && !codec; i++) {
        codec = video_encoder(preferred[i]);
        if (codec && container_takes(container, codec) != CONTAINER_YES) codec = NULL;
    }
    if (!codec) codec = avcodec_find_encoder(container->video_codec);
    if (!codec)
        return error_set(STATUS_INPUT,
                         "%s: this FFmpeg has none of the usual encoders for %s; set `encoder` to "
                         "one of: %s",
                         path, container->name, encoders_for(container).text);
    if (!video_encoder(preferred[0]))
        log_warn("%s: this FFmpeg has no %s, using %s", path, preferred[0], codec->name);
    *out = codec;
    return STATUS_OK;
}

int encoder_find(const AVCodec **out, const struct video_settings *s,
                 const AVOutputFormat *container)
{
    const char *name = s->encoder ? s->encoder : "auto";
    bool is_auto = strcmp(name, "auto") == 0;
    if (!container) {
        if (!is_auto && strcmp(name, "png") != 0)
            return error_set(STATUS_INPUT,
                             "%s: pictures are written by encoder png (or auto), not %s", s->path,
                             name);
        *out = video_encoder("png");
        return *out ? STATUS_OK
                    : error_set(STATUS_INPUT, "%s: this FFmpeg has no encoder png", s->path);
    }
    if (is_auto) return find_automatically(out, s->path, container);
    *out = video_encoder(name);
    if (!*out)
        return error_set(STATUS_INPUT,
                         "%s: this FFmpeg has no video encoder \"%s\"; for %s it has: %s", s->path,
                         name, container->name, encoders_for(container).text);
    if (container_takes(container, *out) == CONTAINER_NO)
        return error_set(STATUS_INPUT,
                         "%s: container %s cannot hold what encoder %s makes (%s); encoders for "
                         "it: %s",
                         s->path, container->name, name, avcodec_get_name((*out)->id),
                         encoders_for(container).text);
    return STATUS_OK;
}

/* ---- pixel formats --------------------------------------------------------------------------- */

/* What frames can be turned into, best first. The yuvj ones are the same samples in full range, for
 * JPEG. */
static const enum AVPixelFormat rgb_8[] = {AV_PIX_FMT_RGB24, AV_PIX_FMT_BGR24, AV_PIX_FMT_BGR0,
                                           AV_PIX_FMT_RGB0,  AV_PIX_FMT_GBRP,  AV_PIX_FMT_NONE};
static const enum AVPixelFormat yuv_8[] = {
    AV_PIX_FMT_YUV420P,  AV_PIX_FMT_NV12,     AV_PIX_FMT_YUV422P,  AV_PIX_FMT_YUV444P,
    AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUVJ444P, AV_PIX_FMT_NONE};
static const enum AVPixelFormat rgb_10[] = {AV_PIX_FMT_GBRP10, AV_PIX_FMT_NONE};
static const enum AVPixelFormat yuv_10[] = {AV_PIX_FMT_YUV420P10, AV_PIX_FMT_P010,
                                            AV_PIX_FMT_YUV422P10, AV_PIX_FMT_YUV444P10,
                                            AV_PIX_FMT_NONE};
static const enum AVPixelFormat rgb_16[] = {AV_PIX_FMT_RGB48BE, AV_PIX_FMT_RGB48LE,
                                            AV_PIX_FMT_GBRP16, AV_PIX_FMT_NONE};
static const enum AVPixelFormat yuv_16[] = {AV_PIX_FMT_NONE};

enum { MAX_FORMATS = 24 };

/* An encoder that only exists to lose nothing gets RGB, which is what the frames are; all others
 * get Y'CbCr. */
static bool prefers_rgb(const AVCodec *codec)
{
    const AVCodecDescriptor *d = avcodec_descriptor_get(codec->id);
    return d && (d->props & AV_CODEC_PROP_LOSSLESS) && !(d->props & AV_CODEC_PROP_LOSSY);
}

static bool offers(const AVCodec *codec, enum AVPixelFormat format)
{
    const enum AVPixelFormat *f = media_pixel_formats(codec);
    if (!f) return true;
    while (*f != AV_PIX_FMT_NONE && *f != format) f++;
    return *f == format;
}

/* What the encoder takes of what we can make, best first, ended by AV_PIX_FMT_NONE. */
static void common_formats(enum AVPixelFormat out[MAX_FORMATS], const AVCodec *codec, int bit_depth)
{
    bool rgb_first = prefers_rgb(codec);
    const enum AVPixelFormat *rgb = bit_depth == 8    ? rgb_8
                                    : bit_depth == 10 ? rgb_10
                                                      : rgb_16,
                             *yuv = bit_depth == 8    ? yuv_8
                                    : bit_depth == 10 ? yuv_10
                                                      : yuv_16;
    const enum AVPixelFormat *const lists[2] = {rgb_first ? rgb : yuv, rgb_first ? yuv : rgb};
    int n = 0;
    for (int i = 0; i < 2; i++)
        for (const enum AVPixelFormat *f = lists[i]; *f != AV_PIX_FMT_NONE; f++)
            if (offers(codec, *f)) out[n++] = *f;
    out[n] = AV_PIX_FMT_NONE;
}

bool encoder_does_depth(const AVCodec *codec, int bit_depth)
{
    enum AVPixelFormat formats[MAX_FORMATS];
    common_formats(formats, codec, bit_depth);
    return formats[0] != AV_PIX_FMT_NONE;
}

static struct name_list format_names(const enum AVPixelFormat *f)
{
    struct name_list list = {""};
    for (; f && *f != AV_PIX_FMT_NONE; f++) name_list_add(&list, av_get_pix_fmt_name(*f));
    return list;
}

static int pick_format(AVCodecContext *ctx, const struct video_settings *s, const char *wanted)
{
    enum AVPixelFormat formats[MAX_FORMATS], *f = formats;
    common_formats(formats, ctx->codec, s->bit_depth);
    if (*f == AV_PIX_FMT_NONE)
        return error_set(STATUS_INPUT, "%s: encoder %s cannot do bit_depth %d; it offers: %s",
                         s->path, ctx->codec->name, s->bit_depth,
                         format_names(media_pixel_formats(ctx->codec)).text);
    while (wanted && *f != AV_PIX_FMT_NONE && strcmp(av_get_pix_fmt_name(*f), wanted) != 0) f++;
    if (*f == AV_PIX_FMT_NONE)
        return error_set(
            STATUS_INPUT, "%s: encoder %s with bit_depth %d has no pix_fmt \"%s\"; choose of: %s",
            s->path, ctx->codec->name, s->bit_depth, wanted, format_names(formats).text);
    ctx->pix_fmt = *f;
    return STATUS_OK;
}

/* ---- size, rate, colour ---------------------------------------------------------------------- */

static int set_size(AVCodecContext *ctx, const struct video_settings *s)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(ctx->pix_fmt);
    int x = 1 << d->log2_chroma_w, y = 1 << d->log2_chroma_h;
    media_forget();
    if (s->width <= 0 || s->height <= 0 ||
        av_image_check_size2((unsigned)s->width, (unsigned)s->height, INT64_MAX, ctx->pix_fmt, 0,
                             NULL) < 0)
        return error_set(STATUS_INPUT, "%s: frames of %dx%d are impossible", s->path, s->width,
                         s->height);
    if (s->width % x != 0 || s->height % y != 0)
        return error_set(STATUS_INPUT,
                         "%s: frames of %dx%d do not fit encoder %s with pixel format %s: the "
                         "width must be a multiple of %d, the height of %d",
                         s->path, s->width, s->height, ctx->codec->name, d->name, x, y);
    ctx->width = s->width;
    ctx->height = s->height;
    ctx->sample_aspect_ratio = (AVRational){1, 1};
    return STATUS_OK;
}

/* 23.976 means 24000/1001, as everywhere in video. Terms above 65535 do not fit into every
 * format. */
static int set_rate(AVCodecContext *ctx, const struct video_settings *s)
{
    static const int television[] = {24, 30, 48, 60, 120};
    if (!(s->frame_rate >= 0.01 && s->frame_rate <= 1000))
        return error_set(STATUS_INPUT, "%s: frame_rate %g: must be between 0.01 and 1000", s->path,
                         s->frame_rate);
    AVRational rate = av_d2q(s->frame_rate, 65535);
    for (size_t i = 0; i < sizeof television / sizeof *television; i++)
        if (fabs(s->frame_rate - television[i] * 1000 / 1001.0) < 0.005)
            av_reduce(&rate.num, &rate.den, television[i] * 1000, 1001, INT32_MAX);
    ctx->framerate = rate;
    ctx->time_base = av_inv_q(rate);
    return STATUS_OK;
}

/* ---- what the samples mean ------------------------------------------------------------------- */

static bool is_given(const char *word) { return word && strcmp(word, "auto") != 0; }

static int refuse_colour(const struct video_settings *s, const char *key, const char *word,
                         const char *why)
{
    return error_set(STATUS_INPUT, "%s: %s \"%s\": %s", s->path, key, word, why);
}

static int set_primaries(AVCodecContext *ctx, const struct video_settings *s)
{
    int primaries = AVCOL_PRI_BT709;
    if (is_given(s->color_primaries)) primaries = av_color_primaries_from_name(s->color_primaries);
    if (primaries < 0)
        return refuse_colour(s, "color_primaries", s->color_primaries, "FFmpeg knows no such");
    ctx->color_primaries = primaries;
    return STATUS_OK;
}

/* Viewers of PNG expect sRGB and would correct anything else. */
static int set_transfer(AVCodecContext *ctx, const struct video_settings *s, bool is_picture)
{
    int transfer = is_picture ? AVCOL_TRC_IEC61966_2_1 : AVCOL_TRC_BT709;
    if (is_given(s->color_transfer)) transfer = av_color_transfer_from_name(s->color_transfer);
    if (transfer < 0)
        return refuse_colour(s, "color_transfer", s->color_transfer, "FFmpeg knows no such");
    ctx->color_trc = transfer;
    return STATUS_OK;
}

/* The matrix that the frames are converted with, and whether black is 0 then. RGB has neither
 * choice; JPEG has full range and, by definition, the matrix of BT.601. */
static int set_matrix(AVCodecContext *ctx, const struct video_settings *s)
{
    bool is_rgb = av_pix_fmt_desc_get(ctx->pix_fmt)->flags & AV_PIX_FMT_FLAG_RGB;
    bool is_jpeg = strncmp(av_get_pix_fmt_name(ctx->pix_fmt), "yuvj", 4) == 0;
    bool is_full = is_rgb || is_jpeg;
    int matrix = is_rgb                                     ? AVCOL_SPC_RGB
                 : is_jpeg                                  ? AVCOL_SPC_BT470BG
                 : ctx->color_primaries == AVCOL_PRI_BT2020 ? AVCOL_SPC_BT2020_NCL
                                                            : AVCOL_SPC_BT709;
    if (is_given(s->color_matrix)) {
        if (is_full)
            return refuse_colour(s, "color_matrix", s->color_matrix,
                                 "pixel formats of RGB and JPEG leave no choice; it must be auto");
        matrix = av_color_space_from_name(s->color_matrix);
        if (matrix != AVCOL_SPC_BT709 && matrix != AVCOL_SPC_SMPTE170M &&
            matrix != AVCOL_SPC_BT2020_NCL)
            return refuse_colour(s, "color_matrix", s->color_matrix,
                                 "must be bt709, smpte170m or bt2020nc");
    }
    if (is_given(s->color_range)) {
        bool wants_full = strcmp(s->color_range, "full") == 0;
        if (!wants_full && strcmp(s->color_range, "limited") != 0)
            return refuse_colour(s, "color_range", s->color_range, "must be limited or full");
        if (is_full && !wants_full)
            return refuse_colour(s, "color_range", s->color_range,
                                 "pixel formats of RGB and JPEG have the full range");
        is_full = wants_full;
    }
    ctx->colorspace = matrix;
    ctx->color_range = is_full ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
    if (!is_rgb) ctx->chroma_sample_location = AVCHROMA_LOC_LEFT;
    return STATUS_OK;
}

/* ---- settings -------------------------------------------------------------------------------- */

/* `quality` holds unless the user's own options choose the quality; `other` unless they name the
 * same key. */
static const struct defaults {
    const char *encoder, *quality, *other;
} all_defaults[] = {
    {"libx264", "crf=18", "preset=medium"},
    {"libx264rgb", "qp=0", "preset=medium"},
    {"libx265", "crf=20", "preset=medium"},
    {"libsvtav1", "crf=28", "preset=8"},
    {"libaom-av1", "crf=24", "cpu-used=6:row-mt=1"},
    {"libvpx-vp9", "crf=22", "deadline=good:cpu-used=2:row-mt=1"},
    {"libvpx", "crf=10:b=8M", "deadline=good:cpu-used=2"},
    {"h264_nvenc", "rc=vbr:cq=19:b=0", "preset=p5"},
    {"hevc_nvenc", "rc=vbr:cq=21:b=0", "preset=p5"},
    {"av1_nvenc", "rc=vbr:cq=28:b=0", "preset=p5"},
    {"mpeg4", "flags=+qscale:global_quality=236", ""}, /* 236 = quantizer 2 */
    {"mpeg2video", "flags=+qscale:global_quality=236", ""},
    {"libtheora", "flags=+qscale:global_quality=1180", ""}, /* 10 of 10 */
    {"mjpeg", "flags=+qscale:global_quality=236", "pix_fmt=yuvj420p"},
    {"prores_ks", "", "profile=hq"},
    {"ffv1", "", "level=3:slicecrc=1"},
    {"png", "", "pred=mixed"},
};

static bool chooses_quality(const AVDictionary *options)
{
    static const char *const keys[] = {"crf",      "qp",     "cq", "b", "rc", "global_quality",
                                       "lossless", "maxrate"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (av_dict_get(options, keys[i], NULL, 0)) return true;
    return false;
}

static void merge(AVDictionary **into, const char *text)
{
    CHECK(av_dict_parse_string(into, text, "=", ":", AV_DICT_DONT_OVERWRITE) >= 0, "%s", text);
}

/* Puts settings of the encoder's own language in front of the user's, which win by coming later. */
static void merge_private(AVDictionary **into, const char *key, const char *text)
{
    const AVDictionaryEntry *own = av_dict_get(*into, key, NULL, 0);
    char *both = xasprintf("%s%s%s", text, own ? ":" : "", own ? own->value : "");
    CHECK(av_dict_set(into, key, both, 0) >= 0, "out of memory");
    free(both);
}

static int collect_options(AVDictionary **out, const struct video_settings *s, const AVCodec *codec,
                           bool is_segment)
{
    const char *text = s->encoder_options ? s->encoder_options : "", *name = codec->name;
    if (av_dict_parse_string(out, text, "=", ":", 0) < 0)
        return error_set(STATUS_INPUT,
                         "%s: encoder_options \"%s\": must be key=value:key=value (\\: for a colon "
                         "inside a value)",
                         s->path, text);
    bool own_quality = chooses_quality(*out);
    for (size_t i = 0; i < sizeof all_defaults / sizeof *all_defaults; i++) {
        const struct defaults *d = &all_defaults[i];
        if (strcmp(d->encoder, name) != 0) continue;
        if (!own_quality) merge(out, d->quality);
        merge(out, d->other);
    }
    /* These two start their own threads and write to stderr behind FFmpeg's back. */
    if (strcmp(name, "libx265") == 0) {
        merge_private(out, "x265-params", "log-level=error:pools=4:frame-threads=2");
    } else if (strcmp(name, "libsvtav1") == 0) {
        setenv("SVT_LOG", "1", 0); /* errors only */
        merge_private(out, "svtav1-params", "lp=4");
    } else if (strncmp(name, "libx264", 7) == 0) {
        if (is_segment) merge_private(out, "x264-params", "stitchable=1");
        /* On a Zen 5 x264 164 made other bytes in every run with AVX-512, equal ones without or
         * with malloc filling memory. Its kinds of code are meant to be exact to the bit. */
        if (av_get_cpu_flags() & AV_CPU_FLAG_AVX512) merge_private(out, "x264-params", "asm=avx2");
    }
    return STATUS_OK;
}

/* Would make the file's description disagree with its frames; of colours there are settings that
 * convert the frames, too. */
static const char *reserved(const char *key)
{
    static const char *const keys[][2] = {
        {"color_range", "is set by color_range"},
        {"colorspace", "is set by color_matrix"},
        {"color_primaries", "is set by color_primaries"},
        {"color_trc", "is set by color_transfer"},
        {"time_base", "follows from the frames"},
        {"chroma_sample_location", "follows from the frames"},
        {"aspect", "follows from the frames"},
        {"framerate", "follows from the frames"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i][0], key) == 0) return keys[i][1];
    return NULL;
}

static int set_option(AVCodecContext *ctx, const char *path, const char *key, const char *value)
{
    const char *name = ctx->codec->name;
    if (reserved(key))
        return error_set(STATUS_INPUT, "%s: encoder_options: %s %s and cannot be set here", path,
                         key, reserved(key));
    if (!av_opt_find(ctx, key, NULL, AV_OPT_FLAG_ENCODING_PARAM | AV_OPT_FLAG_VIDEO_PARAM,
                     AV_OPT_SEARCH_CHILDREN))
        return error_set(STATUS_INPUT,
                         "%s: encoder_options: encoder %s has no option \"%s\" (`ffmpeg -h "
                         "encoder=%s` lists "
                         "them)",
                         path, name, key, name);
    media_forget();
    int code = av_opt_set(ctx, key, value, AV_OPT_SEARCH_CHILDREN);
    if (code < 0)
        return error_set(STATUS_INPUT,
                         "%s: encoder_options: %s=%s is not possible for encoder %s: %s", path, key,
                         value, name, media_complaint(code));
    return STATUS_OK;
}

static int set_options(AVCodecContext *ctx, const char *path, const AVDictionary *options)
{
    const AVDictionaryEntry *e = NULL;
    while ((e = av_dict_get(options, "", e, AV_DICT_IGNORE_SUFFIX)))
        if (strcmp(e->key, "pix_fmt") != 0) TRY(set_option(ctx, path, e->key, e->value));
    return STATUS_OK;
}

/* ---- segments -------------------------------------------------------------------------------- */

/* Above this one encoder falls behind: 4K is twice as large. */
enum { MANY_PIXELS = 1 << 22, SEGMENT_FRAMES = 32 };

/* Each of these begins with a picture that refers to none before it, describes its stream once and
 * alike, and gives one packet for each frame. (VP8 gives more, MPEG-4 counts seconds.) */
bool encoder_can_be_joined(const AVCodec *codec)
{
    static const char *const names[] = {"libx264",   "libx264rgb", "libx265",    "libvpx-vp9",
                                        "libsvtav1", "libaom-av1", "h264_nvenc", "hevc_nvenc",
                                        "av1_nvenc", "prores_ks",  "ffv1",       "png",
                                        "mjpeg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], codec->name) == 0) return true;
    return false;
}

int encoder_usual_segment(int width, int height)
{
    return (int64_t)width * height > MANY_PIXELS ? SEGMENT_FRAMES : 0;
}

int encoder_segment_frames(const struct video_settings *s, const AVCodec *codec)
{
    int frames = s->segment_frames;
    if (frames == 0 && encoder_can_be_joined(codec))
        frames = encoder_usual_segment(s->width, s->height);
    return s->frames > 0 && frames >= s->frames ? 0 : frames;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* What an encoder makes may depend on its threads: x264's search for motion ends where the thread
 * of the frame before has got to. So there are as many of them everywhere. */
enum { FEW_PIXELS = 1280 * 720, FEW_THREADS = 4, MANY_THREADS = 8 };

static int threads_of(const struct video_settings *s, bool is_segment)
{
    bool is_small = (int64_t)s->width * s->height <= FEW_PIXELS;
    return is_small || is_segment ? FEW_THREADS : MANY_THREADS;
}

static int configure(AVCodecContext *ctx, const struct video_settings *s,
                     const AVDictionary *options, const AVOutputFormat *container, bool is_segment)
{
    const AVDictionaryEntry *format = av_dict_get(options, "pix_fmt", NULL, 0);
    TRY(pick_format(ctx, s, format ? format->value : NULL));
    TRY(set_size(ctx, s));
    TRY(set_rate(ctx, s));
    TRY(set_primaries(ctx, s));
    TRY(set_transfer(ctx, s, container == NULL));
    TRY(set_matrix(ctx, s));
    if (!container)
        ctx->thread_count = 1; /* a picture is wanted at once */
    else if (strcmp(ctx->codec->name, "libx265") != 0)
        ctx->thread_count = threads_of(s, is_segment);
    TRY(set_options(ctx, s->path, options));
    if (container && (container->flags & AVFMT_GLOBALHEADER))
        ctx->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    return STATUS_OK;
}

static int open_configured(AVCodecContext *ctx, const struct video_settings *s,
                           const AVCodec *codec)
{
    const char *options = s->encoder_options ? s->encoder_options : "";
    media_forget();
    int code = avcodec_open2(ctx, codec, NULL); /* forgets ctx->codec when it fails */
    if (code < 0)
        return error_set(STATUS_INPUT,
                         "%s: encoder %s refuses %dx%d %s at %g frames a second with "
                         "encoder_options \"%s\": %s",
                         s->path, codec->name, s->width, s->height,
                         av_get_pix_fmt_name(ctx->pix_fmt), s->frame_rate, options,
                         media_complaint(code));
    if (*media_skipped_setting())
        return error_set(STATUS_INPUT, "%s: encoder_options \"%s\": encoder %s: %s", s->path,
                         options, codec->name, media_skipped_setting());
    return STATUS_OK;
}

int encoder_open(AVCodecContext **out, const struct video_settings *s, const AVCodec *codec,
                 const AVOutputFormat *container)
{
    if (s->bit_depth != 8 && s->bit_depth != 10 && s->bit_depth != 16)
        return error_set(STATUS_INPUT, "%s: bit_depth %d: must be 8, 10 or 16", s->path,
                         s->bit_depth);
    bool is_segment = container && encoder_segment_frames(s, codec) > 0;
    AVDictionary *options = NULL;
    AVCodecContext *ctx = avcodec_alloc_context3(codec);
    CHECK(ctx, "out of memory");
    int status = collect_options(&options, s, codec, is_segment);
    if (status == STATUS_OK) status = configure(ctx, s, options, container, is_segment);
    if (status == STATUS_OK) status = open_configured(ctx, s, codec);
    av_dict_free(&options);
    if (status != STATUS_OK) {
        encoder_close(ctx);
        return status;
    }
    *out = ctx;
    return STATUS_OK;
}

/* SVT-AV1 waits for ever in its end unless it had a frame and was told that it was the last. After
 * a proper end it refuses this frame, which does no harm. */
static void end_svtav1(AVCodecContext *ctx)
{
    AVFrame *frame = av_frame_alloc();
    AVPacket *packet = av_packet_alloc();
    CHECK(frame && packet, "out of memory");
    frame->format = ctx->pix_fmt;
    frame->width = ctx->width;
    frame->height = ctx->height;
    frame->pts = INT32_MAX;
    CHECK(av_frame_get_buffer(frame, 0) >= 0, "out of memory for a frame of %dx%d", ctx->width,
          ctx->height);
    for (int i = 0; frame->buf[i]; i++) memset(frame->buf[i]->data, 0, frame->buf[i]->size);
    avcodec_send_frame(ctx, frame);
    int code = avcodec_send_frame(ctx, NULL);
    while (code >= 0) {
        code = avcodec_receive_packet(ctx, packet);
        av_packet_unref(packet);
    }
    av_frame_free(&frame);
    av_packet_free(&packet);
}

void encoder_close(AVCodecContext *ctx)
{
    if (ctx && avcodec_is_open(ctx) && strcmp(ctx->codec->name, "libsvtav1") == 0) end_svtav1(ctx);
    avcodec_free_context(&ctx);
}
