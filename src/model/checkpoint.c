#include "model/checkpoint.h"

#include "base/error.h"
#include "base/log.h"
#include "model/checkpoint_config.h"
#include "model/checkpoint_files.h"
#include "model/checkpoint_names.h"
#include "model/json_input.h"
#include "model/safetensors.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct entry {
    const char *name; /* as stored, without the part's prefix */
    const struct tensor *tensor;
    const struct safetensors *file;
};

/* The tensors of the transformer, the VAE or the text encoder, sorted by name. */
struct part {
    struct entry *entries;
    size_t count;
    bool diffusers_names;
};

struct checkpoint {
    char *path;
    struct file_list files;
    struct part main, vae; /* main: transformer or text encoder */
    struct checkpoint_facts facts;
    json_t *config;     /* text encoder: config.json; may be NULL */
    char *weights_path; /* text encoder: the folder of its weights */
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), back = strlen(suffix);
    return length >= back && strcmp(text + length - back, suffix) == 0;
}

/* ---- parts ----------------------------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static const struct entry *part_find(const struct part *p, const char *name)
{
    const struct entry wanted = {.name = name};
    if (p->count == 0) return NULL; /* bsearch may not be given a null array */
    return bsearch(&wanted, p->entries, p->count, sizeof *p->entries, compare_entries);
}

static bool part_has(const struct part *p, const char *name) { return part_find(p, name) != NULL; }

/* Weights stored with scales would silently give a wrong picture when read as plain values. */
static int refuse_scaled(const struct entry *e)
{
    if (ends_with(e->name, ".scale_weight") || ends_with(e->name, ".weight_scale") ||
        strcmp(e->name, "scaled_fp8") == 0)
        return error_set(
            STATUS_INPUT,
            "%s: tensor %s: fp8 weights with scales are not supported, only plain F8_E4M3",
            safetensors_path(e->file), e->tensor->name);
    return STATUS_OK;
}

/* Collects what starts with `prefix` from files [first, list->count). */
static int part_collect(struct part *p, const struct file_list *list, int first, const char *prefix)
{
    size_t room = 0;
    for (int i = first; i < list->count; i++) room += (size_t)safetensors_count(list->files[i]);
    p->entries = xcalloc(room, sizeof *p->entries);
    for (int i = first; i < list->count; i++) {
        for (int j = 0; j < safetensors_count(list->files[i]); j++) {
            const struct tensor *t = safetensors_at(list->files[i], j);
            if (!starts_with(t->name, prefix)) continue;
            struct entry *e = &p->entries[p->count++];
            *e = (struct entry){t->name + strlen(prefix), t, list->files[i]};
            TRY(refuse_scaled(e));
        }
    }
    qsort(p->entries, p->count, sizeof *p->entries, compare_entries);
    return STATUS_OK;
}

/* ---- what the tensors say -------------------------------------------------------------------- */

/* 1 + the largest block index. */
static int count_blocks(const struct part *transformer)
{
    static const char prefix[] = "transformer_blocks.";
    long blocks = 0;
    for (size_t i = 0; i < transformer->count; i++) {
        const char *name = transformer->entries[i].name;
        if (!starts_with(name, prefix) || !isdigit((unsigned char)name[strlen(prefix)])) continue;
        long index = strtol(name + strlen(prefix), NULL, 10);
        if (index < INT_MAX && index + 1 > blocks) blocks = index + 1;
    }
    return (int)blocks;
}

static bool any_ends_with(const struct part *p, const char *suffix)
{
    for (size_t i = 0; i < p->count; i++) {
        if (ends_with(p->entries[i].name, suffix)) return true;
    }
    return false;
}

/* By structure, so that models of other widths are recognised too: 0.9.5 changed the encoder's
 * downsampling, 0.9.1 brought the timestep into the decoder. Without an encoder, only 0.9.1 injects
 * noise. */
static enum vae_generation detect_generation(const struct part *vae)
{
    bool d = vae->diffusers_names;
    if (part_has(vae, d ? "encoder.down_blocks.0.downsamplers.0.conv.conv.weight"
                        : "encoder.down_blocks.1.conv.conv.weight"))
        return VAE_0_9_5;
    if (!part_has(vae, d ? "decoder.time_embedder.timestep_embedder.linear_1.weight"
                         : "decoder.last_time_embedder.timestep_embedder.linear_1.weight"))
        return VAE_0_9_0;
    if (part_has(vae, "encoder.conv_in.conv.weight") || any_ends_with(vae, ".per_channel_scale1"))
        return VAE_0_9_1;
    return VAE_0_9_5;
}

