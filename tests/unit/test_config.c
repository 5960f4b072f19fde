/* The settings table: job files and flags in; messages, help, header and YAML out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"
#include "config/settings.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODELS "checkpoint_path: /m/c.safetensors\ntext_encoder_model_name_or_path: /m/t5\n"
#define BASE MODELS "prompt: a ball\n"

enum { MAX_ARGUMENTS = 16 };

/* Splits flags at '|', so that values may hold spaces. The caller frees the job when STATUS_OK. */
static int parse(struct job_options *job, const char *yaml, const char *flags)
{
    char *copy = strdup(flags), *argv[MAX_ARGUMENTS];
    int argc = 0;
    for (char *word = copy; *copy && word && argc < MAX_ARGUMENTS;) {
        argv[argc++] = strsep(&word, "|");
    }
    bool help = false;
    error_clear();
    int status = options_parse(job, yaml, yaml ? strlen(yaml) : 0, yaml ? "dir/job.yaml" : NULL,
                               argc, argv, &help);
    free(copy);
    assert_false(help);
    return status;
}

static void parse_well(struct job_options *job, const char *yaml, const char *flags)
{
    if (parse(job, yaml, flags) != STATUS_OK)
        fail_msg("%s\nwith flags '%s': %s", yaml ? yaml : "(no file)", flags, error_message());
}

/* ---- wrong input ----------------------------------------------------------------------------- */

struct bad_case {
    const char *yaml, *flags, *message; /* `message` is a part of the whole */
};

