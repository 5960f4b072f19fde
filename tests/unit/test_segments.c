/* A video made by several encoders: its bytes do not tell how many there were, its frames follow
 * one another without a seam, and errors in the encoders' threads reach whoever writes. */
#include "base/error.h"
#include "media/digest.h"
#include "media/encoder.h"
#include "media/segments.h"
#include "media/video.h"
#include "tests/support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WIDTH = 112, HEIGHT = 80, FRAME_BYTES = WIDTH * HEIGHT * 3, MOST_FRAMES = 64 };

/* libx265 keeps some memory of every encoder it opened. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libx265\n"; }

static const char *path; /* of the clip that is written */

static void assert_ok(int status)
{
    if (status != STATUS_OK) fail_msg("status %d: %s", status, error_message());
}

/* A ball on a gradient; both move, the scene changes at frame 20, inside segments. */
static void paint(uint8_t *rgb, int frame)
{
    int scene = frame >= 20, cx = 20 + 2 * frame % 80, cy = 30 + frame % 30;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++, rgb += 3) {
            int in_ball = (x - cx) * (x - cx) + (y - cy) * (y - cy) < 150;
            rgb[0] = (uint8_t)(in_ball ? 220 : x + frame);
            rgb[1] = (uint8_t)(in_ball ? 40 : scene ? 200 - y : y + 40);
            rgb[2] = (uint8_t)(in_ball ? 30 : scene ? 30 + x : 160 - x);
        }
}

static struct video_settings settings(const char *name, const char *encoder, int length,
                                      int encoders)
{
    path = folder_path(name);
    return (struct video_settings){.path = path,
                                   .encoder = encoder,
                                   .bit_depth = 8,
                                   .width = WIDTH,
                                   .height = HEIGHT,
                                   .frame_rate = 24,
                                   .segment_frames = length,
                                   .encoders = encoders};
}

static int write_clip(const struct video_settings *s, int frames)
{
    static uint8_t rgb[FRAME_BYTES];
    struct video_writer *w;
    TRY(video_open(&w, s));
    int status = STATUS_OK;
    for (int i = 0; i < frames && status == STATUS_OK; i++) {
        paint(rgb, i);
        status = video_write(w, rgb);
    }
    if (status == STATUS_OK) return video_finish(w);
    video_abandon(w);
    return status;
}

/* ---- reading back ---------------------------------------------------------------------------- */

struct reading {
    int packets, frames, keys;
    int64_t pts[MOST_FRAMES];
    double worst_luma; /* mean absolute difference of a frame's luma from what was painted */
};

/* BT.709, limited range. */
static double luma_error(const AVFrame *f, int number)
{
    static uint8_t rgb[FRAME_BYTES];
    double sum = 0;
    paint(rgb, number);
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            const uint8_t *p = rgb + 3 * (y * WIDTH + x), *row = f->data[0] + y * f->linesize[0];
            double want = 16 + 219 / 255.0 * (0.2126 * p[0] + 0.7152 * p[1] + 0.0722 * p[2]);
            sum += fabs(row[x] - want);
        }
    return sum / (WIDTH * HEIGHT);
}

static void take_frames(struct reading *r, AVCodecContext *decoder, AVFrame *frame)
{
    for (; avcodec_receive_frame(decoder, frame) >= 0; av_frame_unref(frame)) {
        assert_true(r->frames < MOST_FRAMES);
        r->pts[r->frames] = frame->pts;
        r->worst_luma = fmax(r->worst_luma, luma_error(frame, r->frames));
        r->frames++;
    }
}

static struct reading read_clip(const char *name)
{
    struct reading r = {0};
    AVFormatContext *in = NULL;
    assert_int_equal(avformat_open_input(&in, name, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(in, NULL) >= 0);
    AVCodecContext *decoder =
        avcodec_alloc_context3(avcodec_find_decoder(in->streams[0]->codecpar->codec_id));
    assert_true(avcodec_parameters_to_context(decoder, in->streams[0]->codecpar) >= 0);
    decoder->err_recognition = AV_EF_EXPLODE;
    assert_int_equal(avcodec_open2(decoder, NULL, NULL), 0);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    int64_t dts = INT64_MIN;
    while (av_read_frame(in, packet) >= 0) {
        if (packet->dts != AV_NOPTS_VALUE) { /* Matroska holds none: they are guessed, late */
            assert_true(packet->dts > dts && packet->pts >= packet->dts);
            dts = packet->dts;
        }
        r.packets++;
        r.keys += (packet->flags & AV_PKT_FLAG_KEY) != 0;
        assert_int_equal(avcodec_send_packet(decoder, packet), 0);
        av_packet_unref(packet);
        take_frames(&r, decoder, frame);
    }
    assert_int_equal(avcodec_send_packet(decoder, NULL), 0);
    take_frames(&r, decoder, frame);
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&decoder);
    avformat_close_input(&in);
    return r;
}

static void digest_file(const char *name, char hex[65])
{
    char *data = xmalloc(4 << 20);
    FILE *f = fopen(name, "rb");
    assert_non_null(f);
    size_t bytes = fread(data, 1, 4 << 20, f);
    fclose(f);
    digest_of(data, bytes, hex);
    free(data);
}

