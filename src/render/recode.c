#include "render/recode.h"

#include "base/error.h"
#include "base/log.h"
#include "model/safetensors.h"
#include "render/decode.h"
#include "render/render.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
    "usage: ringreel decode LATENTS.safetensors --config JOB.yaml -o FILE [--shot N] [FLAGS]\n"
    "       mpirun -n N ringreel decode ...\n"
    "\n"
    "Decodes the tensor \"latents\" [C, f, h, w], normalised, as `ringreel render --dump DIR` "
    "writes it.\n"
    "The job says how: checkpoint_path, decode_timestep, decode_noise_scale, seed, encoder and so "
    "on;\n"
    "with the job of the render the frames are the render's, to the byte. Its width, height and\n"
    "num_frames are used where they fit the latents, else everything is shown.\n"
    "\n"
    "  --config JOB.yaml   the job; all its settings can also be flags (ringreel render --help)\n"
    "  --shot N            which of the job's shots, from 1 on; default 1\n"
    "\n"
    "Prompts, guidance and the text encoder are not used. All ranks decode.\n";

/* ---- the words ------------------------------------------------------------------------------- */

struct words {
    const char *latents, *output;
    int shot;
    bool help;
    int argc; /* what is left is a render's */
    char **argv;
};

/* The value of --NAME VALUE or --NAME=VALUE at argv[*i]; NULL: it is something else. */
static const char *own_flag(int argc, char **argv, int *i, const char *name)
{
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0) return NULL;
    if (argv[*i][n] == '=') return argv[*i] + n + 1;
    return argv[*i][n] == '\0' && *i + 1 < argc ? argv[++*i] : NULL;
}

static int read_shot(const char *value, int *shot)
{
    char *end;
    long n = strtol(value, &end, 10);
    if (end == value || *end || n < 1 || n > MAX_SHOTS)
        return error_set(STATUS_INPUT, "command line: --shot: must be a number from 1 on: '%s'",
                         value);
    *shot = (int)n;
    return STATUS_OK;
}

static int read_words(struct words *w, int argc, char **argv)
{
    *w = (struct words){.shot = 1, .argv = xcalloc((size_t)argc + 1, sizeof *argv)};
    for (int i = 0; i < argc; i++) {
        const char *job, *shot, *output;
        if ((job = own_flag(argc, argv, &i, "--config")))
            w->argv[w->argc++] = (char *)job;
        else if ((output = own_flag(argc, argv, &i, "-o")) ||
                 (output = own_flag(argc, argv, &i, "--output")))
            w->output = output;
        else if ((shot = own_flag(argc, argv, &i, "--shot")))
            TRY(read_shot(shot, &w->shot));
        else if (i == 0 && argv[i][0] != '-')
            w->latents = argv[i];
        else
            w->argv[w->argc++] = argv[i];
        w->help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    }
    if (!w->latents && !w->help)
        return error_set(STATUS_INPUT, "command line: the first word must be a file of latents "
                                       "(ringreel decode --help)");
    if (!w->output && !w->help)
        return error_set(STATUS_INPUT, "command line: -o FILE is missing: the job's own output is "
                                       "the render's");
    return STATUS_OK;
}

/* ---- the latents ----------------------------------------------------------------------------- */

static int find_latents(const struct safetensors *file, const struct engine *e,
                        const struct tensor **out)
{
    const struct tensor *t = safetensors_find(file, "latents");
    char shape[96];
    if (!t)
        return error_set(STATUS_INPUT, "%s: there is no tensor 'latents'", safetensors_path(file));
    if (t->rank != 4 || t->shape[0] != e->channels || !dtype_is_float(t->dtype))
        return error_set(STATUS_INPUT, "%s: latents: %s %s, must be float [%lld,f,h,w]",
                         safetensors_path(file), safetensors_dtype(t), tensor_shape_text(t, shape),
                         (long long)e->channels);
    for (int i = 1; i < 4; i++)
        if (t->shape[i] < 1 || t->shape[i] > INT_MAX / 64)
            return error_set(STATUS_INPUT, "%s: latents: %s has no frames or picture",
                             safetensors_path(file), tensor_shape_text(t, shape));
    *out = t;
    return STATUS_OK;
}