static const struct bad_case bad_cases[] = {
    /* the file */
    {"", "", "job.yaml:1:1: the file is empty"},
    {"just text\n", "", "job.yaml:1:1: expected a map"},
    {"- a\n", "", "expected a map"},
    {"prompt: [a\n", "", "job.yaml:2:1: did not find expected ',' or ']'"},
    {"width: 32\n\theight: 32\n", "", "a tab: indent with spaces"},
    {"prompt: a\n---\nprompt: b\n", "", "job.yaml:2:1: a second document"},
    {"prompt: &a text\n", "", "job.yaml:1:9: anchors"},
    {"prompt: *a\n", "", "job.yaml:1:9: aliases"},
    {"prompt: !!str 7\n", "", "job.yaml:1:9: tags"},
    {"%TAG ! tag:x,2000:\n---\nprompt: a\n", "", "tags"},
    {"<<: {width: 32}\n", "", "job.yaml:1:1: merge keys"},
    {"? [a]\n: b\n", "", "a key must be a name"},
    {"stg_scale: [[[[[[[[1]]]]]]]]\n", "", "nested too deeply (at most 8"},
    {"prompt: a\nnegative_prompt: \xff\n", "", "job.yaml:2:18: not valid UTF-8"},
    {"prompt: \xed\xa0\x80\n", "", "not valid UTF-8"},
    {"prompt: a\001b\n", "", "job.yaml:1:10: control characters are not allowed"},
    {"prompt: \"a\\0b\"\n", "", "job.yaml:1:9: text with a NUL"},
    /* keys */
    {BASE "widht: 32\n", "", "job.yaml:4:1: widht: unknown; did you mean 'width'?"},
    {BASE "shot: []\n", "", "did you mean 'shots'?"},
    {BASE "zzzzzzz: 32\n", "", "zzzzzzz: unknown; 'ringreel render --help' lists"},
    {BASE "width: 32\nwidth: 64\n", "", "job.yaml:5:1: width: given twice"},
    {BASE "shots: [{}]\nshots: [{}]\n", "", "shots: given twice"},
    {BASE "first_pass: {}\n", "", "first_pass: the multi-scale pipeline is not supported yet"},
    {BASE "enhance_prompt: true\n", "", "prompt enhancement is not supported"},
    {BASE "conditioning_media_paths: [a]\n", "",
     "job.yaml:4:1: conditioning_media_paths: write 'image'"},
    {BASE "conditioning_items: []\n", "", "write 'conditioning: [{media: FILE"},
    {BASE "spatial_upscaler_model_path: x\n", "", "not supported yet"},
    {BASE "downscale_factor: 0.5\n", "", "not supported yet"},
    {BASE "pipeline_type: multi-scale\n", "",
     "job.yaml:4:16: pipeline_type: multi-scale is not "
     "supported yet; use base"},
    /* types and ranges */
    {BASE "width: wide\n", "", "width: must be a whole number from 32 to 16384, not 'wide'"},
    {BASE "width: 31\n", "", "job.yaml:4:8: width: must be a whole number from 32 to 16384"},
    {BASE "height: 16385\n", "", "height: must be a whole number from 32 to 16384"},
    {BASE "width: 64.5\n", "", "a whole number from 32"},
    {BASE "width: 64.0\n", "", "a whole number from 32"},
    {BASE "width: 0x\n", "", "a whole number from 32"},
    {BASE "width: \"64\"\n", "", "not quoted text"},
    {BASE "width: [64]\n", "", "not a list"},
    {BASE "width: {a: 1}\n", "", "not a map"},
    {BASE "width:\n", "", "not nothing"},
    {BASE "width: 4294967360\n", "", "not '4294967360'"},
    {BASE "num_frames: 0\n", "", "num_frames: must be a whole number from 1 to 100000"},
    {BASE "num_frames: 100001\n", "", "from 1 to 100000"},
    {BASE "frame_rate: 0\n", "", "frame_rate: must be a number above 0, up to 1000"},
    {BASE "frame_rate: .inf\n", "", "above 0, up to 1000"},
    {BASE "frame_rate: .nan\n", "", "above 0, up to 1000"},
    {BASE "frame_rate: 1e999\n", "", "above 0, up to 1000"},
    {BASE "frame_rate: 0x10\n", "", "above 0, up to 1000"},
    {BASE "seed: -1\n", "", "seed: must be a whole number from 0 to 9223372036854775807"},
    {BASE "seed: 9223372036854775808\n", "", "from 0 to 9223372036854775807"},
    {BASE "digest: yes\n", "", "digest: must be true or false, not 'yes' (only true and false"},
    {BASE "digest: \"true\"\n", "", "not quoted text"},
    {BASE "backend: gpu\n", "", "backend: must be auto, cpu or cuda, not 'gpu'"},
    {BASE "stg_mode: stg_x\n", "", "attention_values (stg_av), attention_skip (stg_as)"},
    {BASE "bit_depth: 9\n", "", "bit_depth: must be 8, 10 or 16"},
    {BASE "color_primaries: rec2020\n", "", "must be auto, bt709, bt2020 or smpte432 (p3), not"},
    {BASE "frames: 7-5\n", "", "frames: must be all, a frame (5) or a range of them (100-199), 0"},
    {BASE "frames: 5-\n", "", "frames: must be all"},
    {BASE "frames: [5, 6]\n", "", "frames: must be all"},
    {BASE "frames: 4294967296-4294967297\n", "", "frames: must be all"},
    {BASE "num_frames: 9\nframes: 3-9\n", "", "frame 9 is outside the video; it has frames 0 to 8"},
    {BASE "negative_prompt: null\n", "", "write \"\" for empty text"},
    {BASE "negative_prompt: 12\n", "", "not the number '12'; put it in quotes"},
    {BASE "negative_prompt: true\n", "", "not the boolean 'true'; put it in quotes"},
    {BASE "output: ''\n", "", "output: must be a path, not empty text"},
    {BASE "timeout: 0\n", "", "timeout: must be a time (600, 600s, 10m or 2h) from 1 to"},
    {BASE "timeout: 5 days\n", "", "must be a time"},
    {BASE "text_encoder_max_tokens: 1025\n", "", "from 1 to 1024"},
    {BASE "guidance_scale: []\n", "", "not an empty list"},
    {BASE "guidance_scale: [1, x]\n", "", "job.yaml:4:21: guidance_scale: must be a number or"},
    {BASE "guidance_scale: [[1]]\n", "", "not a list at this place"},
    {BASE "skip_block_list: [[1], 2]\n", "", "job.yaml:4:24: skip_block_list: must be a list of"},
    {BASE "skip_block_list: [1, [2]]\n", "", "not a list at this place"},
    {BASE "skip_block_list: [-1]\n", "", "block numbers from 0 to 1023"},
    {BASE "image: [a.png]\n", "", "job.yaml:4:8: image: must be a path, not a list"},
    {BASE "image: 7\n", "", "image: must be text, not the number '7'; put it in quotes"},
    {BASE "image: ''\n", "", "image: must be a path, not empty text"},
    {BASE "image_strength: 1.5\n", "", "image_strength: must be a number from 0 to 1, not '1.5'"},
    {BASE "image_cond_noise_scale: -1\n", "", "image_cond_noise_scale: must be a number from 0"},
    {BASE "conditioning_crf: 52\n", "", "conditioning_crf: must be a whole number from 0 to 51"},
    {BASE "conditioning: a.png\n", "",
     "job.yaml:4:15: conditioning: must be a list of maps such as {media: FILE, frame: 0, "
     "strength: "
     "1}, not 'a.png'"},
    {BASE "conditioning:\n", "", "conditioning: must be a list of maps"},
    {BASE "conditioning: {media: a.png}\n", "", "conditioning: must be a list of maps"},
    {BASE "conditioning: [a.png]\n", "",
     "job.yaml:4:16: conditioning: every item must be a map such as {media: FILE"},
    {BASE "conditioning:\n  - {strength: 1}\n", "",
     "job.yaml:5:5: conditioning: media: missing; give the path"},
    {BASE "conditioning:\n  - {media: }\n", "", "media: missing"},
    {BASE "conditioning:\n  - {media: 7}\n", "",
     "job.yaml:5:13: conditioning: media: must be text, not the number '7'"},
    {BASE "conditioning:\n  - {media: [a]}\n", "", "media: must be a path, not a list"},
    {BASE "conditioning:\n  - {media: \xff}\n", "", "not valid UTF-8"},
    {BASE "conditioning:\n  - media: a.png\n    strength: 1.01\n", "",
     "job.yaml:6:15: conditioning: strength: must be a number from 0 to 1, or null, not '1.01'"},
    {BASE "conditioning:\n  - {media: a.png, strength: .nan}\n", "", "from 0 to 1, or null"},
    {BASE "conditioning:\n  - {media: a.png, strength: '1'}\n", "", "not quoted text"},
    {BASE "conditioning:\n  - {media: a.png, frame: -1}\n", "",
     "job.yaml:5:27: conditioning: frame: must be a whole number from 0 to 99999, not '-1'"},
    {BASE "conditioning:\n  - {media: a.png, frame: 1.5}\n", "", "frame: must be a whole number"},
    {BASE "conditioning:\n  - {media: a.png, medium: b}\n", "",
     "job.yaml:5:20: conditioning: 'medium': unknown; the keys of an item are media, frame and"},
    {BASE "conditioning:\n  - {media: a.png, media: b.png}\n", "",
     "job.yaml:5:20: conditioning: media: given twice in the same map"},
    {BASE "conditioning: []\nconditioning: []\n", "", "conditioning: given twice"},
    {BASE "image: a.png\nconditioning: []\n", "",
     "job.yaml:5:1: conditioning: image in the same map says the same; give one of them"},
    {BASE "shots: [{conditioning: [], image: a.png}]\n", "",
     "job.yaml:4:28: image: conditioning in the same map says the same"},
    /* rules between settings */
    {BASE "num_frames: 17\nconditioning: [{media: a.png, frame: 17}]\n", "",
     "job.yaml:5:15: conditioning: item 1: frame 17 is outside the video; allowed are 0 to 16"},
    {BASE "conditioning: [{media: a.png, frame: 8}]\n", "", "frame 8: only frame 0 is supported"},
    {BASE "conditioning: [{media: a.png}, {media: b.png}]\n", "",
     "job.yaml:4:15: conditioning: more than one item is not supported yet; these are 2"},
    {BASE "conditioning: [{media: a.MP4}]\n", "",
     "conditioning: 'dir/a.MP4': conditioning on a video is not supported yet; give an image"},
    {BASE "shots: [{}, {image: b.mov}]\n", "",
     "job.yaml:4:21: image: 'dir/b.mov': conditioning on a video is not supported yet; give an "
     "image (shot 2)"},
    {BASE "image_strength: 0.5\n", "", "job.yaml:4:17: image_strength: there is no image; give"},
    {"prompt: a\n", "", "dir/job.yaml: checkpoint_path: missing"},
    {"prompt: a\ncheckpoint_path: c\n", "", "text_encoder_model_name_or_path: missing"},
    {MODELS, "", "dir/job.yaml: prompt: missing"},
    {MODELS "prompt: ' '\n", "", "job.yaml:3:9: prompt: is empty"},
    {MODELS "prompt:\n", "", "prompt: missing"},
    {MODELS "shots:\n  - prompt: a\n  - seed: 3\n", "", "job.yaml:5:5: prompt: missing"},
    {BASE "guidance_scale: [3]\n", "", "guidance_scale: a list needs guidance_timesteps"},
    {BASE "guidance_timesteps: [1, 0.5]\nstg_scale: [1]\n", "",
     "job.yaml:5:12: stg_scale: has 1 entry, but guidance_timesteps has 2"},
    {BASE "guidance_timesteps: [1]\nrescaling_scale: [1, 1]\n", "",
     "rescaling_scale: has 2 entries"},
    {BASE "guidance_timesteps: [1, 0.5]\nskip_block_list: [[1]]\n", "",
     "skip_block_list: has 1 entry"},
    {BASE "skip_block_list: [[1], [2]]\n", "", "skip_block_list: a list needs guidance_timesteps"},
    {BASE "guidance_timesteps: [0.5, 1]\n", "", "guidance_timesteps: must be strictly descending"},
    {BASE "timesteps: [1, 1]\n", "", "timesteps: must be strictly descending; number 2"},
    {BASE "timesteps: [1, 0]\n", "", "timesteps: must be a number or a list of numbers above 0"},
    {BASE "timesteps: [1, 1e-60]\n", "", "timesteps: must be in (0, 1]; number 2"},
    {BASE "timesteps: [1, 0.5, 0.50000000001]\n", "", "strictly descending; number 3"},
    {BASE "skip_initial_inference_steps: 1\n", "", "needs input media"},
    {BASE "num_inference_steps: 4\nskip_final_inference_steps: 4\n", "",
     "job.yaml:5:29: skip_final_inference_steps: skip_initial_inference_steps + "},
    {BASE "quiet: true\nverbose: true\n", "", "exclude each other"},
    /* shots */
    {BASE "shots: []\n", "", "shots: is empty"},
    {BASE "shots: {a: 1}\n", "", "shots: must be a list of shots"},
    {BASE "shots: [a]\n", "", "job.yaml:4:9: shots: every shot must be a map"},
    {BASE "shots: [{backend: cpu}]\n", "", "job.yaml:4:10: backend: belongs to the whole job"},
    {BASE "shots: [{shots: []}]\n", "", "shots: shots can be given at the top level"},
    {BASE "shots: [{seed: 1, seed: 2}]\n", "", "seed: given twice"},
    {BASE "shots: [{output: a.mp4}, {output: b.mp4}, {output: .//a.mp4}]\n", "",
     "job.yaml:4:52: output: shots 1 and 3 both write './/a.mp4'; give each its own (shot 3)"},
    {BASE "output: a.mp4\nshots: [{}, {}]\n", "", "shots 1 and 2 both write 'a.mp4'"},
    {BASE "shots: [{output: out/job-0002.mp4}, {}]\n", "", "both write"},
    /* flags */
    {BASE, "--widht|5", "command line: --widht: unknown; did you mean 'width'?"},
    {BASE, "--width|5", "command line: --width: must be a whole number from 32 to 16384, not '5'"},
    {BASE, "--width=5", "command line: --width: must be"},
    {BASE, "--width", "command line: --width: needs a value"},
    {BASE, "--prompt|--seed|3", "command line: --prompt: needs a value (--prompt=VALUE if"},
    {BASE, "--prompt|a\xff", "command line: --prompt: 'a?' is not valid UTF-8"},
    {BASE, "-o|\xc0\x80", "command line: -o: '?\?' is not valid UTF-8"},
    {BASE, "--checkpoint-path|\xff", "not valid UTF-8"},
    {BASE, "--digest=yes", "command line: --digest: must be true or false, not 'yes'"},
    {BASE, "--no-digest=true", "takes no value"},
    {BASE, "--no-width", "--no-width: unknown"},
    {BASE, "-x", "command line: -x: unknown"},
    {BASE, "-", "command line: -: unknown"},
    {BASE, "--shots|a", "top level of a job file only"},
    {BASE, "--pipeline-config|a", "name the job file without a flag"},
    {BASE, "--input_media_path|a", "video to video is not supported yet"},
    {BASE, "--image|a.mkv", "command line: image: 'a.mkv': conditioning on a video"},
    {BASE, "--image=", "command line: --image: must be a path, not empty text"},
    {BASE, "--image", "command line: --image: needs a value"},
    {BASE, "--image-strength|2|--image|a", "command line: --image-strength: must be a number from"},
    {BASE, "--image-strength|0.5", "command line: image_strength: there is no image; give one"},
    {BASE, "--conditioning|a.png", "command line: --conditioning: must be a list of maps such as"},
    {BASE, "--conditioning|[{media: a.png", "command line: --conditioning: must be a list of maps"},
    {BASE, "--conditioning|[{media: a.png, frame: x}]",
     "command line: --conditioning: frame: must be a whole number"},
    {BASE, "--conditioning_media_paths|a.png", "--conditioning_media_paths: write 'image'"},
    {BASE, "a.yaml|b.yaml", "two job files, 'a.yaml' and 'b.yaml'"},
    {BASE, "--timesteps|1,,0.5", "command line: --timesteps: must be a number"},
    {BASE, "--guidance-scale|[1", "command line: --guidance-scale: must be a number or a list"},
    {BASE, "--guidance-scale|{a: 1}", "must be a number or a list of numbers"},
    {BASE, "--guidance-scale|3,4", "command line: guidance_scale: a list needs"},
    {BASE, "--skip-block-list|1;x",
     "block numbers from 0 to 1023, or a list of such lists, not 'x'"},
    {BASE, "--num-inference-steps|4|--skip-final-inference-steps|9", "(0 + 9) must be below"},
    {BASE "shots: [{}, {}]\n", "-o|x.mp4",
     "command line: output: shots 1 and 2 both write 'x.mp4'"},
    {NULL, "", "command line: checkpoint_path: missing"},
};

