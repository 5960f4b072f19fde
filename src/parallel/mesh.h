/* Who denoises, who codes, who talks to whom.
 *
 * World ranks 0..D-1 are denoise ranks (rank 0 leads them), D..D+C-1 are codec ranks, any after
 * that are idle. A world of one plays both roles. Codec rank k mod C owns shot k: it encodes the
 * text and writes the file; all of them decode it together. When nothing is left to denoise,
 * everyone can decode with them. */
#ifndef RINGREEL_MESH_H
#define RINGREEL_MESH_H

#include "parallel/comm.h"
#include "parallel/world.h"

#include <stdbool.h>

struct mesh {
    struct world *world;
    int denoise_ranks, codec_ranks, idle_ranks;
    bool denoises, codes;       /* this rank's roles */
    int codec_index;            /* 0..C-1 on codec ranks */
    struct comm *denoise_group; /* NULL on ranks that do not denoise */
    struct comm *codec_group;   /* NULL on ranks that do not code */
    struct comm *everyone;      /* codec ranks first; NULL in a world of one */
};

/* Collective. denoise_ranks 0: all others; codec_ranks 0: default_codec_ranks. STATUS_INPUT if they
 * do not fit the world. */
int mesh_create(struct mesh *m, struct world *w, int denoise_ranks, int codec_ranks,
                int default_codec_ranks);
/* Collective. All ranks code, nobody denoises. */
int mesh_create_codec(struct mesh *m, struct world *w);
void mesh_free(struct mesh *m);
const char *mesh_role_name(const struct mesh *m); /* "denoise", "codec", "denoise+codec", "idle" */

int mesh_codec_of(const struct mesh *m, int shot); /* codec index */
int mesh_codec_world_rank(const struct mesh *m, int codec_index);

#endif
