/* src/media: every kind of output is written, read back with the libraries and compared with the
 * frames that went in; every refusal names its cause; nothing half-written is left behind. */
#include "base/error.h"
#include "media/digest.h"
#include "media/partial.h"
#include "media/video.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WIDTH = 96, HEIGHT = 64, FRAMES = 10, FRAME_BYTES = WIDTH * HEIGHT * 3 };

/* libx265 keeps some memory of every encoder it opened. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libx265\n"; }

static char folder[64];
static uint8_t *guarded; /* one frame, its last byte in front of a page that cannot be read */

/* ---- helpers --------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ringreel-media-XXXXXX");
    assert_non_null(mkdtemp(folder));
    chmod(folder, 0755);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (FRAME_BYTES + page - 1) / page * page;
    uint8_t *map =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mprotect(map + room, page, PROT_NONE), 0);
    guarded = map + room - FRAME_BYTES;
    return 0;
}

static void remove_below(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *name = xasprintf("%s/%s", path, e->d_name);
        if (unlink(name) != 0) remove_below(name), rmdir(name);
        free(name);
    }
    closedir(dir);
}

static int tear_down(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (FRAME_BYTES + page - 1) / page * page;
    munmap(guarded + FRAME_BYTES - room, room + page);
    remove_below(folder);
    return rmdir(folder);
}

static int start_test(void **state)
{
    (void)state;
    error_clear();
    remove_below(folder);
    return 0;
}

static char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int count_files(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static struct video_settings settings(const char *name, const char *encoder)
{
    return (struct video_settings){.path = in_folder(name),
                                   .encoder = encoder,
                                   .bit_depth = 8,
                                   .width = WIDTH,
                                   .height = HEIGHT,
                                   .frame_rate = 24,
                                   .threads = 2};
}

/* A colour gradient that moves, so that every frame is its own. */
static void paint(uint8_t *rgb, int frame)
{
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            uint8_t *p = rgb + 3 * (y * WIDTH + x);
            p[0] = (uint8_t)(x * 2 + frame * 5);
            p[1] = (uint8_t)(y * 3 + frame * 4);
            p[2] = (uint8_t)(250 - x - y - frame * 8 / 2);
        }
}

static void paint_noise(uint8_t *rgb, int frame)
{
    uint32_t word = 12345u + (uint32_t)frame;
    for (int i = 0; i < FRAME_BYTES; i++) {
        word = word * 1664525u + 1013904223u;
        rgb[i] = (uint8_t)(word >> 24);
    }
}

static int write_clip(const struct video_settings *s, void (*painter)(uint8_t *, int), int frames)
{
    static uint16_t deep[FRAME_BYTES];
    struct video_writer *w;
    TRY(video_open(&w, s));
    for (int i = 0; i < frames; i++) {
        painter(guarded, i);
        for (int k = 0; k < FRAME_BYTES; k++) deep[k] = (uint16_t)(guarded[k] * 257);
        int status = video_write(w, s->bit_depth > 8 ? (const void *)deep : guarded);
        if (status != STATUS_OK) {
            video_abandon(w);
            return status;
        }
    }
    return video_finish(w);
}

static void assert_ok(int status)
{
    if (status != STATUS_OK) fail_msg("status %d: %s", status, error_message());
}

static void assert_refused(int status, const char *cause)
{
    if (status != STATUS_INPUT || !strstr(error_message(), cause))
        fail_msg("expected a refusal with \"%s\", got status %d: %s", cause, status,
                 error_message());
    assert_null(strchr(error_message(), '\n'));
    error_clear();
}

static bool has_encoder(const char *name)
{
    if (avcodec_find_encoder_by_name(name)) return true;
    print_message("skipped: this libavcodec has no %s\n", name);
    return false;
}

/* ---- reading back ---------------------------------------------------------------------------- */

