#include "render/recode.h"

#include "base/error.h"
#include "base/log.h"
#include "model/safetensors.h"
#include "render/decode.h"
#include "render/recode_words.h"

#include <limits.h>
#include <stdlib.h>

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

struct stored_latents {
    const struct tensor *planes; /* [C, tokens] */
    int64_t next;                /* token */
    float *plane, *rows;         /* of a window: [tokens], [tokens, C] */
};

static const float *next_stored_latents(void *argument, int64_t tokens)
{
    struct stored_latents *l = argument;
    const struct tensor *t = l->planes;
    int64_t channels = t->shape[0], all = tensor_count(t) / channels;
    for (int64_t c = 0; c < channels; c++) {
        size_t at = (size_t)(c * all + l->next) * dtype_size(t->dtype);
        dtype_to_f32(l->plane, (const char *)t->data + at, t->dtype, (size_t)tokens);
        for (int64_t i = 0; i < tokens; i++) l->rows[i * channels + c] = l->plane[i];
    }
    l->next += tokens;
    return l->rows;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int decode_file(struct engine *e, struct shot_options *o, const struct safetensors *file)
{
    const struct tensor *t = NULL;
    TRY(world_agree(e->world, find_latents(file, e, &t)));
    TRY(world_agree(e->world, fit_shot(e, o, t)));
    TRY(engine_plan_codec(e));
    const struct shot *s = &e->shots[0];
    struct stored_latents stored = {.planes = t, .rows = e->codec.window};
    stored.plane = xmalloc((size_t)(decode_chunk(s) * s->h * s->w) * sizeof *stored.plane);
    int status = world_agree(
        e->world, decode_shot(e, s, (struct latents_source){next_stored_latents, &stored}));
    free(stored.plane);
    return status;
}

/* One shot of the job, on all ranks. */
static int decode_job(struct world *world, const struct job_options *all,
                      const struct recode_words *w)
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
    int status = world_agree(world, safetensors_open(&file, w->input));
    if (status == STATUS_OK) status = engine_open_codec(&engine, world, &job);
    if (status == STATUS_OK) status = decode_file(&engine, &shot, file);
    engine_close(&engine);
    if (file) safetensors_close(file);
    return status;
}

int recode_decode(struct world *world, int argc, char **argv)
{
    return recode_run(world, argc, argv, "decode", help_text, decode_job);
}
