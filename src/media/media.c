#include "media/media.h"

#include "base/error.h"
#include "media/container.h"
#include "media/encoder.h"
#include "media/video.h"

#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char first_error[400];
static _Thread_local char first_skipped[400];

static void keep(char text[400], const char *format, va_list args)
{
    vsnprintf(text, 400, format, args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' '; /* ours are messages of one line */
    for (size_t n = strlen(text); n > 0 && (text[n - 1] == ' ' || text[n - 1] == '.'); n--)
        text[n - 1] = '\0';
}

static bool is_skipped_setting(const char *format)
{
    return strstr(format, "arsing option") || strstr(format, "nknown option") ||
           strstr(format, "nvalid value");
}

static void on_log(void *source, int level, const char *format, va_list args)
{
    (void)source;
    if (level <= AV_LOG_ERROR && first_error[0] == '\0')
        keep(first_error, format, args);
    else if (level == AV_LOG_WARNING && first_skipped[0] == '\0' && is_skipped_setting(format))
        keep(first_skipped, format, args);
}

static void take_over_logging(void) { av_log_set_callback(on_log); }

void media_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, take_over_logging);
}

void media_forget(void) { first_error[0] = first_skipped[0] = '\0'; }

const char *media_complaint(int code)
{
    if (first_error[0] == '\0') av_strerror(code, first_error, sizeof first_error);
    return first_error;
}

bool media_complained(void) { return first_error[0] != '\0'; }

const char *media_skipped_setting(void) { return first_skipped; }

struct SwsContext *media_open_sws(int width, int height, enum AVPixelFormat from, bool from_full,
                                  enum AVPixelFormat to, bool to_full)
{
    struct SwsContext *sws = sws_alloc_context();
    CHECK(sws, "out of memory");
    av_opt_set_int(sws, "srcw", width, 0);
    av_opt_set_int(sws, "srch", height, 0);
    av_opt_set_int(sws, "dstw", width, 0);
    av_opt_set_int(sws, "dsth", height, 0);
    av_opt_set_int(sws, "src_format", from, 0);
    av_opt_set_int(sws, "dst_format", to, 0);
    av_opt_set_int(sws, "src_range", from_full, 0);
    av_opt_set_int(sws, "dst_range", to_full, 0);
    av_opt_set_int(
        sws, "sws_flags",
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_FULL_CHR_H_INT | SWS_BITEXACT, 0);
    return sws;
}

const enum AVPixelFormat *media_pixel_formats(const AVCodec *encoder)
{
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(61, 13, 100)
    const void *formats = NULL;
    int code =
        avcodec_get_supported_config(NULL, encoder, AV_CODEC_CONFIG_PIX_FORMAT, 0, &formats, NULL);
    return code < 0 ? NULL : formats;
#else
    return encoder->pix_fmts;
#endif
}

void name_list_add(struct name_list *list, const char *name)
{
    size_t used = strlen(list->text), room = sizeof list->text - used;
    const char *between = used > 0 ? " " : "";
    if (strlen(name) + 6 < room)
        snprintf(list->text + used, room, "%s%s", between, name);
    else if (room > 5 && (used < 3 || strcmp(list->text + used - 3, "...") != 0))
        snprintf(list->text + used, room, "%s...", between);
}

/* ---- what `ringreel info` shows -------------------------------------------------------------- */

const char *media_versions(void)
{
    static char text[160];
    unsigned codec = avcodec_version(), format = avformat_version(), util = avutil_version();
    unsigned scale = swscale_version();
    snprintf(text, sizeof text,
             "libavcodec %u.%u.%u, libavformat %u.%u.%u, libavutil %u.%u.%u, libswscale %u.%u.%u",
             AV_VERSION_MAJOR(codec), AV_VERSION_MINOR(codec), AV_VERSION_MICRO(codec),
             AV_VERSION_MAJOR(format), AV_VERSION_MINOR(format), AV_VERSION_MICRO(format),
             AV_VERSION_MAJOR(util), AV_VERSION_MINOR(util), AV_VERSION_MICRO(util),
             AV_VERSION_MAJOR(scale), AV_VERSION_MINOR(scale), AV_VERSION_MICRO(scale));
    return text;
}

static struct name_list containers_for(const AVCodec *codec)
{
    static const char *const names[] = {"mp4", "mov", "matroska", "webm"};
    static const char *const endings[] = {"mp4", "mov", "mkv", "webm"};
    struct name_list list = {""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const AVOutputFormat *format = av_guess_format(names[i], NULL, NULL);
        if (format && container_takes(format, codec) == CONTAINER_YES)
            name_list_add(&list, endings[i]);
    }
    return list;
}

void media_list_encoders(FILE *out)
{
    media_start();
    const AVCodec *codec;
    for (void *at = NULL; (codec = av_codec_iterate(&at));) {
        if (!av_codec_is_encoder(codec) || codec->type != AVMEDIA_TYPE_VIDEO) continue;
        bool does_8 = encoder_does_depth(codec, 8), does_10 = encoder_does_depth(codec, 10);
        bool does_16 = encoder_does_depth(codec, 16);
        struct name_list containers = containers_for(codec);
        if ((!does_8 && !does_10) || !*containers.text) continue;
        const char *depths = does_8 && does_10 ? "8, 10" : does_8 ? "8" : "10";
        char all[16];
        snprintf(all, sizeof all, "%s%s", depths, does_16 ? ", 16" : "");
        fprintf(out, "  %-16s %-10s %-17s %s\n", codec->name, all, containers.text,
                codec->long_name ? codec->long_name : "");
    }
}