/* ---- joined ---------------------------------------------------------------------------------- */

static const struct joined {
    const char *name, *encoder, *options;
    int length, frames;
    double most_luma;
} joined[] = {{"a.mp4", "libx264", "", 8, 41, 1.5},
              {"b.mp4", "libx264", "", 8, 40, 1.5},
              {"c.mp4", "libx264", "bf=8:g=3", 7, 30, 2},
              {"d.mkv", "libx264", "crf=12", 1, 9, 1.5},
              {"e.ts", "libx264", "", 8, 25, 1.5},
              {"f.mp4", "libx265", "", 10, 33, 2},
              {"g.webm", "libvpx-vp9", "", 16, 40, 2},
              {"h.mp4", "libsvtav1", "preset=10", 16, 33, 2.5},
              {"i.mkv", "ffv1", "pix_fmt=yuv420p", 5, 23, 0.6}};

/* Frame k is shown k frames' time after the first; the first segment's encoder alone made this. */
static void check_joined(const struct joined *t)
{
    char first[65] = "", hex[65];
    for (int encoders = 1; encoders <= 5; encoders += 2) {
        struct video_settings s = settings(t->name, t->encoder, t->length, encoders);
        s.encoder_options = t->options;
        assert_ok(write_clip(&s, t->frames));
        digest_file(path, hex);
        if (!*first) strcpy(first, hex);
        assert_string_equal(first, hex);
    }
    struct reading r = read_clip(path);
    if (r.frames != t->frames || r.packets != t->frames)
        fail_msg("%s: %d packets, %d frames of %d", t->name, r.packets, r.frames, t->frames);
    assert_true(r.keys >= (t->frames + t->length - 1) / t->length);
    double step = (double)(r.pts[r.frames - 1] - r.pts[0]) / (r.frames - 1);
    for (int i = 0; i < r.frames; i++) /* Matroska counts milliseconds */
        if (fabs((double)(r.pts[i] - r.pts[0]) - i * step) > 1)
            fail_msg("%s: frame %d is shown at %lld", t->name, i, (long long)r.pts[i]);
    if (r.worst_luma > t->most_luma) fail_msg("%s: luma is %g off", t->name, r.worst_luma);
    unlink(path);
}

static void test_joined(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof joined / sizeof *joined; i++)
        if (avcodec_find_encoder_by_name(joined[i].encoder)) check_joined(&joined[i]);
}

/* A segment as long as the video is no segment: the file is that of one encoder. */
static void test_one_segment(void **state)
{
    (void)state;
    char whole[65], long_enough[65], shorter[65];
    struct video_settings s = settings("a.mp4", "auto", 0, 3);
    s.frames = 12;
    assert_ok(write_clip(&s, 12));
    digest_file(path, whole);
    s.segment_frames = 12;
    assert_ok(write_clip(&s, 12));
    digest_file(path, long_enough);
    s.segment_frames = 11;
    assert_ok(write_clip(&s, 12));
    digest_file(path, shorter);
    assert_string_equal(whole, long_enough);
    assert_string_not_equal(whole, shorter);
    unlink(path);
}

/* The machine must not decide what is in a file. */
static void test_threads_do_not_matter(void **state)
{
    (void)state;
    static const char *const encoders[] = {"libx264", "libx265", "libvpx-vp9", "libsvtav1",
                                           "mpeg4"};
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++) {
        char first[65] = "", hex[65];
        if (!avcodec_find_encoder_by_name(encoders[i])) continue;
        for (int threads = 1; threads <= 9; threads += 4) {
            struct video_settings s = settings("a.mp4", encoders[i], 0, 0);
            s.threads = threads;
            assert_ok(write_clip(&s, 12));
            digest_file(path, hex);
            if (!*first) strcpy(first, hex);
            assert_string_equal(first, hex);
        }
        unlink(path);
    }
}

static void test_usual_length(void **state)
{
    (void)state;
    assert_int_equal(encoder_usual_segment(1920, 1080), 0);
    assert_int_equal(encoder_usual_segment(2048, 2048), 0);
    assert_int_equal(encoder_usual_segment(3840, 2160), 32);
    const AVCodec *mpeg4 = avcodec_find_encoder_by_name("mpeg4");
    struct video_settings s = settings("a.mp4", "mpeg4", 0, 0);
    s.width = 3840;
    s.height = 2160;
    if (mpeg4) assert_int_equal(encoder_segment_frames(&s, mpeg4), 0);

    s = settings("a.mp4", "mpeg4", 4, 0);
    int status = video_check(&s);
    assert_int_equal(status, STATUS_INPUT);
    assert_non_null(strstr(error_message(), "what encoder mpeg4 makes cannot be joined"));
    error_clear();
}

