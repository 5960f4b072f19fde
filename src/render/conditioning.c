#include "render/conditioning.h"

#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/trace.h"
#include "media/condition.h"
#include "parallel/heartbeat.h"
#include "render/noise.h"

#include <math.h>
#include <stdlib.h>

static const struct conditioning_item *item_of(const struct shot *s)
{
    const struct conditioning *c = &s->options->conditioning;
    return c->count ? &c->items[0] : NULL; /* the settings allow one, at frame 0 */
}

int64_t conditioning_tokens(const struct shot *s) { return item_of(s) ? s->h * s->w : 0; }

int64_t conditioning_most_tokens(const struct engine *e)
{
    int64_t most = 0;
    if (e->codec_only) return 0;
    for (int i = 0; i < e->job->shot_count; i++) {
        int64_t tokens = conditioning_tokens(&e->shots[i]);
        most = tokens > most ? tokens : most;
    }
    return most;
}

/* ---- codec ranks ----------------------------------------------------------------------------- */

/* pixels [height, width, 3] of the padded size */
static int read_image(const struct shot *s, float *pixels)
{
    const struct shot_options *o = s->options;
    struct condition_size size = {.width = o->width,
                                  .height = o->height,
                                  .padded_width = (int)s->width,
                                  .padded_height = (int)s->height,
                                  .left = (int)s->left,
                                  .top = (int)s->top};
    return condition_image(pixels, item_of(s)->media, &size, o->conditioning_crf);
}

static int check_image(const struct shot *s)
{
    float *pixels = xmalloc((size_t)(s->height * s->width * 3) * sizeof *pixels);
    int status = read_image(s, pixels);
    free(pixels);
    return status;
}

int conditioning_open(struct engine *e)
{
    for (int i = 0; i < e->job->shot_count; i++) {
        if (!engine_owns(e, i) || !item_of(&e->shots[i])) continue;
        TRY(vae_open_encoder(e->codec.vae, e->checkpoint));
        TRY(check_image(&e->shots[i]));
        heartbeat_worked();
    }
    return STATUS_OK;
}

struct vae_task conditioning_task(const struct engine *e, const struct shot *s)
{
    return (struct vae_task){
        .encodes = true, .h = s->h, .w = s->w, .chunk = 1, .group = e->codec.self};
}

struct image {
    struct device *dev;
    float *encoded; /* of the host */
    int64_t floats;
};

static void take_encoded(void *argument, const float *frames, int64_t n)
{
    const struct image *image = argument;
    CHECK(n == 1, "an image became %lld latent frames", (long long)n);
    op_download(image->dev, image->encoded, frames, sizeof *frames * (size_t)image->floats);
    device_finish(image->dev);
}

static void encode_image(struct engine *e, const struct shot *s)
{
    struct vae_task task = conditioning_task(e, s);
    struct vae_stream *stream = engine_open_stream(e, &task);
    struct image image = {e->dev, e->codec.encoded,
                          conditioning_tokens(s) * vae_encoder_outputs(e->codec.vae)};
    vae_stream_begin(stream, 1, 0, NULL, (struct vae_sink){take_encoded, &image}, NULL);
    vae_stream_push(stream, e->codec.image, 1, true);
    vae_stream_close(stream);
}

/* Between two shots nothing else uses the memory of the streams. */
int conditioning_encode(struct engine *e, const struct shot *s, float *condition)
{
    struct codec *c = &e->codec;
    struct rng global;
    int64_t tokens = conditioning_tokens(s);
    double start_s = clock_s();
    phase_set("shot %d encode image", s->number + 1);
    TRY(read_image(s, c->image));
    encode_image(e, s);
    vae_posterior(c->vae, condition, c->log_variance, c->encoded, tokens);
    rng_seed(&global, (uint64_t)s->options->seed);
    vae_sample(c->vae, condition, condition, c->log_variance, tokens, &global, c->latents);
    vae_normalize(c->vae, condition, tokens);
    trace_span("codec", "encode image", 0, s->number, -1, start_s);
    log_json("stage", "\"name\":\"encode image\",\"shot\":%d,\"seconds\":%.6f", s->number + 1,
             clock_s() - start_s);
    return STATUS_OK;
}

