/* Official and diffusers names of every tensor of the released models (spec transformer 2.1 and
 * 4.3, vae-and-scheduler 3.1 to 3.3), one by one and through files. */
#include "tests/support/synth.h"

#include "base/error.h"
#include "model/checkpoint.h"
#include "model/checkpoint_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* {a,b} and {0..3} stand for several names; both columns have the same lists in the same order. */
struct names {
    const char *official, *diffusers;
};

#define CONV(path) path ".{weight,bias}"
#define RES(n) "{0.." #n "}.{conv1,conv2}.conv.{weight,bias}"
#define EMBEDDER ".timestep_embedder.{linear_1,linear_2}.{weight,bias}"

static const struct names transformer_names[] = {
    {CONV("patchify_proj"), CONV("proj_in")},
    {CONV("proj_out"), CONV("proj_out")},
    {"scale_shift_table", "scale_shift_table"},
    {"adaln_single.emb" EMBEDDER, "time_embed.emb" EMBEDDER},
    {CONV("adaln_single.linear"), CONV("time_embed.linear")},
    {CONV("caption_projection.{linear_1,linear_2}"),
     CONV("caption_projection.{linear_1,linear_2}")},
    {"transformer_blocks.{0..27}.scale_shift_table",
     "transformer_blocks.{0..27}.scale_shift_table"},
    {CONV("transformer_blocks.{0..27}.{attn1,attn2}.{to_q,to_k,to_v,to_out.0}"),
     CONV("transformer_blocks.{0..27}.{attn1,attn2}.{to_q,to_k,to_v,to_out.0}")},
    {"transformer_blocks.{0..27}.{attn1,attn2}.{q_norm,k_norm}.weight",
     "transformer_blocks.{0..27}.{attn1,attn2}.{norm_q,norm_k}.weight"},
    {CONV("transformer_blocks.{0..27}.ff.net.{0.proj,2}"),
     CONV("transformer_blocks.{0..27}.ff.net.{0.proj,2}")},
};

#define STATISTICS                                                                                 \
    {"per_channel_statistics.mean-of-means", "latents_mean"},                                      \
    {                                                                                              \
        "per_channel_statistics.std-of-means", "latents_std"                                       \
    }

#define CONDITIONED_STAGE(official, diffusers)                                                     \
    {                                                                                              \
        official ".time_embedder" EMBEDDER, diffusers ".time_embedder" EMBEDDER                    \
    }

#define DECODER_ENDS                                                                               \
    {CONV("decoder.conv_in.conv"), CONV("decoder.conv_in.conv")},                                  \
    {                                                                                              \
        CONV("decoder.conv_out.conv"), CONV("decoder.conv_out.conv")                               \
    }

#define CONDITIONED_ENDS                                                                           \
    {"decoder.timestep_scale_multiplier", "decoder.timestep_scale_multiplier"},                    \
        {"decoder.last_time_embedder" EMBEDDER, "decoder.time_embedder" EMBEDDER},                 \
        {"decoder.last_scale_shift_table", "decoder.scale_shift_table"},                           \
        CONDITIONED_STAGE("decoder.up_blocks.0", "decoder.mid_block"),                             \
        CONDITIONED_STAGE("decoder.up_blocks.2", "decoder.up_blocks.0"),                           \
        CONDITIONED_STAGE("decoder.up_blocks.4", "decoder.up_blocks.1"),                           \
        CONDITIONED_STAGE("decoder.up_blocks.6", "decoder.up_blocks.2"),                           \
        {CONV("decoder.up_blocks.1.conv.conv"),                                                    \
         CONV("decoder.up_blocks.0.upsamplers.0.conv.conv")},                                      \
        {CONV("decoder.up_blocks.3.conv.conv"),                                                    \
         CONV("decoder.up_blocks.1.upsamplers.0.conv.conv")},                                      \
    {                                                                                              \
        CONV("decoder.up_blocks.5.conv.conv"), CONV("decoder.up_blocks.2.upsamplers.0.conv.conv")  \
    }

#define RES_X_Y(official, diffusers)                                                               \
    {official ".{conv1,conv2}.conv.{weight,bias}", diffusers ".{conv1,conv2}.conv.{weight,bias}"}, \
        {CONV(official ".conv_shortcut"), CONV(diffusers ".conv_shortcut.conv")},                  \
    {                                                                                              \
        CONV(official ".norm3.norm"), CONV(diffusers ".norm3")                                     \
    }

