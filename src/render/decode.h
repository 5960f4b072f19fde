/* From latents to a video file: decoded by all codec ranks together, a few frames at a time, each
 * written as soon as it is known. */
#ifndef RINGREEL_DECODE_H
#define RINGREEL_DECODE_H

#include "render/engine.h"

/* What is decoded at a time: enough positions to keep threads busy, and no more. */
struct vae_task decode_task(const struct engine *e, const struct shot *s);

/* Decodes latents [S, C]; the shot's owner writes the video, its sidecar and what --digest and --dump
 * ask for. STATUS_STOPPED when another rank failed. Collective over the codec group. */
int decode_shot(struct engine *e, const struct shot *s, const float *latents);

#endif
