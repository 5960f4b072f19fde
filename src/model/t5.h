/* T5 v1.1 encoder, fp32, on one rank (spec transformer 5). Weights stay in the mapped file and are
 * expanded a layer at a time: a prompt is encoded once, so resident fp32 copies (19 GB for XXL)
 * would buy nothing. */
#ifndef RINGREEL_T5_H
#define RINGREEL_T5_H

#include "base/tensor.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"

struct t5;

int t5_open(struct t5 **out, struct device *dev, const struct checkpoint *text_encoder,
            int max_tokens);
void t5_take_memory(struct t5 *t); /* before the first t5_encode */
void t5_close(struct t5 *t);
int64_t t5_width(const struct t5 *t);        /* d_model: 4096 for XXL */
int64_t t5_memory_bytes(const struct t5 *t); /* what t5_take_memory takes: activations */
/* embeds [count, d_model] fp32, in host memory, for the `count` real tokens (with </s>), as if
 * padded and masked. STATUS_INPUT if an id is outside the embedding table. */
int t5_encode(struct t5 *t, const int32_t *ids, int count, float *embeds);
/* Multiply-adds, or what takes as long, of encoding one text; 0 if unknown. */
double t5_work(const struct checkpoint *text_encoder, int64_t tokens);

#endif
