#include "model/checkpoint_config.h"

#include "base/error.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- refusing what is not computed ----------------------------------------------------------- */

/* A key that is absent takes the released value; a key that is there must have one of these. */
struct rule {
    const char *key, *allowed; /* a JSON list */
};

static const struct rule transformer_rules[] = {
    {"adaptive_norm", "[\"single_scale_shift\"]"},
    {"standardization_norm", "[\"rms_norm\"]"},
    {"qk_norm", "[\"rms_norm\", \"rms_norm_across_heads\"]"},
    {"norm_elementwise_affine", "[false]"},
    {"positional_embedding_type", "[\"rope\"]"},
    {"activation_fn", "[\"gelu-approximate\"]"},
    {"attention_bias", "[true]"},
    {"attention_out_bias", "[true]"},
    {"attention_type", "[\"default\"]"},
    {"only_cross_attention", "[false]"},
    {"double_self_attention", "[false]"},
    {"patch_size", "[1]"},
    {"patch_size_t", "[1]"},
};

static const struct rule vae_rules[] = {
    {"dims", "[3]"},
    {"norm_layer", "[\"pixel_norm\"]"},
    {"spatial_padding_mode", "[\"zeros\"]"},
    {"use_quant_conv", "[false]"},
    {"normalize_latent_channels", "[false]"},
    {"scaling_factor", "[1.0]"},
    {"latent_log_var", "[\"per_channel\", \"uniform\", \"constant\", \"none\"]"},
};

static const struct rule diffusers_scheduler_rules[] = {
    {"shift", "[1.0]"},
    {"use_karras_sigmas", "[false, null]"},
    {"use_exponential_sigmas", "[false, null]"},
    {"use_beta_sigmas", "[false, null]"},
    {"invert_sigmas", "[false]"},
};

/* The curve of the SD3 shift is fixed; a diffusers folder spells it out. */
static const struct rule dynamic_shift_rules[] = {
    {"base_shift", "[0.95]"},
    {"max_shift", "[2.05]"},
    {"base_image_seq_len", "[1024]"},
    {"max_image_seq_len", "[4096]"},
    {"time_shift_type", "[\"exponential\"]"},
};

static const struct rule static_shift_rules[] = {
    {"shift_terminal", "[null]"},
};

static const struct rule text_encoder_rules[] = {
    {"model_type", "[\"t5\"]"},
    {"feed_forward_proj", "[\"gated-gelu\"]"},
    {"layer_norm_epsilon", "[1e-6]"},
};

static bool same_value(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

/* "PLACE: KEY is VALUE; allowed: ..." with the value as JSON, cut to a line's length. */
static int refuse(const struct config_section *s, const char *key, const json_t *value,
                  const char *allowed)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    int status = error_set(STATUS_INPUT, "%s: %s is %.80s; allowed: %s", s->where, key,
                           text ? text : "?", allowed);
    free(text);
    return status;
}

static int check_rules(const struct config_section *s, const struct rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(s->json, rules[i].key);
        if (!value) continue;
        json_t *allowed = json_loads(rules[i].allowed, 0, NULL);
        CHECK(json_is_array(allowed), "the rule of %s is not a JSON list", rules[i].key);
        bool good = false;
        for (size_t j = 0; j < json_array_size(allowed); j++)
            good = good || same_value(value, json_array_get(allowed, j));
        json_decref(allowed);
        if (!good) return refuse(s, rules[i].key, value, rules[i].allowed);
    }
    return STATUS_OK;
}

int config_check_text_encoder(const struct config_section *config)
{
    return check_rules(config, text_encoder_rules, COUNT(text_encoder_rules));
}

/* ---- typed values ---------------------------------------------------------------------------- */

static int read_bool(const struct config_section *s, const char *key, bool *value)
{
    const json_t *json = json_object_get(s->json, key);
    if (!json) return STATUS_OK;
    if (!json_is_boolean(json)) return refuse(s, key, json, "true or false");
    *value = json_is_true(json);
    return STATUS_OK;
}

static bool is_positive(const json_t *json)
{
    double value = json_number_value(json);
    return json_is_number(json) && isfinite(value) && value > 0;
}

static int read_positive(const struct config_section *s, const char *key, double *value)
{
    const json_t *json = json_object_get(s->json, key);
    if (!json) return STATUS_OK;
    if (!is_positive(json)) return refuse(s, key, json, "a number above 0");
    *value = json_number_value(json);
    return STATUS_OK;
}

static int read_count(const struct config_section *s, const char *key, int *value)
{
    const json_t *json = json_object_get(s->json, key);
    if (!json || json_is_null(json)) return STATUS_OK;
    if (!json_is_integer(json) || json_integer_value(json) < 1 ||
        json_integer_value(json) > INT_MAX)
        return refuse(s, key, json, "a whole number above 0");
    *value = (int)json_integer_value(json);
    return STATUS_OK;
}

/* ---- transformer ----------------------------------------------------------------------------- */

