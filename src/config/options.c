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

/* Input files in a job file are looked for from that file's folder on. */
static void move_to_job_folder(const struct parse *p, const struct setting *s, void *record)
{
    const char **path, *name = p->origins->yaml_name, *slash = strrchr(name, '/');
    for (int i = 0; slash && (path = setting_input_path(s, record, i)); i++) {
        if (!*path || (*path)[0] == '/') continue;
        char *moved = xasprintf("%.*s%s", (int)(slash + 1 - name), name, *path);
        *path = text_keep(p->job->texts, moved);
        free(moved);
    }
}

/* Whoever set the same field under another name is overruled. */
static void note_origin(struct origin *origins, const struct setting *s, struct origin at)
{
    const struct setting *other = setting_sharing_field(s);
    if (other) origins[setting_index(other)] = (struct origin){.kind = FROM_DEFAULT};
    origins[setting_index(s)] = at;
}

/* One map must not set a field twice, be it under two names. `seen` is one map's worth of
 * settings. */
static int check_once(const struct parse *p, const struct setting *s, const struct yaml_node *key,
                      bool seen[SETTINGS_MAX])
{
    char cause[160];
    const struct setting *other = setting_sharing_field(s);
    if (seen[setting_index(s)]) return fail_at(p, key, key->text, "given twice in the same map");
    seen[setting_index(s)] = true;
    if (!other || !seen[setting_index(other)]) return STATUS_OK;
    snprintf(cause, sizeof cause, "%s in the same map says the same; give one of them", other->key);
    return fail_at(p, key, key->text, cause);
}

static int apply_setting(struct parse *p, const struct setting *s, const struct yaml_node *key,
                         const struct yaml_node *value, void *record, struct origin *origins,
                         bool seen[SETTINGS_MAX])
{
    struct setting_problem problem;
    TRY(check_once(p, s, key, seen));
    if (!setting_from_node(s, record, p->job->texts, p->doc, value, &problem))
        return fail_at(p, problem.at, key->text, problem.why);
    move_to_job_folder(p, s, record);
    note_origin(origins, s, (struct origin){FROM_FILE, value->line, value->column});
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
    void *record = s->scope == SCOPE_JOB ? (void *)p->job : (void *)&p->base;
    if (!setting_from_text(s, record, p->job->texts, a->value, &problem))
        return error_set(STATUS_INPUT, "command line: %.*s: %s", a->flag_length, a->flag,
                         problem.why);
    if (s->scope == SCOPE_JOB) {
        note_origin(p->origins->of, s, (struct origin){.kind = FROM_FLAG});
        return STATUS_OK;
    }
    for (int i = 0; i < p->job->shot_count; i++) {
        memcpy((char *)&p->job->shots[i] + s->offset, (char *)&p->base + s->offset,
               setting_bytes(s));
        note_origin(p->origins->shots[i].of, s, (struct origin){.kind = FROM_FLAG});
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