#define ENCODER_090                                                                                \
    {CONV("encoder.conv_in.conv"), CONV("encoder.conv_in.conv")},                                  \
        {CONV("encoder.conv_out.conv"), CONV("encoder.conv_out.conv")},                            \
        {"encoder.down_blocks.0.res_blocks." RES(3), "encoder.down_blocks.0.resnets." RES(3)},     \
        {CONV("encoder.down_blocks.1.conv"), CONV("encoder.down_blocks.0.downsamplers.0.conv")},   \
        RES_X_Y("encoder.down_blocks.2", "encoder.down_blocks.0.conv_out"),                        \
        {"encoder.down_blocks.3.res_blocks." RES(2), "encoder.down_blocks.1.resnets." RES(2)},     \
        {CONV("encoder.down_blocks.4.conv"), CONV("encoder.down_blocks.1.downsamplers.0.conv")},   \
        RES_X_Y("encoder.down_blocks.5", "encoder.down_blocks.1.conv_out"),                        \
        {"encoder.down_blocks.6.res_blocks." RES(2), "encoder.down_blocks.2.resnets." RES(2)},     \
        {CONV("encoder.down_blocks.7.conv"), CONV("encoder.down_blocks.2.downsamplers.0.conv")},   \
        {"encoder.down_blocks.8.res_blocks." RES(2), "encoder.down_blocks.3.resnets." RES(2)},     \
    {                                                                                              \
        "encoder.down_blocks.9.res_blocks." RES(3), "encoder.mid_block.resnets." RES(3)            \
    }

static const struct names vae_090[] = {
    STATISTICS,
    ENCODER_090,
    DECODER_ENDS,
    {"decoder.up_blocks.0.res_blocks." RES(3), "decoder.mid_block.resnets." RES(3)},
    {"decoder.up_blocks.1.res_blocks." RES(2), "decoder.up_blocks.0.resnets." RES(2)},
    {CONV("decoder.up_blocks.2.conv.conv"), CONV("decoder.up_blocks.1.upsamplers.0.conv.conv")},
    {"decoder.up_blocks.3.res_blocks." RES(2), "decoder.up_blocks.1.resnets." RES(2)},
    RES_X_Y("decoder.up_blocks.4", "decoder.up_blocks.2.conv_in"),
    {CONV("decoder.up_blocks.5.conv.conv"), CONV("decoder.up_blocks.2.upsamplers.0.conv.conv")},
    {"decoder.up_blocks.6.res_blocks." RES(2), "decoder.up_blocks.2.resnets." RES(2)},
    RES_X_Y("decoder.up_blocks.7", "decoder.up_blocks.3.conv_in"),
    {CONV("decoder.up_blocks.8.conv.conv"), CONV("decoder.up_blocks.3.upsamplers.0.conv.conv")},
    {"decoder.up_blocks.9.res_blocks." RES(3), "decoder.up_blocks.3.resnets." RES(3)},
};

#define STAGE(official, diffusers, n)                                                              \
    {official ".res_blocks." RES(n), diffusers ".resnets." RES(n)},                                \
    {                                                                                              \
        official ".res_blocks.{0.." #n "}.scale_shift_table",                                      \
            diffusers ".resnets.{0.." #n "}.scale_shift_table"                                     \
    }
#define NOISE(official, diffusers, n)                                                              \
    {                                                                                              \
        official ".res_blocks.{0.." #n "}.{per_channel_scale1,per_channel_scale2}",                \
            diffusers ".resnets.{0.." #n "}.{per_channel_scale1,per_channel_scale2}"               \
    }

static const struct names vae_091[] = {
    STATISTICS,
    ENCODER_090,
    DECODER_ENDS,
    CONDITIONED_ENDS,
    STAGE("decoder.up_blocks.0", "decoder.mid_block", 7),
    STAGE("decoder.up_blocks.2", "decoder.up_blocks.0", 6),
    NOISE("decoder.up_blocks.2", "decoder.up_blocks.0", 6),
    STAGE("decoder.up_blocks.4", "decoder.up_blocks.1", 5),
    NOISE("decoder.up_blocks.4", "decoder.up_blocks.1", 5),
    STAGE("decoder.up_blocks.6", "decoder.up_blocks.2", 4),
    NOISE("decoder.up_blocks.6", "decoder.up_blocks.2", 4),
};

