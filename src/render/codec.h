/* The codec loop: prompts in, embeddings out; latents in, video out. All functions are Local to a
 * codec rank. */
#ifndef RINGREEL_CODEC_H
#define RINGREEL_CODEC_H

#include "render/engine.h"

/* Fills the input, which has room, with the shot's texts and the image it begins from. */
int codec_encode_input(struct engine *e, const struct shot *s, struct shot_input *input);

/* What a codec rank does in a world of two or more. */
int codec_loop(struct engine *e);

#endif
