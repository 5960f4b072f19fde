/* Images and videos in: bytes of what was written, frames in order, and every file that cannot be
 * meant is refused in one line. Then the H.264 round trip and the edges of preparing an image. */
#include "base/error.h"
#include "media/condition.h"
#include "media/crf.h"
#include "media/reader.h"
#include "media/video.h"
#include "tests/support/folder.h"
#include "tests/support/synth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <libavcodec/avcodec.h>
#include <libavutil/crc.h>
#include <libavutil/intreadwrite.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WIDTH = 70, HEIGHT = 46, FRAMES = 7, ROW = 3 * WIDTH, BYTES = ROW * HEIGHT };

/* The caller frees it. */
static char *in_folder(const char *name) { return xasprintf("%s/%s", test_folder, name); }

static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    fclose(out);
}

static void assert_ok(int status)
{
    if (status != STATUS_OK) fail_msg("status %d: %s", status, error_message());
}

static void paint(uint8_t *rgb, int frame)
{
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            uint8_t *p = rgb + 3 * (y * WIDTH + x);
            p[0] = (uint8_t)(x * 2 + frame * 15);
            p[1] = (uint8_t)(y * 3 + frame * 10);
            p[2] = (uint8_t)(250 - x - y - frame * 8);
        }
}

static void write_clip(const char *path, const char *encoder, int frames)
{
    static uint8_t rgb[BYTES];
    struct video_writer *w;
    struct video_settings s = {.path = path,
                               .encoder = encoder,
                               .bit_depth = 8,
                               .width = WIDTH,
                               .height = HEIGHT,
                               .frame_rate = 24,
                               .threads = 1};
    assert_ok(video_open(&w, &s));
    for (int i = 0; i < frames; i++) {
        paint(rgb, i);
        assert_ok(video_write(w, rgb));
    }
    assert_ok(video_finish(w));
}

static double psnr(const uint8_t *a, ptrdiff_t a_stride, const uint8_t *b, int width, int height)
{
    double squares = 0;
    for (int y = 0; y < height; y++)
        for (int i = 0; i < 3 * width; i++) {
            double d = a[y * a_stride + i] - b[y * 3 * width + i];
            squares += d * d;
        }
    return squares > 0 ? 10 * log10(255.0 * 255 * 3 * width * height / squares) : INFINITY;
}

/* ---- what can be read ------------------------------------------------------------------------ */

static void check_clip(const char *name, const char *encoder, int frames, double least)
{
    static uint8_t expected[BYTES];
    struct reader *r;
    struct rgb_frame f;
    char *path = in_folder(name);
    write_clip(path, encoder, frames);
    assert_ok(reader_open(&r, path));
    for (int i = 0; i < frames; i++) {
        assert_ok(reader_next(r, &f));
        assert_non_null(f.rgb);
        assert_int_equal(f.width, WIDTH);
        assert_int_equal(f.height, HEIGHT);
        paint(expected, i);
        double got = psnr(f.rgb, f.stride, expected, WIDTH, HEIGHT);
        if (got < least) fail_msg("%s, frame %d: %g dB instead of %g", name, i, got, least);
    }
    for (int i = 0; i < 2; i++) { /* the end stays the end */
        assert_ok(reader_next(r, &f));
        assert_null(f.rgb);
    }
    reader_close(r);
    free(path);
}

/* The B-frames of H.264 arrive in another order than they are shown in. */
static void test_reads(void **state)
{
    (void)state;
    check_clip("a.png", "png", 1, INFINITY);
    check_clip("b.mkv", "ffv1", FRAMES, INFINITY);
    check_clip("c.mp4", "libx264", FRAMES, 38);
    check_clip("d.webm", "libvpx-vp9", FRAMES, 36);
    check_clip("e.avi", "mjpeg", FRAMES, 34);
    check_clip("odd: %03d name.png.mp4", "libx264", 2, 38);
}

static void test_contents_decide(void **state)
{
    (void)state;
    struct reader *r;
    struct rgb_frame f;
    char *png = in_folder("still.png"), *odd = in_folder("still.mp4");
    write_clip(png, "png", 1);
    assert_int_equal(rename(png, odd), 0);
    assert_ok(reader_open(&r, odd));
    assert_ok(reader_next(r, &f));
    assert_int_equal(f.width, WIDTH);
    reader_close(r);
    free(odd);
    free(png);
}

