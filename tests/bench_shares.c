/* bench_shares: how much sooner all ranks together decode a clip than one alone, one thread each;
 * started with mpirun by bench_ranks.sh. Prints the median of RUNS ratios, each of two decodes one
 * after the other. */
#include "base/error.h"
#include "base/log.h"
#include "model/vae.h"
#include "parallel/world.h"
#include "tests/support/vae_clip.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { RUNS = 5, F = 9, H = 16, W = 24, CHUNK = 1, TAG_DONE = 91 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double decode_s(struct vae *v, struct comm *group, const float *z, float *video)
{
    struct arena memory;
    struct vae_task task = {.h = H, .w = W, .chunk = CHUNK, .group = group, .axis = VAE_ROWS};
    struct vae_stream *s = vae_clip_open(v, &task, &memory);
    struct rng noise;
    rng_seed(&noise, 3);
    double start_s = clock_s();
    vae_clip_decode(s, video, z, F, CHUNK, 0.05f, &noise, NULL);
    double seconds = clock_s() - start_s;
    vae_stream_close(s);
    arena_free(&memory);
    return seconds;
}

/* The others sleep meanwhile: a rank that polls takes from its neighbour's core. */
static double decode_alone_s(struct world *w, struct vae *v, const float *z, float *video)
{
    struct comm *self = comm_open_self();
    char word = 0;
    double seconds = w->rank == 0 ? decode_s(v, self, z, video) : 0;
    for (int r = 1; r < w->size; r++) {
        int from;
        struct transfer t = {0};
        while (w->rank == r && !comm_probe(w->comm, TAG_DONE, &from)) usleep(1000);
        if (w->rank == 0) comm_send_bytes_start(w->comm, &t, &word, 1, r, TAG_DONE);
        if (w->rank == r) comm_receive_bytes_start(w->comm, &t, &word, 1, 0, TAG_DONE);
        comm_wait(w->comm, &t);
    }
    comm_close(self);
    return seconds;
}

static int measure(struct world *w, const char *path)
{
    struct device *dev = device_open_cpu(1, NULL, PRECISION_F32);
    struct checkpoint *c;
    struct vae *v;
    double ratio[RUNS], alone[RUNS];
    TRY(checkpoint_open(&c, path));
    TRY(vae_open(&v, dev, c));
    vae_make_resident(v);
    int64_t latents = (int64_t)F * H * W * vae_latent_channels(v), space = vae_space_factor(v),
            frames = (int64_t)vae_time_factor(v) * (F - 1) + 1;
    float *z = xmalloc((size_t)latents * sizeof *z);
    float *video = xcalloc((size_t)(frames * H * W * space * space * 3), sizeof *video);
    struct rng r;
    rng_seed(&r, 8);
    rng_randn(&r, z, (size_t)latents);
    for (int i = -1; i < RUNS; i++) { /* the first warms up */
        double one = decode_alone_s(w, v, z, video);
        world_min(w, 0); /* all begin together */
        double all = decode_s(v, w->comm, z, video);
        if (i >= 0) ratio[i] = one / all, alone[i] = one;
    }
    qsort(ratio, RUNS, sizeof *ratio, by_value);
    qsort(alone, RUNS, sizeof *alone, by_value);
    if (w->rank == 0)
        printf("%-52s %10.2f   (%.2f to %.2f; %.1f s alone)\n",
               "decode, all ranks against one, times as fast", ratio[RUNS / 2], ratio[0],
               ratio[RUNS - 1], alone[RUNS / 2]);
    free(z);
    free(video);
    vae_close(v);
    checkpoint_close(c);
    device_close(dev);
    return STATUS_OK;
}

static void nothing(void) {}

int main(int argc, char **argv)
{
    struct world w;
    int status = world_start(&w, &argc, &argv, nothing);
    if (status == STATUS_OK) status = world_agree(&w, measure(&w, argv[1]));
    return world_stop(&w, status);
}
