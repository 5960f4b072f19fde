/* hollow_checkpoint FOLDER: writes the files of a released LTX-Video 2B of 0.9.5 to 0.9.8 and of
 * its T5-XXL as far as their headers go (tests/support/released.h):
 *
 *     FOLDER/ltxv-2b.safetensors
 *     FOLDER/text_encoder/model.safetensors
 *
 * Prints the bytes of data of each. For dry_run.sh; not a test by itself. */
#include "tests/support/released.h"

#include <inttypes.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    const struct released two_b = {.width = 2048,
                                   .blocks = 28,
                                   .heads = 32,
                                   .caption = 4096,
                                   .vae_channels = 1024,
                                   .encoder = true};
    static const char model[] = "ltxv-2b.safetensors", t5[] = "text_encoder/model.safetensors";
    char path[4096];
    if (argc != 2) {
        fprintf(stderr, "usage: hollow_checkpoint FOLDER\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/%s", argv[1], model);
    printf("%s %" PRIu64 "\n", model, released_write(&two_b, path));
    snprintf(path, sizeof path, "%s/%s", argv[1], t5);
    printf("%s %" PRIu64 "\n", t5, released_write_t5(path));
    return 0;
}
