#include "config/checks.h"

#include "base/error.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct checker {
    struct job_options *job;
    const struct origins *origins;
    int shot; /* being checked; -1: the job */
};

/* ---- messages -------------------------------------------------------------------------------- */

static const struct origin *origin_of(const struct checker *c, const char *key)
{
    int i = setting_index(setting_find(key));
    return settings[i].scope == SCOPE_JOB || c->shot < 0 ? &c->origins->of[i]
                                                         : &c->origins->shots[c->shot].of[i];
}

/* Blames `key`: where it was given, else the shot that lacks it, else the file. */
static int blame(const struct checker *c, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int blame(const struct checker *c, const char *key, const char *format, ...)
{
    char cause[768], which[32] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(cause, sizeof cause, format, args);
    va_end(args);
    const char *file = c->origins->yaml_name;
    const struct origin *at = origin_of(c, key);
    if (c->shot >= 0 && c->job->shot_count > 1)
        snprintf(which, sizeof which, " (shot %d)", c->shot + 1);
    if (at->kind == FROM_DEFAULT && c->shot >= 0)
        at = &c->origins->shots[c->shot].at;
    if (at->kind == FROM_FILE)
        return error_set(STATUS_INPUT, "%s:%d:%d: %s: %s%s", file, at->line, at->column, key, cause,
                         which);
    if (at->kind == FROM_FLAG || !file)
        return error_set(STATUS_INPUT, "command line: %s: %s%s", key, cause, which);
    return error_set(STATUS_INPUT, "%s: %s: %s%s", file, key, cause, which);
}

/* Which of two keys in conflict to blame: the one that somebody gave, the last in doubt. */
static const char *given(const struct checker *c, const char *first, const char *second)
{
    return origin_of(c, second)->kind >= origin_of(c, first)->kind ? second : first;
}

/* ---- the job --------------------------------------------------------------------------------- */

static int check_job(const struct checker *c)
{
    const struct job_options *job = c->job;
    if (!job->checkpoint_path)
        return blame(c, "checkpoint_path", "missing; give the path of an LTX-Video checkpoint in "
                     "the job file or with --checkpoint-path");
    if (!job->text_encoder_path)
        return blame(c, "text_encoder_model_name_or_path", "missing; give the folder of the T5 "
                     "encoder in the job file or with --text-encoder-model-name-or-path");
    if (job->quiet && job->verbose)
        return blame(c, given(c, "quiet", "verbose"), "quiet and verbose exclude each other");
    return STATUS_OK;
}

/* ---- one shot -------------------------------------------------------------------------------- */

static int check_prompt(const struct checker *c, const struct shot_options *shot)
{
    if (!shot->prompt)
        return blame(c, "prompt", "missing; give it in the job file or with --prompt");
    if (shot->prompt[strspn(shot->prompt, " \t\r\n")] == '\0')
        return blame(c, "prompt", "is empty; say what the video shows");
    return STATUS_OK;
}

/* In fp32, as the sampler sees them: levels that round together would make a step of nothing. */
static int check_descending(const struct checker *c, const char *key, const struct float_list *list,
                            bool may_be_zero)
{
    for (int i = 0; i < list->count; i++) {
        float now = (float)list->v[i];
        if (!may_be_zero && !(now > 0))
            return blame(c, key, "must be in (0, 1]; number %d is %g", i + 1, list->v[i]);
        if (i > 0 && !(now < (float)list->v[i - 1]))
            return blame(c, key, "must be strictly descending; number %d, %g, follows %g", i + 1,
                         list->v[i], list->v[i - 1]);
    }
    return STATUS_OK;
}

static int check_steps(const struct checker *c, const struct shot_options *shot)
{
    int steps = shot->num_inference_steps, skip = shot->skip_final_inference_steps;
    if (shot->skip_initial_inference_steps > 0)
        return blame(c, "skip_initial_inference_steps", "only 0 is supported yet: a start in the "
                     "middle needs input media");
    TRY(check_descending(c, "timesteps", &shot->timesteps, false));
    if (shot->timesteps.count == 0 && skip >= steps)
        return blame(c, given(c, "num_inference_steps", "skip_final_inference_steps"),
                     "skip_initial_inference_steps + skip_final_inference_steps (0 + %d) must be "
                     "below num_inference_steps (%d)", skip, steps);
    return STATUS_OK;
}

/* The reference looks entries up by position and overlooks surplus ones; here a list that does not
 * match its guidance timesteps is taken for the mistake that it almost surely is. */
static int check_list(const struct checker *c, const char *key, bool is_list, int count, int levels)
{
    if (!is_list || count == levels)
        return STATUS_OK;
    if (levels == 0)
        return blame(c, key, "a list needs guidance_timesteps, which say when each entry applies");
    return blame(c, key, "has %d %s, but guidance_timesteps has %d; give one for each", count,
                 count == 1 ? "entry" : "entries", levels);
}

static int check_guidance(const struct checker *c, const struct shot_options *shot)
{
    const struct { const char *key; const struct float_list *list; } lists[] = {
        {"guidance_scale", &shot->guidance_scale},
        {"stg_scale", &shot->stg_scale},
        {"rescaling_scale", &shot->rescaling_scale},
    };
    int levels = shot->guidance_timesteps.count;
    TRY(check_descending(c, "guidance_timesteps", &shot->guidance_timesteps, true));
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        TRY(check_list(c, lists[i].key, !lists[i].list->is_scalar, lists[i].list->count, levels));
    return check_list(c, "skip_block_list", shot->skip_block_list.per_level,
                      shot->skip_block_list.count, levels);
}

/* ---- outputs --------------------------------------------------------------------------------- */

/* "configs/tiny.yaml" -> "tiny" */
static char *stem_of(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    char *stem = xstrdup(path ? (slash ? slash + 1 : path) : "");
    char *dot = strrchr(stem, '.');
    if (dot && dot != stem)
        *dot = '\0';
    if (stem[0])
        return stem;
    free(stem);
    return xstrdup("shot");
}

static void fill_outputs(struct job_options *job)
{
    char *stem = stem_of(job->job_file);
    for (int i = 0; i < job->shot_count; i++) {
        if (job->shots[i].output)
            continue;
        char *name = job->shot_count == 1 ? xasprintf("out/%s.mp4", stem)
                                          : xasprintf("out/%s-%04d.mp4", stem, i + 1);
        job->shots[i].output = text_keep(job->texts, name);
        free(name);
    }
    free(stem);
}

/* Without "./" and doubled slashes, which name the same file. */
static char *plain_path(const char *path)
{
    char *plain = xmalloc(strlen(path) + 1), *to = plain;
    while (*path) {
        bool at_start = to == plain || to[-1] == '/';
        if (at_start && path[0] == '.' && path[1] == '/')
            path += 1 + strspn(path + 1, "/");
        else if (path[0] == '/' && to > plain && to[-1] == '/')
            path++;
        else
            *to++ = *path++;
    }
    *to = '\0';
    return plain;
}

struct named_shot {
    char *path;
    int shot;
};

static int compare_named_shots(const void *a, const void *b)
{
    const struct named_shot *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : x->shot - y->shot;
}

static int check_outputs(struct checker *c)
{
    int count = c->job->shot_count, status = STATUS_OK;
    struct named_shot *names = xcalloc((size_t)count, sizeof *names);
    for (int i = 0; i < count; i++)
        names[i] = (struct named_shot){plain_path(c->job->shots[i].output), i};
    qsort(names, (size_t)count, sizeof *names, compare_named_shots);
    for (int i = 1; i < count && status == STATUS_OK; i++)
        if (strcmp(names[i - 1].path, names[i].path) == 0) {
            char shown[TEXT_SHOWN];
            c->shot = names[i].shot;
            status = blame(c, "output", "shots %d and %d both write %s; give each its own",
                           names[i - 1].shot + 1, names[i].shot + 1,
                           text_show(shown, c->job->shots[c->shot].output));
        }
    for (int i = 0; i < count; i++)
        free(names[i].path);
    free(names);
    return status;
}

int checks_run(struct job_options *job, const struct origins *origins)
{
    struct checker c = {.job = job, .origins = origins, .shot = -1};
    TRY(check_job(&c));
    fill_outputs(job);
    for (int i = 0; i < job->shot_count; i++) {
        c.shot = i;
        TRY(check_prompt(&c, &job->shots[i]));
        TRY(check_steps(&c, &job->shots[i]));
        TRY(check_guidance(&c, &job->shots[i]));
    }
    return check_outputs(&c);
}
