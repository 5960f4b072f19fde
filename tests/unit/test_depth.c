/* More than 8 bits: what a file holds is the 16-bit picture that went in, rounded once, by the
 * matrix and range that its tags name; and pictures by number, from several threads. */
#include "base/error.h"
#include "media/reader.h"
#include "media/video.h"
#include "tests/support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/bswap.h>
#include <libavutil/pixdesc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WIDTH = 128, HEIGHT = 64, SAMPLES = WIDTH * HEIGHT * 3 };

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libx265\n"; }

static uint16_t picture[SAMPLES];

static void assert_ok(int status)
{
    if (status != STATUS_OK) fail_msg("status %d: %s", status, error_message());
}

static void assert_refused(const struct video_settings *s, const char *cause)
{
    int status = video_check(s);
    if (status != STATUS_INPUT || !strstr(error_message(), cause))
        fail_msg("wanted \"%s\", got status %d: %s", cause, status, error_message());
    error_clear();
}

static struct video_settings settings(const char *name, const char *encoder, int bit_depth)
{
    return (struct video_settings){.path = folder_path(name),
                                   .encoder = encoder,
                                   .bit_depth = bit_depth,
                                   .width = WIDTH,
                                   .height = HEIGHT,
                                   .frame_rate = 24,
                                   .threads = 3};
}

/* Three slow ramps in different directions: most values lie between two of 8 bits. */
static void paint(int frame)
{
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            uint16_t *p = picture + 3 * (y * WIDTH + x);
            p[0] = (uint16_t)((x * HEIGHT + y) * 8 - (x == 0 && y == 0 ? 0 : 1));
            p[1] = (uint16_t)(65535 - (y * WIDTH + x) * 7 - frame * 11);
            p[2] = (uint16_t)(20000 + x * 97 + y * 13 + frame * 301);
        }
}

static int write_clip(const struct video_settings *s, int frames)
{
    struct video_writer *w;
    TRY(video_open(&w, s));
    int status = STATUS_OK;
    for (int i = 0; i < frames && status == STATUS_OK; i++) {
        paint(i);
        status = video_write(w, picture);
    }
    if (status == STATUS_OK) return video_finish(w);
    video_abandon(w);
    return status;
}

/* The first frame as it was decoded. */
static AVFrame *first_frame(const char *path)
{
    AVFormatContext *in = NULL;
    assert_int_equal(avformat_open_input(&in, path, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(in, NULL) >= 0);
    const AVCodecParameters *p = in->streams[0]->codecpar;
    AVCodecContext *decoder = avcodec_alloc_context3(avcodec_find_decoder(p->codec_id));
    assert_true(avcodec_parameters_to_context(decoder, p) >= 0);
    decoder->thread_count = 1;
    assert_int_equal(avcodec_open2(decoder, NULL, NULL), 0);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    int code = AVERROR(EAGAIN);
    while (code == AVERROR(EAGAIN)) {
        bool more = av_read_frame(in, packet) >= 0;
        assert_int_equal(avcodec_send_packet(decoder, more ? packet : NULL), 0);
        av_packet_unref(packet);
        code = avcodec_receive_frame(decoder, frame);
    }
    assert_int_equal(code, 0);
    av_packet_free(&packet);
    avcodec_free_context(&decoder);
    avformat_close_input(&in);
    return frame;
}

/* Component c of pixel (x, y), whatever the format. */
static unsigned sample(const AVFrame *f, int c, int x, int y)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
    const AVComponentDescriptor *k = &d->comp[c];
    const uint8_t *at = f->data[k->plane] + y * f->linesize[k->plane] + x * k->step + k->offset;
    uint16_t v = *(const uint16_t *)(const void *)at;
    return d->flags & AV_PIX_FMT_FLAG_BE ? av_bswap16(v) : v;
}

/* ---- Y'CbCr ---------------------------------------------------------------------------------- */

static const struct matrix {
    const char *primaries, *matrix, *range;
    int space;
    bool is_full;
    double red, blue; /* of luma; ITU-R BT.709, BT.2020, BT.601 */
} matrices[] = {
    {"auto", "auto", "auto", AVCOL_SPC_BT709, false, 0.2126, 0.0722},
    {"auto", "auto", "full", AVCOL_SPC_BT709, true, 0.2126, 0.0722},
    {"bt2020", "auto", "limited", AVCOL_SPC_BT2020_NCL, false, 0.2627, 0.0593},
    {"bt2020", NULL, "full", AVCOL_SPC_BT2020_NCL, true, 0.2627, 0.0593},
    {"bt709", "smpte170m", NULL, AVCOL_SPC_SMPTE170M, false, 0.299, 0.114},
};

/* In units of 10 bits. */
static void ycbcr(double out[3], const uint16_t *rgb, const struct matrix *m)
{
    double r = rgb[0] / 65535.0, g = rgb[1] / 65535.0, b = rgb[2] / 65535.0;
    double y = m->red * r + (1 - m->red - m->blue) * g + m->blue * b;
    out[0] = m->is_full ? 1023 * y : 64 + 876 * y;
    out[1] = 512 + (m->is_full ? 1023 : 896) * (b - y) / (2 * (1 - m->blue));
    out[2] = 512 + (m->is_full ? 1023 : 896) * (r - y) / (2 * (1 - m->red));
}

