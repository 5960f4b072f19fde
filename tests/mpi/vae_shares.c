/* vae_shares cpu|cuda MANIFEST...: clips of several sizes, of each of these models, are decoded and
 * encoded by one rank, whole, and then by all ranks together, by rows and by columns, in chunks of
 * several sizes; all must be the same bytes, and what CUDA makes close to what the CPU makes.
 * Prints a line for each on rank 0; exit code 1 where bytes differ. Run under mpirun by
 * vae_shares.sh and emulation/vae.sh; not a test by itself. */
#include "base/error.h"
#include "model/vae_net.h"
#include "parallel/world.h"
#include "tests/support/synth.h"
#include "tests/support/vae_clip.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scene {
    bool encodes;
    int64_t f, h, w;
    struct vae_span span; /* frames that are decoded by all ranks; none: the whole clip */
};

struct bench { /* what every scene needs */
    struct world *world;
    struct comm *self;
    struct device *dev, *cpu; /* cpu: NULL where dev is it */
    struct vae *vae, *judge;  /* on dev and on cpu */
};

/* The extents of what a stream gives of the whole picture. */
static struct clip whole_output(const struct vae_stream *s, int64_t f)
{
    const struct vae *v = s->v;
    int space = s->task.encodes ? 1 : v->space_factor;
    return (struct clip){.t = s->task.encodes ? f : v->time_factor * (f - 1) + 1,
                         .h = s->task.h * space,
                         .w = s->task.w * space,
                         .c = s->task.encodes ? s->coder->conv_out.out : 3};
}

static float *run(const struct bench *b, struct vae *v, const struct scene *c,
                  const struct vae_task *task, const float *input, int64_t floats)
{
    struct arena memory;
    struct rng noise;
    struct vae_stream *s = vae_clip_open(v, task, &memory);
    float *out = xcalloc((size_t)floats, sizeof *out);
    rng_seed(&noise, 3);
    if (c->encodes)
        vae_clip_encode(s, out, input, c->f, task->chunk, NULL);
    else if (c->span.end > 0 && task->group != b->self)
        vae_clip_decode_span(s, out, input, c->f, task->chunk, 0.05f, &noise, c->span, NULL);
    else
        vae_clip_decode(s, out, input, c->f, task->chunk, 0.05f, &noise, NULL);
    vae_stream_close(s);
    arena_free(&memory);
    return out;
}

/* Is `part`, this rank's share, what the whole has there? */
static bool same(const float *part, const float *whole, const struct clip *all,
                 const struct vae_task *t)
{
    bool rows = t->axis == VAE_ROWS;
    int64_t extent = rows ? t->h : t->w, y0 = 0, x0 = 0, h = all->h, w = all->w;
    struct vae_part own = vae_part_of(extent, comm_size(t->group), comm_rank(t->group));
    if (rows)
        y0 = own.first * (all->h / t->h), h = own.count * (all->h / t->h);
    else
        x0 = own.first * (all->w / t->w), w = own.count * (all->w / t->w);
    for (int64_t i = 0; i < all->t * h; i++) {
        const float *row = whole + ((i / h * all->h + y0 + i % h) * all->w + x0) * all->c;
        if (memcmp(part + i * w * all->c, row, sizeof *row * (size_t)(w * all->c))) return false;
    }
    return true;
}

static float *make_input(const struct bench *b, const struct scene *c)
{
    struct rng r;
    const struct vae *v = b->vae;
    int64_t n = c->encodes ? ((int64_t)v->time_factor * (c->f - 1) + 1) * c->h * c->w * 3 *
                                 v->space_factor * v->space_factor
                           : c->f * c->h * c->w * v->latent_channels;
    float *input = xmalloc((size_t)n * sizeof *input);
    rng_seed(&r, 8);
    rng_randn(&r, input, (size_t)n);
    return input;
}

/* What one rank makes of the whole clip at once, for all. */
static float *make_whole(const struct bench *b, const struct scene *c, const float *input,
                         struct clip *all)
{
    struct vae_task alone = {
        .encodes = c->encodes, .h = c->h, .w = c->w, .chunk = c->f, .group = b->self};
    struct vae_stream *s;
    struct transfer t = {0};
    CHECK(vae_stream_open(&s, b->vae, &alone) == STATUS_OK, "%s", error_message());
    *all = whole_output(s, c->f);
    vae_stream_close(s);
    int64_t floats = clip_count(all);
    float *whole = b->world->rank == 0 ? run(b, b->vae, c, &alone, input, floats)
                                       : xmalloc((size_t)floats * sizeof *whole);
    comm_broadcast_start(b->world->comm, &t, whole, 1, floats, 0);
    comm_wait(b->world->comm, &t);
    return whole;
}

/* Relative RMS of 8 bits of mantissa, through tens of layers; a wrong layer is wrong by 1. */
static const double CLOSE = 0.02;

/* Is it what the CPU makes of the clip, but for rounding? */
static bool check_whole(const struct bench *b, const struct scene *c, const float *input,
                        const float *whole, int64_t floats)
{
    struct vae_task alone = {
        .encodes = c->encodes, .h = c->h, .w = c->w, .chunk = c->f, .group = b->self};
    double error = 0, size = 0;
    if (!b->cpu || b->world->rank > 0) return true;
    float *want = run(b, b->judge, c, &alone, input, floats);
    for (int64_t i = 0; i < floats; i++) {
        double apart = (double)whole[i] - (double)want[i];
        error += apart * apart;
        size += (double)want[i] * (double)want[i];
    }
    free(want);
    bool close = sqrt(error / size) < CLOSE;
    printf("%s - %s %dx%dx%d, relative RMS %.2e\n", close ? "close" : "far",
           c->encodes ? "encode" : "decode", (int)c->f, (int)c->h, (int)c->w, sqrt(error / size));
    return close;
}