static void test_bad_input(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_cases / sizeof *bad_cases; i++) {
        const struct bad_case *c = &bad_cases[i];
        struct job_options job;
        int status = parse(&job, c->yaml, c->flags);
        const char *yaml = c->yaml ? c->yaml : "(none)";
        if (status == STATUS_OK) fail_msg("accepted: %s flags '%s'", yaml, c->flags);
        assert_int_equal(status, STATUS_INPUT);
        if (!strstr(error_message(), c->message))
            fail_msg("%s flags '%s'\nsaid:     %s\nexpected: %s", yaml, c->flags, error_message(),
                     c->message);
        assert_null(strchr(error_message(), '\n'));
        assert_null(job.shots);
    }
}

/* Sizes that a table of text cannot show. */
static char *repeat(const char *head, const char *piece, size_t times, const char *tail)
{
    size_t n = strlen(piece);
    char *text = malloc(strlen(head) + times * n + strlen(tail) + 1), *to = stpcpy(text, head);
    for (size_t i = 0; i < times; i++, to += n) memcpy(to, piece, n);
    strcpy(to, tail);
    return text;
}

static void test_limits(void **state)
{
    (void)state;
    const struct {
        const char *head, *piece;
        size_t times;
        const char *tail, *message;
    } cases[] = {
        {BASE "shots:\n", "- {}\n", MAX_SHOTS, "", NULL},
        {BASE "shots:\n", "- {}\n", MAX_SHOTS + 1, "", "shots: 4097 shots; at most 4096"},
        {BASE "stg_scale: [", "1,", MAX_LIST + 1, "]\n", "has more than 128 numbers"},
        {BASE "skip_block_list: [", "1,", 65, "]\n", "has more than 64 blocks in one list"},
        {BASE "skip_block_list: [", "[],", 33, "]\n", "has more than 32 lists"},
        {BASE "conditioning: [", "{media: a},", MAX_CONDITIONING + 1, "]\n",
         "conditioning: has more than 16 items"},
        {BASE "negative_prompt: ", "long ", 4u << 20, "\n", "a job file has at most 4 MiB"},
        {BASE "stg_scale: [", "1,", YAML_MAX_NODES, "]\n", "too many values"},
        {BASE "x: ", "[", 1u << 20, "", "nested too deeply"},
        {BASE, "#", 1000000, "\n", NULL},
        {BASE, "a", 1000000, ": 1\n", "job.yaml:4:1000001: could not find expected ':'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job_options job;
        char *yaml = repeat(cases[i].head, cases[i].piece, cases[i].times, cases[i].tail);
        int status = parse(&job, yaml, "");
        free(yaml);
        if (cases[i].message && !strstr(error_message(), cases[i].message))
            fail_msg("case %zu said: %s", i, error_message());
        assert_int_equal(status, cases[i].message ? STATUS_INPUT : STATUS_OK);
        if (status == STATUS_OK) options_free(&job);
    }
}

/* ---- precedence and defaults ----------------------------------------------------------------- */

static void test_defaults(void **state)
{
    (void)state;
    struct job_options job;
    parse_well(&job, BASE, "");
    const struct shot_options *shot = job.shots;
    assert_int_equal(job.shot_count, 1);
    assert_int_equal(shot->width, 1216);
    assert_int_equal(shot->height, 704);
    assert_int_equal(shot->num_frames, 121);
    assert_true(shot->frame_rate == 30 && shot->seed == 171198);
    assert_int_equal(shot->num_inference_steps, 20);
    assert_true(shot->guidance_scale.is_scalar && shot->guidance_scale.v[0] == 4.5);
    assert_true(shot->stg_scale.v[0] == 1 && shot->rescaling_scale.v[0] == 0.7);
    assert_true(shot->decode_timestep == 0.05 && shot->decode_noise_scale == 0.025);
    assert_int_equal(shot->timesteps.count, 0);
    assert_int_equal(shot->skip_block_list.lists[0].count, 0);
    assert_string_equal(shot->negative_prompt,
                        "worst quality, inconsistent motion, blurry, jittery, distorted");
    assert_string_equal(shot->output, "out/job.mp4");
    assert_string_equal(job.job_file, "dir/job.yaml");
    assert_string_equal(job.precision, "auto");
    assert_int_equal(job.text_encoder_max_tokens, 256);
    assert_true(job.timeout_s == 600 && !job.digest && !job.dump);
    options_free(&job);
}

static void test_shots_and_flags(void **state)
{
    (void)state;
    struct job_options job;
    /* the top level is the default even when it stands below the shots */
    const char *yaml = MODELS "shots:\n  - prompt: one\n  - {prompt: two, seed: 5, width: 64}\n"
                              "  - {output: c.mp4}\nprompt: three\nseed: 4\nheight: 96\n";
    parse_well(&job, yaml, "--height=128");
    assert_int_equal(job.shot_count, 3);
    assert_string_equal(job.shots[0].prompt, "one");
    assert_string_equal(job.shots[1].prompt, "two");
    assert_string_equal(job.shots[2].prompt, "three");
    assert_true(job.shots[0].seed == 4 && job.shots[1].seed == 5 && job.shots[2].seed == 4);
    assert_int_equal(job.shots[0].width, 1216);
    assert_int_equal(job.shots[1].width, 64);
    for (int i = 0; i < 3; i++) assert_int_equal(job.shots[i].height, 128);
    assert_string_equal(job.shots[0].output, "out/job-0001.mp4");
    assert_string_equal(job.shots[1].output, "out/job-0002.mp4");
    assert_string_equal(job.shots[2].output, "c.mp4");
    options_free(&job);

    parse_well(&job, yaml, "--seed|1|--width|32|--seed|2|--digest|--no-digest|--num_frames|9");
    for (int i = 0; i < 3; i++)
        assert_true(job.shots[i].seed == 2 && job.shots[i].width == 32 &&
                    job.shots[i].num_frames == 9);
    assert_false(job.digest);
    options_free(&job);
}

static void test_paths(void **state)
{
    (void)state;
    struct job_options job;
    const char *yaml = "checkpoint_path: m/c\ntext_encoder_model_name_or_path: /t5\nprompt: a\n"
                       "output: o.mp4\ndump: d\n";
    parse_well(&job, yaml, "");
    assert_string_equal(job.checkpoint_path, "dir/m/c");
    assert_string_equal(job.text_encoder_path, "/t5");
    assert_string_equal(job.shots[0].output, "o.mp4");
    assert_string_equal(job.dump, "d");
    options_free(&job);
    parse_well(&job, yaml, "--checkpoint-path|m/d|-o|p.mp4");
    assert_string_equal(job.checkpoint_path, "m/d");
    assert_string_equal(job.shots[0].output, "p.mp4");
    options_free(&job);
}

static void test_without_file(void **state)
{
    (void)state;
    struct job_options job;
    parse_well(&job, NULL,
               "--checkpoint-path|c|--text-encoder-model-name-or-path|t"
               "|--prompt|-a b=c");
    assert_string_equal(job.shots[0].prompt, "-a b=c");
    assert_string_equal(job.shots[0].output, "out/shot.mp4");
    assert_null(job.job_file);
    options_free(&job);
}

/* Whatever a caller calls the job file that is not there. */
static void test_name_without_file(void **state)
{
    (void)state;
    struct job_options job;
    bool help;
    char *argv[] = {"--checkpoint-path=c", "--text-encoder-model-name-or-path=t", "--prompt=a"};
    error_clear();
    assert_int_equal(options_parse(&job, NULL, 0, "(flags)", 3, argv, &help), STATUS_OK);
    assert_null(job.job_file);
    assert_string_equal(job.shots[0].output, "out/shot.mp4");
    options_free(&job);
    assert_int_equal(options_parse(&job, NULL, 0, "(flags)", 2, argv, &help), STATUS_INPUT);
    assert_non_null(strstr(error_message(), "command line: prompt: missing"));
}

/* Names that no record of the run could hold are refused before there is one. */
static void test_names_that_are_not_utf8(void **state)
{
    (void)state;
    struct job_options job;
    bool help;
    error_clear();
    assert_int_equal(options_parse(&job, BASE, strlen(BASE), "caf\xe9/job.yaml", 0, NULL, &help),
                     STATUS_INPUT);
    assert_non_null(strstr(error_message(), "job file 'caf?/job.yaml': its name or folder"));
    error_clear();
    char folder[] = "/tmp/caf\xe9XXXXXX", *here = getcwd(NULL, 0);
    assert_non_null(here);
    if (!mkdtemp(folder)) { /* a file system that only takes UTF-8 */
        free(here);
        skip();
    }
    assert_int_equal(chdir(folder), 0);
    int status = parse(&job, BASE, "");
    assert_int_equal(chdir(here), 0);
    assert_int_equal(rmdir(folder), 0);
    free(here);
    assert_int_equal(status, STATUS_INPUT);
    assert_non_null(strstr(error_message(), "the current folder '/tmp/caf?"));
}

/* The default noise goes with the default level; another level brings its own. */
static void test_decode_noise(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *flags;
        double noise;
    } cases[] = {
        {BASE, "", 0.025},
        {BASE "decode_timestep: 0.1\n", "", -1},
        {BASE "decode_timestep: 0.05\n", "", -1},
        {BASE "decode_timestep: 0.1\ndecode_noise_scale: 0.025\n", "", 0.025},
        {BASE "decode_noise_scale: 0.2\n", "--decode-timestep|0.1", 0.2},
        {BASE, "--decode-timestep|0", -1},
        {BASE "decode_timestep: 0.1\n", "--decode-noise-scale|0.025", 0.025},
    };
    struct job_options job;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        parse_well(&job, cases[i].yaml, cases[i].flags);
        if (job.shots[0].decode_noise_scale != cases[i].noise)
            fail_msg("case %zu: %g", i, job.shots[0].decode_noise_scale);
        options_free(&job);
    }
    parse_well(&job, BASE "shots: [{}, {decode_timestep: 0.1}]\n", "");
    assert_true(job.shots[0].decode_noise_scale == 0.025 && job.shots[1].decode_noise_scale == -1);
    options_free(&job);
}

