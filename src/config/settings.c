#include "config/settings.h"

#include <string.h>

/* ---- choices --------------------------------------------------------------------------------- */

#define END                                                                                        \
    {                                                                                              \
        .name = NULL                                                                               \
    }

static const struct setting_choice pipeline_types[] = {
    {.name = "base"}, {.name = "multi-scale", .unsupported = true}, END};
static const struct setting_choice precisions[] = {
    {.name = "auto"},          {.name = "float32"},
    {.name = "bfloat16"},      {.name = "mixed_precision"},
    {.name = "float8_e4m3fn"}, END};
static const struct setting_choice samplers[] = {
    {.name = "from_checkpoint", .value = SAMPLER_FROM_CHECKPOINT},
    {.name = "uniform", .value = SAMPLER_UNIFORM},
    {.name = "linear-quadratic", .value = SAMPLER_LINEAR_QUADRATIC},
    END};
static const struct setting_choice stg_modes[] = {
    {.name = "attention_values", .alias = "stg_av", .value = STG_ATTENTION_VALUES},
    {.name = "attention_skip", .alias = "stg_as", .value = STG_ATTENTION_SKIP},
    {.name = "residual", .alias = "stg_r", .value = STG_RESIDUAL},
    {.name = "transformer_block", .alias = "stg_t", .value = STG_TRANSFORMER_BLOCK},
    END};
static const struct setting_choice rngs[] = {
    {.name = "torch", .value = RNG_TORCH}, {.name = "diffusers", .value = RNG_DIFFUSERS}, END};
static const struct setting_choice bit_depths[] = {
    {.name = "8", .value = 8}, {.name = "10", .value = 10}, {.name = "16", .value = 16}, END};
static const struct setting_choice primaries[] = {{.name = "auto"},
                                                  {.name = "bt709"},
                                                  {.name = "bt2020"},
                                                  {.name = "smpte432", .alias = "p3"},
                                                  END};
static const struct setting_choice transfers[] = {{.name = "auto"},
                                                  {.name = "bt709"},
                                                  {.name = "iec61966-2-1", .alias = "srgb"},
                                                  {.name = "smpte2084", .alias = "pq"},
                                                  {.name = "arib-std-b67", .alias = "hlg"},
                                                  END};
static const struct setting_choice matrices[] = {
    {.name = "auto"}, {.name = "bt709"}, {.name = "bt2020nc"}, {.name = "smpte170m"}, END};
static const struct setting_choice ranges[] = {
    {.name = "auto"}, {.name = "limited"}, {.name = "full"}, END};
static const struct setting_choice backends[] = {
    {.name = "auto"}, {.name = "cpu"}, {.name = "cuda"}, END};
static const struct setting_choice isas[] = {{.name = "auto"},        {.name = "generic"},
                                             {.name = "avx2"},        {.name = "avx512"},
                                             {.name = "avx512_bf16"}, END};
static const struct setting_choice attention_orders[] = {
    {.name = "canonical", .value = ORDER_CANONICAL}, {.name = "ring", .value = ORDER_RING}, END};
static const struct setting_choice transports[] = {{.name = "auto", .value = TRANSPORT_AUTO},
                                                   {.name = "nccl", .value = TRANSPORT_NCCL},
                                                   {.name = "mpi", .value = TRANSPORT_MPI},
                                                   END};
static const struct setting_choice last_decodes[] = {{.name = "auto", .value = LAST_DECODE_AUTO},
                                                     {.name = "codec", .value = LAST_DECODE_CODEC},
                                                     END};
static const struct setting_choice weights_policies[] = {
    {.name = "auto", .value = WEIGHTS_AUTO},
    {.name = "resident", .value = WEIGHTS_RESIDENT},
    {.name = "stream", .value = WEIGHTS_STREAM},
    END};
static const struct setting_choice graphs_policies[] = {
    {.name = "auto", .value = GRAPHS_AUTO}, {.name = "off", .value = GRAPHS_OFF}, END};

/* ---- the table ------------------------------------------------------------------------------- */

#define JOB(key_, field)                                                                           \
    .key = #key_, .scope = SCOPE_JOB, .offset = offsetof(struct job_options, field)
#define SHOT(key_) .key = #key_, .scope = SCOPE_SHOT, .offset = offsetof(struct shot_options, key_)

