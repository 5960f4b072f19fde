#include "config/options.h"

#include "base/error.h"
#include "config/arguments.h"
#include "config/checks.h"

#include <stdlib.h>
#include <string.h>

struct parse {
    struct job_options *job;
    struct origins *origins;
    struct yaml_doc *doc;
    struct shot_options base; /* what every shot starts from: defaults, then the top level */
    struct shot_origins base_origins;
};

/* ---- the job file ---------------------------------------------------------------------------- */

static int fail_at(const struct parse *p, const struct yaml_node *at, const char *key,
                   const char *cause)
{
    char shown[TEXT_SHOWN];
    text_show(shown, key);
    shown[strlen(shown) - 1] = '\0'; /* without its quotes */
    return error_set(STATUS_INPUT, "%s:%d:%d: %s: %s", p->origins->yaml_name, at->line, at->column,
                     shown + 1, cause);
}

/* A model path in a job file starts from that file's folder. */
static void move_to_job_folder(const struct parse *p, const struct setting *s, void *record)
{
    const char **path = (const char **)((char *)record + s->offset);
    const char *slash = strrchr(p->origins->yaml_name, '/');
    if (!*path || (*path)[0] == '/' || !slash) return;
    char *moved =
        xasprintf("%.*s%s", (int)(slash + 1 - p->origins->yaml_name), p->origins->yaml_name, *path);
    *path = text_keep(p->job->texts, moved);
    free(moved);
}

/* Duplicate keys are noticed through `seen`, one map's worth of settings. */
static int apply_setting(struct parse *p, const struct setting *s, const struct yaml_node *key,
                         const struct yaml_node *value, void *record, struct origin *origins,
                         bool seen[SETTINGS_MAX])
{
    struct setting_problem problem;
    if (seen[setting_index(s)]) return fail_at(p, key, key->text, "given twice in the same map");
    seen[setting_index(s)] = true;
    if (!setting_from_node(s, record, p->job->texts, p->doc, value, &problem))
        return fail_at(p, problem.at, key->text, problem.why);
    if (s->type == TYPE_MODEL_PATH) move_to_job_folder(p, s, record);
    origins[setting_index(s)] = (struct origin){FROM_FILE, value->line, value->column};
    return STATUS_OK;
}

static int refuse_key(const struct parse *p, const struct yaml_node *key,
                      const struct yaml_node *value)
{
    char advice[256];
    const char *scalar = value->kind == YAML_SCALAR ? value->text : NULL;
    const char *cause = setting_refusal(advice, key->text, scalar);
    return cause ? fail_at(p, key, key->text, cause) : STATUS_OK;
}

static int apply_shot(struct parse *p, const struct yaml_node *map, struct shot_options *shot,
                      struct shot_origins *origins)
{
    bool seen[SETTINGS_MAX] = {false};
    if (map->kind != YAML_MAP)
        return fail_at(p, map, "shots",
                       "every shot must be a map of settings, such as "
                       "'- prompt: ...'");
    for (const struct yaml_node *key = yaml_doc_first(p->doc, map); key;) {
        const struct yaml_node *value = yaml_doc_next(p->doc, key);
        const struct setting *s = setting_find(key->text);
        if (s && s->scope == SCOPE_JOB)
            return fail_at(p, key, key->text, "belongs to the whole job; put it at the top level");
        if (s)
            TRY(apply_setting(p, s, key, value, shot, origins->of, seen));
        else
            TRY(refuse_key(p, key, value));
        key = yaml_doc_next(p->doc, value);
    }
    return STATUS_OK;
}

static void make_shots(struct parse *p, int count)
{
    p->job->shot_count = count;
    p->job->shots = xcalloc((size_t)count, sizeof *p->job->shots);
    p->origins->shots = xcalloc((size_t)count, sizeof *p->origins->shots);
    for (int i = 0; i < count; i++) {
        p->job->shots[i] = p->base;
        p->origins->shots[i] = p->base_origins;
    }
}

static int apply_shots(struct parse *p, const struct yaml_node *list)
{
    char cause[96];
    if (list->kind != YAML_SEQUENCE)
        return fail_at(p, list, "shots", "must be a list of shots ('- prompt: ...')");
    if (list->count == 0)
        return fail_at(p, list, "shots", "is empty; leave it out for a single shot");
    snprintf(cause, sizeof cause, "%d shots; at most %d are allowed", list->count, MAX_SHOTS);
    if (list->count > MAX_SHOTS) return fail_at(p, list, "shots", cause);
    make_shots(p, list->count);
    const struct yaml_node *item = yaml_doc_first(p->doc, list);
    for (int i = 0; i < list->count; i++, item = yaml_doc_next(p->doc, item)) {
        p->origins->shots[i].at = (struct origin){FROM_FILE, item->line, item->column};
        TRY(apply_shot(p, item, &p->job->shots[i], &p->origins->shots[i]));
    }
    return STATUS_OK;
}

