/* The whole pipeline, prompt to pixels, against the official LTXVideoPipeline in fp32 on the CPU
 * (tools/oracle.py): the program renders models/tiny with the fixture's settings and --dump, and
 * every dumped tensor is compared. Two fixtures: videos from the prompt alone, and videos that
 * begin from an image.
 *
 * Tolerance 1e-5 relative RMS: both sides compute in fp32 with other orders of summation; measured
 * 2e-7 to 2e-6. Pixels within 1/255: truncation to bytes turns a last-bit difference into one unit
 * now and then. */

#include "base/error.h"
#include "model/safetensors.h"
#include "tests/support/synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double tolerance = 1e-5;
static struct safetensors *reference;
static int64_t stride; /* of the sampled videos */

static const char *fact(int number, const char *key)
{
    char name[64];
    snprintf(name, sizeof name, "case%d.%s", number, key);
    const char *value = safetensors_metadata(reference, name);
    return value ? value : "";
}

/* NULL if the case has none. */
static const struct tensor *find(int number, const char *key)
{
    char name[64];
    snprintf(name, sizeof name, "case%d.%s", number, key);
    return safetensors_find(reference, name);
}

static const struct tensor *expected(int number, const char *key)
{
    const struct tensor *t = find(number, key);
    if (!t) fail_msg("%s: no case%d.%s", safetensors_path(reference), number, key);
    return t;
}

/* Flags from the fixture's metadata: names are the program's own. Pictures may have any size, which
 * most kinds of video may not. */
static void render_with(int number, const char *dir, const char *more)
{
    static const char *const keys[] = {"width",
                                       "height",
                                       "num_frames",
                                       "frame_rate",
                                       "num_inference_steps",
                                       "timesteps",
                                       "guidance_scale",
                                       "stg_scale",
                                       "rescaling_scale",
                                       "skip_block_list",
                                       "stg_mode",
                                       "image",
                                       "image_strength",
                                       "image_cond_noise_scale",
                                       "conditioning_crf",
                                       "decode_timestep",
                                       "decode_noise_scale"};
    const char *program = getenv("RINGREEL") ? getenv("RINGREEL") : "./ringreel";
    char command[4096];
    int at = snprintf(command, sizeof command,
                      "%s render --quiet --checkpoint-path models/tiny/ltxv-tiny.safetensors "
                      "--text-encoder-model-name-or-path models/tiny --prompt '%s' "
                      "--negative-prompt '%s' --seed %s "
                      "--dump %s -o %s/%%04d.png",
                      program, safetensors_metadata(reference, "prompt"),
                      safetensors_metadata(reference, "negative_prompt"),
                      safetensors_metadata(reference, "seed"), dir, dir);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!fact(number, keys[i])[0]) continue;
        char flag[32];
        snprintf(flag, sizeof flag, "%s", keys[i]);
        for (char *c = flag; *c; c++) *c = *c == '_' ? '-' : *c;
        at += snprintf(command + at, sizeof command - (size_t)at, " --%s '%s'", flag,
                       fact(number, keys[i]));
    }
    if (strcmp(fact(number, "cfg_star_rescale"), "true") == 0)
        at += snprintf(command + at, sizeof command - (size_t)at, " --cfg-star-rescale");
    if (strcmp(fact(number, "stochastic_sampling"), "true") == 0)
        at += snprintf(command + at, sizeof command - (size_t)at, " --stochastic-sampling");
    snprintf(command + at, sizeof command - (size_t)at, " %s", more);
    assert_int_equal(system(command), 0);
}

static void render(int number, const char *dir) { render_with(number, dir, ""); }

static struct safetensors *dumped(const char *dir, const char *file)
{
    char path[512];
    struct safetensors *f;
    snprintf(path, sizeof path, "%s/shot-0001/%s.safetensors", dir, file);
    if (safetensors_open(&f, path) != STATUS_OK) fail_msg("%s", error_message());
    return f;
}