#define WHAT .group = "What to render"
#define MODEL .group = "Model"
#define STEPS .group = "Denoising"
#define GUIDANCE .group = "Guidance"
#define CONDITION .group = "Beginning from an image"
#define FILE_OUT .group = "Decoding and file"
#define MACHINE .group = "Machine and ranks"
#define REPORT .group = "Reporting"

/* Defaults are those of the official command line. Where it has none, they are those of the
 * official pipeline call (steps, guidance, STG, rescaling). decode_timestep and decode_noise_scale
 * are 0.0 and "the same" in that call, but 0.05 and 0.025 in every released configuration; these
 * are taken, and "the same" where decode_timestep alone is given (checks.c). The negative
 * prompt is "" in the call, this sentence on the command line. */
const struct setting settings[] = {
    {SHOT(prompt), WHAT, .type = TYPE_TEXT, .metavar = "TEXT",
     .help = "what the video shows (required); it is never rewritten"},
    {SHOT(negative_prompt), WHAT, .type = TYPE_TEXT, .metavar = "TEXT",
     .initial = "worst quality, inconsistent motion, blurry, jittery, distorted",
     .help = "what guidance leads away from"},
    {SHOT(output), WHAT, .type = TYPE_PATH, .metavar = "FILE", .short_flag = 'o',
     .help = "video file, or a PNG pattern such as frames/%06d.png; when not given, out/NAME.mp4 "
             "with the job file's name, and a number when there are several shots"},
    {SHOT(seed), WHAT, .type = TYPE_INT64, .metavar = "N", .initial = "171198",
     .int_max = INT64_MAX, .help = "start of the random numbers"},
    {SHOT(width), WHAT, .type = TYPE_INT, .metavar = "N", .initial = "1216", .int_min = 32,
     .int_max = 16384, .help = "picture width in pixels; the model pads it to 32 and crops back"},
    {SHOT(height), WHAT, .type = TYPE_INT, .metavar = "N", .initial = "704", .int_min = 32,
     .int_max = 16384, .help = "picture height in pixels"},
    {SHOT(num_frames), WHAT, .type = TYPE_INT, .metavar = "N", .initial = "121", .int_min = 1,
     .int_max = 100000, .help = "frames of the video; the model pads them to 8k+1 and crops back"},
    {SHOT(frame_rate), WHAT, .type = TYPE_FLOAT, .metavar = "FPS", .initial = "30", .max = 1000,
     .above_min = true, .help = "frames a second, in the file and as the model sees time"},

    {JOB(checkpoint_path, checkpoint_path), MODEL, .type = TYPE_INPUT_PATH, .metavar = "FILE",
     .help = "LTX-Video checkpoint: a .safetensors file or a diffusers folder (required)"},
    {JOB(text_encoder_model_name_or_path, text_encoder_path), MODEL, .type = TYPE_INPUT_PATH,
     .metavar = "FOLDER",
     .help = "T5 encoder: a folder with text_encoder/ and tokenizer/ (required)"},
    {JOB(text_encoder_max_tokens, text_encoder_max_tokens), MODEL, .type = TYPE_INT, .metavar = "N",
     .initial = "256", .int_min = 1, .int_max = MAX_TEXT_TOKENS,
     .help = "a longer prompt is cut here"},
    {JOB(pipeline_type, pipeline_type), MODEL, .type = TYPE_WORD, .metavar = "TYPE",
     .initial = "base", .choices = pipeline_types, .help = "single pass"},
    {JOB(precision, precision), MODEL, .type = TYPE_WORD, .metavar = "TYPE", .initial = "auto",
     .choices = precisions,
     .help = "of the linear layers: auto is float32, all others round to bfloat16 and sum in "
             "float32"},

    {SHOT(sampler), STEPS, .type = TYPE_CHOICE, .metavar = "NAME", .initial = "from_checkpoint",
     .choices = samplers, .help = "how noise levels are spaced"},
    {SHOT(num_inference_steps), STEPS, .type = TYPE_INT, .metavar = "N", .initial = "20",
     .int_min = 1, .int_max = 1000, .help = "denoising steps; not used with explicit timesteps"},
    {SHOT(skip_initial_inference_steps), STEPS, .type = TYPE_INT, .metavar = "N", .initial = "0",
     .int_max = 1000, .help = "leave out steps at the noisy end (needs input media: only 0 yet)"},
    {SHOT(skip_final_inference_steps), STEPS, .type = TYPE_INT, .metavar = "N", .initial = "0",
     .int_max = 1000, .help = "leave out steps at the clean end; the last step then goes to 0"},
    {SHOT(timesteps), STEPS, .type = TYPE_FLOATS, .metavar = "T,T,...", .max = 1, .above_min = true,
     .list_may_be_empty = true,
     .help = "the noise levels themselves, strictly descending, instead of a schedule"},
    {SHOT(stochastic_sampling), STEPS, .type = TYPE_BOOL, .initial = "false",
     .help = "draw fresh noise at every step (distilled models)"},
    {SHOT(rng), STEPS, .type = TYPE_CHOICE, .metavar = "ORDER", .initial = "torch", .choices = rngs,
     .help = "order of the initial noise: as the official pipeline or as diffusers draws it"},

    {SHOT(guidance_scale), GUIDANCE, .type = TYPE_FLOATS, .metavar = "X[,X...]", .initial = "4.5",
     .max = 1000, .help = "classifier-free guidance; 1 or less is off"},
    {SHOT(stg_scale), GUIDANCE, .type = TYPE_FLOATS, .metavar = "X[,X...]", .initial = "1",
     .max = 1000, .help = "spatio-temporal guidance; 0 is off"},
    {SHOT(rescaling_scale), GUIDANCE, .type = TYPE_FLOATS, .metavar = "X[,X...]", .initial = "0.7",
     .max = 1, .help = "pull guided contrast back to the prompt's own; 1 is off"},
    {SHOT(guidance_timesteps), GUIDANCE, .type = TYPE_FLOATS, .metavar = "T,T,...", .max = 1,
     .list_may_be_empty = true,
     .help = "noise levels, strictly descending, from which each entry of the lists applies"},
    {SHOT(skip_block_list), GUIDANCE, .type = TYPE_BLOCKS, .metavar = "N,N;N...", .int_max = 1023,
     .help = "transformer blocks that spatio-temporal guidance perturbs: one list, or one for each "
             "guidance timestep with ';' between them"},
    {SHOT(stg_mode), GUIDANCE, .type = TYPE_CHOICE, .metavar = "MODE",
     .initial = "attention_values", .choices = stg_modes, .help = "how these blocks are perturbed"},
    {SHOT(cfg_star_rescale), GUIDANCE, .type = TYPE_BOOL, .initial = "false",
     .help = "scale the negative prediction by its projection on the positive one"},

    {SHOT(conditioning), CONDITION, .type = TYPE_CONDITIONING, .metavar = "ITEMS",
     .help = "what the video begins from: [{media: first.png, frame: 0, strength: 1}]; only one "
             "image, at frame 0, yet"},
    {.key = "image",
     .scope = SCOPE_SHOT,
     .offset = offsetof(struct shot_options, conditioning),
     CONDITION,
     .type = TYPE_IMAGE,
     .metavar = "FILE",
     .folded = true,
     .help = "the image that the video begins with: short for conditioning with one item"},
    {SHOT(image_strength), CONDITION, .type = TYPE_FLOAT, .metavar = "X", .initial = "1", .max = 1,
     .folded = true,
     .help = "strength of items that give none; below 1 the image itself is changed too"},
    {SHOT(image_cond_noise_scale), CONDITION, .type = TYPE_FLOAT, .metavar = "X", .initial = "0.15",
     .max = 10,
     .help = "noise on what is conditioned at full strength, so that it can begin to move"},
    {SHOT(conditioning_crf), CONDITION, .type = TYPE_INT, .metavar = "N", .initial = "29",
     .int_max = 51,
     .help = "first compress images as a frame of H.264 video of this x264 quality: from a clean "
             "still the model makes a video that stands still; 0 is off"},

    {SHOT(decode_timestep), FILE_OUT, .type = TYPE_FLOAT, .metavar = "T", .initial = "0.05",
     .max = 1, .help = "noise level that the decoder is told"},
    {SHOT(decode_noise_scale), FILE_OUT, .type = TYPE_FLOAT, .metavar = "X", .initial = "0.025",
     .max = 1, .nullable = true,
     .help = "noise mixed into the latents before decoding; null, also when decode_timestep is "
             "given and this is not: as the level told"},
    {SHOT(tone_map_compression_ratio), FILE_OUT, .type = TYPE_FLOAT, .metavar = "X", .initial = "0",
     .max = 1, .help = "compress strong latents before decoding; 0 is off"},
    {SHOT(encoder), FILE_OUT, .type = TYPE_TEXT, .metavar = "NAME", .initial = "auto",
     .help = "FFmpeg encoder; auto is libx264 for video files and png for .png names"},
    {SHOT(encoder_options), FILE_OUT, .type = TYPE_TEXT, .metavar = "K=V:K=V",
     .help = "options of the encoder, such as crf=18:preset=slow"},
    {SHOT(bit_depth), FILE_OUT, .type = TYPE_CHOICE, .metavar = "BITS", .initial = "8",
     .choices = bit_depths,
     .help = "bits a colour in the file; above 8, frames are never rounded to 8; 16 is for PNG and "
             "other lossless RGB"},
    {SHOT(color_primaries), FILE_OUT, .type = TYPE_WORD, .metavar = "NAME", .initial = "auto",
     .choices = primaries,
     .help = "a tag in the file, what its red, green and blue are: auto is bt709; the model's "
             "values are written as they are"},
    {SHOT(color_transfer), FILE_OUT, .type = TYPE_WORD, .metavar = "NAME", .initial = "auto",
     .choices = transfers,
     .help = "a tag in the file, from value to light: auto is bt709, in .png sRGB; as above"},
    {SHOT(color_matrix), FILE_OUT, .type = TYPE_WORD, .metavar = "NAME", .initial = "auto",
     .choices = matrices,
     .help = "from RGB to Y'CbCr, and its tag: auto is bt2020nc with bt2020, else bt709"},
    {SHOT(color_range), FILE_OUT, .type = TYPE_WORD, .metavar = "NAME", .initial = "auto",
     .choices = ranges, .help = "of Y'CbCr, and its tag: auto is limited; RGB is full"},
    {SHOT(frames), FILE_OUT, .type = TYPE_RANGE, .metavar = "N-N", .initial = "all",
     .int_max = 99999,
     .help = "decode and write only these, counted from 0; pictures keep the numbers of the whole "
             "video"},
    {SHOT(segment_frames), FILE_OUT, .type = TYPE_INT, .metavar = "N", .initial = "0",
     .int_max = 100000,
     .help = "let encoders make so many frames each, beginning with a key frame, several at a "
             "time; 0: 32 in pictures above 4 million pixels, else one encoder makes all"},

    {JOB(backend, backend), MACHINE, .type = TYPE_WORD, .metavar = "NAME", .initial = "auto",
     .choices = backends,
     .help = "what computes; auto: cuda where every rank has a device, else cpu"},
    {JOB(isa, isa), MACHINE, .type = TYPE_WORD, .metavar = "NAME", .initial = "auto",
     .choices = isas, .help = "instructions of the cpu backend"},
    {JOB(threads, threads), MACHINE, .type = TYPE_INT, .metavar = "N", .initial = "0",
     .int_max = 4096, .help = "threads of a rank; 0: choose"},
    {JOB(denoise_ranks, denoise_ranks), MACHINE, .type = TYPE_INT, .metavar = "N", .initial = "0",
     .int_max = 65536, .help = "MPI ranks for the transformer; 0: all others"},
    {JOB(codec_ranks, codec_ranks), MACHINE, .type = TYPE_INT, .metavar = "N", .initial = "0",
     .int_max = 65536,
     .help = "MPI ranks for prompts, decoding and video files; 0: by what the job costs"},
    {JOB(parallel_encoders, parallel_encoders), MACHINE, .type = TYPE_INT, .metavar = "N",
     .initial = "0", .int_max = 48,
     .help =
         "video encoders at work at a time, where there are segments or pictures; the files are "
         "the same; 0: choose"},
    {JOB(transport, transport), MACHINE, .type = TYPE_CHOICE, .metavar = "NAME", .initial = "auto",
     .choices = transports,
     .help = "what moves device memory between ranks; mpi goes by way of the host; auto: nccl "
             "where ranks have a GPU each, else mpi"},
    {JOB(attention_order, attention_order), MACHINE, .type = TYPE_CHOICE, .metavar = "ORDER",
     .initial = "canonical", .choices = attention_orders,
     .help = "canonical: the same bytes for every rank count; ring: faster"},
    {JOB(weights, weights), MACHINE, .type = TYPE_CHOICE, .metavar = "POLICY", .initial = "auto",
     .choices = weights_policies,
     .help = "keep expanded weights in memory, or expand per layer; auto: keep what fits"},
    {JOB(graphs, graphs), MACHINE, .type = TYPE_CHOICE, .metavar = "POLICY", .initial = "auto",
     .choices = graphs_policies,
     .help = "auto: cuda records a step's passes through the transformer once and launches them "
             "as CUDA graphs, where weights are resident and messages between denoise ranks do not "
             "go by way of the host; off: never"},
    {JOB(last_decode, last_decode), MACHINE, .type = TYPE_CHOICE, .metavar = "WHO",
     .initial = "auto", .choices = last_decodes,
     .help =
         "auto: when nothing is left to denoise, all ranks decode the last shot together, where "
         "memory suffices; codec: the codec ranks alone"},
    {JOB(timeout, timeout_s), MACHINE, .type = TYPE_DURATION, .metavar = "TIME", .initial = "600",
     .min = 1, .max = 604800,
     .help = "end the run after so long without progress from a peer or a device"},

    {JOB(digest, digest), REPORT, .type = TYPE_BOOL, .initial = "false",
     .help = "print SHA-256 of every shot's latents and frames"},
    {JOB(dump, dump), REPORT, .type = TYPE_PATH, .metavar = "FOLDER",
     .help = "write what was computed there as safetensors"},
    {JOB(log_json, log_json), REPORT, .type = TYPE_PATH, .metavar = "FILE",
     .help = "one JSON object a line for every event"},
    {JOB(trace, trace), REPORT, .type = TYPE_PATH, .metavar = "FILE",
     .help = "timeline of all ranks for chrome://tracing or Perfetto"},
    {JOB(dry_run, dry_run), REPORT, .type = TYPE_BOOL, .initial = "false",
     .help =
         "only print the choice of ranks and what each would take in memory, of its device and of "
         "its host; backend cuda needs no device for that"},
    {JOB(quiet, quiet), REPORT, .type = TYPE_BOOL, .initial = "false",
     .help = "only warnings and errors"},
    {JOB(verbose, verbose), REPORT, .type = TYPE_BOOL, .initial = "false",
     .help = "more of what happens"},
};
const int settings_count = (int)(sizeof settings / sizeof *settings);
_Static_assert(sizeof settings / sizeof *settings <= SETTINGS_MAX, "raise SETTINGS_MAX");