struct reading {
    int frames;
    double worst_psnr; /* INFINITY when every byte is the same */
    AVRational rate;
    enum AVCodecID codec;
    enum AVPixelFormat format;
    int width, height;
    enum AVColorRange range;
    enum AVColorSpace space;
    enum AVColorPrimaries primaries;
    enum AVColorTransferCharacteristic transfer;
    AVFrame *first; /* as decoded */
};

static void to_rgb(uint8_t *rgb, const AVFrame *f)
{
    if (f->format == AV_PIX_FMT_GBRP10) { /* swscale would round on its way through Y'CbCr */
        static const int plane_of[3] = {2, 0, 1};
        for (int i = 0; i < FRAME_BYTES; i++) {
            const uint8_t *row =
                f->data[plane_of[i % 3]] + (i / 3 / WIDTH) * f->linesize[plane_of[i % 3]];
            unsigned v = ((const uint16_t *)(const void *)row)[i / 3 % WIDTH];
            rgb[i] = (uint8_t)(v >> 2);
            assert_int_equal(v, lround(rgb[i] * 1023 / 255.0));
        }
        return;
    }
    struct SwsContext *sws =
        sws_getContext(f->width, f->height, f->format, f->width, f->height, AV_PIX_FMT_RGB24,
                       SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, NULL, NULL, NULL);
    assert_non_null(sws);
    if (!(av_pix_fmt_desc_get(f->format)->flags & AV_PIX_FMT_FLAG_RGB))
        sws_setColorspaceDetails(sws, sws_getCoefficients(SWS_CS_ITU709),
                                 f->color_range == AVCOL_RANGE_JPEG,
                                 sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    AVFrame *out = av_frame_alloc();
    out->format = AV_PIX_FMT_RGB24;
    out->width = f->width;
    out->height = f->height;
    assert_int_equal(av_frame_get_buffer(out, 0), 0);
    sws_scale(sws, (const uint8_t *const *)f->data, f->linesize, 0, f->height, out->data,
              out->linesize);
    av_image_copy_plane(rgb, 3 * f->width, out->data[0], out->linesize[0], 3 * f->width, f->height);
    av_frame_free(&out);
    sws_freeContext(sws);
}

static void compare(struct reading *r, const AVFrame *f, void (*painter)(uint8_t *, int))
{
    static uint8_t got[FRAME_BYTES], want[FRAME_BYTES];
    if (r->frames == 0) {
        r->first = av_frame_clone(f);
        r->format = f->format;
        r->range = f->color_range;
        r->space = f->colorspace;
        r->primaries = f->color_primaries;
        r->transfer = f->color_trc;
    }
    if (painter && f->width == WIDTH && f->height == HEIGHT) {
        to_rgb(got, f);
        painter(want, r->frames);
        double squares = 0;
        for (int i = 0; i < FRAME_BYTES; i++) squares += (got[i] - want[i]) * (got[i] - want[i]);
        double psnr = squares > 0 ? 10 * log10(255.0 * 255.0 * FRAME_BYTES / squares) : INFINITY;
        r->worst_psnr = fmin(r->worst_psnr, psnr);
    }
    r->frames++;
}

static struct reading read_clip(const char *path, void (*painter)(uint8_t *, int))
{
    struct reading r = {.worst_psnr = INFINITY};
    AVFormatContext *in = NULL;
    assert_int_equal(avformat_open_input(&in, path, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(in, NULL) >= 0);
    assert_int_equal(in->nb_streams, 1);
    AVStream *stream = in->streams[0];
    AVCodecContext *decoder =
        avcodec_alloc_context3(avcodec_find_decoder(stream->codecpar->codec_id));
    assert_true(avcodec_parameters_to_context(decoder, stream->codecpar) >= 0);
    decoder->thread_count = 1;
    assert_int_equal(avcodec_open2(decoder, NULL, NULL), 0);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    for (bool more = true; more;) {
        more = av_read_frame(in, packet) >= 0;
        assert_true(avcodec_send_packet(decoder, more ? packet : NULL) >= 0);
        av_packet_unref(packet);
        for (; avcodec_receive_frame(decoder, frame) >= 0; av_frame_unref(frame))
            compare(&r, frame, painter);
    }
    r.rate = stream->avg_frame_rate;
    r.codec = stream->codecpar->codec_id;
    r.width = stream->codecpar->width;
    r.height = stream->codecpar->height;
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&decoder);
    avformat_close_input(&in);
    return r;
}

/* ---- what is written ------------------------------------------------------------------------- */

static const struct written {
    const char *name, *encoder, *options;
    int bit_depth;
    enum AVCodecID codec;
    enum AVPixelFormat format;
    double least_psnr; /* INFINITY: byte for byte */
} written[] = {
    {"a.mp4", "auto", NULL, 8, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P, 38},
    {"b.mp4", "libx264", "crf=10:preset=fast", 10, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P10, 40},
    {"c.mp4", "libx264", "qp=4:pix_fmt=yuv444p", 8, AV_CODEC_ID_H264, AV_PIX_FMT_YUV444P, 44},
    {"d.mkv", "libx264rgb", "", 8, AV_CODEC_ID_H264, AV_PIX_FMT_GBRP, INFINITY},
    {"e.mkv", "ffv1", NULL, 8, AV_CODEC_ID_FFV1, AV_PIX_FMT_BGR0, INFINITY},
    {"f.mkv", "ffv1", "", 10, AV_CODEC_ID_FFV1, AV_PIX_FMT_GBRP10, INFINITY},
    {"g.webm", "auto", "", 8, AV_CODEC_ID_VP9, AV_PIX_FMT_YUV420P, 37},
    {"h.mov", "prores_ks", "", 10, AV_CODEC_ID_PRORES, AV_PIX_FMT_YUV422P10, 38},
    {"i.mp4", "libx265", "", 8, AV_CODEC_ID_HEVC, AV_PIX_FMT_YUV420P, 37},
    {"j.mp4", "libx265", "x265-params=aq-mode=0", 10, AV_CODEC_ID_HEVC, AV_PIX_FMT_YUV420P10, 37},
    {"k.mp4", "libsvtav1", "", 8, AV_CODEC_ID_AV1, AV_PIX_FMT_YUV420P, 36},
    {"l.mkv", "libsvtav1", "crf=20", 10, AV_CODEC_ID_AV1, AV_PIX_FMT_YUV420P10, 37},
    {"m.avi", "mpeg4", "", 8, AV_CODEC_ID_MPEG4, AV_PIX_FMT_YUV420P, 37},
    {"n.mov", "png", "", 8, AV_CODEC_ID_PNG, AV_PIX_FMT_RGB24, INFINITY},
};

static void check_written(const struct written *t)
{
    struct video_settings s = settings(t->name, t->encoder);
    s.encoder_options = t->options;
    s.bit_depth = t->bit_depth;
    assert_ok(video_check(&s));
    assert_int_equal(count_files(folder), 0);
    assert_ok(write_clip(&s, paint, FRAMES));
    assert_int_equal(count_files(folder), 1);
    struct reading r = read_clip(s.path, paint);
    if (r.worst_psnr < t->least_psnr)
        fail_msg("%s: %s, %g dB instead of %g", t->name, t->encoder, r.worst_psnr, t->least_psnr);
    assert_int_equal(r.frames, FRAMES);
    assert_int_equal(r.codec, t->codec);
    assert_string_equal(av_get_pix_fmt_name(r.format), av_get_pix_fmt_name(t->format));
    assert_int_equal(r.width, WIDTH);
    assert_int_equal(r.height, HEIGHT);
    assert_int_equal(r.rate.num, 24);
    assert_int_equal(r.rate.den, 1);
    if (!strstr(t->name, ".avi") && r.codec != AV_CODEC_ID_PNG) { /* these have no place for tags */
        bool is_rgb = av_pix_fmt_desc_get(r.format)->flags & AV_PIX_FMT_FLAG_RGB;
        assert_int_equal(r.space, is_rgb ? AVCOL_SPC_RGB : AVCOL_SPC_BT709);
        assert_int_equal(r.range, is_rgb ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG);
        assert_int_equal(r.primaries, AVCOL_PRI_BT709);
        assert_int_equal(r.transfer, AVCOL_TRC_BT709);
    }
    av_frame_free(&r.first);
    unlink(s.path);
}

static void test_encoders(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof written / sizeof *written; i++)
        if (strcmp(written[i].encoder, "auto") == 0 || has_encoder(written[i].encoder))
            check_written(&written[i]);
}