static void compare(const char *what, const struct tensor *ours, const float *theirs, int64_t count)
{
    float *mine = tensor_floats(ours);
    assert_int_equal(tensor_count(ours), count);
    double error = relative_rms(mine, theirs, (size_t)count);
    print_message("  %-16s relative RMS %.2e\n", what, error);
    free(mine);
    if (!(error <= tolerance))
        fail_msg("%s: relative RMS %.3e, allowed %.0e", what, error, tolerance);
}

static void compare_tensor(const char *what, const char *dir, const char *file, const char *name,
                           const struct tensor *theirs)
{
    struct safetensors *f = dumped(dir, file);
    float *values = tensor_floats(theirs);
    compare(what, fixture(f, name), values, tensor_count(theirs));
    free(values);
    safetensors_close(f);
}

static void compare_steps(int number, const char *dir)
{
    const struct tensor *latents = expected(number, "latents"); /* [steps, S, C] */
    float *all = tensor_floats(latents);
    int64_t each = latents->shape[1] * latents->shape[2];
    for (int64_t i = 0; i < latents->shape[0]; i++) {
        char file[32], name[32];
        snprintf(file, sizeof file, "step_%03d", (int)i);
        snprintf(name, sizeof name, "latents_%03d", (int)i);
        struct safetensors *f = dumped(dir, file);
        compare(name, fixture(f, name), all + i * each, each);
        safetensors_close(f);
    }
    free(all);
}

/* The fixture holds all bytes of a case or every stride-th. */
static void compare_frames(int number, const char *dir)
{
    const struct tensor *whole = find(number, "bytes");
    const struct tensor *theirs = whole ? whole : expected(number, "bytes.sample");
    struct safetensors *f = dumped(dir, "frames");
    const struct tensor *ours = fixture(f, "frames");
    const uint8_t *a = ours->data, *b = theirs->data;
    int64_t n = tensor_count(theirs), step = whole ? 1 : stride, differ = 0, worst = 0;
    assert_int_equal((tensor_count(ours) + step - 1) / step, n);
    for (int64_t i = 0; i < n; i++) {
        int difference = abs((int)a[i * step] - (int)b[i]);
        differ += difference != 0;
        worst = difference > worst ? difference : worst;
    }
    print_message("  frames: %lld of %lld bytes differ, at most by %lld\n", (long long)differ,
                  (long long)n, (long long)worst);
    assert_in_range(worst, 0, 1);
    assert_true(differ * 100 < n); /* a systematic shift would change far more than last bits */
    safetensors_close(f);
}

static void test_case(int number)
{
    char *dir = temp_dir_make();
    render(number, dir);
    print_message("%s\n", fact(number, "label"));
    compare_tensor("prompt_embeds", dir, "inputs", "prompt_embeds",
                   fixture(reference, "prompt_embeds"));
    if (atof(fact(number, "guidance_scale")) > 1)
        compare_tensor("negative_embeds", dir, "inputs", "negative_embeds",
                       fixture(reference, "negative_embeds"));
    compare_tensor("noise", dir, "noise", "noise", fixture(reference, "initial_noise"));
    compare_tensor("sigmas", dir, "inputs", "sigmas", expected(number, "sigmas"));
    if (fact(number, "image")[0])
        compare_tensor("condition", dir, "inputs", "condition", expected(number, "condition"));
    compare_steps(number, dir);
    compare_frames(number, dir);
    temp_dir_remove(dir);
}

static void guidance(void **state) { (void)state, test_case(0); }
static void no_guidance(void **state) { (void)state, test_case(1); }
static void stg_and_rescale(void **state) { (void)state, test_case(2); }
static void stochastic(void **state) { (void)state, test_case(3); }

static void image(void **state) { (void)state, test_case(0); }
static void soft_image(void **state) { (void)state, test_case(1); }
static void soft_image_stochastic(void **state) { (void)state, test_case(2); }
static void padded_image(void **state) { (void)state, test_case(3); }

