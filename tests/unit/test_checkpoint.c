/* Checkpoints in every layout: what is found, which facts are read, and how wrong ones are refused.
 */
#include "tests/support/synth.h"

#include "base/error.h"
#include "base/log.h"
#include "model/checkpoint.h"
#include "model/json_input.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *dir;

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    error_clear();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove(dir);
    return 0;
}

/* ---- making files ---------------------------------------------------------------------------- */

/* DIR/name, with the folders in between made. The text lives until the test program ends its next
 * few calls. */
static const char *at(const char *name)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    for (char *slash = path + strlen(dir) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0777);
        *slash = '/';
    }
    return path;
}

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(at(name), "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static size_t element_bytes(const char *dtype)
{
    return strstr(dtype, "8") || strcmp(dtype, "BOOL") == 0 ? 1
           : strstr(dtype, "16")                            ? 2
           : strstr(dtype, "64")                            ? 8
                                                            : 4;
}

/* `tensors` is "NAME DTYPE DIM DIM; NAME DTYPE; ..."; config is the metadata's JSON text or NULL.
 * Written by hand, so that any dtype can be in the file. */
static void write_tensors(const char *name, const char *config, const char *tensors)
{
    json_t *header = json_object();
    size_t offset = 0;
    if (config) json_object_set_new(header, "__metadata__", json_pack("{s:s}", "config", config));
    char *list = xasprintf("%s", tensors), *rest = list, *one;
    while ((one = strsep(&rest, ";"))) {
        char *word = strtok(one, " "), *dtype = strtok(NULL, " ");
        if (!word) continue;
        json_t *shape = json_array();
        size_t bytes = element_bytes(dtype);
        for (char *extent; (extent = strtok(NULL, " "));) {
            json_array_append_new(shape, json_integer(atoi(extent)));
            bytes *= (size_t)atoi(extent);
        }
        json_object_set_new(header, word,
                            json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype, "shape", shape,
                                      "data_offsets", (json_int_t)offset,
                                      (json_int_t)(offset + bytes)));
        offset += bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t length = strlen(text);
    FILE *f = fopen(at(name), "wb");
    assert_non_null(f);
    fwrite(&length, 8, 1, f); /* the machines we test on are little-endian */
    fputs(text, f);
    for (size_t i = 0; i < offset; i++) fputc(0, f);
    assert_int_equal(fclose(f), 0);
    free(text);
    free(list);
    json_decref(header);
}

static struct checkpoint *open_with(int (*open_kind)(struct checkpoint **, const char *),
                                    const char *path)
{
    struct checkpoint *c = NULL;
    error_clear();
    if (open_kind(&c, path) != STATUS_OK) fail_msg("%s", error_message());
    return c;
}

static struct checkpoint *open_model(const char *path) { return open_with(checkpoint_open, path); }
static struct checkpoint *open_encoder(const char *path)
{
    return open_with(checkpoint_open_text_encoder, path);
}

static void expect_message(int status, const char *const *parts)
{
    const char *message = error_message();
    assert_int_equal(status, STATUS_INPUT);
    assert_null(strchr(message, '\n'));
    for (int i = 0; parts[i]; i++) {
        if (!strstr(message, parts[i]))
            fail_msg("message is \"%s\"; it should hold \"%s\"", message, parts[i]);
    }
    error_clear();
}
#define expect_input_error(call, ...)                                                              \
    (error_clear(), expect_message((call), (const char *const[]){__VA_ARGS__, NULL}))

/* Opening must fail and name `path` and the other text. */
static void refuse_with(int (*open_kind)(struct checkpoint **, const char *), const char *path,
                        const char *part)
{
    struct checkpoint *c = NULL;
    expect_input_error(open_kind(&c, path), path, part);
    assert_null(c);
}
static void refuse_model(const char *path, const char *part)
{
    refuse_with(checkpoint_open, path, part);
}
static void refuse_encoder(const char *path, const char *part)
{
    refuse_with(checkpoint_open_text_encoder, path, part);
}

/* ---- finding and needing --------------------------------------------------------------------- */

static void test_prefix_rule(void **state)
{
    (void)state;
    write_tensors("one", NULL,
                  "model.diffusion_model.patchify_proj.weight BF16 2 3; patchify_proj.bias F32 2;"
                  "vae.decoder.conv_in.conv.weight F32 1; first_stage.x F32 1");
    struct checkpoint *c = open_model(at("one"));
    assert_string_equal(checkpoint_path(c), at("one"));
    assert_int_equal(checkpoint_find(c, "patchify_proj.weight")->shape[1], 3);
    assert_null(
        checkpoint_find(c, "patchify_proj.bias")); /* not under the prefix that others have */
    assert_null(checkpoint_find(c, "model.diffusion_model.patchify_proj.weight"));
    assert_non_null(checkpoint_find(c, "vae.decoder.conv_in.conv.weight"));
    assert_null(checkpoint_find(c, "decoder.conv_in.conv.weight"));
    checkpoint_close(c);
    write_tensors("bare", NULL,
                  "patchify_proj.weight F32 2 3; vae.decoder.conv_in.conv.weight F32 1");
    c = open_model(at("bare"));
    assert_non_null(checkpoint_find(c, "patchify_proj.weight"));
    assert_non_null(checkpoint_find(c, "vae.decoder.conv_in.conv.weight"));
    checkpoint_close(c);
    write_tensors("other", NULL, "encoder.block.0.layer.0.layer_norm.weight F32 1");
    refuse_model(at("other"), "not an LTX-Video model");
    refuse_model(at("absent"), "No such file");
    write_tensors("scaled", NULL, "patchify_proj.weight F8_E4M3 1; patchify_proj.scale_weight F32");
    refuse_model(at("scaled"), "patchify_proj.scale_weight");
}

static void test_need(void **state)
{
    (void)state;
    static const int64_t any[] = {-1, -1}, wrong[] = {2, 4}, half[] = {-1, 3}, empty[] = {-1};
    const struct tensor *t = NULL;
    write_tensors(
        "m", NULL,
        "patchify_proj.weight BF16 2 3; whole I64 1; odd F8_E5M2 1; empty F32 0; scalar F16;"
        "block.7.x F8_E4M3 1");
    struct checkpoint *c = open_model(at("m"));
    assert_int_equal(checkpoint_need(c, &t, 2, half, "%s.weight", "patchify_proj"), STATUS_OK);
    assert_ptr_equal(t, checkpoint_find(c, "patchify_proj.weight"));
    assert_int_equal(checkpoint_need(c, &t, 0, NULL, "scalar"), STATUS_OK);
    assert_int_equal(checkpoint_need(c, &t, 1, any, "block.%d.x", 7), STATUS_OK);
    const char *path = at("m");
    expect_input_error(checkpoint_need(c, &t, 2, any, "block.%d.weight", 3), path,
                       "tensor block.3.weight is missing");
    expect_input_error(checkpoint_need(c, &t, 2, wrong, "patchify_proj.weight"), path,
                       "tensor patchify_proj.weight has shape [2,3], expected [2,4]");
    expect_input_error(checkpoint_need(c, &t, 1, any, "patchify_proj.weight"), path,
                       "[2,3], expected [any]");
    expect_input_error(checkpoint_need(c, &t, 1, empty, "empty"), path,
                       "tensor empty has shape [0], expected [any]");
    expect_input_error(checkpoint_need(c, &t, 1, any, "whole"), path, "tensor whole has dtype I64");
    expect_input_error(checkpoint_need(c, &t, 1, any, "odd"), path,
                       "tensor odd: dtype F8_E5M2 is not supported");
    checkpoint_close(c);
}

/* ---- facts ----------------------------------------------------------------------------------- */

static const char two_block[] =
    "patchify_proj.weight F32 1; transformer_blocks.0.x F32 1; transformer_blocks.1.x F32 1;";
static const char old_vae[] =
    "vae.decoder.conv_in.conv.weight F32 1; vae.encoder.conv_in.conv.weight F32 1;"
    "vae.encoder.down_blocks.1.conv.weight F32 1;";
static const char timed[] =
    "vae.decoder.last_time_embedder.timestep_embedder.linear_1.weight F32 1;";
static const char new_encoder[] = "vae.encoder.down_blocks.1.conv.conv.weight F32 1;";

/* Facts of a file with these tensors and this config. */
static struct checkpoint_facts facts_of(const char *config, const char *a, const char *b,
                                        const char *c)
{
    char *tensors = xasprintf("%s%s%s", a, b, c);
    write_tensors("facts", config, tensors);
    free(tensors);
    struct checkpoint *opened = open_model(at("facts"));
    struct checkpoint_facts facts = *checkpoint_facts(opened);
    checkpoint_close(opened);
    return facts;
}

static void expect_schedule(const struct checkpoint_facts *f, enum scheduler_sampler sampler,
                            enum scheduler_shifting shifting, double terminal)
{
    assert_int_equal(f->scheduler.sampler, sampler);
    assert_int_equal(f->scheduler.shifting, shifting);
    assert_true(f->scheduler.target_shift_terminal == terminal);
}

static void test_fallbacks(void **state)
{
    (void)state;
    struct checkpoint_facts f = facts_of(NULL, two_block, "", "");
    assert_false(f.causal_temporal_positioning);
    assert_true(f.rope_theta == 10000 && f.timestep_scale == 1000 && f.norm_eps == 1e-6f);
    assert_true(f.rope_max_pos[0] == 20 && f.rope_max_pos[1] == 2048 && f.rope_max_pos[2] == 2048);
    assert_int_equal(f.heads, 32);
    assert_int_equal(f.vae, VAE_0_9_0);
    assert_false(f.vae_causal_decoder || f.vae_constant_variance);
    assert_int_equal(f.scheduler.allowed_count, 0);
    assert_int_equal(f.scheduler.base_resolution, 1024);
    expect_schedule(&f, SCHEDULER_UNIFORM, SHIFTING_SD3, 0.1);

    f = facts_of(NULL, two_block, old_vae, "");
    assert_int_equal(f.vae, VAE_0_9_0);
    f = facts_of(NULL, two_block, old_vae, timed);
    assert_int_equal(f.vae, VAE_0_9_1);
    assert_false(f.causal_temporal_positioning);
    expect_schedule(&f, SCHEDULER_UNIFORM, SHIFTING_SD3, 0.1);
    f = facts_of(NULL, "vae.decoder.conv_in.conv.weight F32 1;", new_encoder, timed);
    assert_int_equal(f.vae, VAE_0_9_5);
    assert_true(f.causal_temporal_positioning);
    expect_schedule(&f, SCHEDULER_LINEAR_QUADRATIC, SHIFTING_NONE, -1);
    /* decoders alone */
    f = facts_of(NULL, "vae.decoder.conv_in.conv.weight F32 1;", timed, "");
    assert_int_equal(f.vae, VAE_0_9_5);
    f = facts_of(NULL, "vae.decoder.conv_in.conv.weight F32 1;", timed,
                 "vae.decoder.up_blocks.2.res_blocks.0.per_channel_scale1 F32 1");
    assert_int_equal(f.vae, VAE_0_9_1);
    /* 13B, and a causal transformer without a VAE */
    f = facts_of(NULL, two_block, "transformer_blocks.47.scale_shift_table F32 1", "");
    assert_true(f.causal_temporal_positioning);
    assert_int_equal(f.vae, VAE_0_9_5);
    f = facts_of(
        "{\"transformer\":{\"causal_temporal_positioning\":true},\"vae\":{},\"scheduler\":{}}",
        two_block, "", "");
    assert_int_equal(f.vae, VAE_0_9_5);
    expect_schedule(&f, SCHEDULER_LINEAR_QUADRATIC, SHIFTING_NONE, -1);
}

static void test_metadata(void **state)
{
    (void)state;
    struct checkpoint_facts f = facts_of(
        "{\"transformer\":{\"num_attention_heads\":4,\"norm_eps\":1e-5,"
        "\"positional_embedding_theta\":5000,"
        "\"positional_embedding_max_pos\":[10,100.5,200],\"timestep_scale_multiplier\":500,"
        "\"num_layers\":2,"
        "\"causal_temporal_positioning\":false,\"adaptive_norm\":\"single_scale_shift\","
        "\"qk_norm\":\"rms_norm\","
        "\"unknown\":{\"a\":[1]}},"
        "\"vae\":{\"causal_decoder\":true,\"dims\":3,\"scaling_factor\":1,"
        "\"norm_layer\":\"pixel_norm\",\"latent_log_var\":\"constant\","
        "\"spatial_padding_mode\":\"zeros\","
        "\"decoder_blocks\":[[\"res_x\",{\"num_layers\":5,\"inject_noise\":true}],"
        "[\"compress_all\",{\"residual\":true,\"multiplier\":2}],[\"res_x_y\",1],"
        "[\"compress_all\",1]]},"
        "\"scheduler\":{\"_class_name\":\"RectifiedFlowScheduler\",\"num_train_timesteps\":1000,"
        "\"sampler\":\"Constant\","
        "\"shifting\":\"SimpleDiffusion\",\"base_resolution\":4096,\"shift\":0.5,"
        "\"target_shift_terminal\":0.25},"
        "\"allowed_inference_steps\":[1.0,0.9937,0.4219]}",
        two_block, new_encoder, "vae.decoder.conv_in.conv.weight F32 1");
    assert_int_equal(f.heads, 4);
    assert_true(f.norm_eps == 1e-5f && f.rope_theta == 5000 && f.timestep_scale == 500);
    assert_true(f.rope_max_pos[0] == 10 && f.rope_max_pos[1] == 100.5 && f.rope_max_pos[2] == 200);
    assert_false(f.causal_temporal_positioning); /* the key wins over the VAE's generation */
    assert_true(f.vae_causal_decoder && f.vae_constant_variance);
    expect_schedule(&f, SCHEDULER_CONSTANT, SHIFTING_SIMPLE_DIFFUSION, 0.25);
    assert_true(f.scheduler.shift == 0.5);
    assert_int_equal(f.scheduler.base_resolution, 4096);
    assert_int_equal(f.scheduler.allowed_count, 3);
    assert_true(f.scheduler.allowed[1] == 0.9937 && f.scheduler.allowed[2] == 0.4219);

    f = facts_of("{\"scheduler\":{\"sampler\":\"LinearQuadratic\",\"shifting\":null,"
                 "\"target_shift_terminal\":null,\"base_resolution\":null},"
                 "\"allowed_inference_steps\":null}",
                 two_block, "", "");
    expect_schedule(&f, SCHEDULER_LINEAR_QUADRATIC, SHIFTING_NONE, -1);
    /* class defaults */
    f = facts_of("{\"scheduler\":{\"num_train_timesteps\":1000}}", two_block, "", "");
    expect_schedule(&f, SCHEDULER_UNIFORM, SHIFTING_NONE, -1);
    f = facts_of("{\"scheduler\":{\"shifting\":\"SD3\",\"target_shift_terminal\":0.1}}", two_block,
                 "", "");
    expect_schedule(&f, SCHEDULER_UNIFORM, SHIFTING_SD3, 0.1);
}

static void test_refused_configs(void **state)
{
    (void)state;
    static const struct {
        const char *config, *part;
    } cases[] = {
        {"not json", "bad JSON"},
        {"[]", "not an object"},
        {"{\"transformer\":3}", "config.transformer"},
        {"{\"transformer\":{\"adaptive_norm\":\"single_scale\"}}",
         "transformer: adaptive_norm is \"single_scale\""},
        {"{\"transformer\":{\"qk_norm\":null}}", "qk_norm is null; allowed: [\"rms_norm\""},
        {"{\"transformer\":{\"standardization_norm\":\"layer_norm\"}}", "standardization_norm"},
        {"{\"transformer\":{\"norm_elementwise_affine\":true}}", "norm_elementwise_affine"},
        {"{\"transformer\":{\"positional_embedding_type\":\"sincos\"}}",
         "positional_embedding_type"},
        {"{\"transformer\":{\"activation_fn\":\"geglu\"}}", "activation_fn"},
        {"{\"transformer\":{\"attention_bias\":false}}", "attention_bias"},
        {"{\"transformer\":{\"patch_size\":2}}", "patch_size is 2"},
        {"{\"transformer\":{\"num_layers\":3}}", "num_layers is 3, but the tensors have 2"},
        {"{\"transformer\":{\"num_attention_heads\":0}}", "num_attention_heads is 0"},
        {"{\"transformer\":{\"num_attention_heads\":4.5}}", "num_attention_heads"},
        {"{\"transformer\":{\"norm_eps\":\"small\"}}", "norm_eps"},
        {"{\"transformer\":{\"timestep_scale_multiplier\":-1}}", "timestep_scale_multiplier"},
        {"{\"transformer\":{\"positional_embedding_max_pos\":[20,2048]}}",
         "positional_embedding_max_pos"},
        {"{\"transformer\":{\"positional_embedding_max_pos\":[20,2048,0]}}",
         "positional_embedding_max_pos"},
        {"{\"transformer\":{\"causal_temporal_positioning\":1}}", "causal_temporal_positioning"},
        {"{\"vae\":{\"spatial_padding_mode\":\"reflect\"}}",
         "vae: spatial_padding_mode is \"reflect\""},
        {"{\"vae\":{\"norm_layer\":\"group_norm\"}}", "norm_layer"},
        {"{\"vae\":{\"dims\":[2,1]}}", "dims"},
        {"{\"vae\":{\"latent_log_var\":\"shared\"}}", "latent_log_var is \"shared\""},
        {"{\"vae\":{\"use_quant_conv\":true}}", "use_quant_conv"},
        {"{\"vae\":{\"normalize_latent_channels\":true}}", "normalize_latent_channels"},
        {"{\"vae\":{\"scaling_factor\":0.5}}", "scaling_factor"},
        {"{\"vae\":{\"causal_decoder\":\"no\"}}", "causal_decoder"},
        {"{\"vae\":{\"decoder_blocks\":[[\"res_x\",1],[\"attn_res_x\",2]]}}", "attn_res_x"},
        {"{\"vae\":{\"blocks\":[[\"compress_time\",1]]}}", "blocks is [\"compress_time\",1]"},
        {"{\"vae\":{\"decoder_blocks\":[[\"compress_all\",{\"residual\":true}]]}}", "compress_all"},
        {"{\"vae\":{\"decoder_blocks\":[[\"compress_all\",{\"multiplier\":2}]]}}", "compress_all"},
        {"{\"vae\":{\"decoder_blocks\":[3]}}", "decoder_blocks is 3"},
        {"{\"vae\":{\"decoder_blocks\":\"res_x\"}}", "decoder_blocks"},
        {"{\"scheduler\":{\"sampler\":\"Karras\"}}", "scheduler: sampler is \"Karras\""},
        {"{\"scheduler\":{\"shifting\":\"SD4\"}}", "shifting"},
        {"{\"scheduler\":{\"target_shift_terminal\":1}}", "target_shift_terminal"},
        {"{\"scheduler\":{\"sampler\":\"Constant\"}}",
         "sampler Constant needs a number under shift"},
        {"{\"allowed_inference_steps\":[0]}", "allowed_inference_steps"},
        {"{\"allowed_inference_steps\":[1.5]}", "allowed_inference_steps"},
        {"{\"allowed_inference_steps\":\"all\"}", "allowed_inference_steps"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_tensors("bad", cases[i].config, two_block);
        refuse_model(at("bad"), cases[i].part);
    }
    json_t *long_list = json_pack("{s:[]}", "allowed_inference_steps");
    for (int i = 0; i <= MAX_ALLOWED_STEPS; i++)
        json_array_append_new(json_object_get(long_list, "allowed_inference_steps"),
                              json_real(0.5));
    char *text = json_dumps(long_list, 0);
    write_tensors("bad", text, two_block);
    refuse_model(at("bad"), "up to 64 numbers");
    free(text);
    json_decref(long_list);
}

/* ---- diffusers folder ------------------------------------------------------------------------ */

static const char small_transformer[] =
    "proj_in.weight F32 2 3; time_embed.linear.weight F32 1; transformer_blocks.0.a F32 1";

static void test_diffusers_folder(void **state)
{
    (void)state;
    static const int64_t any[] = {-1, -1};
    const struct tensor *t;
    write_tensors("m/transformer/diffusion_pytorch_model.safetensors", NULL, small_transformer);
    write_text("m/transformer/config.json",
               "{\"_class_name\":\"LTXVideoTransformer3DModel\",\"num_attention_heads\":8,"
               "\"qk_norm\":\"rms_norm_across_heads\",\"num_layers\":1}");
    write_tensors("m/vae/diffusion_pytorch_model.safetensors", NULL,
                  "decoder.conv_in.conv.weight F32 1; latents_mean F32 5;"
                  "encoder.down_blocks.0.downsamplers.0.conv.conv.weight F32 1;"
                  " decoder.mid_block.resnets.0.x F32 1");
    write_text("m/vae/config.json", "{\"decoder_causal\":true,\"scaling_factor\":1.0}");
    write_text("m/scheduler/scheduler_config.json",
               "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":1.0,"
               "\"use_dynamic_shifting\":true,\"base_shift\":0.95,\"max_shift\":2.05,"
               "\"shift_terminal\":0.2}");
    struct checkpoint *c = open_model(at("m"));
    assert_int_equal(checkpoint_facts(c)->heads, 8);
    assert_int_equal(checkpoint_facts(c)->vae, VAE_0_9_5);
    assert_true(checkpoint_facts(c)->causal_temporal_positioning);
    assert_true(checkpoint_facts(c)->vae_causal_decoder);
    expect_schedule(checkpoint_facts(c), SCHEDULER_UNIFORM, SHIFTING_SD3, 0.2);
    assert_non_null(checkpoint_find(c, "patchify_proj.weight"));
    assert_null(checkpoint_find(c, "proj_in.bias"));
    assert_int_equal(checkpoint_find(c, "vae.per_channel_statistics.mean-of-means")->shape[0], 5);
    assert_null(checkpoint_find(c, "vae.per_channel_statistics.std-of-means"));
    assert_non_null(checkpoint_find(c, "vae.decoder.up_blocks.0.res_blocks.0.x"));
    expect_input_error(
        checkpoint_need(c, &t, 1, any, "adaln_single.linear.bias"), at("m"),
        "tensor adaln_single.linear.bias (stored as time_embed.linear.bias) is missing");
    expect_input_error(checkpoint_need(c, &t, 1, any, "vae.decoder.up_blocks.2.x"),
                       "(stored as decoder.up_blocks.0.x)");
    expect_input_error(checkpoint_need(c, &t, 1, any, "patchify_proj.weight"),
                       at("m/transformer/diffusion_pytorch_model.safetensors"), "[2,3]");
    checkpoint_close(c);

    write_text("m/scheduler/scheduler_config.json",
               "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"base_shift\":0.5,"
               "\"use_dynamic_shifting\":false,\"shift_terminal\":null}");
    c = open_model(at("m"));
    expect_schedule(checkpoint_facts(c), SCHEDULER_LINEAR_QUADRATIC, SHIFTING_NONE, -1);
    checkpoint_close(c);
    write_text("m/scheduler/scheduler_config.json",
               "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"base_shift\":0.5,"
               "\"use_dynamic_shifting\":true}");
    refuse_model(at("m"), "scheduler/scheduler_config.json: base_shift is 0.5");
    write_text("m/scheduler/scheduler_config.json", "{");
    refuse_model(at("m"), "scheduler/scheduler_config.json: bad JSON");
    write_text("m/scheduler/scheduler_config.json", "{}");
    write_text("m/vae/config.json", "{\"spatial_padding_mode\":\"reflect\"}");
    refuse_model(at("m"), "vae/config.json: spatial_padding_mode");
}

static void test_folder_without_parts(void **state)
{
    (void)state;
    write_text("e/readme", "");
    refuse_model(at("e"), "without transformer/ and vae/");
    write_text("e/transformer/config.json", "{}");
    refuse_model(at("e"), "neither diffusion_pytorch_model.safetensors nor");
    write_tensors("e/transformer/diffusion_pytorch_model.safetensors", NULL, small_transformer);
    struct checkpoint *c = open_model(at("e"));
    assert_false(checkpoint_facts(c)->causal_temporal_positioning);
    checkpoint_close(c);
    write_text("e/model_index.json", "{\"_class_name\":\"LTXConditionPipeline\"}");
    c = open_model(at("e"));
    assert_true(checkpoint_facts(c)->causal_temporal_positioning);
    checkpoint_close(c);
}

static void expect_width(const char *path, int64_t width)
{
    struct checkpoint *c = open_model(path);
    assert_int_equal(checkpoint_find(c, "patchify_proj.weight")->shape[0], width);
    checkpoint_close(c);
}

static void test_variants(void **state)
{
    (void)state;
    write_tensors("v/transformer/anything.safetensors", NULL, "proj_in.weight F32 9");
    expect_width(at("v"), 9);
    write_tensors("v/transformer/diffusion_pytorch_model.bf16-00001-of-00001.safetensors", NULL,
                  "proj_in.weight F32 4");
    refuse_model(at("v"), "neither"); /* two candidates, neither by name */
    write_text("v/transformer/diffusion_pytorch_model.safetensors.index.bf16.json",
               "{\"weight_map\":{\"proj_in.weight\":"
               "\"diffusion_pytorch_model.bf16-00001-of-00001.safetensors\"}}");
    expect_width(at("v"), 4);
    write_tensors("v/transformer/diffusion_pytorch_model.fp16.safetensors", NULL,
                  "proj_in.weight F32 3");
    expect_width(at("v"), 3);
    write_tensors("v/transformer/diffusion_pytorch_model.bf16.safetensors", NULL,
                  "proj_in.weight F32 2");
    expect_width(at("v"), 2);
    write_text("v/transformer/diffusion_pytorch_model.safetensors.index.json",
               "{\"weight_map\":{\"proj_in.weight\":\"anything.safetensors\"}}");
    expect_width(at("v"), 9);
    write_tensors("v/transformer/diffusion_pytorch_model.safetensors", NULL,
                  "proj_in.weight F32 1");
    expect_width(at("v"), 1);
}

static void test_shards(void **state)
{
    (void)state;
    const char *index = "s/transformer/diffusion_pytorch_model.safetensors.index.json";
    write_tensors("s/transformer/one.safetensors", NULL, "proj_in.weight F32 2 3; b F32 1");
    write_tensors("s/transformer/two.safetensors", NULL, "a F32 7");
    write_text(
        index,
        "{\"metadata\":{\"total_size\":1},\"weight_map\":{\"proj_in.weight\":\"one.safetensors\","
        "\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}");
    struct checkpoint *c = open_model(at("s"));
    assert_int_equal(checkpoint_find(c, "a")->shape[0], 7);
    assert_non_null(checkpoint_find(c, "b"));
    assert_non_null(checkpoint_find(c, "patchify_proj.weight"));
    checkpoint_close(c);

    static const struct {
        const char *map, *part;
    } cases[] = {
        {"\"proj_in.weight\":\"one.safetensors\",\"a\":\"one.safetensors\",\"b\":"
         "\"one.safetensors\"",
         "one.safetensors: tensor a is missing"},
        {"\"proj_in.weight\":\"one.safetensors\",\"a\":\"two.safetensors\"",
         "tensor b does not belong here"},
        {"\"proj_in.weight\":\"../one.safetensors\"",
         "tensor proj_in.weight: the shard \"../one.safetensors\""},
        {"\"proj_in.weight\":\"/etc/passwd\"", "not a plain file name"},
        {"\"proj_in.weight\":\"..\"", "not a plain file name"},
        {"\"proj_in.weight\":\"\"", "not a plain file name"},
        {"\"proj_in.weight\":1", "not a plain file name"},
        {"\"proj_in.weight\":\"three.safetensors\"", "three.safetensors: No such file"},
        {"", "no weight_map"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = xasprintf("{\"weight_map\":{%s}}", cases[i].map);
        write_text(index, text);
        refuse_model(at("s"), cases[i].part);
        free(text);
    }
    write_text(index, "{}");
    refuse_model(at("s"), "no weight_map");
    /* the same name in two shards: the map can only name one */
    write_tensors("s/transformer/two.safetensors", NULL, "a F32 7; b F32 1");
    write_text(index,
               "{\"weight_map\":{\"proj_in.weight\":\"one.safetensors\",\"a\":\"two.safetensors\","
               "\"b\":\"one.safetensors\"}}");
    refuse_model(at("s"), "two.safetensors: tensor b does not belong here");
}

/* ---- text encoder ---------------------------------------------------------------------------- */

static const char marker[] = "encoder.block.0.layer.0.layer_norm.weight";

static void expect_tokenizer(const struct checkpoint *c, const char *path)
{
    char found[512];
    if (checkpoint_tokenizer_path(c, found, sizeof found) != STATUS_OK)
        fail_msg("%s", error_message());
    if (path) assert_string_equal(found, path);
}

static void test_text_encoder_layouts(void **state)
{
    (void)state;
    char path[512];
    char *tensors = xasprintf("%s F32 5; shared.weight F16 9 5; decoder.x F32 1", marker);
    write_tensors("t/text_encoder/model.safetensors", NULL, tensors);
    write_text("t/text_encoder/config.json",
               "{\"d_model\":5,\"model_type\":\"t5\",\"feed_forward_proj\":\"gated-gelu\","
               "\"layer_norm_epsilon\":1e-06,\"text\":\"x\"}");
    struct checkpoint *c = open_encoder(at("t"));
    assert_int_equal(checkpoint_find(c, marker)->shape[0], 5);
    assert_non_null(checkpoint_find(c, "shared.weight"));
    assert_ptr_equal(checkpoint_find(c, "encoder.embed_tokens.weight"),
                     checkpoint_find(c, "shared.weight"));
    assert_int_equal(checkpoint_config_int(c, "d_model", 1), 5);
    assert_int_equal(checkpoint_config_int(c, "absent", 7), 7);
    assert_int_equal(checkpoint_config_int(c, "text", 7), 7);
    expect_input_error(checkpoint_tokenizer_path(c, path, sizeof path), at("t"), "spiece.model");
    write_text("t/tokenizer/spiece.model", "");
    expect_tokenizer(c, at("t/tokenizer/spiece.model"));
    expect_input_error(checkpoint_tokenizer_path(c, path, 10), "too long");
    checkpoint_close(c);

    c = open_encoder(at("t/text_encoder")); /* the encoder's own folder, tokenizer beside it */
    expect_tokenizer(c, NULL);
    checkpoint_close(c);

    write_tensors("flat/t5xxl_fp16.safetensors", NULL, tensors); /* all in one folder, no config */
    write_text("flat/spiece.model", "");
    c = open_encoder(at("flat"));
    assert_non_null(checkpoint_find(c, marker));
    assert_int_equal(checkpoint_config_int(c, "d_model", -3), -3);
    expect_tokenizer(c, at("flat/spiece.model"));
    checkpoint_close(c);
    free(tensors);
}

static void test_text_encoder_names(void **state)
{
    (void)state;
    char *bundled = xasprintf(
        "text_encoders.t5xxl.transformer.%s F32 1;"
        "text_encoders.t5xxl.transformer.encoder.embed_tokens.weight F32 2 3; other F32 1",
        marker);
    write_tensors("b/model.safetensors", NULL, bundled);
    struct checkpoint *c = open_encoder(at("b"));
    assert_non_null(checkpoint_find(c, marker));
    assert_int_equal(checkpoint_find(c, "shared.weight")->shape[1], 3);
    assert_null(checkpoint_find(c, "other"));
    checkpoint_close(c);
    free(bundled);

    char *sharded = xasprintf(
        "{\"weight_map\":{\"%s\":\"m1.safetensors\",\"shared.weight\":\"m2.safetensors\"}}",
        marker);
    char *first = xasprintf("%s BF16 1", marker);
    write_text("s/model.safetensors.index.json", sharded);
    write_tensors("s/m1.safetensors", NULL, first);
    write_tensors("s/m2.safetensors", NULL, "shared.weight F32 1");
    c = open_encoder(at("s"));
    assert_non_null(checkpoint_find(c, marker));
    assert_non_null(checkpoint_find(c, "shared.weight"));
    checkpoint_close(c);
    free(sharded);
    free(first);
}

static void test_refused_text_encoders(void **state)
{
    (void)state;
    static const struct {
        const char *more, *part;
    } cases[] = {
        {"encoder.block.0.layer.0.SelfAttention.q.scale_weight F32", "q.scale_weight"},
        {"encoder.block.0.layer.0.SelfAttention.q.weight_scale F32", "q.weight_scale"},
        {"scaled_fp8 F8_E4M3 0", "scaled_fp8"},
        {"second.encoder.block.0.layer.0.layer_norm.weight F32 1", "more than one T5 encoder"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *tensors = xasprintf("%s F8_E4M3 1; %s", marker, cases[i].more);
        write_tensors("x/model.safetensors", NULL, tensors);
        refuse_encoder(at("x"), cases[i].part);
        free(tensors);
    }
    write_tensors("x/model.safetensors", NULL, "text_model.encoder.layers.0.weight F32 1");
    refuse_encoder(at("x"), "not a T5 encoder");
    refuse_encoder(at("x/model.safetensors"), "not a folder");
    refuse_encoder(at("nowhere"), "No such file");
    char *good = xasprintf("%s F32 1", marker);
    write_tensors("x/model.safetensors", NULL, good);
    free(good);
    write_text("x/config.json", "{\"model_type\":\"t5\",\"feed_forward_proj\":\"relu\"}");
    refuse_encoder(at("x"), "x/config.json: feed_forward_proj is \"relu\"");
    write_text("x/config.json", "{\"layer_norm_epsilon\":0.001}");
    refuse_encoder(at("x"), "layer_norm_epsilon is 0.001");
    write_text("x/config.json", "[]");
    refuse_encoder(at("x"), "JSON is not an object");
    write_text("x/config.json", "");
    refuse_encoder(at("x"), "bad JSON");
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    log_init(0, LOG_ERROR);
    const struct CMUnitTest tests[] = {
        CASE(test_prefix_rule),
        CASE(test_need),
        CASE(test_fallbacks),
        CASE(test_metadata),
        CASE(test_refused_configs),
        CASE(test_diffusers_folder),
        CASE(test_folder_without_parts),
        CASE(test_variants),
        CASE(test_shards),
        CASE(test_text_encoder_layouts),
        CASE(test_text_encoder_names),
        CASE(test_refused_text_encoders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
