/* Which frames every layer of a stream makes. Where only some frames of a decode are wanted, the
 * first layers read far to both sides of them, a frame more with every convolution that follows;
 * the last ones, which cost the most, hardly do. */
#include "base/error.h"
#include "model/vae_net.h"

/* What the block behind a convolution makes of t frames of it. */
static int64_t resized(const struct vae_stream *s, const struct vae_block *b, int64_t t)
{
    return s->task.encodes ? (t - 1) / b->stride_t + 1 : b->stride_t * (t - 1) + 1;
}

void vae_want_all(struct vae_stream *s, int64_t frames)
{
    int64_t t = frames > 0 ? frames : INT64_MAX;
    for (int i = 0; i < s->filter_count; i++) {
        struct filter *f = &s->filters[i];
        f->reads = (struct vae_span){0, t};
        f->makes = (struct vae_span){0, (t - 1) / f->conv->stride_t + 1};
        if (f->resizes) t = resized(s, f->resizes, t);
    }
}

/* Coarse frame 0 becomes fine frame 0, each after it `stride` frames. */
static struct vae_span coarse(struct vae_span fine, int64_t stride)
{
    return (struct vae_span){(fine.first + stride - 1) / stride,
                             (fine.end + stride - 2) / stride + 1};
}

void vae_want(struct vae_stream *s, struct vae_span wanted)
{
    int64_t before = s->coder->causal ? 2 : 1, after = s->coder->causal ? 0 : 1;
    const struct filter *last = &s->filters[s->filter_count - 1];
    CHECK(!s->task.encodes && wanted.first >= 0 && wanted.first < wanted.end &&
              wanted.end <= last->makes.end,
          "frames %lld to %lld of %lld", (long long)wanted.first, (long long)wanted.end,
          (long long)last->makes.end);
    for (int i = s->filter_count - 1; i >= 0; i--) {
        struct filter *f = &s->filters[i];
        if (f->resizes) wanted = coarse(wanted, f->resizes->stride_t);
        f->makes = wanted;
        wanted.first = wanted.first > before ? wanted.first - before : 0;
        wanted.end = wanted.end + after < f->reads.end ? wanted.end + after : f->reads.end;
        f->reads = wanted;
    }
}

double vae_wanted_work(const struct vae_stream *s, int64_t h, int64_t w)
{
    double work = 0, positions = (double)h * (double)w;
    for (int i = 0; i < s->filter_count; i++) {
        const struct filter *f = &s->filters[i];
        double frames = (double)(f->makes.end - f->makes.first);
        int stride = f->conv->stride_s;
        work += 27 * frames * positions / (stride * stride) * (double)(f->conv->in * f->conv->out);
        if (!f->resizes) continue;
        double factor = (double)f->resizes->stride_s * f->resizes->stride_s;
        positions = s->task.encodes ? positions / factor : positions * factor;
    }
    return work;
}

double vae_decode_work(const struct vae *v, int64_t f, int64_t h, int64_t w, struct vae_span frames)
{
    struct vae_stream s = {0};
    vae_stream_make_filters(&s, (struct vae_coder *)&v->decoder); /* only read */
    vae_want_all(&s, f);
    vae_want(&s, frames);
    double work = vae_wanted_work(&s, h, w);
    vae_stream_free_filters(&s);
    return work;
}
