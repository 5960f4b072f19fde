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

static void push_latents(struct vae_stream *s, const float *z, struct vae_span span, int64_t chunk)
{
    int64_t latent = s->task.h * s->task.w * s->v->latent_channels;
    for (int64_t i = span.first; i < span.end; i += chunk) {
        int64_t n = span.end - i < chunk ? span.end - i : chunk;
        vae_stream_push(s, z + i * latent, n, i + n == span.end);
    }
}

static struct output output_of(const struct vae_stream *s, float *to)
{
    const struct stage *last = &s->stages[s->stage_count - 1];
    return (struct output){s->v->dev, to, last->h * last->w * s->coder->conv_out.out};
}

void vae_clip_decode(struct vae_stream *s, float *video, const float *z, int64_t f, int64_t chunk,
                     float timestep, struct rng *noise, const struct vae_progress *progress)
{
    struct output out = output_of(s, video);
    vae_stream_begin(s, f, timestep, noise, (struct vae_sink){append, &out}, progress);
    push_latents(s, z, (struct vae_span){0, f}, chunk);
}

int64_t vae_clip_decode_span(struct vae_stream *s, float *video, const float *z, int64_t f,
                             int64_t chunk, float timestep, struct rng *noise,
                             struct vae_span frames, const struct vae_progress *progress)
{
    struct output out = output_of(s, video);
    vae_stream_begin(s, f, timestep, noise, (struct vae_sink){append, &out}, progress);
    struct vae_span latents = vae_stream_narrow(s, frames);
    push_latents(s, z, latents, chunk);
    int64_t given = (out.at - video) / (out.frame > 0 ? out.frame : 1);
    CHECK(out.frame == 0 || given == frames.end - frames.first, "%lld frames", (long long)given);
    return latents.end - latents.first;
}

void vae_clip_encode(struct vae_stream *s, float *encoded, const float *video, int64_t f,
                     int64_t chunk, const struct vae_progress *progress)
{
    int space = s->v->space_factor, time = s->v->time_factor;
    struct output out = output_of(s, encoded);
    int64_t frame = s->task.h * s->task.w * space * space * 3, total = time * (f - 1) + 1;
    vae_stream_begin(s, f, 0, NULL, (struct vae_sink){append, &out}, progress);
    for (int64_t i = 0; i < total;) {
        int64_t most = chunk >= f ? total : i == 0 ? 1 : time * chunk;
        int64_t n = total - i < most ? total - i : most;
        vae_stream_push(s, video + i * frame, n, i + n == total);
        i += n;
    }
}