static int apply_file(struct parse *p)
{
    bool seen[SETTINGS_MAX] = {false};
    const struct yaml_node *root = yaml_doc_root(p->doc), *shots = NULL;
    if (root->kind != YAML_MAP)
        return error_set(STATUS_INPUT, "%s:%d:%d: expected a map of settings such as 'prompt: ...'",
                         p->origins->yaml_name, root->line, root->column);
    for (const struct yaml_node *key = yaml_doc_first(p->doc, root); key;) {
        const struct yaml_node *value = yaml_doc_next(p->doc, key);
        const struct setting *s = setting_find(key->text);
        if (strcmp(key->text, "shots") == 0) {
            if (shots) return fail_at(p, key, "shots", "given twice in the same map");
            shots = value;
        } else if (!s) {
            TRY(refuse_key(p, key, value));
        } else if (s->scope == SCOPE_JOB) {
            TRY(apply_setting(p, s, key, value, p->job, p->origins->of, seen));
        } else {
            TRY(apply_setting(p, s, key, value, &p->base, p->base_origins.of, seen));
        }
        key = yaml_doc_next(p->doc, value);
    }
    return shots ? apply_shots(p, shots) : STATUS_OK; /* last: the top level is their default */
}

/* ---- the command line ------------------------------------------------------------------------ */

static int apply_flag(struct parse *p, const struct argument *a)
{
    struct setting_problem problem;
    const struct setting *s = a->setting;
    int index = setting_index(s);
    void *record = s->scope == SCOPE_JOB ? (void *)p->job : (void *)&p->base;
    if (!setting_from_text(s, record, p->job->texts, a->value, &problem))
        return error_set(STATUS_INPUT, "command line: %.*s: %s", a->flag_length, a->flag,
                         problem.why);
    if (s->scope == SCOPE_JOB) {
        p->origins->of[index].kind = FROM_FLAG;
        return STATUS_OK;
    }
    for (int i = 0; i < p->job->shot_count; i++) {
        memcpy((char *)&p->job->shots[i] + s->offset, (char *)&p->base + s->offset,
               setting_bytes(s));
        p->origins->shots[i].of[index].kind = FROM_FLAG;
    }
    return STATUS_OK;
}

static int apply_flags(struct parse *p, int argc, char **argv)
{
    struct arguments walk = {.argc = argc, .argv = argv};
    struct argument a;
    for (;;) {
        TRY(arguments_next(&walk, &a));
        if (a.kind == ARGUMENT_NONE) return STATUS_OK;
        if (a.kind == ARGUMENT_SETTING) TRY(apply_flag(p, &a));
    }
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void reset_all(struct parse *p)
{
    for (int i = 0; i < settings_count; i++)
        setting_reset(&settings[i],
                      settings[i].scope == SCOPE_JOB ? (void *)p->job : (void *)&p->base,
                      p->job->texts);
}

static int parse_all(struct parse *p, const char *yaml_text, size_t yaml_bytes, int argc,
                     char **argv)
{
    reset_all(p);
    if (yaml_text) {
        TRY(yaml_doc_read(&p->doc, yaml_text, yaml_bytes, p->origins->yaml_name));
        TRY(apply_file(p));
    }
    if (p->job->shot_count == 0) make_shots(p, 1);
    TRY(apply_flags(p, argc, argv));
    return checks_run(p->job, p->origins);
}

int options_parse(struct job_options *job, const char *yaml_text, size_t yaml_bytes,
                  const char *yaml_name, int argc, char **argv, bool *help)
{
    const char *path;
    memset(job, 0, sizeof *job);
    TRY(options_find_job_file(argc, argv, &path, help));
    if (*help) return STATUS_OK;
    struct parse *p = xcalloc(1, sizeof *p);
    p->origins = xcalloc(1, sizeof *p->origins);
    p->job = job;
    job->texts = xcalloc(1, sizeof *job->texts);
    if (yaml_text) {
        p->origins->yaml_name = yaml_name ? yaml_name : "job file";
        job->job_file = text_keep(job->texts, p->origins->yaml_name);
    }
    int status = parse_all(p, yaml_text, yaml_bytes, argc, argv);
    yaml_doc_free(p->doc);
    free(p->origins->shots);
    free(p->origins);
    free(p);
    if (status != STATUS_OK) options_free(job);
    return status;
}

void options_free(struct job_options *job)
{
    if (job->texts) text_pool_free(job->texts);
    free(job->texts);
    free(job->shots);
    memset(job, 0, sizeof *job);
}