static bool check(const struct bench *b, const struct scene *c, const struct vae_task *task,
                  const float *input, const float *whole, const struct clip *all)
{
    const struct world *w = b->world;
    float *part = run(b, b->vae, c, task, input, clip_count(all));
    struct clip wanted = *all;
    if (c->span.end > 0) wanted.t = c->span.end - c->span.first;
    bool mine = same(part, whole + c->span.first * clip_count(all) / all->t, &wanted, task);
    if (!mine) fprintf(stderr, "rank %d of %d: its share differs\n", w->rank, w->size);
    bool good = world_min(b->world, mine);
    if (w->rank == 0)
        printf("%s - %s %dx%dx%d by %s, %d at a time\n", good ? "same" : "different",
               c->encodes ? "encode" : "decode", (int)c->f, (int)c->h, (int)c->w,
               task->axis == VAE_ROWS ? "rows" : "columns", (int)task->chunk);
    free(part);
    return good;
}

/* Along both axes; one latent frame at a time, two, five and all. Returns how many clips are wrong.
 */
static int check_scene(const struct bench *b, const struct scene *c)
{
    static const int64_t chunks[] = {1, 2, 5, INT64_MAX};
    struct clip all;
    struct vae_task task = {.encodes = c->encodes, .h = c->h, .w = c->w, .group = b->world->comm};
    float *input = make_input(b, c), *whole = make_whole(b, c, input, &all);
    int wrong = !check_whole(b, c, input, whole, clip_count(&all));
    for (task.axis = VAE_ROWS; task.axis <= VAE_COLUMNS; task.axis++)
        for (int i = 0; i == 0 || task.chunk < c->f; i++) {
            task.chunk = chunks[i] < c->f ? chunks[i] : c->f;
            wrong += !check(b, c, &task, input, whole, &all);
        }
    free(input);
    free(whole);
    return wrong;
}

/* The emulator is slow: of a VAE of a released structure a single latent frame. */
static int check_emulated(const struct bench *b)
{
    static const struct scene one = {.f = 1, .h = 1, .w = 2},
                              small[] = {{.f = 3, .h = 2, .w = 3},
                                         {.encodes = true, .f = 3, .h = 3, .w = 2}};
    if (b->vae->space_factor == 32) return check_scene(b, &one);
    return check_scene(b, &small[0]) + check_scene(b, &small[1]);
}

static int open_vae(struct vae **v, struct device *dev, const struct checkpoint *c)
{
    TRY(vae_open(v, dev, c));
    TRY(vae_open_encoder(*v, c));
    vae_make_resident(*v);
    vae_encoder_make_resident(*v);
    return STATUS_OK;
}

/* The picture is one latent high or wide, or its share is, or some ranks have none; shares are
 * uneven; the clip is a single frame, or its last chunk is short. */
static int check_model(struct bench *b, const char *manifest, const char *path)
{
    static const struct scene scenes[] = {
        {.f = 6, .h = 1, .w = 4},
        {.f = 6, .h = 5, .w = 1},
        {.f = 6, .h = 3, .w = 2},
        {.f = 1, .h = 8, .w = 2},
        {.f = 2, .h = 1, .w = 7},
        {.encodes = true, .f = 2, .h = 7, .w = 1},
        {.encodes = true, .f = 3, .h = 1, .w = 3},
        {.f = 9, .h = 3, .w = 2, .span = {33, 42}},
    };
    struct checkpoint *c;
    int wrong = 0;
    TRY(synth_checkpoint(manifest, path));
    TRY(checkpoint_open(&c, path));
    TRY(open_vae(&b->vae, b->dev, c));
    if (b->cpu) TRY(open_vae(&b->judge, b->cpu, c));
    if (b->world->rank == 0) printf("%s\n", manifest);
    if (b->cpu)
        wrong = check_emulated(b);
    else
        for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
            wrong += check_scene(b, &scenes[i]);
    vae_close(b->vae);
    if (b->cpu) vae_close(b->judge);
    checkpoint_close(c);
    return wrong ? error_set(STATUS_INPUT, "%s: %d clips differ", manifest, wrong) : STATUS_OK;
}

static int check_models(struct world *w, const char *backend, char **manifests)
{
    struct bench b = {.world = w, .self = comm_open_self()};
    b.dev = device_open_cpu(1, NULL, PRECISION_F32);
    if (strcmp(backend, "cuda") == 0) {
        b.cpu = b.dev;
        b.dev = device_open_cuda(0, 1, PRECISION_BF16);
    }
    char *folder = temp_dir_make(), *path = xasprintf("%s/vae.safetensors", folder);
    int status = STATUS_OK;
    for (; *manifests && status == STATUS_OK; manifests++)
        status = check_model(&b, *manifests, path);
    device_close(b.dev);
    device_close(b.cpu);
    comm_close(b.self);
    free(path);
    temp_dir_remove(folder);
    return status;
}

static void nothing(void) {}

int main(int argc, char **argv)
{
    struct world w;
    int status = world_start(&w, &argc, &argv, nothing);
    if (status == STATUS_OK)
        status = world_agree(&w, check_models(&w, argc > 1 ? argv[1] : "", argv + 2));
    return world_stop(&w, status);
}
