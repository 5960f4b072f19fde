/* What a checkpoint's JSON says about the model: facts with their fallbacks (spec
 * transformer 3.1, 4.1), and a clear refusal of models this program does not compute. */
#ifndef RINGREEL_CHECKPOINT_CONFIG_H
#define RINGREEL_CHECKPOINT_CONFIG_H

#include "model/checkpoint.h"

#include <jansson.h>
#include <stdbool.h>

/* One JSON object and how messages call it: "ltx.safetensors: config.vae", "ltx/vae/config.json".
 * json may be NULL. */
struct config_section {
    const char *where;
    const json_t *json;
};

struct config_sources {
    struct config_section transformer, vae, scheduler,
        root; /* root: of the official file, holds allowed_inference_steps */
    /* What the tensors say, for keys that are missing. */
    bool has_vae;
    enum vae_generation generation; /* when has_vae */
    int blocks;                     /* transformer blocks; 0 without a transformer */
    bool condition_pipeline;        /* a diffusers folder made for LTXConditionPipeline */
};

int config_read_facts(struct checkpoint_facts *facts, const struct config_sources *sources);
/* Refuses everything but a gated-gelu T5. */
int config_check_text_encoder(const struct config_section *config);

#endif
