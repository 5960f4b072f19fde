/* One model, several file layouts, the same bytes: models/tiny rewritten as a diffusers folder
 * (sharded transformer with an index, VAE, scheduler, text encoder, tokenizer) must render exactly
 * what the official single file renders. */

#include "base/error.h"
#include "model/checkpoint_names.h"
#include "model/safetensors.h"
#include "tests/support/synth.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *dir;
static struct safetensors *official;

static void write_text(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void make_folder(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(mkdir(path, 0777), 0);
}

static void write_tensors(const char *name, const struct tensor *tensors, int count)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (safetensors_write(path, tensors, count, NULL) != STATUS_OK) fail_msg("%s", error_message());
}

/* Tensors under `prefix`, renamed; the caller frees list[i].name. */
static int renamed(struct tensor *list, const char *prefix, bool vae)
{
    int count = 0;
    for (int i = 0; i < safetensors_count(official); i++) {
        struct tensor t = *safetensors_at(official, i);
        char name[TENSOR_NAME_BYTES];
        if (strncmp(t.name, prefix, strlen(prefix)) != 0) continue;
        const char *bare = t.name + strlen(prefix);
        if (vae ? !names_vae_to_diffusers(name, bare, VAE_0_9_5)
                : !names_transformer_to_diffusers(name, bare))
            continue;
        t.name = strdup(name);
        list[count++] = t;
    }
    assert_true(count > 50);
    return count;
}

static void free_names(struct tensor *list, int count)
{
    for (int i = 0; i < count; i++) free((char *)list[i].name);
    free(list);
}

/* What the tensors do not say, as the official file's configuration has it. */
static void write_transformer_config(void)
{
    static const char *const keys[] = {"num_attention_heads", "positional_embedding_theta",
                                       "positional_embedding_max_pos"};
    json_t *config = json_loads(safetensors_metadata(official, "config"), 0, NULL);
    json_t *source = json_object_get(config, "transformer"), *to = json_object();
    json_object_set_new(to, "_class_name", json_string("LTXVideoTransformer3DModel"));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        assert_non_null(json_object_get(source, keys[i]));
        json_object_set(to, keys[i], json_object_get(source, keys[i]));
    }
    char *text = json_dumps(to, 0);
    write_text("transformer/config.json", text);
    free(text);
    json_decref(to);
    json_decref(config);
}

/* Two shards and the index that says which tensor is where. */
static void write_transformer(void)
{
    struct tensor *list = calloc((size_t)safetensors_count(official), sizeof *list);
    int count = renamed(list, "model.diffusion_model.", false), half = count / 2;
    make_folder("transformer");
    write_transformer_config();
    write_tensors("transformer/diffusion_pytorch_model-00001-of-00002.safetensors", list, half);
    write_tensors("transformer/diffusion_pytorch_model-00002-of-00002.safetensors", list + half,
                  count - half);
    char *index = malloc((size_t)count * 256 + 64);
    int at = sprintf(index, "{\"metadata\": {}, \"weight_map\": {");
    for (int i = 0; i < count; i++)
        at +=
            sprintf(index + at, "%s\"%s\": \"diffusion_pytorch_model-0000%d-of-00002.safetensors\"",
                    i ? "," : "", list[i].name, i < half ? 1 : 2);
    sprintf(index + at, "}}");
    write_text("transformer/diffusion_pytorch_model.safetensors.index.json", index);
    free(index);
    free_names(list, count);
}

static void write_vae(void)
{
    struct tensor *list = calloc((size_t)safetensors_count(official), sizeof *list);
    int count = renamed(list, "vae.", true);
    make_folder("vae");
    write_text("vae/config.json", "{\"_class_name\": \"AutoencoderKLLTXVideo\"}");
    write_tensors("vae/diffusion_pytorch_model.safetensors", list, count);
    free_names(list, count);
}

static int make_layouts(void **state)
{
    (void)state;
    dir = temp_dir_make();
    if (safetensors_open(&official, "models/tiny/ltxv-tiny.safetensors") != STATUS_OK) return -1;
    write_transformer();
    write_vae();
    make_folder("scheduler");
    write_text(
        "scheduler/scheduler_config.json",
        "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"use_dynamic_shifting\": false}");
    write_text("model_index.json", "{\"_class_name\": \"LTXConditionPipeline\"}");
    char command[1024];
    snprintf(command, sizeof command, "cp -r models/tiny/text_encoder models/tiny/tokenizer %s/",
             dir);
    return system(command);
}

static int remove_layouts(void **state)
{
    (void)state;
    safetensors_close(official);
    temp_dir_remove(dir);
    return 0;
}

static void render(char digest[256], const char *checkpoint, const char *text_encoder)
{
    const char *program = getenv("RINGREEL") ? getenv("RINGREEL") : "./ringreel";
    char command[2048];
    snprintf(command, sizeof command,
             "%s render --quiet --digest --checkpoint-path %s --text-encoder-model-name-or-path %s "
             "--prompt 'a blue square' --width 64 --height 64 --num-frames 9 --num-inference-steps "
             "2 --stg-scale 0 "
             "--guidance-scale 2 -o %s/out.mp4",
             program, checkpoint, text_encoder, dir);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    assert_non_null(fgets(digest, 256, p));
    assert_int_equal(pclose(p), 0);
}

static void a_diffusers_folder_renders_the_same_bytes(void **state)
{
    (void)state;
    char single[256], folder[256];
    render(single, "models/tiny/ltxv-tiny.safetensors", "models/tiny");
    render(folder, dir, dir);
    assert_string_equal(single, folder);
    assert_non_null(strstr(single, "frames "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_diffusers_folder_renders_the_same_bytes)};
    return cmocka_run_group_tests(tests, make_layouts, remove_layouts);
}
