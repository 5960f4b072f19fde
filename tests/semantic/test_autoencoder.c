/* What does the trained VAE of models/tiny keep of a film? Films of the synthetic world that it
 * never saw are painted, encoded, decoded as a render decodes (with decode noise), and compared
 * with what they were.
 *
 *     RINGREEL_MODEL=FOLDER     another model, laid out as models/tiny */
#include "base/error.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/safetensors.h"
#include "tests/semantic/questions.h"
#include "tests/support/synth.h"
#include "tests/support/tiny.h"
#include "tests/support/vae_clip.h"

#include <stdlib.h>

enum { WIDTH = 256, HEIGHT = 160, FRAMES = 33, RATE = 25, FILMS = 27, CHUNK = 2 };
static const double seconds = 1.3; /* from end to end of a path */

/* dB, mean over the films. */
static const double psnr_at_least = 32;
/* Share of what the films show that is measured in them afterwards: no render can do better. */
static const double seen_at_least = 0.95;

/* What a render uses where the job file is silent. */
static const float decode_timestep = 0.05f, decode_noise = 0.025f;

struct model {
    struct device *dev;
    struct comm *self;
    struct checkpoint *checkpoint;
    struct vae *vae;
    int64_t f, h, w;
};

static void ok(int status)
{
    if (status != STATUS_OK) fail_msg("%s", error_message());
}

static struct model open_model(void)
{
    struct model m = {.f = 1};
    char *path = xasprintf("%s/ltxv-tiny.safetensors", tiny_folder());
    m.dev = device_open_cpu(2, device_best_isa(), PRECISION_F32);
    m.self = comm_open_self();
    ok(checkpoint_open(&m.checkpoint, path));
    ok(vae_open(&m.vae, m.dev, m.checkpoint));
    ok(vae_open_encoder(m.vae, m.checkpoint));
    vae_make_resident(m.vae);
    vae_encoder_make_resident(m.vae);
    m.f = (FRAMES - 1) / vae_time_factor(m.vae) + 1;
    m.h = HEIGHT / vae_space_factor(m.vae);
    m.w = WIDTH / vae_space_factor(m.vae);
    free(path);
    return m;
}

static void close_model(struct model *m)
{
    vae_close(m->vae);
    checkpoint_close(m->checkpoint);
    comm_close(m->self);
    device_close(m->dev);
}

static struct vae_task task_of(const struct model *m, bool encodes)
{
    return (struct vae_task){
        .encodes = encodes, .h = m->h, .w = m->w, .chunk = CHUNK, .group = m->self};
}

/* z [tokens, C]: the mean of what the encoder believes, normalised. */
static void encode(const struct model *m, float *z, const struct film *film)
{
    int64_t tokens = m->f * m->h * m->w, count = (int64_t)FRAMES * HEIGHT * WIDTH * 3;
    struct vae_task task = task_of(m, true);
    struct arena memory;
    struct vae_stream *s = vae_clip_open(m->vae, &task, &memory);
    float *video = xmalloc((size_t)count * sizeof *video);
    float *encoded = xmalloc((size_t)(tokens * vae_encoder_outputs(m->vae)) * sizeof *encoded);
    for (int64_t i = 0; i < count; i++) video[i] = (float)film->pixels[i] / 127.5f - 1;
    vae_clip_encode(s, encoded, video, m->f, CHUNK, NULL);
    vae_posterior(m->vae, z, NULL, encoded, tokens);
    vae_normalize(m->vae, z, tokens);
    vae_stream_close(s);
    arena_free(&memory);
    free(video);
    free(encoded);
}

static struct film decode(const struct model *m, float *z, int seed)
{
    int64_t tokens = m->f * m->h * m->w, n = tokens * vae_latent_channels(m->vae);
    int64_t count = (int64_t)FRAMES * HEIGHT * WIDTH * 3;
    struct vae_task task = task_of(m, false);
    struct arena memory;
    struct rng r;
    struct vae_stream *s = vae_clip_open(m->vae, &task, &memory);
    struct film film = film_make(FRAMES, HEIGHT, WIDTH);
    float *video = xmalloc((size_t)count * sizeof *video);
    float *noise = xmalloc((size_t)n * sizeof *noise);
    rng_seed(&r, (uint64_t)seed);
    rng_randn_strided(&r, noise, (size_t)n);
    for (int64_t i = 0; i < n; i++) z[i] = (1 - decode_noise) * z[i] + decode_noise * noise[i];
    vae_unnormalize(m->vae, z, tokens);
    vae_clip_decode(s, video, z, m->f, CHUNK, decode_timestep, NULL, NULL);
    for (int64_t i = 0; i < count; i++) {
        float value = (video[i] + 1) * 127.5f;
        film.pixels[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
    vae_stream_close(s);
    arena_free(&memory);
    free(video);
    free(noise);
    return film;
}

/* dB; what can still be seen of it is added to `score`. */
static double pass_through(const struct model *m, const struct question *q, int seed,
                           struct scene_score *score)
{
    size_t n = (size_t)(m->f * m->h * m->w * vae_latent_channels(m->vae));
    float *z = xmalloc(n * sizeof *z);
    struct film film = scene_film(&q->asked, FRAMES, HEIGHT, WIDTH, RATE, seconds);
    encode(m, z, &film);
    struct film back = decode(m, z, seed);
    double psnr = film_psnr(back.pixels, film.pixels, (size_t)FRAMES * HEIGHT * WIDTH * 3);
    struct scene seen = scene_measure(&back);
    scene_score_add(score, &q->asked, &seen);
    film_free(&film);
    film_free(&back);
    free(z);
    return psnr;
}

static void films_pass_through_the_vae(void **state)
{
    (void)state;
    int count = tiny_sanitized() ? 1 : FILMS;
    struct model m = open_model();
    struct scene_score score = {0};
    double sum = 0, worst = 1e9;
    for (int i = 0; i < count; i++) {
        double psnr = pass_through(&m, &prompts[i], i, &score);
        print_message("  %-70.70s %.1f dB\n", prompts[i].prompt, psnr);
        sum += psnr;
        worst = psnr < worst ? psnr : worst;
    }
    print_message("  mean %.2f dB, worst %.2f; %.3f of what was painted is to be seen\n",
                  sum / count, worst, scene_score_share(&score));
    close_model(&m);
    if (!tiny_sanitized() && sum / count < psnr_at_least)
        fail_msg("films come back at %.2f dB, %.0f wanted", sum / count, psnr_at_least);
    if (!tiny_sanitized() && scene_score_share(&score) < seen_at_least)
        fail_msg("%.3f of what was painted is to be seen, %.2f wanted", scene_score_share(&score),
                 seen_at_least);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(films_pass_through_the_vae)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
