/* A VAE decoder small enough to follow by hand, with random weights that tests may change. */
#ifndef RINGREEL_TESTS_VAE_SMALL_H
#define RINGREEL_TESTS_VAE_SMALL_H

#include "base/rng.h"
#include "model/safetensors.h"

enum { MAX_TENSORS = 48 };

struct net {
    struct tensor tensors[MAX_TENSORS];
    int count;
    bool causal;
    struct rng rng;
};

/* 4 latent channels, one upsampling block 16 -> 8 channels, one resblock, patch 2: two convolutions
 * before frames and pixels are doubled, three behind. */
void net_small(struct net *n, bool conditioned);
void net_free(struct net *n);

/* A tensor with random values, as the first `rank` of `shape` say. Returns the values. */
float *net_add(struct net *n, const char *name, int rank, const int64_t *shape);
/* Weight and bias of decoder.BASE, 3x3x3. */
void net_add_conv(struct net *n, const char *base, int64_t out, int64_t in);
struct tensor *net_find(struct net *n, const char *name);
void net_drop(struct net *n, const char *name);

/* As a checkpoint. */
void net_write(const struct net *n, const char *path);

#endif