/* What lies under transparent pixels shows; grey has three equal colours. */
static void test_alpha_and_grey(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum AVPixelFormat format;
        int channels;
    } cases[] = {{"rgba.png", AV_PIX_FMT_RGBA, 4},
                 {"grey.png", AV_PIX_FMT_GRAY8, 1},
                 {"ya.png", AV_PIX_FMT_YA8, 2}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        AVCodecContext *c = avcodec_alloc_context3(avcodec_find_encoder(AV_CODEC_ID_PNG));
        AVPacket *packet = av_packet_alloc();
        AVFrame *in = av_frame_alloc();
        in->format = c->pix_fmt = cases[k].format;
        in->width = c->width = WIDTH;
        in->height = c->height = HEIGHT;
        c->time_base = (AVRational){1, 1};
        assert_int_equal(av_frame_get_buffer(in, 0), 0);
        for (int y = 0; y < HEIGHT; y++)
            for (int i = 0; i < WIDTH * cases[k].channels; i++)
                in->data[0][y * in->linesize[0] + i] = (uint8_t)(i * 7 + y * 11);
        assert_int_equal(avcodec_open2(c, NULL, NULL), 0);
        assert_int_equal(avcodec_send_frame(c, in), 0);
        assert_int_equal(avcodec_receive_packet(c, packet), 0);
        char *path = in_folder(cases[k].name);
        write_file(path, packet->data, (size_t)packet->size);
        struct reader *r;
        struct rgb_frame f;
        assert_ok(reader_open(&r, path));
        assert_ok(reader_next(r, &f));
        for (int y = 0; y < HEIGHT; y++)
            for (int x = 0; x < WIDTH; x++)
                for (int i = 0; i < 3; i++) {
                    int from = cases[k].channels * x + (cases[k].channels > 2 ? i : 0);
                    assert_int_equal(f.rgb[y * f.stride + 3 * x + i],
                                     in->data[0][y * in->linesize[0] + from]);
                }
        reader_close(r);
        free(path);
        av_frame_free(&in);
        av_packet_free(&packet);
        avcodec_free_context(&c);
    }
}

/* ---- what cannot ----------------------------------------------------------------------------- */

/* Refused somewhere before the end, in one line that begins with the path. */
static void assert_unreadable(const char *path, const char *cause)
{
    struct reader *r;
    struct rgb_frame f = {.width = 1};
    error_clear();
    int status = reader_open(&r, path);
    if (status == STATUS_OK) {
        do status = reader_next(r, &f);
        while (status == STATUS_OK && f.rgb);
        reader_close(r);
    }
    const char *said = error_message();
    if (status != STATUS_INPUT || strncmp(said, path, strlen(path)) != 0 || !strstr(said, cause) ||
        strchr(said, '\n'))
        fail_msg("expected \"%s: ...%s...\", got status %d: %s", path, cause, status, said);
    error_clear();
}

static void test_files_that_are_none(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *cause;
    } cases[] = {
        {"empty.png", "", "the file is empty"},
        {"text.png", "this is no picture\n", "not an image or a video; PNG, JPEG"},
        {"list.m3u8", "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "not an image or a video"},
        {"list.ffconcat", "ffconcat version 1.0\nfile 'b.mkv'\n", "not an image or a video"},
        {"page.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>\n", "not an image or a video"},
        {"head.png", "\x89PNG\r\n\x1a\n", ""},
        {"head.jpg", "\xff\xd8\xff\xe0", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = in_folder(cases[i].name);
        write_file(path, cases[i].text, strlen(cases[i].text));
        assert_unreadable(path, cases[i].cause);
        free(path);
    }
    char *path = in_folder("none.png");
    assert_unreadable(path, ": No such file");
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_unreadable(path, ": not a regular file");
    free(path);
    assert_unreadable(test_folder, ": not a regular file");
    assert_unreadable("/dev/zero", ": not a regular file");
    path = in_folder("%03d.png"); /* a name, not a pattern */
    assert_unreadable(path, ": No such file");
    free(path);
}

/* Wherever they end. */
static void test_truncated(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {"whole.png", "png"}, {"whole.mp4", "libx264"}, {"whole.mkv", "ffv1"}};
    for (int k = 0; k < 3; k++) {
        static uint8_t data[1 << 16];
        char *whole = in_folder(names[k][0]), *cut = in_folder("cut");
        write_clip(whole, names[k][1], k ? FRAMES : 1);
        FILE *in = fopen(whole, "rb");
        size_t bytes = fread(data, 1, sizeof data, in);
        fclose(in);
        assert_true(bytes > 100 && bytes < sizeof data);
        for (size_t part = 1; part < 20; part++) {
            size_t left = bytes * part / 20;
            if (k == 0 && bytes - left <= 12)
                continue; /* only its end mark: the picture is whole */
            write_file(cut, data, left);
            assert_unreadable(cut, "");
        }
        data[bytes / 2] ^= 0x55;
        write_file(cut, data, bytes);
        if (k == 0) assert_unreadable(cut, "damaged");
        free(whole);
        free(cut);
    }
}

/* A PNG that declares its size and holds next to nothing. */
static size_t declare_png(uint8_t png[64], uint32_t width, uint32_t height)
{
    static const uint8_t head[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    static const uint8_t rest[] = "\0\0\0\0IDAT\x35\xaf\x06\x1e";
    memcpy(png, head, 16);
    AV_WB32(png + 16, width);
    AV_WB32(png + 20, height);
    memcpy(png + 24, "\x08\x02\0\0", 5);
    const AVCRC *table = av_crc_get_table(AV_CRC_32_IEEE_LE);
    AV_WB32(png + 29, ~av_crc(table, ~0u, png + 12, 17));
    memcpy(png + 33, rest, 12);
    return 45;
}

static void test_declared_sizes(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{100000, 100000}, {0x7fffffff, 0x7fffffff}, {8192, 8193},
                                        {1, 0x7fffffff},  {0xffffffff, 1},          {0, 0}};
    char *path = in_folder("declared.png");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t png[64];
        write_file(path, png, declare_png(png, sizes[i][0], sizes[i][1]));
        assert_unreadable(path, i < 3 ? "cannot be read; at most 67108864 pixels can" : "");
    }
    free(path);
}

