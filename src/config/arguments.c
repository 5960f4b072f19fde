#include "config/arguments.h"

#include "base/error.h"

#include <string.h>

static int refuse_flag(const struct argument *a, const char *cause)
{
    return error_set(STATUS_INPUT, "command line: %.*s: %s", a->flag_length, a->flag, cause);
}

/* "num-frames" or the official "num_frames" to the key; too long a name is cut and then unknown. */
static void key_of_flag(char key[SETTING_KEY_MAX], const char *name, int length)
{
    snprintf(key, SETTING_KEY_MAX, "%.*s", length, name);
    for (char *c = key; *c; c++)
        if (*c == '-') *c = '_';
}

static const struct setting *find_short(const char *word)
{
    for (int i = 0; i < settings_count; i++)
        if (settings[i].short_flag && word[1] == settings[i].short_flag && word[2] == '\0')
            return &settings[i];
    return NULL;
}

static int take_value(struct arguments *walk, struct argument *out, const char *inline_value)
{
    char cause[128];
    out->value = inline_value;
    if (inline_value) return STATUS_OK;
    const char *following = walk->next < walk->argc ? walk->argv[walk->next] : NULL;
    if (!following || strncmp(following, "--", 2) == 0) {
        snprintf(cause, sizeof cause, "needs a value (%.*s=VALUE if it begins with --)",
                 out->flag_length, out->flag);
        return refuse_flag(out, cause);
    }
    out->value = following;
    walk->next++;
    return STATUS_OK;
}

static int read_long_flag(struct arguments *walk, struct argument *out, const char *word)
{
    char key[SETTING_KEY_MAX], advice[256];
    const char *equals = strchr(word, '='), *value = equals ? equals + 1 : NULL;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    out->flag = word;
    out->flag_length = length > SETTING_KEY_MAX ? SETTING_KEY_MAX : (int)length;
    key_of_flag(key, word + 2, (int)(length > 1000 ? 1000 : length) - 2);
    out->setting = setting_find(key);
    bool negated = !out->setting && strncmp(key, "no_", 3) == 0;
    if (negated) {
        out->setting = setting_find(key + 3);
        if (out->setting && out->setting->type != TYPE_BOOL) out->setting = NULL;
    }
    if (!out->setting) {
        const char *cause = setting_refusal(advice, key, value);
        return refuse_flag(out, cause ? cause : "not needed; leave it out");
    }
    if (out->setting->type != TYPE_BOOL) return take_value(walk, out, value);
    if (negated && value) return refuse_flag(out, "takes no value");
    out->value = value ? value : negated ? "false" : "true";
    return STATUS_OK;
}

int arguments_next(struct arguments *walk, struct argument *out)
{
    *out = (struct argument){.kind = ARGUMENT_NONE};
    if (walk->next < walk->argc && !walk->only_files && strcmp(walk->argv[walk->next], "--") == 0) {
        walk->only_files = true;
        walk->next++;
    }
    if (walk->next >= walk->argc) return STATUS_OK;
    const char *word = walk->argv[walk->next++];
    if (walk->only_files || word[0] != '-') {
        out->kind = ARGUMENT_FILE;
        out->file = word;
        return STATUS_OK;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        out->kind = ARGUMENT_HELP;
        return STATUS_OK;
    }
    out->kind = ARGUMENT_SETTING;
    if (word[1] == '-') return read_long_flag(walk, out, word);
    out->flag = word;
    out->flag_length = (int)strnlen(word, SETTING_KEY_MAX);
    out->setting = find_short(word);
    return out->setting ? take_value(walk, out, NULL)
                        : refuse_flag(out, "unknown; 'ringreel render --help' lists all settings");
}

int options_find_job_file(int argc, char **argv, const char **path, bool *help)
{
    struct arguments walk = {.argc = argc, .argv = argv};
    struct argument a;
    *path = NULL;
    *help = false;
    for (;;) {
        TRY(arguments_next(&walk, &a));
        if (a.kind == ARGUMENT_NONE) return STATUS_OK;
        if (a.kind == ARGUMENT_HELP) {
            *help = true;
            return STATUS_OK;
        }
        if (a.kind == ARGUMENT_FILE && a.file[0] == '\0')
            return error_set(STATUS_INPUT, "command line: an empty job file name");
        if (a.kind == ARGUMENT_FILE && *path)
            return error_set(STATUS_INPUT,
                             "command line: two job files, '%s' and '%s'; only one "
                             "is allowed",
                             *path, a.file);
        if (a.kind == ARGUMENT_FILE) *path = a.file;
    }
}
