/* From latents to a video file: decoded by several ranks together (engine_decode_group), a few
 * frames at a time, each written as soon as it is known. No rank has more of the clip than that. */
#ifndef RINGREEL_DECODE_H
#define RINGREEL_DECODE_H

#include "render/engine.h"

/* Frames of latents that are decoded at a time: enough positions to keep threads busy, and no
 * more. */
int64_t decode_chunk(const struct shot *s);
/* Frames of the shot that are wanted: no other is decoded. */
struct vae_span decode_span(const struct shot *s);
/* How ranks share a picture of h x w latents: along the axis whose largest share is the smaller; of
 * two that are alike by rows, which are long enough to fill the kernels' tiles. */
enum vae_axis decode_axis(int64_t h, int64_t w, int ranks);
struct vae_task decode_task(const struct engine *e, const struct shot *s);

/* Where a shot's latents [S, C] come from, normalised. */
struct latents_source {
    /* The next `tokens` of them, there until the next call; decode_chunk's frames at a time.
     * Collective over those who decode the shot. */
    const float *(*next)(void *argument, int64_t tokens);
    void *argument;
};

/* Decodes a shot; its owner writes the video, its sidecar and what --digest and --dump ask for.
 * STATUS_STOPPED when another rank failed. Collective over those who decode it. */
int decode_shot(struct engine *e, const struct shot *s, struct latents_source latents);

#endif
