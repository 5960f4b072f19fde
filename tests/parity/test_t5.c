/* The T5 encoder against the reference's, its position buckets, and what it must refuse. */
#include "tests/support/synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "kernels/ops.h"
#include "model/t5.h"

enum { WIDTH = 64, MAX_TOKENS = 160 };
static const char manifest[] = "tests/parity/data/t5_small.manifest.json";
static const char config[] = "{\"num_layers\": 3, \"feed_forward_proj\": \"gated-gelu\"}";
static struct device *dev;

/* ---- a text encoder's folder ----------------------------------------------------------------- */

static void write_config(const char *dir, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static char *make_folder(char model[256])
{
    char *dir = temp_dir_make();
    snprintf(model, 256, "%s/model.safetensors", dir);
    assert_int_equal(synth_checkpoint(manifest, model), STATUS_OK);
    write_config(dir, config);
    return dir;
}

struct encoder {
    struct checkpoint *checkpoint;
    struct t5 *t5;
};

static struct encoder open_encoder(const char *dir, int max_tokens)
{
    struct encoder e = {0};
    assert_int_equal(checkpoint_open_text_encoder(&e.checkpoint, dir), STATUS_OK);
    assert_int_equal(t5_open(&e.t5, dev, e.checkpoint, max_tokens), STATUS_OK);
    t5_take_memory(e.t5);
    assert_int_equal(t5_width(e.t5), WIDTH);
    return e;
}

static void close_encoder(struct encoder *e)
{
    t5_close(e->t5);
    checkpoint_close(e->checkpoint);
}

/* ---- forward --------------------------------------------------------------------------------- */

struct text_case {
    int count;
    int32_t ids[MAX_TOKENS];
    float *output; /* [count, WIDTH] */
};

/* The reference padded and masked; we encode the real tokens only. */
static struct text_case read_case(const struct safetensors *f, int i)
{
    char name[32];
    struct text_case c = {0};
    snprintf(name, sizeof name, "case%d.ids", i);
    const struct tensor *ids = fixture(f, name);
    assert_true(ids->dtype == DTYPE_I32 && tensor_count(ids) <= MAX_TOKENS);
    memcpy(c.ids, ids->data, ids->bytes);
    snprintf(name, sizeof name, "case%d.output", i);
    const struct tensor *output = fixture(f, name);
    assert_true(output->rank == 2 && output->shape[1] == WIDTH &&
                output->shape[0] < tensor_count(ids));
    c.count = (int)output->shape[0];
    c.output = tensor_floats(output);
    return c;
}

/* 1e-5: fp32 on both sides, sums in another order (measured: about 1e-6; the scores are not scaled
 * down, which makes the softmax sharp). */
static void test_reference(void **state)
{
    (void)state;
    char model[256];
    char *dir = make_folder(model);
    struct safetensors *f = NULL;
    assert_int_equal(safetensors_open(&f, "tests/parity/data/t5_small.safetensors"), STATUS_OK);
    struct encoder e = open_encoder(dir, MAX_TOKENS);
    for (int i = 1; i >= 0; i--) { /* the long text first: nothing of it may remain */
        struct text_case c = read_case(f, i);
        float *embeds = malloc(sizeof *embeds * (size_t)c.count * WIDTH);
        assert_int_equal(t5_encode(e.t5, c.ids, c.count, embeds), STATUS_OK);
        double difference = relative_rms(embeds, c.output, (size_t)c.count * WIDTH);
        if (!(difference <= 1e-5)) fail_msg("case %d: relative RMS %.3g", i, difference);
        free(embeds);
        free(c.output);
    }
    close_encoder(&e);
    safetensors_close(f);
    temp_dir_remove(dir);
}

/* The room a text encoder was opened for does not matter; the tokens that follow do. */
static void test_single_token(void **state)
{
    (void)state;
    char model[256];
    char *dir = make_folder(model);
    struct encoder small = open_encoder(dir, 1), large = open_encoder(dir, MAX_TOKENS);
    float a[WIDTH], b[WIDTH], both[2 * WIDTH];
    assert_int_equal(t5_encode(small.t5, (const int32_t[]){1}, 1, a), STATUS_OK);
    assert_int_equal(t5_encode(large.t5, (const int32_t[]){1}, 1, b), STATUS_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(t5_encode(large.t5, (const int32_t[]){1, 7}, 2, both), STATUS_OK);
    assert_true(relative_rms(both, a, WIDTH) > 1e-3); /* the encoder looks ahead */
    close_encoder(&small);
    close_encoder(&large);
    temp_dir_remove(dir);
}

static void test_refuses_foreign_ids(void **state)
{
    (void)state;
    char model[256];
    char *dir = make_folder(model);
    struct encoder e = open_encoder(dir, 4);
    float embeds[4 * WIDTH];
    const int32_t bad[] = {300, -1, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        error_clear();
        assert_int_equal(t5_encode(e.t5, (const int32_t[]){5, bad[i], 1}, 3, embeds), STATUS_INPUT);
        assert_non_null(strstr(error_message(), "300 rows"));
    }
    error_clear();
    assert_int_equal(t5_encode(e.t5, (const int32_t[]){0, 299, 1}, 3, embeds), STATUS_OK);
    close_encoder(&e);
    temp_dir_remove(dir);
}

/* ---- position buckets (spec transformer 5.2) ------------------------------------------------- */

static int expected_bucket(int relative)
{
    static const int last[16] = {0, 1, 2, 3, 4, 5, 6, 7, 11, 15, 22, 31, 45, 63, 90, INT32_MAX};
    int bucket = 0;
    while (abs(relative) > last[bucket]) bucket++;
    return bucket + (relative > 0 ? 16 : 0);
}

/* With q = 0 the weights are softmax(bias) alone; with v the identity they are the output. A bias
 * of ln(bucket + 1) makes weight(i, j) / weight(i, i) = bucket(j - i) + 1. */
static void test_buckets(void **state)
{
    (void)state;
    enum { L = 128 };
    static float zero[L * L], identity[L * L], weights[L * L], bias[32];
    for (int b = 0; b < 32; b++) bias[b] = logf((float)(b + 1));
    for (int i = 0; i < L; i++) identity[i * L + i] = 1.0f;
    op_attention_t5(dev, mat_f32(weights, L, L), mat_f32(zero, L, L), mat_f32(zero, L, L),
                    mat_f32(identity, L, L), 1, bias);
    for (int i = 0; i < L; i++)
        for (int j = 0; j < L; j++) {
            float bucket = weights[i * L + j] / weights[i * L + i] - 1.0f;
            if (!(fabsf(bucket - (float)expected_bucket(j - i)) < 1e-3f))
                fail_msg("offset %d is in bucket %g, expected %d", j - i, bucket,
                         expected_bucket(j - i));
        }
}

/* ---- files that must be refused -------------------------------------------------------------- */

static void assert_open_refused(const char *dir, const char *why)
{
    struct checkpoint *c = NULL;
    struct t5 *t = NULL;
    error_clear();
    int status = checkpoint_open_text_encoder(&c, dir);
    if (status == STATUS_OK) status = t5_open(&t, dev, c, 8);
    if (status != STATUS_INPUT) fail_msg("accepted, expected: %s", why);
    if (!strstr(error_message(), why)) fail_msg("\"%s\" lacks \"%s\"", error_message(), why);
    error_clear();
    checkpoint_close(c);
}

/* Writes the file anew with `change` made to one tensor; one that is named "" then is left out. */
static void assert_changed_refused(const char *name, void (*change)(struct tensor *),
                                   const char *why)
{
    char model[256];
    char *dir = make_folder(model);
    struct safetensors *f = NULL;
    struct tensor tensors[64];
    int count = 0;
    assert_int_equal(safetensors_open(&f, model), STATUS_OK);
    assert_true(safetensors_count(f) <= 64);
    for (int i = 0; i < safetensors_count(f); i++) {
        tensors[count] = *safetensors_at(f, i);
        if (strcmp(tensors[count].name, name) == 0) change(&tensors[count]);
        if (tensors[count].name[0]) count++;
    }
    assert_int_equal(safetensors_write(model, tensors, count, NULL), STATUS_OK);
    safetensors_close(f);
    assert_open_refused(dir, why);
    temp_dir_remove(dir);
}

static void leave_out(struct tensor *t) { t->name = ""; }
static void halve_rows(struct tensor *t) { t->shape[0] /= 2, t->bytes /= 2; }
static void fold_rows(struct tensor *t) { t->shape[0] /= 2, t->shape[1] *= 2; }
static void make_integer(struct tensor *t) { t->dtype = DTYPE_I32; }
static void mark_scaled(struct tensor *t) { t->name = "scaled_fp8"; }
static void odd_heads(struct tensor *t) { t->shape[1] = 3, t->bytes = 4 * 32 * 3; }

static void test_refuses_bad_files(void **state)
{
    (void)state;
    static const char *const needed[] = {
        "encoder.final_layer_norm.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        "encoder.block.1.layer.0.SelfAttention.k.weight",
        "encoder.block.2.layer.0.SelfAttention.q.weight",
        "encoder.block.2.layer.0.SelfAttention.v.weight",
        "encoder.block.1.layer.0.SelfAttention.o.weight",
        "encoder.block.1.layer.0.layer_norm.weight",
        "encoder.block.1.layer.1.layer_norm.weight",
        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
        "encoder.block.1.layer.1.DenseReluDense.wi_1.weight",
        "encoder.block.2.layer.1.DenseReluDense.wo.weight",
        "shared.weight",
    };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        assert_changed_refused(needed[i], leave_out, needed[i]);
    const char *final = needed[0], *bias = needed[1], *wo = needed[11];
    const int halved[] = {0, 1, 3, 6, 10};
    for (int i = 0; i < 5; i++)
        assert_changed_refused(needed[halved[i]], halve_rows, needed[halved[i]]);
    assert_changed_refused(wo, fold_rows, wo);
    assert_changed_refused(wo, make_integer, "floating-point");
    assert_changed_refused(bias, odd_heads, "64 attention channels for 3 heads");
    assert_changed_refused(final, mark_scaled, "fp8 weights with scales");
}

static void test_refuses_bad_config(void **state)
{
    (void)state;
    char model[256];
    char *dir = make_folder(model);
    write_config(dir, "{\"num_layers\": 4}");
    assert_open_refused(dir, "encoder.block.3.layer.0.SelfAttention.q.weight");
    write_config(dir, "{\"num_layers\": 0}");
    assert_open_refused(dir, "num_layers 0");
    write_config(dir, "{\"num_layers\": 1000000000000}");
    assert_open_refused(dir, "num_layers 1000000000000");
    write_config(dir, "{\"num_layers\": 3, \"relative_attention_max_distance\": 64}");
    assert_open_refused(dir, "relative_attention_max_distance 64");
    temp_dir_remove(dir);
}

/* Writes the encoder again with `change` made to its embedding. */
static void change_embedding(const char *model, void (*change)(struct tensor *))
{
    struct safetensors *f = NULL;
    struct tensor tensors[64];
    assert_int_equal(safetensors_open(&f, model), STATUS_OK);
    assert_true(safetensors_count(f) <= 64);
    for (int i = 0; i < safetensors_count(f); i++) {
        tensors[i] = *safetensors_at(f, i);
        if (strcmp(tensors[i].name, "shared.weight") == 0) change(&tensors[i]);
    }
    assert_int_equal(safetensors_write(model, tensors, safetensors_count(f), NULL), STATUS_OK);
    safetensors_close(f);
}

static void rename_embedding(struct tensor *t) { t->name = "encoder.embed_tokens.weight"; }
static void view_as_fp8(struct tensor *t) { t->dtype = DTYPE_F8_E4M3, t->bytes /= 4; }

/* The embedding under its other name is the same encoder. */
static void test_other_embedding_name(void **state)
{
    (void)state;
    char model[256];
    char *dir = make_folder(model);
    float a[3 * WIDTH], b[3 * WIDTH];
    for (int round = 0; round < 2; round++) {
        struct encoder e = open_encoder(dir, 4);
        assert_int_equal(t5_encode(e.t5, (const int32_t[]){9, 17, 1}, 3, round ? b : a), STATUS_OK);
        close_encoder(&e);
        change_embedding(model, rename_embedding);
    }
    assert_memory_equal(a, b, sizeof a);
    temp_dir_remove(dir);
}

/* The bytes of the fp32 table read as fp8 hold NaN codes; none may come through. */
static void test_fp8_embedding_without_nan(void **state)
{
    (void)state;
    enum { VOCABULARY = 300 };
    char model[256];
    char *dir = make_folder(model);
    change_embedding(model, view_as_fp8);
    struct encoder e = open_encoder(dir, VOCABULARY);
    int32_t ids[VOCABULARY];
    static float embeds[VOCABULARY * WIDTH];
    for (int i = 0; i < VOCABULARY; i++) ids[i] = i;
    bool has_nan = false;
    const struct tensor *table = checkpoint_find(e.checkpoint, "shared.weight");
    for (size_t i = 0; i < table->bytes; i++)
        has_nan = has_nan || (((const uint8_t *)table->data)[i] & 0x7F) == 0x7F;
    assert_true(has_nan);
    assert_int_equal(t5_encode(e.t5, ids, VOCABULARY, embeds), STATUS_OK);
    for (int i = 0; i < VOCABULARY * WIDTH; i++) assert_true(isfinite(embeds[i]));
    close_encoder(&e);
    temp_dir_remove(dir);
}

static int open_device(void **state)
{
    (void)state;
    dev = device_open_cpu(1, NULL, PRECISION_F32);
    return dev ? 0 : -1;
}

static int close_device(void **state)
{
    (void)state;
    device_close(dev);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_single_token),
        cmocka_unit_test(test_refuses_foreign_ids),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_refuses_bad_files),
        cmocka_unit_test(test_refuses_bad_config),
        cmocka_unit_test(test_other_embedding_name),
        cmocka_unit_test(test_fp8_embedding_without_nan),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