/* The job's shot where it has these latents, else a shot of all that they show. */
static int fit_shot(struct engine *e, struct shot_options *o, const struct tensor *t)
{
    const struct scheduler_config *scheduler = &checkpoint_facts(e->checkpoint)->scheduler;
    int time = vae_time_factor(e->codec.vae), space = vae_space_factor(e->codec.vae);
    struct shot *s = e->shots = xcalloc(1, sizeof *e->shots);
    TRY(shot_prepare(s, 0, o, scheduler, time, space));
    if (s->f != t->shape[1] || s->h != t->shape[2] || s->w != t->shape[3]) {
        o->num_frames = (int)(time * (t->shape[1] - 1) + 1);
        o->height = (int)(space * t->shape[2]);
        o->width = (int)(space * t->shape[3]);
        TRY(shot_prepare(s, 0, o, scheduler, time, space));
        if (e->world->rank == 0)
            log_warn("the job's size is not that of the latents: %dx%d, %d frames", o->width,
                     o->height, o->num_frames);
    }
    e->max_tokens = s->tokens;
    return STATUS_OK;
}

/* [C, tokens] -> [tokens, C] */
static float *token_major(const struct tensor *t)
{
    int64_t count = tensor_count(t), channels = t->shape[0], tokens = count / channels;
    float *planes = xmalloc((size_t)count * sizeof *planes);
    float *rows = xmalloc((size_t)count * sizeof *rows);
    dtype_to_f32(planes, t->data, t->dtype, (size_t)count);
    for (int64_t i = 0; i < count; i++) rows[i % tokens * channels + i / tokens] = planes[i];
    free(planes);
    return rows;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int decode_file(struct engine *e, struct shot_options *o, const struct safetensors *file)
{
    const struct tensor *t = NULL;
    TRY(world_agree(e->world, find_latents(file, e, &t)));
    TRY(world_agree(e->world, fit_shot(e, o, t)));
    TRY(engine_plan_codec(e));
    float *latents = token_major(t);
    int status = world_agree(e->world, decode_shot(e, &e->shots[0], latents));
    free(latents);
    return status;
}

/* One shot of the job, on all ranks. */
static int decode_job(struct world *world, const struct job_options *all, const struct words *w)
{
    if (w->shot > all->shot_count)
        return world_agree(world,
                           error_set(STATUS_INPUT, "--shot %d: the job has %d shot%s", w->shot,
                                     all->shot_count, all->shot_count == 1 ? "" : "s"));
    struct job_options job = *all;
    struct shot_options shot = all->shots[w->shot - 1];
    struct engine engine = {0};
    struct safetensors *file = NULL;
    shot.output = w->output;
    job.shots = &shot;
    job.shot_count = 1;
    int status = world_agree(world, safetensors_open(&file, w->latents));
    if (status == STATUS_OK) status = engine_open_codec(&engine, world, &job);
    if (status == STATUS_OK) status = decode_file(&engine, &shot, file);
    engine_close(&engine);
    if (file) safetensors_close(file);
    return status;
}

int recode_decode(struct world *world, int argc, char **argv)
{
    struct job_options job = {0};
    struct words w;
    bool help = false;
    int status = world_agree(world, read_words(&w, argc, argv));
    if (status == STATUS_OK && w.help && world->rank == 0) fputs(help_text, stdout);
    if (status == STATUS_OK && !w.help) {
        status = render_configure(&job, world, w.argc, w.argv, &help);
        log_init(world->rank, job.quiet ? LOG_WARN : job.verbose ? LOG_DEBUG : LOG_INFO);
        if (status == STATUS_OK) status = decode_job(world, &job, &w);
        options_free(&job);
    }
    free(w.argv);
    return status;
}
