/* Decoder and encoder as vae_read.c reads them and vae_walk.c, vae_decode.c, vae_encode.c run them.
 * Private to the files of the VAE. */
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

enum vae_block_kind {
    VAE_BLOCK_NONE,
    VAE_BLOCK_RES,     /* `count` resblocks under one time embedder */
    VAE_BLOCK_RES_X_Y, /* one resblock, bare */
    VAE_BLOCK_SHUFFLE, /* conv, then depth to space (decoder, spec vae 1.7) or space to depth
                          (encoder, 1.6) */
    VAE_BLOCK_STRIDED, /* conv alone; encoder */
};

struct vae_block {
    enum vae_block_kind kind;
    int64_t in, out;
    struct vae_embedder time;
    struct vae_resblock *res;
    int count;
    struct conv conv;
    int stride_t, stride_s; /* of SHUFFLE and STRIDED, 1 or 2; else 1 */
    bool residual;          /* SHUFFLE adds its input, shuffled */
};

/* A convolution, blocks, a convolution. */
struct vae_coder {
    bool resident;
    enum conv_time conv_time;
    struct conv conv_in, conv_out;
    struct vae_block blocks[VAE_MAX_BLOCKS];
    int block_count;
};

struct vae {
    struct device *dev;
    struct vae_coder decoder;
    struct vae_coder encoder; /* read by vae_open_encoder */
    bool has_encoder;
    bool constant_variance; /* the encoder's last channel says nothing */
    bool conditioned;       /* the decoder wants a timestep */
    int64_t latent_channels;
    int patch, time_factor, space_factor;
    float *mean, *std; /* [latent_channels] */
    float timestep_multiplier;
    struct vae_embedder last_time;
    float *last_table, *last_modulation; /* [2][conv_out.in]: shift, scale */
    float *time_hidden;                  /* the widest embedder's hidden row */
};

/* ---- vae_read.c ------------------------------------------------------------------------------ */

/* After a failure the caller releases what was read. */
int vae_read_decoder(struct vae *v, const struct checkpoint *c);
/* After the decoder, which it must fit. */
int vae_read_encoder(struct vae *v, const struct checkpoint *c);
bool vae_injects_noise(const struct vae_coder *coder);

/* ---- vae_walk.c: what running a decoder and running an encoder have in common ---------------- */

/* What is alive at the same time: a block's input, the activated copy a convolution reads, and what
 * it writes; and one map of injected noise. A block may leave its output where another's region
 * was; the two change names. */
enum vae_role { ROLE_X, ROLE_ACTIVATED, ROLE_Y, ROLE_MAP, ROLE_COUNT };
_Static_assert((int)ROLE_COUNT == VAE_REGIONS, "a region for every role");

/* A walk through a coder plans or computes. When it plans, it only notes how large each region must
 * be and how many multiply-adds there are. */
struct walk {
    struct vae *v;
    struct vae_coder *coder;
    bool planning, too_large;
    int region[ROLE_COUNT]; /* role -> region */
    struct vae_regions r;
    struct rng *noise;
    const struct vae_progress *progress;
    int64_t work_done, work_total; /* multiply-adds */
};

/* From the input, for f x h x w latents, to the output of conv_out. */
typedef struct clip walk_way(struct walk *d, const float *input, int64_t f, int64_t h, int64_t w);

/* What a walk of this size needs and how much work it is, in d; false if too much for any machine.
 */
bool walk_plan(struct walk *d, walk_way *way, int64_t f, int64_t h, int64_t w);
/* Plans, checks that r suffices, computes. The result lies in one of r's regions. */
struct clip walk_run(struct walk *d, walk_way *way, const char *caller, const struct vae_regions *r,
                     const float *input, int64_t f, int64_t h, int64_t w);

/* Room for a clip in the region that plays this role now. */
struct clip walk_take(struct walk *d, enum vae_role role, int64_t t, int64_t h, int64_t w,
                      int64_t c, int pad);
struct clip walk_take_like(struct walk *d, enum vae_role role, const struct clip *x, int64_t c,
                           int pad);
void walk_swap(struct walk *d, enum vae_role a, enum vae_role b);

/* One operation each: noted while planning, else done. */
void walk_copy_padded(struct walk *d, const struct clip *y, const struct clip *x);
/* rows: [2][C] shift, scale, or NULL. */
void walk_activate(struct walk *d, const struct clip *y, const struct clip *x, const float *rows);
void walk_convolve(struct walk *d, const struct clip *y, const struct clip *x, struct conv *conv,
                   const struct clip *add);
/* The block's resblocks on x, which plays ROLE_X; so does the result. */
struct clip walk_resblocks(struct walk *d, struct vae_block *b, struct clip x);

#endif