static int read_facts(struct checkpoint *c, struct config_sources *sources)
{
    bool has_transformer =
        part_has(&c->main, "patchify_proj.weight") || part_has(&c->main, "proj_in.weight");
    sources->has_vae = part_has(&c->vae, "decoder.conv_in.conv.weight");
    if (!has_transformer && !sources->has_vae)
        return error_set(STATUS_INPUT,
                         "%s: not an LTX-Video model: neither patchify_proj.weight nor"
                         " vae.decoder.conv_in.conv.weight is in it",
                         c->path);
    c->main.diffusers_names = part_has(&c->main, "proj_in.weight");
    if (sources->has_vae) sources->generation = detect_generation(&c->vae);
    sources->blocks = count_blocks(&c->main);
    TRY(config_read_facts(&c->facts, sources));
    if (!sources->has_vae && !sources->transformer.json && c->facts.vae == VAE_0_9_0)
        log_warn("%s: no config and no VAE to tell the release by; taken for 0.9.0 or 0.9.1"
                 " (positions not causal, SD3 schedule)",
                 c->path);
    return STATUS_OK;
}

/* ---- official file --------------------------------------------------------------------------- */

static int get_section(struct config_section *s, const char *path, const json_t *config,
                       const char *key)
{
    s->json = json_object_get(config, key);
    if (s->json && !json_is_object(s->json))
        return error_set(STATUS_INPUT, "%s: config.%s in its metadata is not an object", path, key);
    return STATUS_OK;
}

/* The JSON string under "config"; where[] are the sections' names in messages. */
static int read_metadata_config(struct checkpoint *c, const json_t *config, char *where[4])
{
    static const char *const keys[] = {"transformer", "vae", "scheduler"};
    struct config_sources sources = {0};
    struct config_section *sections[] = {&sources.transformer, &sources.vae, &sources.scheduler};
    for (int i = 0; i < 3; i++) {
        where[i] = xasprintf("%s: metadata config, %s", c->path, keys[i]);
        TRY(get_section(sections[i], c->path, config, keys[i]));
        sections[i]->where = where[i];
    }
    where[3] = xasprintf("%s: metadata config", c->path);
    sources.root = (struct config_section){where[3], config};
    return read_facts(c, &sources);
}

static int open_single_file(struct checkpoint *c)
{
    enum { MAX_CONFIG_DEPTH = 32 };
    static const char official_prefix[] = "model.diffusion_model.";
    TRY(files_open(&c->files, c->path));
    TRY(part_collect(&c->main, &c->files, 0, official_prefix));
    if (c->main.count == 0) { /* a bare transformer */
        free(c->main.entries);
        c->main = (struct part){0};
        TRY(part_collect(&c->main, &c->files, 0, ""));
    }
    TRY(part_collect(&c->vae, &c->files, 0, "vae."));
    json_t *config = NULL;
    char *where[4] = {NULL};
    int status = STATUS_OK;
    const char *text = safetensors_metadata(c->files.files[0], "config");
    if (text) {
        char *what = xasprintf("%s: metadata config", c->path);
        status = json_input_parse(&config, what, text, strlen(text), MAX_CONFIG_DEPTH);
        free(what);
    }
    if (status == STATUS_OK) status = read_metadata_config(c, config, where);
    for (int i = 0; i < 4; i++) free(where[i]);
    json_decref(config);
    return status;
}

/* ---- diffusers folder ------------------------------------------------------------------------ */

struct folder_config {
    char *path;
    json_t *json; /* NULL if the file does not exist */
};

static int read_folder_config(struct folder_config *f, const char *folder, const char *name)
{
    f->path = xasprintf("%s/%s", folder, name);
    return files_exist(folder, name) ? json_input_read(&f->json, f->path) : STATUS_OK;
}

static int open_component(struct checkpoint *c, struct part *p, const char *name)
{
    if (!files_exist(c->path, name)) return STATUS_OK;
    char *folder = xasprintf("%s/%s", c->path, name);
    int first = c->files.count;
    int status = files_open_folder(&c->files, folder, "diffusion_pytorch_model");
    free(folder);
    return status == STATUS_OK ? part_collect(p, &c->files, first, "") : status;
}

static int open_diffusers_folder(struct checkpoint *c)
{
    enum { TRANSFORMER, VAE, SCHEDULER, INDEX, CONFIGS };
    static const char *const names[CONFIGS] = {"transformer/config.json", "vae/config.json",
                                               "scheduler/scheduler_config.json",
                                               "model_index.json"};
    struct folder_config configs[CONFIGS] = {{0}};
    int status;
    if (!files_exist(c->path, "transformer") && !files_exist(c->path, "vae"))
        return error_set(STATUS_INPUT,
                         "%s: a folder without transformer/ and vae/ is not a diffusers model",
                         c->path);
    TRY(open_component(c, &c->main, "transformer"));
    TRY(open_component(c, &c->vae, "vae"));
    c->vae.diffusers_names = true;
    for (int i = 0; i < CONFIGS; i++)
        TRY_OR(done, status, read_folder_config(&configs[i], c->path, names[i]));
    const char *pipeline = json_string_value(json_object_get(configs[INDEX].json, "_class_name"));
    struct config_sources sources = {
        .transformer = {configs[TRANSFORMER].path, configs[TRANSFORMER].json},
        .vae = {configs[VAE].path, configs[VAE].json},
        .scheduler = {configs[SCHEDULER].path, configs[SCHEDULER].json},
        .root = {configs[INDEX].path, NULL},
        .condition_pipeline = pipeline && strcmp(pipeline, "LTXConditionPipeline") == 0,
    };
    status = read_facts(c, &sources);
done:
    for (int i = 0; i < CONFIGS; i++) {
        free(configs[i].path);
        json_decref(configs[i].json);
    }
    return status;
}

