#include "config/checks.h"

#include "base/error.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    if (at->kind == FROM_DEFAULT && c->shot >= 0) at = &c->origins->shots[c->shot].at;
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

/* The record beside a video names the job and its model files from the root: as JSON, in UTF-8. The
 * flags' own values have been checked where they were read. */
static int check_names(const struct checker *c)
{
    const struct job_options *job = c->job;
    char shown[TEXT_SHOWN];
    if (job->job_file && !utf8_valid(job->job_file, strlen(job->job_file)))
        return error_set(STATUS_INPUT,
                         "command line: job file %s: its name or folder is not valid "
                         "UTF-8; rename it",
                         text_show(shown, job->job_file));
    char *folder = getcwd(NULL, 0);
    bool valid = !folder || utf8_valid(folder, strlen(folder));
    int status = STATUS_OK;
    if (!valid)
        status = error_set(STATUS_INPUT,
                           "the current folder %s: its name is not valid UTF-8; "
                           "rename it or start elsewhere",
                           text_show(shown, folder));
    free(folder);
    return status;
}

static int check_job(const struct checker *c)
{
    const struct job_options *job = c->job;
    TRY(check_names(c));
    if (!job->checkpoint_path)
        return blame(c, "checkpoint_path",
                     "missing; give the path of an LTX-Video checkpoint in "
                     "the job file or with --checkpoint-path");
    if (!job->text_encoder_path)
        return blame(c, "text_encoder_model_name_or_path",
                     "missing; give the folder of the T5 "
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
        return blame(c, "skip_initial_inference_steps",
                     "only 0 is supported yet: a start in the "
                     "middle needs input media");
    TRY(check_descending(c, "timesteps", &shot->timesteps, false));
    if (shot->timesteps.count == 0 && skip >= steps)
        return blame(c, given(c, "num_inference_steps", "skip_final_inference_steps"),
                     "skip_initial_inference_steps + skip_final_inference_steps (0 + %d) must be "
                     "below num_inference_steps (%d)",
                     skip, steps);
    return STATUS_OK;
}

/* The reference looks entries up by position and overlooks surplus ones; here a list that does not
 * match its guidance timesteps is taken for the mistake that it almost surely is. */
static int check_list(const struct checker *c, const char *key, bool is_list, int count, int levels)
{
    if (!is_list || count == levels) return STATUS_OK;
    if (levels == 0)
        return blame(c, key, "a list needs guidance_timesteps, which say when each entry applies");
    return blame(c, key, "has %d %s, but guidance_timesteps has %d; give one for each", count,
                 count == 1 ? "entry" : "entries", levels);
}

static int check_guidance(const struct checker *c, const struct shot_options *shot)
{
    const struct {
        const char *key;
        const struct float_list *list;
    } lists[] = {
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

/* ---- conditioning ---------------------------------------------------------------------------- */

/* An item's own strength is nearer to it than one for all, unless only the latter was given on the
 * command line. */
static void fill_strengths(const struct checker *c, struct shot_options *shot)
{
    bool wins = origin_of(c, "image_strength")->kind == FROM_FLAG &&
                origin_of(c, given(c, "conditioning", "image"))->kind != FROM_FLAG;
    for (int i = 0; i < shot->conditioning.count; i++) {
        double *strength = &shot->conditioning.items[i].strength;
        if (*strength < 0 || wins) *strength = shot->image_strength;
    }
}

/* By the endings that the official command line takes for videos, and WebM. */
static bool is_video_name(const char *path)
{
    static const char *const endings[] = {".mp4", ".avi", ".mov", ".mkv", ".webm"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0) return true;
    return false;
}

static int check_conditioning(const struct checker *c, const struct shot_options *shot)
{
    const struct conditioning *list = &shot->conditioning;
    const char *key = given(c, "conditioning", "image");
    char shown[TEXT_SHOWN];
    for (int i = 0; i < list->count; i++)
        if (list->items[i].frame >= shot->num_frames)
            return blame(c, key, "item %d: frame %lld is outside the video; allowed are 0 to %d",
                         i + 1, (long long)list->items[i].frame, shot->num_frames - 1);
    if (list->count > 1)
        return blame(c, key, "more than one item is not supported yet; these are %d", list->count);
    for (int i = 0; i < list->count; i++) {
        if (list->items[i].frame > 0)
            return blame(c, key, "frame %lld: only frame 0 is supported yet",
                         (long long)list->items[i].frame);
        if (is_video_name(list->items[i].media))
            return blame(c, key, "%s: conditioning on a video is not supported yet; give an image",
                         text_show(shown, list->items[i].media));
    }
    return STATUS_OK;
}

/* Somebody forgot the image. */
static int check_strength_is_used(struct checker *c)
{
    for (int i = 0; i < c->job->shot_count; i++)
        if (c->job->shots[i].conditioning.count > 0) return STATUS_OK;
    for (c->shot = 0; c->shot < c->job->shot_count; c->shot++)
        if (origin_of(c, "image_strength")->kind != FROM_DEFAULT)
            return blame(c, "image_strength", "there is no image; give one with 'image'");
    return STATUS_OK;
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* The default belongs to the default decode_timestep; to any other level the official pipeline
 * matches the noise. */
static void fill_decode_noise(const struct checker *c, struct shot_options *shot)
{
    if (origin_of(c, "decode_noise_scale")->kind == FROM_DEFAULT &&
        origin_of(c, "decode_timestep")->kind != FROM_DEFAULT)
        shot->decode_noise_scale = -1;
}

static int check_range(const struct checker *c, const struct shot_options *shot)
{
    if (shot->frames.last < shot->num_frames) return STATUS_OK;
    return blame(c, "frames", "frame %d is outside the video; it has frames 0 to %d",
                 shot->frames.last, shot->num_frames - 1);
}

/* ---- outputs --------------------------------------------------------------------------------- */

/* "configs/tiny.yaml" -> "tiny" */
static char *stem_of(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    char *stem = xstrdup(path ? (slash ? slash + 1 : path) : "");
    char *dot = strrchr(stem, '.');
    if (dot && dot != stem) *dot = '\0';
    if (stem[0]) return stem;
    free(stem);
    return xstrdup("shot");
}

static void fill_outputs(struct job_options *job)
{
    char *stem = stem_of(job->job_file);
    for (int i = 0; i < job->shot_count; i++) {
        if (job->shots[i].output) continue;
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

/* A file that the run will write. */
struct written {
    char *path;
    const char *key; /* the setting that names it */
    int shot;        /* -1: the job's */
};

/* By path; within one, shots in their order and then the job's reports: the last is the one to
 * blame. */
static int compare_written(const void *a, const void *b)
{
    const struct written *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    if (order == 0) order = (x->shot < 0) - (y->shot < 0);
    return order ? order : x->shot - y->shot;
}

/* The video of every shot, the JSON beside it, and the reports. */
static int list_written(const struct checker *c, struct written *list)
{
    const struct job_options *job = c->job;
    int count = 0;
    for (int i = 0; i < job->shot_count; i++) {
        char *beside = xasprintf("%s.json", job->shots[i].output);
        list[count++] = (struct written){plain_path(job->shots[i].output), "output", i};
        list[count++] = (struct written){plain_path(beside), "output", i};
        free(beside);
    }
    if (job->trace) list[count++] = (struct written){plain_path(job->trace), "trace", -1};
    if (job->log_json) list[count++] = (struct written){plain_path(job->log_json), "log_json", -1};
    return count;
}

static int blame_twice_written(struct checker *c, const struct written *first,
                               const struct written *second)
{
    char shown[TEXT_SHOWN];
    c->shot = second->shot;
    text_show(shown, second->shot >= 0 ? c->job->shots[second->shot].output : second->path);
    if (second->shot >= 0)
        return blame(c, "output", "shots %d and %d both write %s; give each its own",
                     first->shot + 1, second->shot + 1, shown);
    return blame(c, second->key, "%s is also written as %s; give each its own", shown, first->key);
}

static int check_outputs(struct checker *c)
{
    struct written *list = xcalloc(2 * (size_t)c->job->shot_count + 2, sizeof *list);
    int count = list_written(c, list), status = STATUS_OK;
    qsort(list, (size_t)count, sizeof *list, compare_written);
    for (int i = 1; i < count && status == STATUS_OK; i++)
        if (strcmp(list[i - 1].path, list[i].path) == 0)
            status = blame_twice_written(c, &list[i - 1], &list[i]);
    for (int i = 0; i < count; i++) free(list[i].path);
    free(list);
    return status;
}

int checks_run(struct job_options *job, const struct origins *origins)
{
    struct checker c = {.job = job, .origins = origins, .shot = -1};
    TRY(check_job(&c));
    fill_outputs(job);
    for (int i = 0; i < job->shot_count; i++) {
        c.shot = i;
        fill_decode_noise(&c, &job->shots[i]);
        TRY(check_prompt(&c, &job->shots[i]));
        TRY(check_steps(&c, &job->shots[i]));
        TRY(check_guidance(&c, &job->shots[i]));
        fill_strengths(&c, &job->shots[i]);
        TRY(check_conditioning(&c, &job->shots[i]));
        TRY(check_range(&c, &job->shots[i]));
    }
    TRY(check_strength_is_used(&c));
    return check_outputs(&c);
}
