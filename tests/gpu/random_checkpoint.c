/* random_checkpoint FILE WIDTH BLOCKS HEADS CAPTION VAE_CHANNELS: a model in the structure of 0.9.5
 * to 0.9.8 with random weights, for timing (tests/support/released.h). */
#include "tests/support/released.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: random_checkpoint FILE WIDTH BLOCKS HEADS CAPTION VAE_CHANNELS\n");
        return 2;
    }
    const struct released model = {.width = atol(argv[2]),
                                   .blocks = atol(argv[3]),
                                   .heads = atol(argv[4]),
                                   .caption = atol(argv[5]),
                                   .vae_channels = atol(argv[6]),
                                   .random = true};
    released_write(&model, argv[1]);
    return 0;
}