/* The keys and values of a configuration of the official repository, but for its prompt. */
static void test_official_configuration(void **state)
{
    (void)state;
    struct job_options job;
    parse_well(&job,
               "pipeline_type: base\n"
               "checkpoint_path: \"ltxv-2b-0.9.6-distilled-04-25.safetensors\"\n"
               "guidance_scale: 1\nstg_scale: 0\nrescaling_scale: 1\n"
               "num_inference_steps: 8\nstg_mode: \"attention_values\" # options: ...\n"
               "decode_timestep: 0.05\ndecode_noise_scale: 0.025\n"
               "text_encoder_model_name_or_path: \"PixArt-alpha/PixArt-XL-2-1024-MS\"\n"
               "precision: \"bfloat16\"\nsampler: \"from_checkpoint\"\n"
               "prompt_enhancement_words_threshold: 120\n"
               "prompt_enhancer_image_caption_model_name_or_path: \"MiaoshouAI/Florence-2\"\n"
               "prompt_enhancer_llm_model_name_or_path: \"unsloth/Llama-3.2-3B-Instruct\"\n"
               "stochastic_sampling: true\n",
               "--prompt|a ball");
    assert_string_equal(job.shots[0].prompt, "a ball");
    assert_string_equal(job.precision, "bfloat16");
    assert_true(job.shots[0].stochastic_sampling && job.shots[0].decode_noise_scale == 0.025);
    options_free(&job);
}

