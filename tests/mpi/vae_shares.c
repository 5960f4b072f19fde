/* vae_shares MANIFEST: every rank decodes and encodes clips of several sizes alone, then its share of
 * them together with all others, by rows and by columns, in chunks of several sizes; both must be the
 * same bytes. Prints a line for each clip on rank 0; exit code 1 where bytes differ. Run under
 * mpirun by vae_shares.sh; not a test by itself. */
#include "base/error.h"
#include "model/vae_net.h"
#include "parallel/world.h"
#include "tests/support/synth.h"
#include "tests/support/vae_clip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scene {
    bool encodes;
    int64_t f, h, w;
    enum vae_axis axis;
    int64_t chunk;
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

static float *run(struct vae *v, const struct scene *c, struct comm *group, int64_t chunk,
                  const float *input, int64_t floats)
{
    struct arena memory;
    struct rng noise;
    struct vae_task task = {
        .encodes = c->encodes, .h = c->h, .w = c->w, .chunk = chunk, .group = group};
    task.axis = c->axis;
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    float *out = xcalloc((size_t)floats, sizeof *out);
    rng_seed(&noise, 3);
    if (c->encodes)
        vae_clip_encode(s, out, input, c->f, chunk, NULL);
    else
        vae_clip_decode(s, out, input, c->f, chunk, 0.05f, &noise, NULL);
    vae_stream_close(s);
    arena_free(&memory);
    return out;
}

/* Is `part`, this rank's share, what the whole has there? */
static bool same(const float *part, const float *whole, const struct clip *all,
                 const struct scene *c, const struct comm *group)
{
    int64_t extent = c->axis == VAE_ROWS ? c->h : c->w, y0 = 0, x0 = 0, h = all->h, w = all->w;
    struct vae_part own = vae_part_of(extent, comm_size(group), comm_rank(group));
    if (c->axis == VAE_ROWS)
        y0 = own.first * (all->h / c->h), h = own.count * (all->h / c->h);
    else
        x0 = own.first * (all->w / c->w), w = own.count * (all->w / c->w);
    for (int64_t i = 0; i < all->t * h; i++) {
        const float *row = whole + ((i / h * all->h + y0 + i % h) * all->w + x0) * all->c;
        if (memcmp(part + i * w * all->c, row, sizeof *row * (size_t)(w * all->c))) return false;
    }
    return true;
}

static bool check(struct vae *v, const struct scene *c, struct world *w, struct comm *self)
{
    struct rng r;
    struct vae_task alone = {
        .encodes = c->encodes, .h = c->h, .w = c->w, .chunk = c->f, .group = self};
    struct vae_stream *s;
    CHECK(vae_stream_open(&s, v, &alone) == STATUS_OK, "%s", error_message());
    struct clip all = whole_output(s, c->f);
    int64_t in = c->encodes ? ((int64_t)v->time_factor * (c->f - 1) + 1) * c->h * c->w * 3 *
                                  v->space_factor * v->space_factor
                            : c->f * c->h * c->w * v->latent_channels;
    vae_stream_close(s);
    float *input = xmalloc((size_t)in * sizeof *input);
    rng_seed(&r, 8);
    rng_randn(&r, input, (size_t)in);
    float *whole = run(v, c, self, c->f, input, clip_count(&all));
    float *part = run(v, c, w->comm, c->chunk, input, clip_count(&all));
    bool equal = same(part, whole, &all, c, w->comm);
    if (!equal)
        fprintf(stderr, "rank %d of %d: %s %dx%dx%d differs\n", w->rank, w->size,
                c->encodes ? "encode" : "decode", (int)c->f, (int)c->h, (int)c->w);
    free(input);
    free(whole);
    free(part);
    return equal;
}

static int check_all(struct world *w, const char *manifest)
{
    static const struct scene scenes[] = {
        {false, 3, 7, 1, VAE_ROWS, 3},   {false, 3, 1, 7, VAE_COLUMNS, 1},
        {false, 4, 8, 2, VAE_ROWS, 2},   {false, 2, 2, 9, VAE_COLUMNS, 1},
        {false, 1, 7, 2, VAE_ROWS, 1},   {true, 2, 7, 1, VAE_ROWS, 1},
        {true, 3, 1, 8, VAE_COLUMNS, 2}, {true, 2, 9, 1, VAE_ROWS, 2},
    };
    char *folder = temp_dir_make(), *path = xasprintf("%s/vae.safetensors", folder);
    struct device *dev = device_open_cpu(1, NULL, PRECISION_F32);
    struct comm *self = comm_open_self();
    struct checkpoint *c;
    struct vae *v;
    int wrong = 0;
    TRY(synth_checkpoint(manifest, path));
    TRY(checkpoint_open(&c, path));
    TRY(vae_open(&v, dev, c));
    TRY(vae_open_encoder(v, c));
    vae_make_resident(v);
    vae_encoder_make_resident(v);
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        const struct scene *x = &scenes[i];
        int good = world_min(w, check(v, x, w, self));
        wrong += !good;
        if (w->rank == 0)
            printf("%s - %s %dx%dx%d by %s, %d at a time\n", good ? "same" : "different",
                   x->encodes ? "encode" : "decode", (int)x->f, (int)x->h, (int)x->w,
                   x->axis == VAE_ROWS ? "rows" : "columns", (int)x->chunk);
    }
    vae_close(v);
    checkpoint_close(c);
    comm_close(self);
    device_close(dev);
    free(path);
    temp_dir_remove(folder);
    return wrong ? error_set(STATUS_INPUT, "%d clips differ", wrong) : STATUS_OK;
}

static void nothing(void) {}

int main(int argc, char **argv)
{
    struct world w;
    int status = world_start(&w, &argc, &argv, nothing);
    if (status == STATUS_OK) status = world_agree(&w, check_all(&w, argv[1]));
    return world_stop(&w, status);
}