static void test_png_sequence(void **state)
{
    (void)state;
    struct video_settings s = settings("new/deeper/100 %s/%03d.png", "auto");
    assert_ok(write_clip(&s, paint, FRAMES));
    assert_int_equal(count_files(in_folder("new/deeper/100 %s")), FRAMES);
    static uint8_t want[FRAME_BYTES], got[FRAME_BYTES];
    for (int i = 0; i < FRAMES; i++) {
        char name[64];
        snprintf(name, sizeof name, "new/deeper/100 %%s/%03d.png", i);
        struct reading r = read_clip(in_folder(name), NULL);
        assert_int_equal(r.frames, 1);
        to_rgb(got, r.first);
        paint(want, i);
        assert_memory_equal(got, want, FRAME_BYTES);
        av_frame_free(&r.first);
    }
}

static void test_single_png(void **state)
{
    (void)state;
    struct video_settings s = settings("still.PNG", "png");
    assert_ok(write_clip(&s, paint, 1));
    struct reading r = read_clip(s.path, paint);
    assert_int_equal(r.frames, 1);
    assert_true(isinf(r.worst_psnr));
    av_frame_free(&r.first);
    unlink(s.path);

    assert_refused(write_clip(&s, paint, 2), "holds one frame");
    s.frames = 2;
    assert_refused(video_check(&s), "holds one frame");
    assert_int_equal(count_files(folder), 0);
}

