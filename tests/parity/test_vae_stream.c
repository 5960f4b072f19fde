/* The VAE decoder as a stream: whatever number of latents comes at a time, frames are the bytes of a
 * whole decode and leave as soon as they are known, and some of a clip's frames are decoded from no
 * more than they come from. */
#include "base/error.h"
#include "tests/support/vae_clip.h"
#include "tests/support/vae_decode.h"
#include "tests/support/vae_small.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- chunks ---------------------------------------------------------------------------------- */

/* Whatever comes at a time, and in a stream that another clip went through before. */
static void test_chunks_give_the_same_bytes(void **state)
{
    const char *name = *state;
    struct reference_case x;
    struct checkpoint *c;
    reference_case_open(&x, name, directory);
    struct vae *v = open_vae(&c, x.checkpoint_path, dev, true);
    struct comm *self = comm_open_self();
    const int64_t f = 7, h = 1, w = 2, chunks[] = {1, 2, 5};
    int64_t n = video_floats(v, f, h, w);
    float *z = random_latents(f * h * w * x.channels, 5), *whole = decode(v, z, f, h, w, 9);
    for (int i = 0; i < 3; i++) {
        struct arena memory;
        struct vae_task task = {.h = h, .w = w, .chunk = chunks[i], .group = self};
        struct vae_stream *s = vae_clip_open(v, &task, &memory);
        for (int64_t frames = 1; frames <= f; frames += f - 1) {
            struct rng noise;
            struct reports reports = {0};
            struct vae_progress progress = {count_report, &reports};
            float *video = xcalloc((size_t)n, sizeof *video);
            float *want = frames == f ? whole : decode(v, z, frames, h, w, 9);
            rng_seed(&noise, 9);
            vae_clip_decode(s, video, z, frames, chunks[i], 0.05f, &noise, &progress);
            assert_int_equal(reports.last, reports.total);
            size_t bytes = (size_t)video_floats(v, frames, h, w) * sizeof *video;
            if (memcmp(video, want, bytes) != 0)
                fail_msg("%s: %d latents, %d at a time", name, (int)frames, (int)chunks[i]);
            free(video);
            if (frames != f) free(want);
        }
        vae_stream_close(s);
        arena_free(&memory);
    }
    free(whole);
    free(z);
    comm_close(self);
    vae_close(v);
    checkpoint_close(c);
    reference_case_close(&x);
}

static void count_frames(void *argument, const float *frames, int64_t n)
{
    (void)frames;
    *(int64_t *)argument += n;
}

/* Of the small net: two convolutions look ahead before frames are doubled, three behind. */
static void test_frames_leave_as_soon_as_they_are_known(void **state)
{
    (void)state;
    enum { F = 9 };
    struct net n;
    struct checkpoint *c;
    struct arena memory;
    struct comm *self = comm_open_self();
    net_small(&n, false);
    net_write(&n, small_path);
    struct vae *v = open_vae(&c, small_path, dev, true);
    struct vae_task task = {.h = 1, .w = 1, .chunk = 1, .group = self};
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    float *z = random_latents(F * 4, 15);
    int64_t frames = 0;
    vae_stream_begin(s, F, 0, NULL, (struct vae_sink){count_frames, &frames}, NULL);
    for (int64_t i = 1; i <= F; i++) {
        int64_t doubled = 2 * (i - 2) - 1, known = i == F ? 2 * F - 1 : doubled - 3;
        vae_stream_push(s, z + (i - 1) * 4, 1, i == F);
        assert_int_equal(frames, known > 0 ? known : 0);
    }
    free(z);
    vae_stream_close(s);
    arena_free(&memory);
    comm_close(self);
    vae_close(v);
    checkpoint_close(c);
    net_free(&n);
}

/* ---- some frames of a clip ------------------------------------------------------------------- */

