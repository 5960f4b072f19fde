/* The settings table: job files and flags in; help, header and YAML out. What is wrong with them:
 * test_config_errors.c. */
#include "tests/unit/config_helpers.h"

#include <dirent.h>
#include <unistd.h>

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