/* ---- text encoder ---------------------------------------------------------------------------- */

/* What stands in front of "encoder.": "" in most files, "text_encoders.t5xxl.transformer." in
 * bundled ones. */
static int find_encoder_prefix(const struct checkpoint *c, char out[TENSOR_NAME_BYTES])
{
    static const char marker[] = "encoder.block.0.layer.0.layer_norm.weight";
    bool found = false;
    for (int i = 0; i < c->files.count; i++) {
        for (int j = 0; j < safetensors_count(c->files.files[i]); j++) {
            const char *name = safetensors_at(c->files.files[i], j)->name;
            if (!ends_with(name, marker)) continue;
            size_t front = strlen(name) - strlen(marker);
            if (front > 0 && name[front - 1] != '.') continue;
            if (found)
                return error_set(STATUS_INPUT, "%s: more than one T5 encoder: %s%s and %s", c->path,
                                 out, marker, name);
            snprintf(out, TENSOR_NAME_BYTES, "%.*s", (int)front, name);
            found = true;
        }
    }
    if (!found)
        return error_set(STATUS_INPUT, "%s: not a T5 encoder: tensor %s is missing",
                         c->weights_path, marker);
    return STATUS_OK;
}

static int open_text_encoder(struct checkpoint *c)
{
    bool nested = files_exist(c->path, "text_encoder");
    c->weights_path = nested ? xasprintf("%s/text_encoder", c->path) : xstrdup(c->path);
    TRY(files_open_folder(&c->files, c->weights_path, "model"));
    char prefix[TENSOR_NAME_BYTES];
    TRY(find_encoder_prefix(c, prefix));
    TRY(part_collect(&c->main, &c->files, 0, prefix));
    struct folder_config config = {0};
    int status = read_folder_config(&config, c->weights_path, "config.json");
    c->config = config.json;
    if (status == STATUS_OK)
        status = config_check_text_encoder(&(struct config_section){config.path, config.json});
    free(config.path);
    return status;
}

int checkpoint_tokenizer_path(const struct checkpoint *c, char *out, size_t size)
{
    static const char *const places[] = {"tokenizer/spiece.model", "spiece.model",
                                         "../tokenizer/spiece.model"};
    const char *folders[] = {c->path, c->weights_path ? c->weights_path : c->path};
    for (size_t f = 0; f < sizeof folders / sizeof folders[0]; f++) {
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            if (!files_exist(folders[f], places[i])) continue;
            if ((size_t)snprintf(out, size, "%s/%s", folders[f], places[i]) >= size)
                return error_set(STATUS_INPUT, "%s/%s: the path is too long", folders[f],
                                 places[i]);
            return STATUS_OK;
        }
    }
    return error_set(STATUS_INPUT,
                     "%s: no spiece.model there, in its tokenizer/ or in tokenizer/ beside it"
                     " (tokenizer.json alone is not enough)",
                     c->path);
}

int64_t checkpoint_config_int(const struct checkpoint *c, const char *key, int64_t fallback)
{
    const json_t *value = json_object_get(c->config, key);
    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static int open_with(struct checkpoint **out, const char *path,
                     int (*open_kind)(struct checkpoint *))
{
    struct checkpoint *c = xcalloc(1, sizeof *c);
    c->path = xstrdup(path);
    int status = open_kind(c);
    if (status != STATUS_OK) {
        checkpoint_close(c);
        return status;
    }
    *out = c;
    return STATUS_OK;
}

static int stat_path(const char *path, bool *is_folder)
{
    struct stat info;
    if (stat(path, &info) != 0) return error_set(STATUS_INPUT, "%s: %s", path, strerror(errno));
    *is_folder = S_ISDIR(info.st_mode);
    return STATUS_OK;
}

int checkpoint_open(struct checkpoint **out, const char *path)
{
    bool is_folder = false;
    TRY(stat_path(path, &is_folder));
    return open_with(out, path, is_folder ? open_diffusers_folder : open_single_file);
}

int checkpoint_open_text_encoder(struct checkpoint **out, const char *path)
{
    bool is_folder = false;
    TRY(stat_path(path, &is_folder));
    if (!is_folder)
        return error_set(
            STATUS_INPUT,
            "%s: not a folder; a text encoder is a folder with weights and spiece.model", path);
    return open_with(out, path, open_text_encoder);
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c) return;
    free(c->main.entries);
    free(c->vae.entries);
    files_close(&c->files);
    json_decref(c->config);
    free(c->weights_path);
    free(c->path);
    free(c);
}

