#include "tests/support/vae_clip.h"

#include "base/error.h"
#include "model/vae_net.h"

struct vae_stream *vae_clip_open(struct vae *v, const struct vae_task *task, struct arena *memory)
{
    struct vae_stream *s;
    CHECK(vae_stream_open(&s, v, task) == STATUS_OK, "%s", error_message());
    arena_init_on(memory, "VAE stream", device_memory(v->dev));
    vae_stream_lay_out(s, memory);
    arena_commit(memory);
    vae_stream_lay_out(s, memory);
    return s;
}

struct output {
    struct device *dev;
    float *at;
    int64_t frame; /* floats */
};

static void append(void *argument, const float *frames, int64_t n)
{
    struct output *out = argument;
    op_download(out->dev, out->at, frames, sizeof *frames * (size_t)(n * out->frame));
    device_finish(out->dev);
    out->at += n * out->frame;
}

void vae_clip_decode(struct vae_stream *s, float *video, const float *z, int64_t f, int64_t chunk,
                     float timestep, struct rng *noise, const struct vae_progress *progress)
{
    const struct stage *last = &s->stages[s->stage_count - 1];
    struct output out = {s->v->dev, video, last->h * last->w * s->coder->conv_out.out};
    int64_t latent = s->task.h * s->task.w * s->v->latent_channels;
    vae_stream_begin(s, f, timestep, noise, (struct vae_sink){append, &out}, progress);
    for (int64_t i = 0; i < f; i += chunk) {
        int64_t n = f - i < chunk ? f - i : chunk;
        vae_stream_push(s, z + i * latent, n, i + n == f);
    }
}

void vae_clip_encode(struct vae_stream *s, float *encoded, const float *video, int64_t f,
                     int64_t chunk, const struct vae_progress *progress)
{
    const struct stage *last = &s->stages[s->stage_count - 1];
    int space = s->v->space_factor, time = s->v->time_factor;
    struct output out = {s->v->dev, encoded, last->h * last->w * s->coder->conv_out.out};
    int64_t frame = s->task.h * s->task.w * space * space * 3, total = time * (f - 1) + 1;
    vae_stream_begin(s, f, 0, NULL, (struct vae_sink){append, &out}, progress);
    for (int64_t i = 0; i < total;) {
        int64_t most = chunk >= f ? total : i == 0 ? 1 : time * chunk;
        int64_t n = total - i < most ? total - i : most;
        vae_stream_push(s, video + i * frame, n, i + n == total);
        i += n;
    }
}
