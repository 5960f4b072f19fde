/* Checkpoints with the names, shapes and types (BF16) of LTX-Video's releases, for tests and
 * benches of their sizes. */
#ifndef RINGREEL_TESTS_RELEASED_H
#define RINGREEL_TESTS_RELEASED_H

#include <stdbool.h>
#include <stdint.h>

/* A transformer and a VAE of 0.9.5 to 0.9.8 (spec transformer 2.1 and 5, vae 3.1). */
struct released {
    int64_t width, blocks, heads, caption; /* of the 2B: 2048, 28, 32, 4096 */
    int64_t vae_channels;                  /* of the decoder where it is widest: 1024 */
    bool encoder;                          /* with the VAE's encoder, as released */
    /* Weights are random; else the data is a hole in the file, which takes no room on the disk and
     * reads as zeros. */
    bool random;
};
/* Returns the bytes of data. */
uint64_t released_write(const struct released *r, const char *path);
/* T5-XXL, hollow. */
uint64_t released_write_t5(const char *path);

#endif