static void test_lists(void **state)
{
    (void)state;
    struct job_options job;
    parse_well(&job, BASE,
               "--guidance-timesteps|1, .5,0.25|--skip-block-list|;11,25;22"
               "|--guidance-scale|[3, 2, 1]");
    const struct shot_options *shot = job.shots;
    assert_int_equal(shot->guidance_timesteps.count, 3);
    assert_true(shot->guidance_timesteps.v[1] == 0.5 && shot->guidance_scale.v[2] == 1);
    assert_true(shot->skip_block_list.per_level);
    assert_int_equal(shot->skip_block_list.count, 3);
    assert_int_equal(shot->skip_block_list.lists[0].count, 0);
    assert_int_equal(shot->skip_block_list.lists[1].v[1], 25);
    options_free(&job);
    parse_well(&job, BASE "skip_block_list: [[], [1, 2]]\nguidance_timesteps: [1, 0.5]\n",
               "--skip-block-list|19");
    assert_false(job.shots[0].skip_block_list.per_level);
    assert_int_equal(job.shots[0].skip_block_list.lists[0].count, 1);
    assert_int_equal(job.shots[0].skip_block_list.lists[0].v[0], 19);
    options_free(&job);
    parse_well(&job, BASE "timesteps: [1, 0.5]\n", "--timesteps=|--skip-block-list=");
    assert_int_equal(job.shots[0].timesteps.count, 0);
    assert_int_equal(job.shots[0].skip_block_list.lists[0].count, 0);
    options_free(&job);
}