const char *checkpoint_path(const struct checkpoint *c) { return c->path; }
const struct checkpoint_facts *checkpoint_facts(const struct checkpoint *c) { return &c->facts; }

/* ---- looking up ------------------------------------------------------------------------------ */

static const char vae_prefix[] = "vae.";

/* The name under which a part stores the tensor; false if its naming has none. */
static bool stored_name(const struct checkpoint *c, char out[TENSOR_NAME_BYTES],
                        const char *official)
{
    if (starts_with(official, vae_prefix)) {
        official += strlen(vae_prefix);
        if (c->vae.diffusers_names) return names_vae_to_diffusers(out, official, c->facts.vae);
    } else if (c->main.diffusers_names) {
        return names_transformer_to_diffusers(out, official);
    }
    return (size_t)snprintf(out, TENSOR_NAME_BYTES, "%s", official) < TENSOR_NAME_BYTES;
}

/* T5 shares one table under two names; a file may hold either. */
static const char *twin_name(const char *name)
{
    static const char *const twins[] = {"shared.weight", "encoder.embed_tokens.weight"};
    for (int i = 0; i < 2; i++) {
        if (strcmp(name, twins[i]) == 0) return twins[1 - i];
    }
    return NULL;
}

static const struct entry *find_entry(const struct checkpoint *c, const char *name)
{
    char stored[TENSOR_NAME_BYTES];
    if (!stored_name(c, stored, name)) return NULL;
    const struct entry *e = part_find(starts_with(name, vae_prefix) ? &c->vae : &c->main, stored);
    if (!e && twin_name(name)) e = part_find(&c->main, twin_name(name));
    return e;
}

const struct tensor *checkpoint_find(const struct checkpoint *c, const char *name)
{
    const struct entry *e = find_entry(c, name);
    return e ? e->tensor : NULL;
}

static bool shape_fits(const struct tensor *t, int rank, const int64_t *shape)
{
    if (t->rank != rank) return false;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 ? t->shape[i] < 1 : t->shape[i] != shape[i]) return false;
    }
    return true;
}

/* "[2048,any]" */
static char *wanted_shape_text(int rank, const int64_t *shape, char out[96])
{
    size_t at = (size_t)snprintf(out, 96, "[");
    for (int i = 0; i < rank && at < 72; i++) {
        const char *comma = i ? "," : "";
        at += (size_t)(shape[i] < 0
                           ? snprintf(out + at, 96 - at, "%sany", comma)
                           : snprintf(out + at, 96 - at, "%s%lld", comma, (long long)shape[i]));
    }
    snprintf(out + at, 96 - at, "]");
    return out;
}

static int report_missing(const struct checkpoint *c, const char *name)
{
    char stored[TENSOR_NAME_BYTES];
    const char *bare = starts_with(name, vae_prefix) ? name + strlen(vae_prefix) : name;
    if (stored_name(c, stored, name) && strcmp(stored, bare) != 0)
        return error_set(STATUS_INPUT, "%s: tensor %s (stored as %s) is missing", c->path, name,
                         stored);
    return error_set(STATUS_INPUT, "%s: tensor %s is missing", c->path, name);
}

int checkpoint_need(const struct checkpoint *c, const struct tensor **out, int rank,
                    const int64_t *shape, const char *name, ...)
{
    char full[TENSOR_NAME_BYTES], have[96], want[96];
    va_list args;
    va_start(args, name);
    vsnprintf(full, sizeof full, name, args);
    va_end(args);
    const struct entry *e = find_entry(c, full);
    if (!e) return report_missing(c, full);
    const struct tensor *t = e->tensor;
    const char *path = safetensors_path(e->file);
    if (!shape_fits(t, rank, shape))
        return error_set(STATUS_INPUT, "%s: tensor %s has shape %s, expected %s", path, full,
                         tensor_shape_text(t, have), wanted_shape_text(rank, shape, want));
    if (t->dtype == DTYPE_COUNT)
        return error_set(STATUS_INPUT, "%s: tensor %s: dtype %s is not supported", path, full,
                         safetensors_dtype(t));
    if (!dtype_is_float(t->dtype))
        return error_set(STATUS_INPUT, "%s: tensor %s has dtype %s, expected a floating-point type",
                         path, full, dtype_name(t->dtype));
    *out = t;
    return STATUS_OK;
}