/* Every run of frames that begins or ends at one of these. */
static void check_spans(struct vae *v, int64_t f, int64_t chunk, const int64_t *ends, int count)
{
    const int64_t h = 1, w = 2, channels = vae_latent_channels(v);
    const int64_t frame = video_floats(v, 1, h, w);
    float *z = random_latents(f * h * w * channels, 6), *whole = decode(v, z, f, h, w, 9);
    float *part = xmalloc((size_t)video_floats(v, f, h, w) * sizeof *part);
    struct comm *self = comm_open_self();
    struct vae_task task = {.h = h, .w = w, .chunk = chunk, .group = self};
    struct arena memory;
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    for (int i = 0; i < count * count; i++) {
        struct vae_span span = {ends[i / count], ends[i % count]};
        struct rng noise;
        struct reports reports = {0};
        struct vae_progress progress = {count_report, &reports};
        if (span.first >= span.end) continue;
        rng_seed(&noise, 9);
        vae_clip_decode_span(s, part, z, f, chunk, 0.05f, &noise, span, &progress);
        assert_int_equal(reports.last, reports.total);
        assert_true(reports.last == (int64_t)vae_decode_work(v, f, h, w, span));
        size_t bytes = (size_t)((span.end - span.first) * frame) * sizeof *part;
        if (memcmp(part, whole + span.first * frame, bytes) != 0)
            fail_msg("frames %d to %d, %d latents at a time", (int)span.first, (int)span.end,
                     (int)chunk);
    }
    vae_stream_close(s);
    arena_free(&memory);
    comm_close(self);
    free(part);
    free(whole);
    free(z);
}

/* Where the clip ends on both sides of what a layer reads, on one, on none. */
static void test_spans(void **state)
{
    static const int64_t ends[] = {0, 36, 37, 73};
    struct reference_case x;
    struct checkpoint *c;
    reference_case_open(&x, *state, directory);
    struct vae *v = open_vae(&c, x.checkpoint_path, dev, true);
    check_spans(v, 10, 1, ends, 4);
    check_spans(v, 10, 7, ends, 4);
    vae_close(v);
    checkpoint_close(c);
    reference_case_close(&x);
}

/* Of the small net, which has two convolutions before it doubles frames and three behind: all runs
 * of frames; what is read for one of them, and what a second of a long clip costs. */
static void check_small_spans(bool causal, struct vae_span latents)
{
    int64_t ends[2 * 8];
    struct net n;
    struct checkpoint *c;
    struct comm *self = comm_open_self();
    struct arena memory;
    net_small(&n, false);
    n.causal = causal;
    net_write(&n, small_path);
    struct vae *v = open_vae(&c, small_path, dev, true);
    for (int i = 0; i < 16; i++) ends[i] = i;
    check_spans(v, 8, 1, ends, 16);
    check_spans(v, 8, 3, ends, 16);
    struct vae_task task = {.h = 1, .w = 1, .chunk = 4, .group = self};
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    vae_stream_begin(s, 100, 0, NULL, (struct vae_sink){0}, NULL);
    struct vae_span read = vae_stream_narrow(s, (struct vae_span){101, 102});
    assert_int_equal(read.first, latents.first);
    assert_int_equal(read.end, latents.end);
    vae_stream_close(s);
    arena_free(&memory);
    comm_close(self);
    vae_close(v);
    checkpoint_close(c);
    net_free(&n);
}

static void test_spans_symmetric(void **state)
{
    (void)state; /* frames 98 to 104, hence 49 to 52, and two more on both sides */
    check_small_spans(false, (struct vae_span){47, 55});
}

static void test_spans_causal(void **state)
{
    (void)state; /* frames 95 to 101, hence 48 to 51, and four before */
    check_small_spans(true, (struct vae_span){44, 52});
}

/* A test of one of the reference's cases, which is its state. */
#define OF(test, name)                                                                             \
    {                                                                                              \
#test " of " name, test, NULL, NULL, (void *)(name)                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        OF(test_chunks_give_the_same_bytes, "vae_090"),
        OF(test_chunks_give_the_same_bytes, "vae_091"),
        OF(test_chunks_give_the_same_bytes, "vae_095"),
        cmocka_unit_test(test_frames_leave_as_soon_as_they_are_known),
        OF(test_spans, "vae_090"),
        OF(test_spans, "vae_091"),
        OF(test_spans, "vae_095"),
        cmocka_unit_test(test_spans_symmetric),
        cmocka_unit_test(test_spans_causal),
    };
    return cmocka_run_group_tests(tests, vae_set_up, vae_tear_down);
}