static uint8_t solid[3];
static void paint_solid(uint8_t *rgb, int frame)
{
    (void)frame;
    for (int i = 0; i < FRAME_BYTES; i++) rgb[i] = solid[i % 3];
}

/* ITU-R BT.709, limited range, written down independently of swscale. */
static void test_colour_matrix(void **state)
{
    (void)state;
    static const uint8_t colours[][3] = {{255, 0, 0},     {0, 255, 0},     {0, 0, 255},   {0, 0, 0},
                                         {255, 255, 255}, {128, 128, 128}, {200, 100, 30}};
    struct video_settings s = settings("solid.mkv", "ffv1");
    s.encoder_options = "pix_fmt=yuv444p";
    for (size_t i = 0; i < sizeof colours / sizeof *colours; i++) {
        memcpy(solid, colours[i], 3);
        assert_ok(write_clip(&s, paint_solid, 1));
        struct reading r = read_clip(s.path, NULL);
        double red = solid[0] / 255.0, green = solid[1] / 255.0, blue = solid[2] / 255.0;
        double luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        double want[3] = {16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556,
                          128 + 224 * (red - luma) / 1.5748};
        for (int c = 0; c < 3; c++)
            if (fabs(r.first->data[c][5 * r.first->linesize[c] + 7] - want[c]) > 1)
                fail_msg("colour %zu component %d: %d, not %g", i, c,
                         r.first->data[c][5 * r.first->linesize[c] + 7], want[c]);
        assert_int_equal(r.range, AVCOL_RANGE_MPEG);
        av_frame_free(&r.first);
    }
}

static void paint_ramp(uint8_t *rgb, int frame)
{
    (void)frame;
    for (int i = 0; i < FRAME_BYTES; i++) rgb[i] = i % 3 == 2 ? (uint8_t)(i / 3 % WIDTH * 2) : 0;
}

/* Chroma sample k lies on pixel 2k, as the tag says, not between 2k and 2k + 1 (that would be 1.8
 * steps more here). */