/* deep.h promises 0.6 of a step. A detour over 8 bits would be two steps off, and none of the
 * values in between would appear. */
static void check_matrix(const struct matrix *m)
{
    struct video_settings s = settings("a.mkv", "ffv1", 10);
    bool seen[1024] = {false};
    int values = 0;
    s.encoder_options = "pix_fmt=yuv444p10le";
    s.color_primaries = m->primaries;
    s.color_matrix = m->matrix;
    s.color_range = m->range;
    assert_ok(write_clip(&s, 1));
    AVFrame *f = first_frame(s.path);
    assert_int_equal(f->colorspace, m->space);
    assert_int_equal(f->color_range, m->is_full ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG);
    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        double want[3];
        ycbcr(want, picture + 3 * i, m);
        for (int c = 0; c < 3; c++) {
            unsigned got = sample(f, c, i % WIDTH, i / WIDTH);
            if (fabs(got - fmin(want[c], 1023)) > 0.6)
                fail_msg("%s %s: component %d of pixel %d is %u, not %g", m->primaries, m->range, c,
                         i, got, want[c]);
        }
        unsigned luma = sample(f, 0, i % WIDTH, i / WIDTH);
        values += !seen[luma];
        seen[luma] = true;
    }
    assert_true(values > 300);
    av_frame_free(&f);
    unlink(s.path);
}

static void test_matrices(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) check_matrix(&matrices[i]);
}

/* Halved chroma is the mean around its place, which is the left pixel's, between the lines. */
static void test_halved_chroma(void **state)
{
    (void)state;
    static const char *const formats[] = {"yuv420p10le", "yuv422p10le"};
    for (int lines = 2; lines > 0; lines--) {
        char options[64];
        struct video_settings s = settings("a.mkv", "ffv1", 10);
        snprintf(options, sizeof options, "pix_fmt=%s", formats[2 - lines]);
        s.encoder_options = options;
        assert_ok(write_clip(&s, 1));
        AVFrame *f = first_frame(s.path);
        for (int y = 0; y < HEIGHT / lines; y++)
            for (int x = 0; x < WIDTH / 2; x++) {
                double want[3] = {0}, part[3];
                for (int i = 0; i < 4 * lines; i++) { /* pixels -1, 0, 0, 1 of each line */
                    static const int around[] = {-1, 0, 0, 1};
                    int column = 2 * x + around[i % 4] < 0 ? 0 : 2 * x + around[i % 4];
                    ycbcr(part, picture + 3 * ((y * lines + i / 4) * WIDTH + column), matrices);
                    for (int c = 1; c < 3; c++) want[c] += part[c] / (4 * lines);
                }
                for (int c = 1; c < 3; c++)
                    if (fabs(sample(f, c, x, y) - want[c]) > 0.6)
                        fail_msg("component %d at %d, %d is %u, not %g", c, x, y,
                                 sample(f, c, x, y), want[c]);
            }
        av_frame_free(&f);
        unlink(s.path);
    }
}

/* ---- tags ------------------------------------------------------------------------------------ */

static const struct tagged {
    const char *name, *encoder, *primaries, *transfer;
    int primaries_tag, transfer_tag, space;
} tagged[] = {
    {"a.mp4", "libx264", "bt2020", "smpte2084", AVCOL_PRI_BT2020, AVCOL_TRC_SMPTE2084,
     AVCOL_SPC_BT2020_NCL},
    {"b.mp4", "libx265", "bt2020", "arib-std-b67", AVCOL_PRI_BT2020, AVCOL_TRC_ARIB_STD_B67,
     AVCOL_SPC_BT2020_NCL},
    {"c.mov", "prores_ks", "bt2020", "smpte2084", AVCOL_PRI_BT2020, AVCOL_TRC_SMPTE2084,
     AVCOL_SPC_BT2020_NCL},
    {"d.mkv", "libsvtav1", "smpte432", "iec61966-2-1", AVCOL_PRI_SMPTE432, AVCOL_TRC_IEC61966_2_1,
     AVCOL_SPC_BT709},
    {"e.mp4", "libx264", "auto", "auto", AVCOL_PRI_BT709, AVCOL_TRC_BT709, AVCOL_SPC_BT709},
};

/* What the project's own reader makes of the file, which undoes the matrix: 8 bits of the picture.
 */
static void check_read(const struct tagged *t, const char *path)
{
    struct reader *r;
    struct rgb_frame f;
    double sum = 0;
    assert_ok(reader_open(&r, path));
    assert_ok(reader_next(r, &f));
    paint(0);
    for (int y = 0; y < HEIGHT; y++)
        for (int i = 0; i < 3 * WIDTH; i++)
            sum += fabs(f.rgb[y * f.stride + i] - picture[y * 3 * WIDTH + i] / 257.0);
    reader_close(r);
    /* green wraps to its other end in the first ramp of a row; codecs blur that */
    if (sum / SAMPLES > 3) fail_msg("%s: %g steps off", t->encoder, sum / SAMPLES);
}

