/* A checkpoint as the model code wants it: official tensor names, whatever the files are.
 * Accepts: the official single file (transformer + VAE + JSON config in its metadata), a bare
 * transformer state dict, and a diffusers directory (sharded, with index; variants such as .bf16.).
 * Text encoder: a folder in HF layout (text_encoder/ + tokenizer/, or config.json,
 * model*.safetensors, spiece.model in one folder). */
#ifndef RINGREEL_CHECKPOINT_H
#define RINGREEL_CHECKPOINT_H

#include "base/tensor.h"

#include <stdbool.h>
#include <stddef.h>

struct checkpoint;

enum vae_generation { VAE_0_9_0, VAE_0_9_1, VAE_0_9_5 };

enum { MAX_ALLOWED_STEPS = 64 };

/* The scheduler block of the checkpoint (official RectifiedFlowScheduler config), or the
 * generation's fallback. */
enum scheduler_sampler { SCHEDULER_UNIFORM, SCHEDULER_LINEAR_QUADRATIC, SCHEDULER_CONSTANT };
enum scheduler_shifting { SHIFTING_NONE, SHIFTING_SD3, SHIFTING_SIMPLE_DIFFUSION };
struct scheduler_config {
    enum scheduler_sampler sampler;
    enum scheduler_shifting shifting;
    double shift;                 /* of SCHEDULER_CONSTANT */
    double target_shift_terminal; /* < 0: none */
    int base_resolution;          /* of SHIFTING_SIMPLE_DIFFUSION: 32*32 = 1024 tokens */
    int allowed_count;            /* 0: any step is allowed */
    double allowed[MAX_ALLOWED_STEPS];
};

/* Facts that come from metadata, with the fallbacks of spec transformer 3.1. Shapes come from the
 * tensors. */
struct checkpoint_facts {
    bool causal_temporal_positioning;
    double rope_theta;      /* 10000 */
    double rope_max_pos[3]; /* 20, 2048, 2048 */
    double timestep_scale;  /* 1000 */
    int heads;              /* num_attention_heads, 32 when absent */
    float norm_eps;         /* 1e-6 */
    enum vae_generation vae;
    bool vae_causal_decoder;    /* false in every release */
    bool vae_constant_variance; /* latent_log_var "constant"; the other kinds show in shapes */
    struct scheduler_config scheduler;
};

int checkpoint_open(struct checkpoint **out, const char *path);
/* Text encoder folder; tensors under their HF names ("encoder.block.0..."). */
int checkpoint_open_text_encoder(struct checkpoint **out, const char *path);
void checkpoint_close(struct checkpoint *c);
const char *checkpoint_path(const struct checkpoint *c);
const struct checkpoint_facts *checkpoint_facts(const struct checkpoint *c);

/* `name` is official and complete, e.g. "transformer_blocks.0.attn1.to_q.weight" (no prefix) for
 * the transformer, "vae.decoder.conv_in.conv.weight" for the VAE,
 * "encoder.block.0.layer.0.layer_norm.weight" for T5. NULL if absent. */
const struct tensor *checkpoint_find(const struct checkpoint *c, const char *name);
/* printf-formatted name; STATUS_INPUT "PATH: tensor NAME is missing" / "... has shape [..],
 * expected [..]". shape: -1 accepts any extent. */
int checkpoint_need(const struct checkpoint *c, const struct tensor **out, int rank,
                    const int64_t *shape, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* config.json of the text encoder: integer key or fallback. */
int64_t checkpoint_config_int(const struct checkpoint *c, const char *key, int64_t fallback);
/* Path of the tokenizer's spiece.model for a text encoder; STATUS_INPUT if there is none. */
int checkpoint_tokenizer_path(const struct checkpoint *c, char *out, size_t size);

#endif