static void test_chroma_place(void **state)
{
    (void)state;
    struct video_settings s = settings("ramp.mkv", "ffv1");
    s.encoder_options = "pix_fmt=yuv420p10le";
    s.bit_depth = 10;
    assert_ok(write_clip(&s, paint_ramp, 1));
    struct reading r = read_clip(s.path, NULL);
    const uint16_t *row =
        (const uint16_t *)(const void *)(r.first->data[1] + 9 * r.first->linesize[1]);
    double sum = 0;
    for (int k = 8; k < 40; k++) {
        double blue = 4.0 * k / 255;
        sum += row[k] - (512 + 896 * (blue - 0.0722 * blue) / 1.8556);
    }
    if (fabs(sum / 32) > 0.7) fail_msg("chroma is off by %g steps", sum / 32);
    av_frame_free(&r.first);
}

static void test_rates(void **state)
{
    (void)state;
    static const struct {
        double asked;
        int num, den;
    } rates[] = {{23.976, 24000, 1001}, {29.97, 30000, 1001}, {59.94, 60000, 1001},
                 {25, 25, 1},           {12.5, 25, 2},        {1, 1, 1}};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        struct video_settings s = settings("rate.mp4", "mpeg4");
        s.frame_rate = rates[i].asked;
        assert_ok(write_clip(&s, paint, 5));
        struct reading r = read_clip(s.path, NULL);
        assert_int_equal(r.rate.num, rates[i].num);
        assert_int_equal(r.rate.den, rates[i].den);
        assert_int_equal(r.frames, 5);
        av_frame_free(&r.first);
    }
}

static char *file_bytes(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *data = xmalloc(1 << 20);
    *bytes = fread(data, 1, 1 << 20, f);
    fclose(f);
    return data;
}

static void test_same_bytes_and_index_in_front(void **state)
{
    (void)state;
    static const char *const names[] = {"a.mp4", "a.webm"};
    for (int i = 0; i < 2; i++) {
        struct video_settings s = settings(names[i], "auto");
        size_t bytes[2];
        char *data[2];
        for (int k = 0; k < 2; k++) {
            assert_ok(write_clip(&s, paint, FRAMES));
            data[k] = file_bytes(s.path, &bytes[k]);
        }
        assert_int_equal(bytes[0], bytes[1]);
        assert_memory_equal(data[0], data[1], bytes[0]);
        char *moov = memmem(data[0], bytes[0], "moov", 4),
             *mdat = memmem(data[0], bytes[0], "mdat", 4);
        if (i == 0) assert_true(moov && mdat && moov < mdat);
        free(data[0]);
        free(data[1]);
    }
}

/* ---- what is refused ------------------------------------------------------------------------- */