/* Which item a shot ends up with, whoever gave it. */
static void test_conditioning(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *flags, *media; /* NULL: none */
        double strength;
    } cases[] = {
        {BASE, "", NULL, 0},
        {BASE "image: a.png\n", "", "dir/a.png", 1},
        {BASE "image: /a.png\nimage_strength: 0.5\n", "", "/a.png", 0.5},
        {BASE "image: a.png\n", "--image-strength|0", "dir/a.png", 0},
        {BASE "image: a.png\n", "--image|b.png", "b.png", 1},
        {BASE, "--image|b.png|--image-strength=0.25", "b.png", 0.25},
        {BASE, "--image|[1].png", "[1].png", 1},
        {BASE "conditioning: [{media: a.png, frame: 0, strength: 0.5}]\n", "", "dir/a.png", 0.5},
        {BASE "conditioning: [{media: a.png}]\nimage_strength: 0.75\n", "", "dir/a.png", 0.75},
        {BASE "conditioning: [{media: a, strength: 0.5}]\nimage_strength: 0.75\n", "", "dir/a",
         0.5},
        {BASE "conditioning: [{media: a, strength: 0.5}]\n", "--image-strength|0.75", "dir/a",
         0.75},
        {BASE, "--conditioning|[{media: a, strength: 0.5}]|--image-strength|0.75", "a", 0.5},
        {BASE "conditioning: [{media: a, strength: 0.5}]\n", "--image|b", "b", 1},
        {BASE "image: a\n", "--conditioning|[]", NULL, 0},
        {BASE "image: a\n", "--image|b|--conditioning|[{media: c}]|--image|d", "d", 1},
        {BASE "image: a\nshots: [{conditioning: [{media: b}]}]\n", "", "dir/b", 1},
        {BASE "conditioning: [{media: b}]\nshots: [{image: a}]\n", "", "dir/a", 1},
        {BASE "image: a\nshots: [{image: null}]\n", "", NULL, 0},
        {BASE "image: a\nshots: [{}]\n", "", "dir/a", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job_options job;
        parse_well(&job, cases[i].yaml, cases[i].flags);
        const struct conditioning *list = &job.shots[0].conditioning;
        assert_int_equal(list->count, cases[i].media != NULL);
        if (list->count > 0) {
            assert_string_equal(list->items[0].media, cases[i].media);
            assert_true(list->items[0].frame == 0);
            if (list->items[0].strength != cases[i].strength)
                fail_msg("case %zu: strength %g", i, list->items[0].strength);
        }
        options_free(&job);
    }
    struct job_options job; /* a strength that only some shots have a use for */
    parse_well(&job, BASE "image_strength: 0.5\nshots: [{}, {image: a.png}]\n", "");
    assert_int_equal(job.shots[0].conditioning.count, 0);
    assert_true(job.shots[1].conditioning.items[0].strength == 0.5);
    assert_true(job.shots[0].image_cond_noise_scale == 0.15 && job.shots[0].conditioning_crf == 29);
    options_free(&job);
}

static void test_values(void **state)
{
    (void)state;
    struct job_options job;
    parse_well(&job,
               BASE "stg_mode: STG_R\nsampler: Uniform\nseed: 0x10\nwidth: 0100\n"
                    "timeout: 10m\ndecode_noise_scale: null\nframe_rate: 2.4e1\n"
                    "digest: True\nbit_depth: 10\nweights: stream\n"
                    "prompt_enhancement_words_threshold: 0\n",
               "");
    const struct shot_options *shot = job.shots;
    assert_int_equal(shot->stg_mode, STG_RESIDUAL);
    assert_int_equal(shot->sampler, SAMPLER_UNIFORM);
    assert_true(shot->seed == 16 && shot->width == 100 && shot->frame_rate == 24);
    assert_true(job.timeout_s == 600 && shot->decode_noise_scale < 0 && job.digest);
    assert_int_equal(shot->bit_depth, 10);
    assert_int_equal(job.weights, WEIGHTS_STREAM);
    options_free(&job);
    /* ignored steps must not be checked against an explicit list */
    parse_well(&job,
               BASE "timesteps: [1, 0.5]\nnum_inference_steps: 1\n"
                    "skip_final_inference_steps: 3\n",
               "");
    options_free(&job);
    parse_well(&job, "\xef\xbb\xbf" BASE, "");
    options_free(&job);
}

/* ---- finding the job file -------------------------------------------------------------------- */

static void test_find_job_file(void **state)
{
    (void)state;
    const char *path;
    bool help;
    char *after[] = {"--prompt", "no.yaml", "--digest", "yes.yaml", "-o", "x"};
    assert_int_equal(options_find_job_file(6, after, &path, &help), STATUS_OK);
    assert_string_equal(path, "yes.yaml");
    assert_false(help);
    char *dashes[] = {"--", "--odd.yaml"};
    assert_int_equal(options_find_job_file(2, dashes, &path, &help), STATUS_OK);
    assert_string_equal(path, "--odd.yaml");
    char *asks[] = {"a.yaml", "--help", "b.yaml"};
    assert_int_equal(options_find_job_file(3, asks, &path, &help), STATUS_OK);
    assert_true(help);
    struct job_options job;
    help = false;
    assert_int_equal(options_parse(&job, NULL, 0, NULL, 3, asks, &help), STATUS_OK);
    assert_true(help && !job.shots);
    assert_int_equal(options_find_job_file(0, NULL, &path, &help), STATUS_OK);
    assert_null(path);
    assert_false(help);
}