static const struct names vae_095[] = {
    STATISTICS,
    {CONV("encoder.conv_in.conv"), CONV("encoder.conv_in.conv")},
    {CONV("encoder.conv_out.conv"), CONV("encoder.conv_out.conv")},
    {"encoder.down_blocks.0.res_blocks." RES(3), "encoder.down_blocks.0.resnets." RES(3)},
    {CONV("encoder.down_blocks.1.conv.conv"),
     CONV("encoder.down_blocks.0.downsamplers.0.conv.conv")},
    {"encoder.down_blocks.2.res_blocks." RES(5), "encoder.down_blocks.1.resnets." RES(5)},
    {CONV("encoder.down_blocks.3.conv.conv"),
     CONV("encoder.down_blocks.1.downsamplers.0.conv.conv")},
    {"encoder.down_blocks.4.res_blocks." RES(5), "encoder.down_blocks.2.resnets." RES(5)},
    {CONV("encoder.down_blocks.5.conv.conv"),
     CONV("encoder.down_blocks.2.downsamplers.0.conv.conv")},
    {"encoder.down_blocks.6.res_blocks." RES(1), "encoder.down_blocks.3.resnets." RES(1)},
    {CONV("encoder.down_blocks.7.conv.conv"),
     CONV("encoder.down_blocks.3.downsamplers.0.conv.conv")},
    {"encoder.down_blocks.8.res_blocks." RES(1), "encoder.mid_block.resnets." RES(1)},
    DECODER_ENDS,
    CONDITIONED_ENDS,
    STAGE("decoder.up_blocks.0", "decoder.mid_block", 4),
    STAGE("decoder.up_blocks.2", "decoder.up_blocks.0", 4),
    STAGE("decoder.up_blocks.4", "decoder.up_blocks.1", 4),
    STAGE("decoder.up_blocks.6", "decoder.up_blocks.2", 4),
};

#define COUNT(table) (int)(sizeof(table) / sizeof((table)[0]))

static const struct {
    enum vae_generation generation;
    const struct names *rows;
    int count, tensors; /* tensors: spec vae-and-scheduler 2, plus two statistics */
} vaes[] = {
    {VAE_0_9_0, vae_090, COUNT(vae_090), 188 + 2},
    {VAE_0_9_1, vae_091, COUNT(vae_091), 292 + 2},
    {VAE_0_9_5, vae_095, COUNT(vae_095), 224 + 2},
};

/* ---- expanding ------------------------------------------------------------------------------- */

enum { MAX_NAMES = 1024, NAME_BYTES = 160 };
struct name_list {
    int count;
    char at[MAX_NAMES][NAME_BYTES];
};

static void expand(struct name_list *list, const char *pattern);

static void expand_with(struct name_list *list, const char *pattern, size_t front,
                        const char *middle, size_t length, const char *rest)
{
    char next[2 * NAME_BYTES];
    assert_true(snprintf(next, sizeof next, "%.*s%.*s%s", (int)front, pattern, (int)length, middle,
                         rest) < (int)sizeof next);
    expand(list, next);
}

static void expand(struct name_list *list, const char *pattern)
{
    const char *open = strchr(pattern, '{');
    if (!open) {
        assert_true(list->count < MAX_NAMES && strlen(pattern) < NAME_BYTES);
        strcpy(list->at[list->count++], pattern);
        return;
    }
    size_t front = (size_t)(open - pattern);
    const char *close = strchr(open, '}');
    int first, last;
    if (sscanf(open, "{%d..%d}", &first, &last) == 2) {
        for (int i = first; i <= last; i++) {
            char number[16];
            expand_with(list, pattern, front, number,
                        (size_t)snprintf(number, sizeof number, "%d", i), close + 1);
        }
        return;
    }
    for (const char *item = open + 1; item < close;) {
        size_t length = strcspn(item, ",}");
        expand_with(list, pattern, front, item, length, close + 1);
        item += length + 1;
    }
}

static struct name_list official, diffusers;

static void expand_rows(const struct names *rows, int count)
{
    official.count = diffusers.count = 0;
    for (int i = 0; i < count; i++) {
        expand(&official, rows[i].official);
        expand(&diffusers, rows[i].diffusers);
        assert_int_equal(official.count, diffusers.count);
    }
}

/* ---- name by name ---------------------------------------------------------------------------- */

static void test_transformer_names(void **state)
{
    (void)state;
    char name[TENSOR_NAME_BYTES];
    expand_rows(transformer_names, COUNT(transformer_names));
    assert_int_equal(official.count, 715);
    for (int i = 0; i < official.count; i++) {
        assert_true(names_transformer_to_diffusers(name, official.at[i]));
        assert_string_equal(name, diffusers.at[i]);
    }
}

static void test_vae_names(void **state)
{
    (void)state;
    char name[TENSOR_NAME_BYTES];
    for (int g = 0; g < COUNT(vaes); g++) {
        expand_rows(vaes[g].rows, vaes[g].count);
        assert_int_equal(official.count, vaes[g].tensors);
        for (int i = 0; i < official.count; i++) {
            assert_true(names_vae_to_diffusers(name, official.at[i], vaes[g].generation));
            assert_string_equal(name, diffusers.at[i]);
        }
    }
}