static const struct refused {
    const char *name, *encoder, *options;
    int bit_depth, width, height;
    double rate;
    const char *cause;
} refused[] = {
    {"a.mp4", "libx999", "", 8, 96, 64, 24, "no video encoder \"libx999\"; for mp4 it has: "},
    {"a.mp4", "aac", "", 8, 96, 64, 24, "no video encoder \"aac\""},
    {"a.webm", "ffv1", "", 8, 96, 64, 24, "container webm cannot hold what encoder ffv1 makes"},
    {"a.xyz", "auto", "", 8, 96, 64, 24, "use .mp4, .mkv, .mov or .webm"},
    {"a", "auto", "", 8, 96, 64, 24, "use .mp4, .mkv, .mov or .webm"},
    {"a.jpg", "auto", "", 8, 96, 64, 24, "use .mp4, .mkv, .mov or .webm"},
    {"a.mkv", "ffv1", "crff=18", 8, 96, 64, 24, "encoder ffv1 has no option \"crff\""},
    {"a.mkv", "ffv1", "level=3:slices=many", 8, 96, 64, 24, "slices=many"},
    {"a.mkv", "ffv1", "level", 8, 96, 64, 24, "must be key=value"},
    {"a.mkv", "ffv1", "color_range=pc", 8, 96, 64, 24, "color_range is set by color_range"},
    {"a.mkv", "ffv1", "pix_fmt=yuv420p10le", 8, 96, 64, 24, "choose of: bgr0"},
    {"a.mp4", "libx264", "x264-params=aq-mod=3", 8, 96, 64, 24, "aq-mod"},
    {"a.mp4", "libx265", "x265-params=aq-mod=3", 8, 96, 64, 24, "aq-mod"},
    {"a.mp4", "libx264", "", 8, 97, 64, 24, "frames of 97x64 do not fit encoder libx264"},
    {"a.mp4", "libx264", "", 8, 96, 63, 24, "the height of 2"},
    {"a.mp4", "libx264", "", 8, 0, 64, 24, "frames of 0x64"},
    {"a.mp4", "libx264", "", 8, 1 << 30, 1 << 30, 24, "impossible"},
    {"a.mp4", "libx264", "", 12, 96, 64, 24, "bit_depth 12: must be 8, 10 or 16"},
    {"a.mov", "prores_ks", "", 8, 96, 64, 24,
     "prores_ks cannot do bit_depth 8; it offers: yuv422p10le"},
    {"a.mp4", "mpeg4", "", 10, 96, 64, 24, "mpeg4 cannot do bit_depth 10; it offers: yuv420p"},
    {"a.png", "auto", "", 10, 96, 64, 24, "png cannot do bit_depth 10"},
    {"a.png", "libx264", "", 8, 96, 64, 24, "pictures are written by encoder png"},
    {"a.mp4", "mpeg4", "", 8, 96, 64, 0, "frame_rate 0"},
    {"a.mp4", "mpeg4", "", 8, 96, 64, NAN, "frame_rate nan"},
    {"%d%d.png", "auto", "", 8, 96, 64, 24, "exactly one %d"},
    {"%s.png", "auto", "", 8, 96, 64, 24, "exactly one %d"},
    {"%5d.png", "auto", "", 8, 96, 64, 24, "exactly one %d"},
    {"%06d%n.png", "auto", "", 8, 96, 64, 24, "exactly one %d"},
    {"%0999999d.png", "auto", "", 8, 96, 64, 24, "exactly one %d"},
    {"%%d.png", "auto", "", 8, 96, 64, 24, "exactly one %d"},
    {"file/a.mp4", "mpeg4", "", 8, 96, 64, 24, "file is not a folder"},
    {"is.mp4", "mpeg4", "", 8, 96, 64, 24, "is a folder"},
    {"pipe.mp4", "mpeg4", "", 8, 96, 64, 24, "not an ordinary file"},
};

static void test_refusals(void **state)
{
    (void)state;
    fclose(fopen(in_folder("file"), "w"));
    mkdir(in_folder("is.mp4"), 0777);
    mkfifo(in_folder("pipe.mp4"), 0600);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const struct refused *t = &refused[i];
        if (strncmp(t->encoder, "libx26", 6) == 0 && !has_encoder(t->encoder)) continue;
        struct video_settings s = settings(t->name, t->encoder);
        s.encoder_options = t->options;
        s.bit_depth = t->bit_depth;
        s.width = t->width;
        s.height = t->height;
        s.frame_rate = t->rate;
        assert_refused(video_check(&s), t->cause);
        assert_int_equal(count_files(folder), 3);
    }
}

static void test_folder_without_permission(void **state)
{
    (void)state;
    uid_t me = geteuid();
    mkdir(in_folder("locked"), 0555);
    if (me == 0) assert_int_equal(seteuid(65534), 0);
    struct video_settings s = settings("locked/a.mp4", "mpeg4");
    int file = video_check(&s);
    char message[400];
    snprintf(message, sizeof message, "%s", error_message());
    error_clear();
    s = settings("locked/new/a.mp4", "mpeg4");
    int below = video_check(&s);
    if (me == 0) assert_int_equal(seteuid(0), 0);
    assert_refused(below, "locked/new: Permission denied");
    assert_int_equal(file, STATUS_INPUT);
    assert_non_null(strstr(message, "a.mp4: cannot be created: Permission denied"));
}

/* ---- nothing half-written is left ------------------------------------------------------------ */