/* ---- the table ------------------------------------------------------------------------------- */

/* A legal value that is not the default, as a flag and as YAML take it. */
static const char *sample(const struct setting *s)
{
    switch (s->type) {
    case TYPE_TEXT:
    case TYPE_PATH:
    case TYPE_INPUT_PATH:
        return "/some/text";
    case TYPE_WORD:
    case TYPE_CHOICE:
        return s->choices[1].name && !s->choices[1].unsupported ? s->choices[1].name
                                                                : s->choices[0].name;
    case TYPE_INT:
    case TYPE_INT64:
        return strcmp(s->key, "skip_initial_inference_steps") == 0 ? "0"
               : strcmp(s->key, "skip_final_inference_steps") == 0 ? "3"
                                                                   : "33";
    case TYPE_FLOAT:
    case TYPE_FLOATS:
        return "0.125";
    case TYPE_DURATION:
        return "2h";
    case TYPE_BOOL:
        return "true";
    case TYPE_BLOCKS:
        return "3";
    case TYPE_RANGE:
        return "3-5";
    case TYPE_CONDITIONING:
        return "[{media: /a.png, strength: 0.5}]";
    case TYPE_IMAGE:
        return "/a.png";
    }
    return "";
}

static char *value_of(const struct job_options *job, const struct setting *s)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    setting_print(out, s, s->scope == SCOPE_JOB ? (const void *)job : job->shots);
    fclose(out);
    return text;
}

static void test_every_key_from_both(void **state)
{
    (void)state;
    for (int i = 0; i < settings_count; i++) {
        const struct setting *s = &settings[i];
        struct job_options from_file, from_flag;
        bool required = s->type == TYPE_INPUT_PATH || strcmp(s->key, "prompt") == 0;
        bool needs_image = strcmp(s->key, "image_strength") == 0;
        char yaml[512], flag[256];
        snprintf(yaml, sizeof yaml, "%s%s%s: %s\n%s",
                 strcmp(s->key, "checkpoint_path") == 0 ? "" : "checkpoint_path: /c\n",
                 needs_image ? "image: /a\n" : "", s->key, sample(s),
                 strcmp(s->key, "prompt") == 0 ? "" : "prompt: a\n");
        if (strcmp(s->key, "text_encoder_model_name_or_path") != 0)
            strcat(yaml, "text_encoder_model_name_or_path: /t\n");
        snprintf(flag, sizeof flag, "--%s=%s", s->key, sample(s));
        for (char *c = flag; *c && *c != '='; c++)
            if (*c == '_') *c = '-';
        parse_well(&from_file, yaml, "");
        parse_well(&from_flag, needs_image ? BASE "image: /a\n" : BASE, flag);
        char *a = value_of(&from_file, s), *b = value_of(&from_flag, s);
        assert_string_equal(a, b);
        bool fixed = strcmp(sample(s), s->initial ? s->initial : "") == 0;
        const void *record = s->scope == SCOPE_JOB ? (const void *)&from_flag : from_flag.shots;
        if (!fixed && !required && setting_is_default(s, record))
            fail_msg("%s was not set", s->key);
        free(a);
        free(b);
        options_free(&from_file);
        options_free(&from_flag);
    }
}

__attribute__((noinline)) static char *print_to_text(const struct job_options *job)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (job)
        options_print_header(out, job);
    else
        options_print_help(out);
    fclose(out);
    return text;
}

/* Lines of `text` that hold `word` with no name character around it. */
static int count_word(const char *text, const char *word)
{
    int count = 0;
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
        char after = at[strlen(word)];
        count += strchr(" ,=\n", after) != NULL && at > text && at[-1] == ' ';
    }
    return count;
}

static void test_help(void **state)
{
    (void)state;
    char *help = print_to_text(NULL), word[SETTING_KEY_MAX + 2];
    /* the example at the end uses flags again */
    char *example = strstr(help, "\nExample:");
    assert_non_null(example);
    assert_non_null(strstr(help, "Exit codes:"));
    *example = '\0';
    for (int i = 0; i < settings_count; i++) {
        snprintf(word, sizeof word, "--%s", settings[i].key);
        for (char *c = word; *c; c++)
            if (*c == '_') *c = '-';
        if (count_word(help, word) != 1)
            fail_msg("%s stands %d times in the help", word, count_word(help, word));
        if (settings[i].initial && !strstr(help, settings[i].initial) &&
            strcmp(settings[i].key, "negative_prompt") != 0)
            fail_msg("the default of %s is not in the help", word);
    }
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 100);
    free(help);
}

static void test_header(void **state)
{
    (void)state;
    struct job_options job;
    parse_well(&job, BASE "width: 64\nseed: 171198\nimage: a.png\nshots: [{seed: 1}, {}]\n", "");
    char *header = print_to_text(&job);
    assert_non_null(strstr(header, "  * width                            64\n"));
    assert_non_null(strstr(header, "    height                           704\n"));
    assert_non_null(strstr(header, "  * conditioning                     [{media: \"dir/a.png\", "
                                   "frame: 0, strength: 1}]\n"));
    assert_null(strstr(header, "image_strength")); /* it is in the items */
    assert_non_null(strstr(header, "  shot 1\n"));
    assert_non_null(strstr(header, "  * seed                             1\n"));
    assert_non_null(strstr(header, "    seed                             171198\n"));
    free(header);
    options_free(&job);
}

/* ---- round trip ------------------------------------------------------------------------------ */

static void assert_same_settings(const struct job_options *a, int shot, const struct job_options *b)
{
    for (int i = 0; i < settings_count; i++) {
        const struct setting *s = &settings[i];
        const char *x = s->scope == SCOPE_JOB ? (const char *)a : (const char *)&a->shots[shot];
        const char *y = s->scope == SCOPE_JOB ? (const char *)b : (const char *)b->shots;
        if (s->folded) continue;
        if (s->type == TYPE_CONDITIONING) { /* holds pointers */
            char *one = setting_text(s, x), *other = setting_text(s, y);
            assert_string_equal(one, other);
            free(one);
            free(other);
            continue;
        }
        bool text = s->type <= TYPE_WORD;
        const char *p = text ? *(const char *const *)(x + s->offset) : NULL;
        const char *q = text ? *(const char *const *)(y + s->offset) : NULL;
        bool same = !text    ? memcmp(x + s->offset, y + s->offset, setting_bytes(s)) == 0
                    : p && q ? strcmp(p, q) == 0
                             : p == q;
        if (!same) fail_msg("%s does not survive the round trip", s->key);
    }
}