static void test_whole_components(void **state)
{
    (void)state;
    char name[TENSOR_NAME_BYTES], long_name[1000];
    assert_false(names_vae_to_diffusers(name, "decoder.up_blocks.10.conv.conv.weight", VAE_0_9_0));
    assert_false(names_vae_to_diffusers(name, "decoder.up_blocks.7.conv.conv.weight", VAE_0_9_1));
    assert_false(names_vae_to_diffusers(name, "decoder.up_blocks.", VAE_0_9_1));
    assert_false(names_vae_to_diffusers(name, "decoder.up_blocks.x", VAE_0_9_1));
    assert_false(names_vae_to_diffusers(name, "per_channel_statistics.channel", VAE_0_9_1));
    assert_true(names_vae_to_diffusers(name, "decoder.my_res_blocks.norm3.normal", VAE_0_9_1));
    assert_string_equal(name, "decoder.my_res_blocks.norm3.normal");
    assert_true(names_transformer_to_diffusers(name, "my_patchify_proj.q_norm.q_normal"));
    assert_string_equal(name, "my_patchify_proj.norm_q.q_normal");
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    assert_false(names_transformer_to_diffusers(name, long_name));
    assert_false(names_vae_to_diffusers(name, long_name, VAE_0_9_5));
}

/* ---- through files --------------------------------------------------------------------------- */

/* Tensor i has i + 1 bytes, so that the right one is told from every other. */
static void write_numbered(const char *path, const char *prefix, const struct name_list *names)
{
    static const unsigned char zeros[MAX_NAMES];
    struct tensor *tensors = xcalloc((size_t)names->count, sizeof *tensors);
    for (int i = 0; i < names->count; i++)
        tensors[i] = (struct tensor){
            xasprintf("%s%s", prefix, names->at[i]), DTYPE_U8, 1, {i + 1}, zeros, (size_t)i + 1};
    if (safetensors_write(path, tensors, names->count, NULL) != STATUS_OK)
        fail_msg("%s", error_message());
    for (int i = 0; i < names->count; i++) free((void *)tensors[i].name);
    free(tensors);
}

static void expect_numbered(const struct checkpoint *c, const char *prefix)
{
    for (int i = 0; i < official.count; i++) {
        char *name = xasprintf("%s%s", prefix, official.at[i]);
        const struct tensor *t = checkpoint_find(c, name);
        if (!t) fail_msg("%s is not found", name);
        if (t->shape[0] != i + 1) fail_msg("%s is found as %s", name, t->name);
        free(name);
    }
}

static void test_vae_files(void **state)
{
    (void)state;
    for (int g = 0; g < COUNT(vaes); g++) {
        char *dir = temp_dir_make(), *folder = xasprintf("%s/vae", dir),
             *single = xasprintf("%s/ltx.safetensors", dir);
        char *file = xasprintf("%s/diffusion_pytorch_model.safetensors", folder);
        struct checkpoint *c;
        assert_int_equal(mkdir(folder, 0777), 0);
        expand_rows(vaes[g].rows, vaes[g].count);
        write_numbered(file, "", &diffusers);
        write_numbered(single, "vae.", &official);
        const char *paths[] = {dir, single};
        for (int i = 0; i < 2; i++) {
            if (checkpoint_open(&c, paths[i]) != STATUS_OK) fail_msg("%s", error_message());
            assert_int_equal(checkpoint_facts(c)->vae, vaes[g].generation);
            expect_numbered(c, "vae.");
            assert_null(checkpoint_find(c, "vae.decoder.up_blocks.10.conv.conv.weight"));
            assert_null(checkpoint_find(c, "decoder.conv_in.conv.weight"));
            checkpoint_close(c);
        }
        free(file);
        free(single);
        free(folder);
        temp_dir_remove(dir);
    }
}

static void test_transformer_files(void **state)
{
    (void)state;
    char *dir = temp_dir_make(), *folder = xasprintf("%s/transformer", dir);
    char *paths[] = {xasprintf("%s/diffusion_pytorch_model.safetensors", folder),
                     xasprintf("%s/prefixed", dir), xasprintf("%s/bare", dir)};
    const char *opened[] = {dir, paths[0], paths[1], paths[2]};
    assert_int_equal(mkdir(folder, 0777), 0);
    expand_rows(transformer_names, COUNT(transformer_names));
    write_numbered(paths[0], "", &diffusers);
    write_numbered(paths[1], "model.diffusion_model.", &official);
    write_numbered(paths[2], "", &official);
    for (int i = 0; i < 4; i++) {
        struct checkpoint *c;
        if (checkpoint_open(&c, opened[i]) != STATUS_OK) fail_msg("%s", error_message());
        expect_numbered(c, "");
        assert_null(checkpoint_find(c, "transformer_blocks.28.scale_shift_table"));
        checkpoint_close(c);
    }
    for (int i = 0; i < 3; i++) free(paths[i]);
    free(folder);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transformer_names), cmocka_unit_test(test_vae_names),
        cmocka_unit_test(test_whole_components),  cmocka_unit_test(test_vae_files),
        cmocka_unit_test(test_transformer_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
