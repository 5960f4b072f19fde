/* Whole clips through a VAE stream, in memory of exactly the planned size, for tests. */
#ifndef RINGREEL_TESTS_VAE_CLIP_H
#define RINGREEL_TESTS_VAE_CLIP_H

#include "model/vae.h"

/* Opens the stream and takes its memory; arena_free and vae_stream_close give it back. */
struct vae_stream *vae_clip_open(struct vae *v, const struct vae_task *task, struct arena *memory);

/* z [f,h,w,C] -> video [F,H,W,3] of this rank's part. */
void vae_clip_decode(struct vae_stream *s, float *video, const float *z, int64_t f, int64_t chunk,
                     float timestep, struct rng *noise, const struct vae_progress *progress);
/* The same of these frames alone: video is [frames,H,W,3]. Returns how many latents were pushed. */
int64_t vae_clip_decode_span(struct vae_stream *s, float *video, const float *z, int64_t f,
                             int64_t chunk, float timestep, struct rng *noise,
                             struct vae_span frames, const struct vae_progress *progress);
/* video [F,H,W,3] -> encoded [f,h,w,outputs] of this rank's part. */
void vae_clip_encode(struct vae_stream *s, float *encoded, const float *video, int64_t f,
                     int64_t chunk, const struct vae_progress *progress);

#endif