/* ---- the random streams ---------------------------------------------------------------------- */

struct rng conditioning_global_stream(const struct engine *e, const struct shot *s)
{
    struct rng r;
    rng_seed(&r, (uint64_t)s->options->seed);
    if (item_of(s)) noise_skip(&r, conditioning_tokens(s), e->channels);
    return r;
}

/* ---- denoise ranks --------------------------------------------------------------------------- */

/* torch.lerp: from the nearer end, so that weights of 0 and 1 give the ends themselves. */
static float lerp(float a, float b, float weight)
{
    return weight < 0.5f ? a + weight * (b - a) : b - (b - a) * (1 - weight);
}

/* Of the first `rows` tokens, one level; of the others, the next. */
static void set_row_index(struct device *dev, int32_t *row_index, int64_t rows, int64_t all)
{
    int32_t piece[1024];
    int64_t most = sizeof piece / sizeof *piece;
    for (int64_t at = 0; at < all; at += most) {
        int64_t n = all - at < most ? all - at : most;
        for (int64_t i = 0; i < n; i++) piece[i] = at + i >= rows;
        op_upload(dev, row_index + at, piece, (size_t)n * sizeof *piece);
    }
}

/* Rows of x <- their mixture with `condition`, [rows, C] of the host; once a shot, so the host does
 * it. */
static void mix(struct engine *e, struct mat x, const float *condition, float strength)
{
    float *mixed = e->denoiser.mixed;
    int64_t n = x.rows * x.cols;
    op_download(e->dev, mixed, x.p, (size_t)n * sizeof *mixed);
    device_finish(e->dev);
    for (int64_t i = 0; i < n; i++) mixed[i] = lerp(mixed[i], condition[i], strength);
    op_upload(e->dev, x.p, mixed, (size_t)n * sizeof *mixed);
}

struct conditioned conditioning_begin(struct engine *e, const struct shot *s,
                                      const struct shard_plan *plan, struct mat x,
                                      const float *condition)
{
    const struct conditioning_item *item = item_of(s);
    if (!item) return (struct conditioned){0};
    struct denoiser *d = &e->denoiser;
    int64_t first = shard_first_token(plan, comm_rank(e->mesh.denoise_group));
    int64_t rows = conditioning_tokens(s) - first;
    rows = rows < 0 ? 0 : rows > x.rows ? x.rows : rows;
    float strength = (float)item->strength;
    mix(e, mat_rows(x, 0, rows), condition + first * x.cols, strength);
    op_copy(e->dev, d->start, x.p, (size_t)(rows * x.cols) * sizeof *d->start);
    set_row_index(e->dev, d->row_index, rows, x.rows);
    double noise = s->options->image_cond_noise_scale;
    return (struct conditioned){.any = true,
                                .start = mat_f32(d->start, rows, x.cols),
                                .free_below = 1 - strength,
                                .noise = strength > 1 - 1e-6f ? noise : 0,
                                .draws = noise > 0,
                                .row_index = d->row_index};
}

void conditioning_refresh(const struct conditioned *c, struct engine *e, struct mat x, float t,
                          const float *noise)
{
    if (c->noise > 0)
        op_lincomb(e->dev, x.p, 1, c->start.p, (float)c->noise * (t * t), noise,
                   c->start.rows * c->start.cols);
}

struct timesteps conditioning_levels(struct conditioned *c, float t)
{
    c->levels[0] = fminf(t, c->free_below);
    c->levels[1] = t;
    return (struct timesteps){.count = 2, .values = c->levels, .row_index = c->row_index};
}

bool conditioning_is_free(const struct conditioned *c, float t)
{
    return t - 1e-6f < c->free_below;
}
