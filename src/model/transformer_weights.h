/* The transformer's weights as the forward pass uses them (spec transformer 2.1): every tensor
 * found, its shape checked, linears ready for op_linear, and the small vectors widened to fp32. */
#ifndef RINGREEL_TRANSFORMER_WEIGHTS_H
#define RINGREEL_TRANSFORMER_WEIGHTS_H

#include "base/arena.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"

enum { TIME_CHANNELS = 256 }; /* sinusoid of the timestep */

/* Rows of a block's scale_shift_table and of the timestep's modulation vector. */
enum modulation {
    SHIFT_ATTENTION,
    SCALE_ATTENTION,
    GATE_ATTENTION,
    SHIFT_FF,
    SCALE_FF,
    GATE_FF,
    MODULATIONS
};

struct block_weights {
    struct linear q, k, v, o;                           /* attn1: self-attention, [D,D] */
    struct linear text_q, text_k, text_v, text_o;       /* attn2: cross-attention, [D,D] */
    struct linear ff_in, ff_out;                        /* [4D,D], [D,4D] */
    float *q_norm, *k_norm, *text_q_norm, *text_k_norm; /* [D] */
    float *table;                                       /* [MODULATIONS, D] */
};

struct transformer_weights {
    int64_t width, channels, caption_width; /* D, C, columns of a text embedding */
    int64_t ff_width;                       /* 4D */
    int heads, head_dim, blocks;            /* N, d, L */
    struct linear patchify;                 /* [D,C] */
    struct linear time_in, time_out;        /* [D,256], [D,D] */
    struct linear modulation;               /* [6D,D] */
    struct linear caption_in, caption_out;  /* [D,caption_width], [D,D] */
    struct linear proj_out;                 /* [C,D] */
    float *final_table;                     /* [2,D]: shift, scale */
    struct block_weights *block;            /* [L] */
    struct arena vectors;                   /* device: what the float pointers above look into */
};

/* STATUS_INPUT naming the tensor that is missing or has a wrong shape or type. The linears look
 * into `c`, which must stay open; nothing is read yet, the vectors have been counted. After an
 * error there is nothing to close. */
int transformer_weights_open(struct transformer_weights *w, struct device *dev,
                             const struct checkpoint *c);
/* Reads the vectors, and the linears if they are to be resident. */
void transformer_weights_load(struct transformer_weights *w, struct device *dev,
                              const struct checkpoint *c, bool resident);
void transformer_weights_close(struct transformer_weights *w, struct device *dev);

#endif