static int read_max_pos(const struct config_section *s, double max_pos[3])
{
    static const char key[] = "positional_embedding_max_pos";
    const json_t *json = json_object_get(s->json, key);
    if (!json) return STATUS_OK;
    for (size_t i = 0; i < 3; i++) {
        if (json_array_size(json) != 3 || !is_positive(json_array_get(json, i)))
            return refuse(s, key, json, "three numbers above 0");
        max_pos[i] = json_number_value(json_array_get(json, i));
    }
    return STATUS_OK;
}

static int read_transformer(struct checkpoint_facts *facts, const struct config_sources *sources)
{
    const struct config_section *s = &sources->transformer;
    double norm_eps = facts->norm_eps;
    int blocks = sources->blocks;
    TRY(check_rules(s, transformer_rules, COUNT(transformer_rules)));
    TRY(read_count(s, "num_attention_heads", &facts->heads));
    TRY(read_positive(s, "norm_eps", &norm_eps));
    TRY(read_positive(s, "positional_embedding_theta", &facts->rope_theta));
    TRY(read_max_pos(s, facts->rope_max_pos));
    TRY(read_positive(s, "timestep_scale_multiplier", &facts->timestep_scale));
    TRY(read_bool(s, "causal_temporal_positioning", &facts->causal_temporal_positioning));
    TRY(read_count(s, "num_layers", &blocks));
    /* Otherwise a file that lost its last blocks would pass for a smaller model. */
    if (sources->blocks && blocks != sources->blocks)
        return error_set(STATUS_INPUT,
                         "%s: num_layers is %d, but the tensors have %d transformer_blocks",
                         s->where, blocks, sources->blocks);
    facts->norm_eps = (float)norm_eps;
    return STATUS_OK;
}

/* ---- VAE ------------------------------------------------------------------------------------- */

/* compress_all halves the channels and adds a residual, or does neither. */
static int check_compress_all(const struct config_section *s, const char *key, const json_t *block)
{
    const json_t *parameter = json_array_get(block, 1),
                 *multiplier = json_object_get(parameter, "multiplier");
    bool residual = json_is_true(json_object_get(parameter, "residual"));
    double factor = multiplier ? json_number_value(multiplier) : 1;
    if (factor != (residual ? 2 : 1))
        return refuse(s, key, block,
                      "compress_all with residual and multiplier 2, or with neither");
    return STATUS_OK;
}

static int check_decoder_blocks(const struct config_section *s)
{
    const char *key = json_object_get(s->json, "decoder_blocks") ? "decoder_blocks" : "blocks";
    const json_t *list = json_object_get(s->json, key), *block;
    size_t i;
    if (!list) return STATUS_OK;
    if (!json_is_array(list)) return refuse(s, key, list, "a list of [name, parameter]");
    json_array_foreach (list, i, block) {
        const char *name = json_string_value(json_array_get(block, 0));
        if (name && strcmp(name, "compress_all") == 0)
            TRY(check_compress_all(s, key, block));
        else if (!name || (strcmp(name, "res_x") != 0 && strcmp(name, "res_x_y") != 0))
            return refuse(s, key, block, "res_x, res_x_y and compress_all");
    }
    return STATUS_OK;
}

static int read_vae(struct checkpoint_facts *facts, const struct config_section *s)
{
    TRY(check_rules(s, vae_rules, COUNT(vae_rules)));
    TRY(check_decoder_blocks(s));
    const char *variance = json_string_value(json_object_get(s->json, "latent_log_var"));
    facts->vae_constant_variance = variance && strcmp(variance, "constant") == 0;
    TRY(read_bool(s, "causal_decoder", &facts->vae_causal_decoder));
    return read_bool(s, "decoder_causal", &facts->vae_causal_decoder); /* diffusers */
}

/* ---- scheduler ------------------------------------------------------------------------------- */

static int read_terminal(const struct config_section *s, const char *key, double *value)
{
    const json_t *json = json_object_get(s->json, key);
    if (!json || json_is_null(json)) return STATUS_OK;
    if (!is_positive(json) || json_number_value(json) >= 1)
        return refuse(s, key, json, "null or a number in (0,1)");
    *value = json_number_value(json);
    return STATUS_OK;
}

/* Index of the string under `key` in names; *value stays when absent or null. */
static int read_choice(const struct config_section *s, const char *key, const char *const *names,
                       int count, const char *allowed, int *value)
{
    const json_t *json = json_object_get(s->json, key);
    if (!json || json_is_null(json)) return STATUS_OK;
    for (int i = 0; i < count; i++) {
        if (json_is_string(json) && strcmp(json_string_value(json), names[i]) == 0) {
            *value = i;
            return STATUS_OK;
        }
    }
    return refuse(s, key, json, allowed);
}

