/* The codec alone, on all ranks. `ringreel decode`: latents from a file, of a render or of another
 * tool, become a video. `ringreel encode`: a video or an image becomes latents. */
#ifndef RINGREEL_RECODE_H
#define RINGREEL_RECODE_H

#include "parallel/world.h"

#include <stdio.h>

/* The words after `ringreel decode`. --help is answered on rank 0. Collective over the world. */
int recode_decode(struct world *world, int argc, char **argv);
/* The words after `ringreel encode`. Likewise. */
int recode_encode(struct world *world, int argc, char **argv);

#endif
