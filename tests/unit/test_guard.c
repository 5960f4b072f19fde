/* Device memory that only ops may touch (kernels/cpu/guard.c): what is allowed goes on as ever,
 * each kind of stray access ends the process and is named. */
#include "base/arena.h"
#include "base/error.h"
#include "kernels/ops.h"
#include "model/vae.h"
#include "parallel/comm.h"
#include "tests/support/tiny.h"
#include "tests/support/vae_clip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { COUNT = 3000 };

struct scene {
    struct device *dev;
    struct arena arena;
    float *x, *y; /* [COUNT] each, of the device */
    float host[COUNT];
};

static struct scene *open_scene(bool guarded)
{
    struct scene *s = xcalloc(1, sizeof *s);
    setenv("RINGREEL_GUARD", guarded ? "1" : "0", 1);
    s->dev = device_open_cpu(1, NULL, PRECISION_F32); /* no threads: tests fork */
    unsetenv("RINGREEL_GUARD");
    arena_init_on(&s->arena, "of the device", device_memory(s->dev));
    for (int i = 0; i < 2; i++) {
        s->x = arena_floats(&s->arena, COUNT);
        s->y = arena_floats(&s->arena, COUNT);
        if (i == 0) arena_commit(&s->arena);
    }
    for (int i = 0; i < COUNT; i++) s->host[i] = (float)i;
    op_upload(s->dev, s->x, s->host, sizeof s->host);
    return s;
}

static void close_scene(struct scene *s)
{
    arena_free(&s->arena);
    device_close(s->dev);
    free(s);
}

/* ---- what is allowed ------------------------------------------------------------------------- */

static void check_copies(bool guarded)
{
    enum { ROWS = 7, WIDTH = 5, FROM = 11, TO = 8 };
    struct scene *s = open_scene(guarded);
    float got[COUNT];
    const size_t f = sizeof(float);
    assert_int_equal(device_memory_is_host(s->dev), !guarded);
    op_copy(s->dev, s->y, s->x, sizeof s->host);
    op_copy_rows(s->dev, s->y, TO * f, s->x + 100, FROM * f, WIDTH * f, ROWS);
    op_upload_rows(s->dev, s->y + 1000, TO * f, s->host + 200, FROM * f, WIDTH * f, ROWS);
    op_zero_rows(s->dev, s->y + 2000, TO * f, WIDTH * f, ROWS);
    op_lincomb(s->dev, s->y + 2500, 2, s->x, 0, NULL, 100);
    op_download(s->dev, got, s->y, sizeof got);
    device_finish(s->dev);
    for (int i = 0; i < COUNT; i++) {
        int at = i % 1000, row = at / TO, column = at % TO;
        bool inside = i < 2500 && row < ROWS && column < WIDTH;
        float want = !inside ? (float)i : (float)((i / 1000 + 1) * 100 + row * FROM + column);
        if (inside && i >= 2000) want = 0;
        if (i >= 2500 && i < 2600) want = 2 * (float)(i - 2500);
        if (got[i] != want) fail_msg("value %d is %g, not %g", i, got[i], want);
    }
    close_scene(s);
}

static void copies_are_what_they_say(void **state)
{
    (void)state;
    check_copies(false);
    check_copies(true);
}

/* ---- what is not ----------------------------------------------------------------------------- */

static void read_by_host(struct scene *s) { s->host[0] = s->x[3]; }
static void write_by_host(struct scene *s) { s->y[COUNT - 1] = 1; }

static void read_after_an_op(struct scene *s)
{
    op_copy(s->dev, s->y, s->x, sizeof s->host);
    memcpy(s->host, s->y, sizeof s->host);
}

static void host_memory_for_an_op(struct scene *s)
{
    op_lincomb(s->dev, s->y, 1, s->host, 0, NULL, COUNT);
}

static void beyond_the_arena(struct scene *s)
{
    op_lincomb(s->dev, s->x + 100, 1, s->x, 0, NULL, 2 * COUNT);
}

static void upload_from_device(struct scene *s) { op_upload(s->dev, s->y, s->x, 4); }
static void download_to_device(struct scene *s) { op_download(s->dev, s->y, s->x, 4); }
static void copy_onto_itself(struct scene *s) { op_copy(s->dev, s->x + 1, s->x, 8); }

/* As a careless reader of decoded frames would. */
static void look(void *argument, const float *frames, int64_t n)
{
    *(float *)argument = frames[n - 1];
}

static void frames_looked_at(struct scene *s)
{
    char *path = xasprintf("%s/ltxv-tiny.safetensors", tiny_folder());
    struct checkpoint *c;
    struct vae *v;
    struct arena memory;
    struct comm *self = comm_open_self();
    CHECK(checkpoint_open(&c, path) == STATUS_OK && vae_open(&v, s->dev, c) == STATUS_OK, "%s",
          error_message());
    struct vae_task task = {.h = 1, .w = 1, .chunk = 1, .group = self};
    struct vae_stream *stream = vae_clip_open(v, &task, &memory);
    float *z = xcalloc((size_t)vae_latent_channels(v), sizeof *z);
    vae_stream_begin(stream, 1, 0.05f, NULL, (struct vae_sink){look, s->host}, NULL);
    vae_stream_push(stream, z, 1, true);
}

/* What a process says that does `stray` under the guard; fails if it lives on. */
static void last_words(void (*stray)(struct scene *), char *text, size_t room)
{
    int ends[2], status = 0;
    size_t used = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        stray(open_scene(true));
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t n; (n = read(ends[0], text + used, room - 1 - used)) > 0;) used += (size_t)n;
    text[used] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) fail_msg("nobody noticed: %s", text);
}

static void stray_accesses_are_named(void **state)
{
    (void)state;
    static const struct {
        void (*stray)(struct scene *);
        const char *words;
    } cases[] = {
        {read_by_host, "the host touches memory of the device: arena \"of the device\", byte 12 "},
        {write_by_host, "the host touches memory of the device: arena \"of the device\""},
        {read_after_an_op, "the host touches memory of the device: arena \"of the device\""},
        {frames_looked_at, "the host touches memory of the device: arena \"VAE stream\""},
        {host_memory_for_an_op, "lincomb: x, 12000 bytes at "},
        {beyond_the_arena, "is not device memory"},
        {upload_from_device, "upload: source at "},
        {download_to_device, "download: target at "},
        {copy_onto_itself, "copy: 8 bytes onto themselves"},
    };
    static char text[1 << 16];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        last_words(cases[i].stray, text, sizeof text);
        if (!strstr(text, cases[i].words)) fail_msg("case %zu: %s", i, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_are_what_they_say),
        cmocka_unit_test(stray_accesses_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