/* RectifiedFlowScheduler: absent keys mean the class defaults. */
static int read_official_scheduler(struct scheduler_config *c, const struct config_section *s)
{
    /* in the order of enum scheduler_sampler and enum scheduler_shifting */
    static const char *const samplers[] = {"Uniform", "LinearQuadratic", "Constant"};
    static const char *const shiftings[] = {"None", "SD3", "SimpleDiffusion"};
    int sampler = SCHEDULER_UNIFORM, shifting = SHIFTING_NONE;
    TRY(read_choice(s, "sampler", samplers, COUNT(samplers), "Uniform, LinearQuadratic, Constant",
                    &sampler));
    TRY(read_choice(s, "shifting", shiftings, COUNT(shiftings), "null, SD3, SimpleDiffusion",
                    &shifting));
    c->sampler = (enum scheduler_sampler)sampler;
    c->shifting = (enum scheduler_shifting)shifting;
    TRY(read_terminal(s, "target_shift_terminal", &c->target_shift_terminal));
    TRY(read_count(s, "base_resolution", &c->base_resolution));
    const json_t *shift = json_object_get(s->json, "shift");
    if (json_is_number(shift)) c->shift = json_number_value(shift);
    if (c->sampler == SCHEDULER_CONSTANT && (!json_is_number(shift) || !isfinite(c->shift)))
        return error_set(STATUS_INPUT, "%s: sampler Constant needs a number under shift", s->where);
    return STATUS_OK;
}

/* FlowMatchEulerDiscreteScheduler: dynamic shifting is the SD3 shift. Without it the official
 * schedule of the models that ship so is LinearQuadratic, which diffusers keeps in a pipeline and
 * not in this file. */
static int read_diffusers_scheduler(struct scheduler_config *c, const struct config_section *s)
{
    bool dynamic = false;
    TRY(check_rules(s, diffusers_scheduler_rules, COUNT(diffusers_scheduler_rules)));
    TRY(read_bool(s, "use_dynamic_shifting", &dynamic));
    if (!dynamic) return check_rules(s, static_shift_rules, COUNT(static_shift_rules));
    TRY(check_rules(s, dynamic_shift_rules, COUNT(dynamic_shift_rules)));
    c->sampler = SCHEDULER_UNIFORM;
    c->shifting = SHIFTING_SD3;
    return read_terminal(s, "shift_terminal", &c->target_shift_terminal);
}

/* 0.9.0 and 0.9.1: uniform, SD3 shift stretched to 0.1; later: LinearQuadratic, no shift. */
static void fall_back_scheduler(struct scheduler_config *c, bool since_095)
{
    c->sampler = since_095 ? SCHEDULER_LINEAR_QUADRATIC : SCHEDULER_UNIFORM;
    c->shifting = since_095 ? SHIFTING_NONE : SHIFTING_SD3;
    c->target_shift_terminal = since_095 ? -1 : 0.1;
}

static int read_scheduler(struct scheduler_config *c, const struct config_section *s,
                          bool since_095)
{
    if (json_object_size(s->json) == 0) {
        fall_back_scheduler(c, since_095);
        return STATUS_OK;
    }
    const char *class_name = json_string_value(json_object_get(s->json, "_class_name"));
    if (!class_name || strcmp(class_name, "FlowMatchEulerDiscreteScheduler") != 0)
        return read_official_scheduler(c, s);
    fall_back_scheduler(c, true);
    return read_diffusers_scheduler(c, s);
}

static int read_allowed_steps(struct scheduler_config *c, const struct config_section *s)
{
    static const char key[] = "allowed_inference_steps",
                      form[] = "null or up to 64 numbers in (0,1]";
    const json_t *list = json_object_get(s->json, key), *step;
    size_t i;
    if (!list || json_is_null(list)) return STATUS_OK;
    if (!json_is_array(list) || json_array_size(list) > MAX_ALLOWED_STEPS)
        return refuse(s, key, list, form);
    json_array_foreach (list, i, step) {
        if (!is_positive(step) || json_number_value(step) > 1) return refuse(s, key, list, form);
        c->allowed[i] = json_number_value(step);
    }
    c->allowed_count = (int)json_array_size(list);
    return STATUS_OK;
}

/* ---- all together ---------------------------------------------------------------------------- */

int config_read_facts(struct checkpoint_facts *facts, const struct config_sources *sources)
{
    enum { BLOCKS_13B = 48 }; /* first released with 0.9.7 */
    bool since_095 = sources->blocks == BLOCKS_13B || sources->condition_pipeline ||
                     (sources->has_vae && sources->generation == VAE_0_9_5);
    *facts = (struct checkpoint_facts){
        .causal_temporal_positioning = since_095,
        .rope_theta = 10000,
        .rope_max_pos = {20, 2048, 2048},
        .timestep_scale = 1000,
        .heads = 32,
        .norm_eps = 1e-6f,
        .scheduler = {.shift = 1, .target_shift_terminal = -1, .base_resolution = 32 * 32},
    };
    TRY(read_transformer(facts, sources));
    TRY(read_vae(facts, &sources->vae));
    /* Causal positions came with 0.9.5, so they date a transformer that has no VAE beside it. */
    since_095 = since_095 || facts->causal_temporal_positioning;
    facts->vae = sources->has_vae ? sources->generation : since_095 ? VAE_0_9_5 : VAE_0_9_0;
    TRY(read_scheduler(&facts->scheduler, &sources->scheduler, since_095));
    return read_allowed_steps(&facts->scheduler, &sources->root);
}
