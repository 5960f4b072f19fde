/* The decoder as vae.c reads it and vae_decode.c runs it. Private to these two. */
#ifndef RINGREEL_VAE_NET_H
#define RINGREEL_VAE_NET_H

#include "model/vae.h"

enum { VAE_MAX_BLOCKS = 64, VAE_SINUSOID = 256 };

/* Timestep -> rows of shift and scale: linear_2(silu(linear_1(sinusoid))). */
struct vae_embedder {
    struct linear first, second;
    float *rows; /* [second.out] embedding of the present decode; NULL: not conditioned */
};

/* Spec vae 1.5. Modulation rows are shift1, scale1, shift2, scale2. */
struct vae_resblock {
    int64_t in, out;
    struct conv conv1, conv2;
    struct conv shortcut;               /* 1x1x1, only when in != out, behind the LayerNorm norm3 */
    float *norm3_weight, *norm3_bias;   /* [in]; NULL when in == out */
    float *noise_scale1, *noise_scale2; /* [out]; NULL: no injected noise */
    float *table;                       /* [4][in] scale_shift_table; NULL: not conditioned */
    float *modulation;                  /* [4][in] table + embedding of the present decode */
};

enum vae_block_kind { VAE_BLOCK_NONE, VAE_BLOCK_RES, VAE_BLOCK_RES_X_Y, VAE_BLOCK_UP };

struct vae_block {
    enum vae_block_kind kind;
    int64_t in, out;
    /* VAE_BLOCK_RES: `count` resblocks under one time embedder. VAE_BLOCK_RES_X_Y: one, bare. */
    struct vae_embedder time;
    struct vae_resblock *res;
    int count;
    /* VAE_BLOCK_UP (spec vae 1.7) */
    struct conv conv;
    bool residual;
};

struct vae {
    struct device *dev;
    bool resident;
    bool conditioned; /* wants a timestep */
    enum conv_time conv_time;
    int64_t latent_channels;
    int patch, time_factor, space_factor;
    struct conv conv_in, conv_out;
    struct vae_block blocks[VAE_MAX_BLOCKS];
    int block_count;
    float *mean, *std; /* [latent_channels] */
    float timestep_multiplier;
    struct vae_embedder last_time;
    float *last_table, *last_modulation; /* [2][conv_out.in]: shift, scale */
    float *time_hidden;                  /* the widest embedder's hidden row */
};

#endif
