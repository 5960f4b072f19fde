/* One table of settings (settings.c): the YAML keys, the command-line flags, their defaults, ranges
 * and help, and the header a run prints all come from it. Keys keep the names of the official
 * pipeline YAMLs where they mean the same.
 *
 * A job has settings of its own and one or more shots. A shot setting written at the top level is
 * the default of all shots; one inside `shots:` belongs to that shot; a flag on the command line
 * wins over both, for every shot. */
#ifndef RINGREEL_OPTIONS_H
#define RINGREEL_OPTIONS_H

#include <stddef.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { MAX_LIST = 128, MAX_SHOTS = 4096, MAX_TEXT_TOKENS = 1024, MAX_CONDITIONING = 16 };

struct float_list { /* a scalar is a list of one with is_scalar true */
    int count;
    bool is_scalar;
    double v[MAX_LIST];
};
struct block_lists { /* one flat list (per_level false, count 1) or a list of lists */
    bool per_level;
    int count;
    struct {
        int count;
        int v[64];
    } lists[32];
};

/* What the model is shown of the video before it begins. */
struct conditioning_item {
    const char *media; /* an image */
    int64_t frame;     /* of the video, from 0 on, at which it is put */
    double strength;   /* 0: none, 1: kept as it is */
};
struct conditioning {
    int count;
    struct conditioning_item items[MAX_CONDITIONING];
};

/* Frames of a video, both included. */
struct frame_range {
    int first, last; /* last -1: all of them */
};

struct text_pool;

enum sampler { SAMPLER_FROM_CHECKPOINT, SAMPLER_UNIFORM, SAMPLER_LINEAR_QUADRATIC };
enum stg_mode { STG_ATTENTION_VALUES, STG_ATTENTION_SKIP, STG_RESIDUAL, STG_TRANSFORMER_BLOCK };
enum rng_kind {
    RNG_TORCH,
    RNG_DIFFUSERS
}; /* order of the initial noise: token-major / channel-major */
enum attention_order { ORDER_CANONICAL, ORDER_RING };
enum transport { TRANSPORT_AUTO, TRANSPORT_NCCL, TRANSPORT_MPI };
enum last_decode { LAST_DECODE_AUTO, LAST_DECODE_CODEC };
enum graphs_policy { GRAPHS_AUTO, GRAPHS_OFF };
enum weights_policy { WEIGHTS_AUTO, WEIGHTS_RESIDENT, WEIGHTS_STREAM };

struct shot_options {
    const char *prompt, *negative_prompt, *output;
    int64_t seed;
    int width, height, num_frames; /* as asked; padded up to 32, 32, 8k+1 and cropped back */
    double frame_rate;
    enum sampler sampler;
    int num_inference_steps, skip_initial_inference_steps, skip_final_inference_steps;
    struct float_list timesteps; /* count 0: none given */
    bool stochastic_sampling;
    struct float_list guidance_scale, stg_scale, rescaling_scale, guidance_timesteps;
    struct block_lists skip_block_list;
    enum stg_mode stg_mode;
    bool cfg_star_rescale;
    struct conditioning conditioning;
    double image_strength; /* already in the items that gave no strength */
    double image_cond_noise_scale;
    int conditioning_crf; /* of the H.264 round trip, 0: none */
    double decode_timestep,
        decode_noise_scale; /* decode_noise_scale < 0: not given, = decode_timestep */
    double tone_map_compression_ratio;
    enum rng_kind rng;
    const char *encoder, *encoder_options; /* "libx264", "crf=18:preset=slow" */
    int bit_depth;                         /* 8, 10 or 16 */
    const char *color_primaries, *color_transfer, *color_matrix, *color_range;
    struct frame_range frames; /* that are written */
    int segment_frames;        /* 0: by the size of the picture */
};

struct job_options {
    const char *job_file;      /* as given, for messages and the sidecar; NULL: none */
    const char *pipeline_type; /* "base" */
    const char *checkpoint_path, *text_encoder_path;
    int text_encoder_max_tokens;
    int threads, denoise_ranks, codec_ranks; /* 0 = choose */
    int parallel_encoders;                   /* 0 = choose */
    enum attention_order attention_order;
    enum weights_policy weights;
    enum graphs_policy graphs;
    enum transport transport;
    enum last_decode last_decode;
    const char *precision, *backend, *isa;
    double timeout_s;
    bool digest, quiet, verbose, dry_run;
    const char *dump, *log_json, *trace;
    int shot_count;
    struct shot_options *shots; /* [shot_count] */
    struct text_pool *texts;    /* owns every string above and in the shots */
};

/* Parses `ringreel render JOB.yaml [flags]` (argv[0] is the first word after "render"). Relative
 * paths inside the job file are relative to the job file's folder, except `output`, `dump`,
 * `log_json`, `trace` (the current folder). STATUS_INPUT with file, line, column, key and what is
 * allowed. *help is set (and nothing parsed) for --help. Purely local; every rank parses the same
 * bytes (rank 0 reads the file and shares it: render_configure). yaml_text NULL: no job file;
 * messages say "command line", outputs are named out/shot.mp4. */
int options_parse(struct job_options *job, const char *yaml_text, size_t yaml_bytes,
                  const char *yaml_name, int argc, char **argv, bool *help);
/* Finds the job file's name among the arguments without parsing flags' values wrongly; NULL if
 * absent (allowed: all settings can be flags). STATUS_INPUT for two of them. */
int options_find_job_file(int argc, char **argv, const char **path, bool *help);

void options_print_help(FILE *out); /* `ringreel render --help` */
void options_print_header(
    FILE *out, const struct job_options *job); /* what this run uses, non-defaults marked */
/* The settings of one shot and of the job as YAML that renders it again (sidecar, round trip test).
 * Caller frees. */
char *options_to_yaml(const struct job_options *job, int shot);
void options_free(struct job_options *job);

#endif