static void test_abandoned(void **state)
{
    (void)state;
    static const struct {
        const char *name, *encoder;
    } outputs[] = {
        {"a.mp4", "libx264"}, {"b.mp4", "libsvtav1"}, {"c.mkv", "ffv1"}, {"d.mp4", "libx265"}};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        if (!has_encoder(outputs[i].encoder)) continue;
        struct video_settings s = settings(outputs[i].name, outputs[i].encoder);
        fclose(fopen(s.path, "w")); /* of an earlier run: stays as it was */
        for (int frames = 0; frames < 6; frames += 5) {
            struct video_writer *w;
            assert_ok(video_open(&w, &s));
            for (int k = 0; k < frames; k++) {
                paint(guarded, k);
                assert_ok(video_write(w, guarded));
            }
            video_abandon(w);
            struct stat st;
            assert_int_equal(stat(s.path, &st), 0);
            assert_int_equal(st.st_size, 0);
            assert_int_equal(count_files(folder), 1);
        }
        unlink(s.path);
    }
}

static void test_abandoned_pictures(void **state)
{
    (void)state;
    struct video_writer *w;
    struct video_settings s = settings("%d.png", "auto");
    assert_ok(video_open(&w, &s));
    assert_int_equal(count_files(folder), 0);
    for (int k = 0; k < 2; k++) assert_ok(video_write(w, guarded));
    video_abandon(w);
    int whole = exists(in_folder("0.png")); /* as many as the threads have got to */
    whole += exists(in_folder("1.png"));
    assert_int_equal(count_files(folder), whole);

    s = settings("still.png", "auto");
    assert_ok(video_open(&w, &s));
    assert_ok(video_write(w, guarded));
    assert_false(exists(s.path));
    video_abandon(w);
    assert_int_equal(count_files(folder), whole);
}

static void test_partial_name_and_removal(void **state)
{
    (void)state;
    struct video_writer *w, *again;
    struct video_settings s = settings("a.b.mkv", "ffv1");
    assert_ok(video_open(&w, &s));
    char name[64];
    snprintf(name, sizeof name, "a.b.part-%d.mkv", (int)getpid());
    assert_true(exists(in_folder(name)));
    assert_false(exists(in_folder("a.b.mkv")));
    s = settings("a.b.mkv", "ffv1");
    assert_refused(video_open(&again, &s), "already being written");
    assert_null(again);
    assert_true(exists(in_folder(name)));
    video_remove_partial_files();
    assert_int_equal(count_files(folder), 0);
    video_abandon(w);

    assert_ok(write_clip(&s, paint, 1));
    video_remove_partial_files(); /* what is whole stays */
    assert_int_equal(count_files(folder), 1);
}

/* Runs out of room in the middle, in the end, and in the middle of a sequence. */
static void check_no_room(const char *base, const char *cause)
{
    static const struct {
        const char *name, *encoder;
    } outputs[] = {{"a.mkv", "ffv1"}, {"b.mp4", "libx264"}, {"c.mov", "png"}, {"%04d.png", "auto"}};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        if (strcmp(outputs[i].encoder, "libx264") == 0 && !has_encoder("libx264")) continue;
        char name[64], expected[128];
        snprintf(name, sizeof name, "%s/%s", base, outputs[i].name);
        struct video_settings s = settings(name, outputs[i].encoder);
        assert_ok(video_check(&s));
        int status = write_clip(&s, paint_noise, 30);
        snprintf(expected, sizeof expected, ": %s", cause);
        assert_non_null(strstr(error_message(), folder));
        assert_refused(status, expected);
        char path[256], part[32];
        snprintf(path, sizeof path, "%s/%s", folder, base);
        snprintf(part, sizeof part, ".part-%d", (int)getpid());
        DIR *dir = opendir(path);
        for (struct dirent *e; (e = readdir(dir));) {
            assert_null(strstr(e->d_name, part));
            assert_string_not_equal(e->d_name, outputs[i].name);
        }
        closedir(dir);
        remove_below(path);
    }
}