static void check_round_trip(const struct job_options *job)
{
    for (int shot = 0; shot < job->shot_count; shot++) {
        struct job_options again;
        char *yaml = options_to_yaml(job, shot);
        parse_well(&again, yaml, "");
        assert_int_equal(again.shot_count, 1);
        assert_same_settings(job, shot, &again);
        char *twice = options_to_yaml(&again, 0);
        assert_string_equal(yaml, twice);
        free(twice);
        free(yaml);
        options_free(&again);
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "plain",       "true",
        "12",          "null",
        "~",           " spaces ",
        "a: b # c",    "\"quotes\" 'and' \\ back",
        "- a",         "two\nlines\n\n",
        "tab\there",   "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x8e\xac",
        "\x7f\x1b[0m", "\xc2\x85 \xe2\x80\xa8 \xe2\x80\xa9 \xef\xbb\xbf \xef\xbf\xbe",
        "%TAG",        "&a *b !c",
        "\r\n",
    };
    struct job_options job;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char flags[256];
        snprintf(flags, sizeof flags, "--prompt=x%s|--negative-prompt=%s|--dump=%s", texts[i],
                 texts[i], texts[i]);
        parse_well(&job, BASE, flags);
        assert_string_equal(job.shots[0].negative_prompt, texts[i]);
        check_round_trip(&job);
        options_free(&job);
    }
    parse_well(&job,
               BASE "guidance_timesteps: [1, 0.9999990000000001, 0.1]\n"
                    "stg_scale: [0, 1e-300, 3]\nrescaling_scale: 0.30000000000000004\n"
                    "skip_block_list: [[], [3], [4, 5]]\n"
                    "decode_noise_scale: null\ndecode_timestep: -0.0\nstg_mode: stg_t\n"
                    "seed: 9223372036854775807\nrng: diffusers\nattention_order: ring\n"
                    "conditioning: [{media: \"/a 'b': {c}.png\", strength: 0.30000000000000004}]\n"
                    "timeout: 1.5h\ndigest: true\nencoder_options: crf=1:x='y'\n"
                    "shots: [{prompt: b}, {width: 33, timesteps: [0.5]},\n"
                    "        {timesteps: 1}]\n",
               "");
    check_round_trip(&job);
    options_free(&job);
}

/* A sidecar lies elsewhere than the job file, so relative model paths become whole ones. */
static void test_yaml_model_paths(void **state)
{
    (void)state;
    struct job_options job, again;
    parse_well(&job,
               "checkpoint_path: c\ntext_encoder_model_name_or_path: t\nprompt: a\nimage: i.png\n",
               "");
    char *yaml = options_to_yaml(&job, 0), *here = realpath(".", NULL), expected[4096];
    parse_well(&again, yaml, "");
    snprintf(expected, sizeof expected, "%s/dir/c", here);
    assert_string_equal(again.checkpoint_path, expected);
    snprintf(expected, sizeof expected, "%s/dir/i.png", here);
    assert_string_equal(again.shots[0].conditioning.items[0].media, expected);
    assert_string_equal(job.shots[0].conditioning.items[0].media, "dir/i.png");
    free(here);
    free(yaml);
    options_free(&again);
    options_free(&job);
}

/* ---- configs/ -------------------------------------------------------------------------------- */

static void read_config(struct job_options *job, const char *name)
{
    char path[300], text[1 << 14];
    bool help;
    snprintf(path, sizeof path, "configs/%.250s", name);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    size_t bytes = fread(text, 1, sizeof text, in);
    fclose(in);
    error_clear();
    if (options_parse(job, text, bytes, path, 0, NULL, &help) != STATUS_OK)
        fail_msg("%s", error_message());
}

static void test_configs(void **state)
{
    (void)state;
    DIR *folder = opendir("configs");
    assert_non_null(folder);
    int count = 0;
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".yaml") != 0) continue;
        struct job_options job;
        read_config(&job, entry->d_name);
        options_free(&job);
        count++;
    }
    closedir(folder);
    assert_true(count >= 7);
}

static void test_config_values(void **state)
{
    (void)state;
    struct job_options job;
    read_config(&job, "tiny.yaml");
    assert_string_equal(job.checkpoint_path, "configs/../models/tiny/ltxv-tiny.safetensors");
    assert_string_equal(job.shots[0].output, "out/tiny.mp4");
    assert_int_equal(job.shots[0].num_frames, 33);
    options_free(&job);
    read_config(&job, "tiny-shots.yaml");
    assert_int_equal(job.shot_count, 4);
    assert_string_equal(job.shots[3].output, "out/tiny-shots-0004.mp4");
    options_free(&job);
    read_config(&job, "ltxv-2b-0.9.6-dev.yaml");
    assert_int_equal(job.shots[0].num_inference_steps, 40);
    assert_int_equal(job.shots[0].skip_block_list.lists[0].v[0], 19);
    assert_true(job.shots[0].guidance_scale.v[0] == 3);
    assert_string_equal(job.shots[0].output, "out/ltxv-2b-0.9.6-dev.mp4");
    options_free(&job);
    read_config(&job, "ltxv-2b-0.9.6-distilled.yaml");
    assert_int_equal(job.shots[0].num_inference_steps, 8);
    assert_true(job.shots[0].stochastic_sampling && job.shots[0].stg_scale.v[0] == 0);
    options_free(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_shots_and_flags),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_without_file),
        cmocka_unit_test(test_name_without_file),
        cmocka_unit_test(test_names_that_are_not_utf8),
        cmocka_unit_test(test_decode_noise),
        cmocka_unit_test(test_official_configuration),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_conditioning),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_find_job_file),
        cmocka_unit_test(test_every_key_from_both),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_yaml_model_paths),
        cmocka_unit_test(test_configs),
        cmocka_unit_test(test_config_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
