/* Decoder and encoder as vae_read.c reads them and vae_stream.c runs them.
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
    struct arena vectors; /* device: norms, tables, scales of noise, rows of the embedders */
    bool resident;
    bool causal; /* in time: frames after its own are not read */
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
    float *mean, *std; /* [latent_channels] in host memory */
    float timestep_multiplier;
    struct vae_embedder last_time;
    float *last_table, *last_modulation; /* [2][conv_out.in]: shift, scale */
    float *time_wave;                    /* [VAE_SINUSOID] */
    float *time_hidden;                  /* the widest embedder's hidden row */
};

/* ---- vae_read.c ------------------------------------------------------------------------------ */

/* Called twice, see arena.h: vectors go to the coder's arena. After a failure the caller releases
 * what was read. */
int vae_read_decoder(struct vae *v, const struct checkpoint *c);
/* After the decoder, which it must fit. */
int vae_read_encoder(struct vae *v, const struct checkpoint *c);
bool vae_injects_noise(const struct vae_coder *coder);

/* ---- vae_filter.c: one convolution of a stream ----------------------------------------------- */

/* What the ranks that share a picture exchange: lines of it, rows or columns. */
struct halo {
    struct comm *group;
    enum vae_axis axis;
    int before, after;     /* the neighbours' ranks, -1: the picture ends */
    float *out[2], *in[2]; /* [frames][line] of the clip's type: before, after; device */
    int64_t floats;        /* room in each */
    struct transfer sends[2], receives[2];
};

/* A 3x3x3 convolution that is given frames a few at a time. Its input lies in the stage's `input`
 * region: up to two frames that it has seen before, then the fresh ones. Frames are numbered as in
 * the whole clip, of which it may be given a part.
 *
 * Or it `norms` what it reads, see op_conv_norms: then its input, in the stage's `y`, is what the
 * convolution before it makes, and the norm is not a pass. */
struct filter {
    struct conv *conv;
    const struct vae_block *resizes; /* the block that it is the convolution of, or NULL */
    bool norms;
    const float *rows;            /* shift and scale of that norm; NULL: it is not modulated */
    void *cache;                  /* the last two frames of its input, with their borders */
    struct vae_span reads, makes; /* of the present clip: all frames that come, that it gives */
    int64_t seen, given;          /* the next frame: in, out */
};

struct vae_stream;
struct stage;

/* Room for `t` fresh frames of what the filter reads, behind those that it keeps. */
struct clip filter_input(struct vae_stream *s, struct stage *g, struct filter *f, int64_t t);
/* How many frames filter_run will give for `t` fresh ones: fewer at a clip's front, more at its
 * end. */
int64_t filter_gives(const struct vae_stream *s, const struct filter *f, int64_t t, bool last);
/* The frames that are known now, of to.dtype at to.p and with its borders, or added to what is
 * there. Exchanges borders with the neighbours meanwhile. */
struct clip filter_run(struct vae_stream *s, struct stage *g, struct filter *f,
                       const struct clip *fresh, bool last, struct clip to, bool accumulate);

/* ---- vae_range.c: which frames every layer makes --------------------------------------------- */

/* All of a clip of so many frames that come in; 0: nobody knows how many. */
void vae_want_all(struct vae_stream *s, int64_t frames);
/* Of a decoder of which all is wanted: only what frames `wanted` of the clip come from. */
void vae_want(struct vae_stream *s, struct vae_span wanted);
/* Multiply-adds of what is wanted, h x w as it comes in: latents of a decoder, patches of an
 * encoder. Not in integers, so that no size is too large for it. */
double vae_wanted_work(const struct vae_stream *s, int64_t h, int64_t w);

/* ---- vae_modulate.c -------------------------------------------------------------------------- */

/* Fills every modulation vector of the decoder: they depend on the timestep alone. */
void vae_modulate(struct vae *v, float timestep);

/* ---- vae_stream.c ---------------------------------------------------------------------------- */

/* Frames of a block's own input that wait for what its convolutions make of them: at most two. */
struct delay {
    void *frames;
    int64_t held;
    int64_t early; /* frames to come that its convolutions make nothing of */
};

struct res_state {
    struct filter *first, *second;
    struct delay skip;
    float *noise[2]; /* [h,w] of this rank; NULL: none is injected */
};

struct block_state {
    struct res_state *res; /* [count] */
    struct filter *conv;   /* of SHUFFLE and STRIDED */
    struct delay skip;
};

/* Blocks of one resolution, up to the one that changes it. */
struct stage {
    int first, end;    /* coder's blocks; end: what leads to the next stage, if there is one */
    int64_t h, w;      /* this rank's */
    int64_t top, left; /* of the whole picture's */
    int64_t all_h, all_w;
    int64_t limit; /* frames that come at a time, */
    int64_t room;  /* or are made at a time when a clip ends */
    int64_t input_bytes, x_bytes, y_bytes;
    void *input, *x, *y; /* regions: what a convolution reads; a block's input and output; what a
                            convolution makes */
    int64_t factors;     /* floats: one for each position of the largest input that is normed … */
    float *factor;       /* … in the convolution; none where there is no such filter */
};

enum { STAGES = 8, KEPT = 2 };

struct vae_stream {
    struct vae *v;
    struct vae_coder *coder;
    struct vae_task task;
    /* Of what convolutions read and make. What blocks hand on is F32, and what the stream is given
     * and gives. */
    enum dtype clips;
    struct halo halo;
    struct stage stages[STAGES];
    int stage_count;
    struct filter *filters; /* [filter_count] in the order they run in: conv_in ... conv_out */
    int filter_count;
    struct block_state blocks[VAE_MAX_BLOCKS];
    float *pixels; /* decoder: [frames of the last stage][H][W][3] of this rank */
    struct vae_sink sink;
    const struct vae_progress *progress;
    int64_t work_done, work_total; /* multiply-adds */
};

/* ---- vae_stages.c ---------------------------------------------------------------------------- */

/* The filters of a stream, before anything is known of its sizes. */
void vae_stream_make_filters(struct vae_stream *s, struct vae_coder *coder);
void vae_stream_free_filters(struct vae_stream *s);

#endif