static void test_tags(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tagged / sizeof *tagged; i++) {
        const struct tagged *t = &tagged[i];
        if (!avcodec_find_encoder_by_name(t->encoder)) continue;
        struct video_settings s = settings(t->name, t->encoder, 10);
        s.color_primaries = t->primaries;
        s.color_transfer = t->transfer;
        assert_ok(write_clip(&s, 3));
        AVFrame *f = first_frame(s.path);
        assert_int_equal(av_pix_fmt_desc_get(f->format)->comp[0].depth, 10);
        assert_int_equal(f->color_primaries, t->primaries_tag);
        assert_int_equal(f->color_trc, t->transfer_tag);
        assert_int_equal(f->colorspace, t->space);
        av_frame_free(&f);
        check_read(t, s.path);
        unlink(s.path);
    }
}

/* ---- RGB ------------------------------------------------------------------------------------- */

static void check_rgb(const char *path, int bit_depth, int frame)
{
    AVFrame *f = first_frame(path);
    double most = (1 << bit_depth) - 1;
    assert_int_equal(av_pix_fmt_desc_get(f->format)->comp[0].depth, bit_depth);
    paint(frame);
    for (int i = 0; i < SAMPLES; i++) /* components are R, G, B in every layout */
        assert_int_equal(sample(f, i % 3, i / 3 % WIDTH, i / 3 / WIDTH),
                         lround(picture[i] * most / 65535));
    av_frame_free(&f);
}

static void test_rgb_is_exact(void **state)
{
    (void)state;
    static const struct {
        const char *name, *encoder;
        int bit_depth;
    } cases[] = {{"a.mkv", "ffv1", 10},
                 {"b.mkv", "ffv1", 16},
                 {"c.mov", "png", 16},
                 {"still.png", "auto", 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct video_settings s = settings(cases[i].name, cases[i].encoder, cases[i].bit_depth);
        assert_ok(write_clip(&s, 1));
        check_rgb(s.path, cases[i].bit_depth, 0);
        unlink(s.path);
    }
}

/* The share of one of three ranks, from frame 100 on: 101, 104, 107, ... */
static void test_numbers(void **state)
{
    (void)state;
    for (int encoders = 1; encoders <= 4; encoders += 3) {
        struct video_settings s = settings("%04d.png", "auto", 16);
        s.first = 101;
        s.step = 3;
        s.encoders = encoders;
        assert_ok(write_clip(&s, 20));
        for (int i = 0; i < 20; i++) {
            char name[32];
            snprintf(name, sizeof name, "%04d.png", 101 + 3 * i);
            check_rgb(folder_path(name), 16, i);
            unlink(folder_path(name));
        }
    }
}

/* A folder that goes away while pictures are written. */
static void test_picture_that_cannot_be_written(void **state)
{
    (void)state;
    struct video_writer *w;
    struct video_settings s = settings("%01d", "auto", 8);
    char place[128];
    snprintf(place, sizeof place, "%s/file", test_folder);
    s.path = folder_path("file/%d.png");
    assert_ok(video_open(&w, &s));
    assert_int_equal(rmdir(place), 0);
    FILE *f = fopen(place, "w"); /* so that it cannot be made again */
    fclose(f);
    int status = STATUS_OK;
    for (int i = 0; i < 100 && status == STATUS_OK; i++) status = video_write(w, picture);
    assert_int_equal(status, STATUS_INPUT);
    assert_non_null(strstr(error_message(), "/file"));
    assert_null(strchr(error_message(), '\n'));
    video_abandon(w);
    error_clear();
    unlink(place);
}

static void test_refusals(void **state)
{
    (void)state;
    struct video_settings s = settings("a.mp4", "libx264", 16);
    if (avcodec_find_encoder_by_name("libx264"))
        assert_refused(&s, "libx264 cannot do bit_depth 16; it offers: yuv420p");
    s = settings("a.mkv", "ffv1", 10);
    s.color_matrix = "bt709";
    assert_refused(&s, "color_matrix \"bt709\": pixel formats of RGB and JPEG leave no choice");
    s.color_matrix = NULL;
    s.color_range = "limited";
    assert_refused(&s, "color_range \"limited\": pixel formats of RGB and JPEG have the full");
    s.color_range = "wide";
    assert_refused(&s, "must be limited or full");
    s.color_range = "full";
    s.color_primaries = "rec2020";
    assert_refused(&s, "color_primaries \"rec2020\"");
    s.color_primaries = NULL;
    s.color_transfer = "gamma";
    assert_refused(&s, "color_transfer \"gamma\"");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrices), cmocka_unit_test(test_halved_chroma),
        cmocka_unit_test(test_tags),     cmocka_unit_test(test_rgb_is_exact),
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_picture_that_cannot_be_written),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("depth", tests, folder_make, folder_remove_empty);
}