/* The initial noise is the reference's bit for bit, not merely close. */
static void noise_is_bit_exact(void **state)
{
    (void)state;
    char *dir = temp_dir_make();
    render(1, dir);
    struct safetensors *f = dumped(dir, "noise");
    const struct tensor *ours = fixture(f, "noise"), *theirs = fixture(reference, "initial_noise");
    assert_int_equal(ours->bytes, theirs->bytes);
    assert_memory_equal(ours->data, theirs->data, ours->bytes);
    safetensors_close(f);
    temp_dir_remove(dir);
}

/* A dumped tensor of at least *count values; if that is 0, it becomes their number. The caller
 * frees. */
static float *dumped_floats(const char *dir, const char *file, const char *name, int64_t *count)
{
    struct safetensors *f = dumped(dir, file);
    const struct tensor *t = fixture(f, name);
    float *values = tensor_floats(t);
    if (*count == 0) *count = tensor_count(t);
    assert_true(*count <= tensor_count(t));
    safetensors_close(f);
    return values;
}

/* Releases both. */
static void assert_same_floats(float *a, float *b, int64_t count)
{
    assert_memory_equal(a, b, (size_t)count * sizeof *a);
    free(a);
    free(b);
}

/* At strength 1 and without noise on it, latent frame 0 is the image bit for bit, from the first
 * step to the last. */
static void full_strength_is_exact(void **state)
{
    (void)state;
    char *dir = temp_dir_make();
    render_with(0, dir, "--image-cond-noise-scale 0");
    static const char *const steps[][2] = {{"step_000", "latents_000"},
                                           {"step_003", "latents_003"}};
    for (int i = 0; i < 2; i++) {
        int64_t count = 0;
        float *condition = dumped_floats(dir, "inputs", "condition", &count);
        assert_same_floats(dumped_floats(dir, steps[i][0], steps[i][1], &count), condition, count);
    }
    temp_dir_remove(dir);
}

/* At strength 0 the latents are those of a run without an image, bit for bit. */
static void no_strength_changes_nothing(void **state)
{
    (void)state;
    int64_t count = 0;
    char *with = temp_dir_make(), *without = temp_dir_make();
    render(0, without);
    render_with(0, with,
                "--image tests/parity/data/conditioning_wide.png --image-strength 0 "
                "--conditioning-crf 0");
    float *theirs = dumped_floats(without, "latents", "latents", &count);
    assert_same_floats(dumped_floats(with, "latents", "latents", &count), theirs, count);
    temp_dir_remove(with);
    temp_dir_remove(without);
}

static int open_fixture(const char *path)
{
    if (safetensors_open(&reference, path) != STATUS_OK) return -1;
    stride = strtoll(safetensors_metadata(reference, "video.stride"), NULL, 10);
    return stride > 0 ? 0 : -1;
}

static int open_text(void **state)
{
    (void)state;
    return open_fixture("tests/parity/data/pipeline_tiny.safetensors");
}

static int open_image(void **state)
{
    (void)state;
    return open_fixture("tests/parity/data/pipeline_image.safetensors");
}

static int close_fixture(void **state)
{
    (void)state;
    safetensors_close(reference);
    return 0;
}

int main(void)
{
    const struct CMUnitTest from_text[] = {
        cmocka_unit_test(guidance),           cmocka_unit_test(no_guidance),
        cmocka_unit_test(stg_and_rescale),    cmocka_unit_test(stochastic),
        cmocka_unit_test(noise_is_bit_exact), cmocka_unit_test(no_strength_changes_nothing),
    };
    const struct CMUnitTest from_image[] = {
        cmocka_unit_test(image),
        cmocka_unit_test(soft_image),
        cmocka_unit_test(soft_image_stochastic),
        cmocka_unit_test(padded_image),
        cmocka_unit_test(full_strength_is_exact),
    };
    int failed = cmocka_run_group_tests(from_text, open_text, close_fixture);
    return failed + cmocka_run_group_tests(from_image, open_image, close_fixture);
}