/* ---- the H.264 round trip -------------------------------------------------------------------- */

static void test_round_trip(void **state)
{
    (void)state;
    static uint8_t source[BYTES], once[BYTES], twice[BYTES], finer[BYTES];
    paint(source, 0);
    memcpy(once, source, BYTES);
    memcpy(twice, source, BYTES);
    memcpy(finer, source, BYTES);
    assert_ok(crf_round_trip(once, WIDTH, HEIGHT, 40, "a.png"));
    assert_ok(crf_round_trip(twice, WIDTH, HEIGHT, 40, "a.png"));
    assert_ok(crf_round_trip(finer, WIDTH, HEIGHT, 5, "a.png"));
    assert_memory_equal(once, twice, BYTES);
    double coarse = psnr(once, ROW, source, WIDTH, HEIGHT);
    double fine = psnr(finer, ROW, source, WIDTH, HEIGHT);
    if (!(coarse > 22 && coarse < fine && fine > 35 && fine < 60))
        fail_msg("crf 40 %g dB, crf 5 %g dB", coarse, fine);
    static const int sizes[][2] = {{2, 2}, {2, 64}, {64, 2}, {16, 18}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_ok(crf_round_trip(once, sizes[i][0], sizes[i][1], 29, "a.png"));
}

/* ---- preparing ------------------------------------------------------------------------------- */

static int prepare(float *out, int source_width, int source_height, int width, int height, int crf)
{
    size_t bytes = (size_t)source_width * (size_t)source_height * 3;
    uint8_t *rgb = malloc(bytes); /* exactly: reading past it is noticed */
    for (size_t i = 0; i < bytes; i++) rgb[i] = 255;
    struct rgb_frame f = {source_width, source_height, 3 * (ptrdiff_t)source_width, rgb};
    struct condition_size size = {width, height, width + 3, height + 5, 1, 2};
    error_clear();
    int status = condition_frame(out, &f, &size, crf, "a.png");
    free(rgb);
    return status;
}

/* White stays white inside, the padding is 0. */
static void test_padding_and_odd_sizes(void **state)
{
    (void)state;
    enum { W = 24, H = 16 };
    static const int sources[][2] = {{24, 16}, {2, 2}, {3, 3}, {101, 7}, {33, 301}, {25, 17}};
    static float out[(H + 5) * (W + 3) * 3];
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        for (int crf = 0; crf <= 29; crf += 29) {
            int status = prepare(out, sources[i][0], sources[i][1], W, H, crf);
            if (sources[i][0] == 2) { /* 1 of 2 rows would be left */
                assert_int_equal(status, STATUS_INPUT);
                assert_non_null(strstr(error_message(), "a.png: of 2x2 only 2x1 has the shape"));
                continue;
            }
            assert_ok(status);
            for (int y = 0; y < H + 5; y++)
                for (int x = 0; x < 3 * (W + 3); x++) {
                    bool inside = y >= 2 && y < H + 2 && x >= 3 && x < 3 * (W + 1);
                    float v = out[y * 3 * (W + 3) + x];
                    if (!(inside ? fabsf(v - 1) < 0.03f : v == 0))
                        fail_msg("source %dx%d, crf %d: %g at row %d, value %d", sources[i][0],
                                 sources[i][1], crf, v, y, x);
                }
        }
}

static void test_sides_of_h264(void **state)
{
    (void)state;
    static float out[(16 + 5) * (16400 + 3) * 3];
    assert_int_equal(prepare(out, 16390, 16, 16400, 16, 29), STATUS_INPUT);
    assert_non_null(strstr(error_message(), "a.png: 16390x14 of it are used, and H.264 takes"));
    assert_ok(prepare(out, 16390, 16, 16400, 16, 0));
}

static void test_first_frame_of_a_file(void **state)
{
    (void)state;
    static float out[64 * 96 * 3];
    char *path = in_folder("first.mkv"), *none = in_folder("nowhere.png");
    struct condition_size size = {96, 64, 96, 64, 0, 0};
    write_clip(path, "ffv1", 2);
    assert_ok(condition_image(out, path, &size, 0));
    assert_true(fabsf(out[0] - (-1.0f)) < 0.05f && out[2] > 0.9f); /* 0, 0, 250 */
    error_clear();
    assert_int_equal(condition_image(out, none, &size, 0), STATUS_INPUT);
    assert_non_null(strstr(error_message(), "nowhere.png: No such file"));
    free(none);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),          cmocka_unit_test(test_contents_decide),
        cmocka_unit_test(test_alpha_and_grey), cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_truncated),      cmocka_unit_test(test_declared_sizes),
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_padding_and_odd_sizes),
        cmocka_unit_test(test_sides_of_h264),  cmocka_unit_test(test_first_frame_of_a_file),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
