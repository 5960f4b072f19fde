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

#include "parallel/comm.h"
#include "parallel/handover.h"
#include "parallel/shard.h"

#include <stdint.h>

/* Creates DIR/shot-NNNN for every shot. STATUS_INPUT. Local (rank 0). */
int dump_prepare(const char *dir, int shots);

struct dump_part {
    const char *name;  /* "velocity_000" */
    const float *rows; /* this rank's [S_loc, C] */
};
/* Gathers up to two sharded matrices to the group's rank 0, which writes DIR/shot-NNNN/FILE.
 * Collective over group; only rank 0 can fail. */
int dump_sharded(const char *dir, int shot, const char *file, struct comm *group,
                 const struct shard_plan *plan, int64_t channels, const struct dump_part *parts,
                 int count);

/* width: of the embeddings. Local. */
int dump_inputs(const char *dir, int shot, const struct shot_input *input, int64_t width,
                int64_t channels, const float *sigmas, int steps);
int dump_latents(const char *dir, int shot, const float *latents, int64_t c, int64_t f, int64_t h,
                 int64_t w);
int dump_frames(const char *dir, int shot, const uint8_t *frames, int64_t f, int64_t h, int64_t w);

#endif
