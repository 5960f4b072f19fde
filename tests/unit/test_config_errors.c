/* What is wrong with a job file or a flag is said with its place and what is allowed. */
#include "tests/unit/config_helpers.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
