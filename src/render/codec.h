/* The codec loop: prompts in, embeddings out; latents in, video out. Where nothing
 * else is said, functions are Local to a codec rank. */
#ifndef RINGREEL_CODEC_H
#define RINGREEL_CODEC_H

#include "render/engine.h"

/* Fills the input, which has room, with the shot's texts and the image it begins from. */
int codec_encode_input(struct engine *e, const struct shot *s, struct shot_input *input);

/* What a codec rank does in a world of two or more. */
int codec_loop(struct engine *e);

/* The decode of the last shot, when this rank's side of the hand-over has ended with `status`: by
 * all ranks if they help (e->helping), and then every rank comes here once, whatever its status;
 * else by the codec ranks. Collective over those. */
int codec_decode_last(struct engine *e, int status);

#endif
