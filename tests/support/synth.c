#include "tests/support/synth.h"

#include "base/error.h"
#include "base/rng.h"
#include "model/json_input.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- manifest -------------------------------------------------------------------------------- */

static uint16_t f16_from_f32(float x)
{
    _Float16 half = (_Float16)x; /* rounds to nearest even */
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}

static void store(void *to, enum dtype dtype, size_t i, float value)
{
    if (dtype == DTYPE_F32)
        ((float *)to)[i] = value;
    else if (dtype == DTYPE_BF16)
        ((uint16_t *)to)[i] = bf16_from_f32(value);
    else
        ((uint16_t *)to)[i] = f16_from_f32(value);
}

/* t->data is taken with malloc. */
static void fill(struct tensor *t, uint64_t seed, float scale, float offset)
{
    struct rng rng;
    size_t count = (size_t)tensor_count(t);
    float *noise = xmalloc(count * sizeof *noise);
    void *data = xmalloc(t->bytes);
    rng_seed(&rng, seed);
    rng_randn(&rng, noise, count);
    for (size_t i = 0; i < count; i++) {
        float scaled = noise[i] * scale;
        store(data, t->dtype, i, scaled + offset);
    }
    free(noise);
    t->data = data;
}

static int make_tensor(struct tensor *t, const char *manifest, const json_t *entry)
{
    const json_t *shape = json_object_get(entry, "shape"), *seed = json_object_get(entry, "seed");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    t->name = json_string_value(json_object_get(entry, "name"));
    t->rank = (int)json_array_size(shape);
    if (!t->name || !dtype || !json_is_array(shape) || !json_is_integer(seed) ||
        t->rank > TENSOR_MAX_RANK || !dtype_from_name(dtype, &t->dtype) ||
        (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16))
        return error_set(STATUS_INPUT, "%s: bad tensor entry %s", manifest, t->name ? t->name : "");
    for (int i = 0; i < t->rank; i++)
        t->shape[i] = json_integer_value(json_array_get(shape, (size_t)i));
    t->bytes = (size_t)tensor_count(t) * dtype_size(t->dtype);
    fill(t, (uint64_t)json_integer_value(seed),
         (float)json_number_value(json_object_get(entry, "scale")),
         (float)json_number_value(json_object_get(entry, "offset")));
    return STATUS_OK;
}

/* key, value, ..., NULL for safetensors_write; the strings stay owned by the manifest. */
static const char **metadata_pairs(json_t *metadata)
{
    const char **pairs = xcalloc(2 * json_object_size(metadata) + 1, sizeof *pairs), *key;
    json_t *value;
    int i = 0;
    json_object_foreach (metadata, key, value) {
        pairs[i++] = key;
        pairs[i++] = json_string_value(value);
    }
    return pairs;
}

int synth_checkpoint(const char *manifest_json_path, const char *out_path)
{
    json_t *root = NULL;
    TRY(json_input_read(&root, manifest_json_path));
    const json_t *list = json_object_get(root, "tensors");
    size_t count = json_array_size(list), made = 0;
    struct tensor *tensors = xcalloc(count, sizeof *tensors);
    const char **metadata = metadata_pairs(json_object_get(root, "metadata"));
    int status = STATUS_OK;
    for (; status == STATUS_OK && made < count; made++)
        status = make_tensor(&tensors[made], manifest_json_path, json_array_get(list, made));
    if (status == STATUS_OK) status = safetensors_write(out_path, tensors, (int)count, metadata);
    for (size_t i = 0; i < made; i++) free((void *)tensors[i].data);
    free(metadata);
    free(tensors);
    json_decref(root);
    return status;
}

/* ---- comparing ------------------------------------------------------------------------------- */

double relative_rms(const float *a, const float *b, size_t n)
{
    double difference = 0, reference = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        reference += (double)b[i] * (double)b[i];
    }
    if (difference == 0) return 0; /* also when the reference is all zero */
    return sqrt(difference / reference);
}

float *tensor_floats(const struct tensor *t)
{
    size_t count = (size_t)tensor_count(t);
    float *values = xmalloc(count * sizeof *values);
    dtype_to_f32(values, t->data, t->dtype, count);
    return values;
}

/* ---- folders --------------------------------------------------------------------------------- */

char *temp_dir_make(void)
{
    char *dir = xstrdup("/tmp/ringreel-test-XXXXXX");
    CHECK(mkdtemp(dir), "cannot make a folder under /tmp");
    return dir;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info, (void)type, (void)place;
    return remove(path);
}

void temp_dir_remove(char *dir)
{
    enum { OPEN_FOLDERS = 16 };
    if (!dir) return;
    nftw(dir, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS);
    free(dir);
}