/* 3840x2176 of 8 bits, 40 frames: 1379 and 1700 MB were measured. */
static void test_planned_memory(void **state)
{
    (void)state;
    struct video_settings s = settings("a.mp4", "auto", 0, 1);
    s.width = 3840;
    s.height = 2176;
    s.frames = 40;
    int64_t segment = video_memory(&s);
    assert_in_range(segment, 1379000000, 1700000000);
    s.segment_frames = 40;
    assert_in_range(video_memory(&s), 1700000000, 2000000000);
    s.segment_frames = 0;
    s.frames = 40000; /* as long as one likes */
    assert_in_range(video_memory(&s), segment, segment + 1);
    s.encoders = 4;
    assert_in_range(video_memory(&s), 4 * segment, 6 * segment);
}

/* ---- memory and errors ----------------------------------------------------------------------- */

static int64_t frames_alive, most_alive;
static void release(void *opaque, uint8_t *data)
{
    (void)opaque;
    __atomic_fetch_sub(&frames_alive, 1, __ATOMIC_SEQ_CST);
    free(data);
}

static AVFrame *counted_frame(void)
{
    AVFrame *f = av_frame_alloc();
    f->format = AV_PIX_FMT_RGB24;
    f->width = f->height = 16;
    f->linesize[0] = 48;
    f->buf[0] = av_buffer_create(calloc(16, 48), 16 * 48, release, NULL, 0);
    f->data[0] = f->buf[0]->data;
    int64_t alive = __atomic_add_fetch(&frames_alive, 1, __ATOMIC_SEQ_CST);
    most_alive = alive > most_alive ? alive : most_alive;
    return f;
}

static int opened, put_count, idles;
static int open_png(void *argument, AVCodecContext **encoder)
{
    AVCodecContext *e = avcodec_alloc_context3(avcodec_find_encoder_by_name("png"));
    e->width = e->height = 16;
    e->pix_fmt = AV_PIX_FMT_RGB24;
    e->time_base = (AVRational){1, 24};
    e->thread_count = 1;
    assert_int_equal(avcodec_open2(e, NULL, NULL), 0);
    __atomic_fetch_add(&opened, 1, __ATOMIC_SEQ_CST);
    if (argument) { /* the header of every encoder but the first is another */
        e->extradata = av_mallocz(8 + AV_INPUT_BUFFER_PADDING_SIZE);
        e->extradata_size = __atomic_load_n(&opened, __ATOMIC_SEQ_CST) > 1 ? 8 : 4;
    }
    *encoder = e;
    return STATUS_OK;
}

static int put_in_order(void *argument, AVPacket *packet)
{
    (void)argument;
    assert_int_equal(packet->pts, put_count);
    assert_int_equal(packet->dts, put_count);
    put_count++;
    return STATUS_OK;
}

static int put_no_more(void *argument, AVPacket *packet)
{
    (void)argument;
    if (packet->pts < 30) return STATUS_OK;
    return error_set(STATUS_INPUT, "disk: frame %d is one too many", (int)packet->pts);
}

static void count_idle(void *argument, bool worked)
{
    (void)argument;
    (void)worked;
    idles++;
}

static int push_many(const struct segments_plan *plan, int frames)
{
    AVCodecContext *first;
    opened = put_count = 0;
    frames_alive = most_alive = 0;
    assert_ok(open_png(plan->argument, &first));
    struct segments *s = segments_open(plan, first);
    int status = STATUS_OK;
    for (int i = 0; i < frames && status == STATUS_OK; i++)
        status = segments_push(s, counted_frame());
    if (status == STATUS_OK) status = segments_finish(s);
    segments_close(s);
    assert_int_equal(frames_alive, 0);
    return status;
}

static void test_queue_is_bounded(void **state)
{
    (void)state;
    struct segments_plan plan = {.name = "test",
                                 .length = 10,
                                 .encoders = 3,
                                 .open = open_png,
                                 .put = put_in_order,
                                 .idle = count_idle};
    assert_ok(push_many(&plan, 1005));
    assert_int_equal(put_count, 1005);
    assert_int_equal(opened, 101);
    /* those that wait, one in each encoder, one on its way */
    assert_true(most_alive <= segments_room(&plan) + plan.encoders + 1);
    assert_ok(push_many(&plan, 0));
    assert_int_equal(put_count, 0);
}

static void test_errors_arrive(void **state)
{
    (void)state;
    struct segments_plan plan = {
        .name = "test", .length = 4, .encoders = 3, .open = open_png, .put = put_no_more};
    for (int in_threads = 0; in_threads < 2; in_threads++) {
        plan.in_threads = in_threads;
        assert_int_equal(push_many(&plan, 500), STATUS_INPUT);
        assert_non_null(strstr(error_message(), "one too many"));
        error_clear();
    }
    plan.in_threads = false;
    plan.put = put_in_order;
    plan.argument = &plan;
    assert_int_equal(push_many(&plan, 40), STATUS_MACHINE);
    assert_non_null(strstr(error_message(), "test: encoder png describes segment"));
    error_clear();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joined),
        cmocka_unit_test(test_one_segment),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_usual_length),
        cmocka_unit_test(test_planned_memory),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_errors_arrive),
    };
    return cmocka_run_group_tests_name("segments", tests, folder_make, folder_remove_empty);
}