/* ---- looking up ------------------------------------------------------------------------------ */

const struct setting *setting_find(const char *key)
{
    for (int i = 0; i < settings_count; i++)
        if (strcmp(settings[i].key, key) == 0) return &settings[i];
    return NULL;
}

size_t setting_bytes(const struct setting *s)
{
    switch (s->type) {
    case TYPE_TEXT:
    case TYPE_PATH:
    case TYPE_INPUT_PATH:
    case TYPE_WORD:
        return sizeof(char *);
    case TYPE_CHOICE:
    case TYPE_INT:
        return sizeof(int);
    case TYPE_INT64:
        return sizeof(int64_t);
    case TYPE_FLOAT:
    case TYPE_DURATION:
        return sizeof(double);
    case TYPE_BOOL:
        return sizeof(bool);
    case TYPE_RANGE:
        return sizeof(struct frame_range);
    case TYPE_FLOATS:
        return sizeof(struct float_list);
    case TYPE_BLOCKS:
        return sizeof(struct block_lists);
    case TYPE_CONDITIONING:
    case TYPE_IMAGE:
        return sizeof(struct conditioning);
    }
    return 0;
}

const struct setting *setting_sharing_field(const struct setting *s)
{
    for (int i = 0; i < settings_count; i++)
        if (&settings[i] != s && settings[i].scope == s->scope && settings[i].offset == s->offset)
            return &settings[i];
    return NULL;
}