static void test_disk_full(void **state)
{
    (void)state;
    mkdir(in_folder("small"), 0777);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", in_folder("small"), "tmpfs", 0, "size=64k") != 0) {
        print_message("skipped: cannot mount a small file system here: %s\n", strerror(errno));
        skip();
    }
    check_no_room("small", strerror(ENOSPC));
    assert_int_equal(umount2(in_folder("small"), MNT_DETACH), 0);
}

static void test_file_too_large(void **state)
{
    (void)state;
    mkdir(in_folder("limited"), 0777);
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){15000, before.rlim_max};
    void (*old)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    check_no_room("limited", strerror(EFBIG));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, old);
}

/* What fprintf writes stands in the file after the commit, or the commit says why not. */
static void test_stream(void **state)
{
    (void)state;
    struct partial p;
    for (int most = 400000; most > 0;
         most -= 300000) { /* bytes a file may have: enough, not enough */
        struct rlimit before, limit;
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        limit = (struct rlimit){(rlim_t)most, before.rlim_max};
        void (*old)(int) = signal(SIGXFSZ, SIG_IGN);
        assert_ok(partial_open(&p, in_folder("stream/numbers.txt")));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        FILE *f = partial_stream(&p);
        for (int i = 0; i < 100000; i++) fprintf(f, "%d\n", i % 100); /* 290000 bytes */
        fclose(f);
        int status = partial_commit(&p);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        signal(SIGXFSZ, old);
        if (most > 290000)
            assert_ok(status);
        else
            assert_refused(status, strerror(EFBIG));
        struct stat st;
        assert_int_equal(stat(in_folder("stream/numbers.txt"), &st), 0); /* the first one stays */
        assert_int_equal(st.st_size, 290000);
    }
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void test_digest(void **state)
{
    (void)state;
    char hex[65], pieces[65];
    digest_of("", 0, hex); /* FIPS 180-2 */
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    digest_of("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char *many = xmalloc(1000000);
    memset(many, 'a', 1000000);
    digest_of(many, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    struct digest *d = digest_open();
    for (size_t at = 0, n = 1; at < 1000000; at += n, n = n * 2 + 1) {
        if (n > 1000000 - at) n = 1000000 - at;
        digest_add(d, many + at, n);
    }
    digest_close(d, pieces);
    assert_string_equal(hex, pieces);
    free(many);
}

static void test_information(void **state)
{
    (void)state;
    assert_non_null(strstr(media_versions(), "libavcodec "));
    assert_non_null(strstr(media_versions(), "libswscale "));
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    media_list_encoders(f);
    fclose(f);
    assert_non_null(strstr(text, "  ffv1             8, 10, 16  mkv"));
    assert_null(strstr(text, "vaapi"));
    free(text);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_encoders, start_test),
        cmocka_unit_test_setup(test_png_sequence, start_test),
        cmocka_unit_test_setup(test_single_png, start_test),
        cmocka_unit_test_setup(test_colour_matrix, start_test),
        cmocka_unit_test_setup(test_chroma_place, start_test),
        cmocka_unit_test_setup(test_rates, start_test),
        cmocka_unit_test_setup(test_same_bytes_and_index_in_front, start_test),
        cmocka_unit_test_setup(test_refusals, start_test),
        cmocka_unit_test_setup(test_folder_without_permission, start_test),
        cmocka_unit_test_setup(test_abandoned, start_test),
        cmocka_unit_test_setup(test_abandoned_pictures, start_test),
        cmocka_unit_test_setup(test_partial_name_and_removal, start_test),
        cmocka_unit_test_setup(test_stream, start_test),
        cmocka_unit_test_setup(test_disk_full, start_test),
        cmocka_unit_test_setup(test_file_too_large, start_test),
        cmocka_unit_test_setup(test_digest, start_test),
        cmocka_unit_test_setup(test_information, start_test),
    };
    return cmocka_run_group_tests_name("media", tests, set_up, tear_down);
}
