/* --dump DIR: what the run computed, as safetensors, so that anyone can compare with anything.
 *
 *   DIR/shot-0001/inputs.safetensors     prompt_embeds [L,4096], prompt_mask [L], sigmas [steps];
 *                                        with guidance negative_embeds, negative_mask;
 *                                        with an image condition [h w,C]: its normalised latents
 *   DIR/shot-0001/noise.safetensors      noise [S,C]: the initial latents, in token order
 *   DIR/shot-0001/step_000.safetensors   velocity_000 [S,C] (guided), latents_000 [S,C] (after it)
 *   DIR/shot-0001/latents.safetensors    latents [C,f,h,w]: the final, normalised ones
 *   DIR/shot-0001/frames.safetensors     frames [F,H,W,3] uint8
 */
#ifndef RINGREEL_DUMP_H
#define RINGREEL_DUMP_H

#include "kernels/ops.h"
#include "media/partial.h"
#include "parallel/comm.h"
#include "parallel/handover.h"
#include "parallel/shard.h"

#include <stdint.h>

/* Creates DIR/shot-NNNN for every shot. STATUS_INPUT. Local (rank 0). */
int dump_prepare(const char *dir, int shots);

struct dump_part {
    const char *name; /* "velocity_000" */
    struct mat rows;  /* this rank's [S_loc, C], of the device */
};
/* Gathers up to two sharded matrices to the group's rank 0, which writes DIR/shot-NNNN/FILE.
 * Collective over group; only rank 0 can fail. */
int dump_sharded(const char *dir, int shot, const char *file, struct device *dev,
                 struct comm *group, const struct shard_plan *plan, const struct dump_part *parts,
                 int count);

/* width: of the embeddings. Local. */
int dump_inputs(const char *dir, int shot, const struct shot_input *input, int64_t width,
                int64_t channels, const float *sigmas, int steps);

/* The final latents come a few frames at a time and are written as they come. */
struct latents_dump {
    struct partial file;
    uint64_t begin; /* of the planes, in the file */
    int64_t channels, tokens, written;
};
int dump_latents_open(struct latents_dump *d, const char *dir, int shot, int64_t c, int64_t f,
                      int64_t h, int64_t w);
/* latents [tokens, C], the next of them. */
int dump_latents_add(struct latents_dump *d, const float *latents, int64_t tokens);
/* The file is whole, or with a status other than STATUS_OK there is none. */
int dump_latents_close(struct latents_dump *d, int status);

int dump_frames(const char *dir, int shot, const uint8_t *frames, int64_t f, int64_t h, int64_t w);

#endif