const char **setting_input_path(const struct setting *s, void *record, int i)
{
    void *field = (char *)record + s->offset;
    struct conditioning *list = field;
    switch (s->type) {
    case TYPE_INPUT_PATH:
        return i == 0 ? field : NULL;
    case TYPE_CONDITIONING:
    case TYPE_IMAGE:
        return i < list->count ? &list->items[i].media : NULL;
    default:
        return NULL;
    }
}

/* Names of the official command line, YAML files and pipeline call that mean something here, but
 * not yet or under another name. `harmless` is a value that asks for nothing. Every official
 * configuration holds the three for prompt enhancement, which a renderer can leave out: whatever
 * they say, prompts are used as they are written. */
static const char anything[] = "";
static const struct {
    const char *key, *harmless, *advice;
} foreign[] = {
    {"prompt_enhancement_words_threshold", anything, ""},
    {"prompt_enhancer_image_caption_model_name_or_path", anything, ""},
    {"prompt_enhancer_llm_model_name_or_path", anything, ""},
    {"enhance_prompt", "false", "prompt enhancement is not supported yet"},
    {"spatial_upscaler_model_path", NULL, "the multi-scale pipeline is not supported yet"},
    {"downscale_factor", NULL, "the multi-scale pipeline is not supported yet"},
    {"first_pass", NULL, "the multi-scale pipeline is not supported yet"},
    {"second_pass", NULL, "the multi-scale pipeline is not supported yet"},
    {"conditioning_items", NULL, "write 'conditioning: [{media: FILE, frame: 0, strength: 1}]'"},
    {"conditioning_media_paths", NULL,
     "write 'image', or 'conditioning: [{media: FILE, frame: 0, strength: 1}]'"},
    {"conditioning_strengths", NULL,
     "write 'image_strength', or 'conditioning: [{media: FILE, frame: 0, strength: 1}]'"},
    {"conditioning_start_frames", NULL,
     "write 'conditioning: [{media: FILE, frame: 0, strength: 1}]'"},
    {"input_media_path", NULL, "video to video is not supported yet"},
    {"media_items", NULL, "video to video is not supported yet"},
    {"latents", NULL, "latents as input are not supported yet"},
    {"lora", NULL, "LoRA adapters are not supported yet"},
    {"loras", NULL, "LoRA adapters are not supported yet"},
    {"prompt_embeds", NULL, "prepared prompt embeddings are not supported yet"},
    {"num_images_per_prompt", "1",
     "several videos of one prompt are not supported yet; use 'shots'"},
    {"output_type", NULL, "not supported yet; the result is a video file or PNG files"},
    {"offload_to_cpu", "false", "not supported yet; see 'weights'"},
    {"mixed_precision", "false", "write 'precision: mixed_precision'"},
    {"output_path", NULL, "write 'output' with the name of a file"},
    {"pipeline_config", NULL, "name the job file without a flag: ringreel render JOB.yaml"},
    {"shots", NULL, "shots can be given at the top level of a job file only"},
};
enum { FOREIGN_COUNT = (int)(sizeof foreign / sizeof *foreign) };

static const char *nearest_key(const char *key)
{
    const char *nearest = NULL;
    int best = (int)strlen(key) / 3 + 1; /* farther than that is another word */
    for (int i = 0; i < settings_count + 1; i++) {
        const char *candidate = i < settings_count ? settings[i].key : "shots";
        int distance = text_distance(key, candidate);
        if (distance < best) {
            best = distance;
            nearest = candidate;
        }
    }
    return nearest;
}

const char *setting_refusal(char out[256], const char *key, const char *value)
{
    for (int i = 0; i < FOREIGN_COUNT; i++)
        if (strcmp(key, foreign[i].key) == 0) {
            const char *harmless = foreign[i].harmless;
            if (harmless == anything || (value && harmless && strcmp(value, harmless) == 0))
                return NULL;
            snprintf(out, 256, "%s", foreign[i].advice);
            return out;
        }
    const char *nearest = nearest_key(key);
    if (nearest)
        snprintf(out, 256, "unknown; did you mean '%s'?", nearest);
    else
        snprintf(out, 256, "unknown; 'ringreel render --help' lists all settings");
    return out;
}
