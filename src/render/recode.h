/* `ringreel decode`: the codec alone. Latents from a file, of a render or of another tool, become a
 * video; every rank decodes. */
#ifndef RINGREEL_RECODE_H
#define RINGREEL_RECODE_H

#include "parallel/world.h"

#include <stdio.h>

/* The words after `ringreel decode`. --help is answered on rank 0. Collective over the world. */
int recode_decode(struct world *world, int argc, char **argv);

#endif
