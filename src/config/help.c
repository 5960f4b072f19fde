/* What the table prints: --help, the header of a run, and a shot as a job file. */
#include "config/settings.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HELP_COLUMN = 32, LINE_END = 100 };

/* ---- help ------------------------------------------------------------------------------------ */

static void print_flag(FILE *out, const struct setting *s)
{
    char name[SETTING_KEY_MAX], text[2 * SETTING_KEY_MAX + 32];
    snprintf(name, sizeof name, "%s", s->key);
    for (char *c = name; *c; c++)
        if (*c == '_') *c = '-';
    int used = 0;
    if (s->short_flag) used = snprintf(text, sizeof text, "-%c, ", s->short_flag);
    if (s->type == TYPE_BOOL)
        snprintf(text + used, sizeof text - (size_t)used, "--%s, --no-%s", name, name);
    else
        snprintf(text + used, sizeof text - (size_t)used, "--%s %s", name, s->metavar);
    fprintf(out, "  %-*s", HELP_COLUMN - 2, text);
    if (strlen(text) + 3 > HELP_COLUMN) fprintf(out, "\n%*s", HELP_COLUMN, "");
}

/* Words of `text` from HELP_COLUMN on, wrapped before LINE_END. */
static void print_wrapped(FILE *out, const char *text)
{
    int column = HELP_COLUMN;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + length > LINE_END) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        column += fprintf(out, "%s%.*s", column > HELP_COLUMN ? " " : "", length, text);
        text += length + (text[length] == ' ');
    }
    fputc('\n', out);
}

static void print_setting_help(FILE *out, const struct setting *s)
{
    char limits[256];
    const char *before = setting_limits(limits, s), *quote = s->type == TYPE_TEXT ? "\"" : "";
    char *text = s->initial ? xasprintf("%s [%s%sdefault %s%s%s]", s->help, before,
                                        *before ? "; " : "", quote, s->initial, quote)
                 : *before  ? xasprintf("%s [%s; default none]", s->help, before)
                            : xstrdup(s->help);
    print_flag(out, s);
    print_wrapped(out, text);
    free(text);
}

void options_print_help(FILE *out)
{
    fputs("usage: ringreel render [JOB.yaml] [flags]\n"
          "       mpirun -n RANKS ringreel render [JOB.yaml] [flags]\n\n"
          "Renders one video for each shot. A job file holds the same settings under the same\n"
          "names, with '_' for '-', and may list several shots; the top level is their default:\n\n"
          "    checkpoint_path: ltxv-2b-0.9.6-dev-04-25.safetensors  # from the job file's folder\n"
          "    text_encoder_model_name_or_path: PixArt-XL-2-1024-MS\n"
          "    num_frames: 49\n"
          "    shots:\n"
          "      - prompt: waves roll onto a black beach\n"
          "      - {prompt: the tide has gone out, seed: 7}\n\n"
          "A flag wins over the job file, for every shot; the last of two equal flags wins.\n",
          out);
    const char *group = "";
    for (int i = 0; i < settings_count; i++) {
        if (strcmp(group, settings[i].group) != 0) fprintf(out, "\n%s:\n", settings[i].group);
        group = settings[i].group;
        print_setting_help(out, &settings[i]);
    }
    fprintf(out,
            "\nExit codes:\n"
            "  %d  every shot was rendered\n"
            "  %d  the machine or the program failed: memory, a lost rank, a bug\n"
            "  %d  the input is wrong: job file, command line, model files, output place\n"
            "  128+N  ended by signal N; every rank says what it was doing\n",
            STATUS_OK, STATUS_MACHINE, STATUS_INPUT);
    fputs("\nExample:\n"
          "  mpirun -n 4 ringreel render configs/tiny.yaml --seed 7 -o out/ball.mp4\n",
          out);
}

/* ---- header ---------------------------------------------------------------------------------- */

static const void *record_of(const struct job_options *job, const struct setting *s, int shot)
{
    return s->scope == SCOPE_JOB ? (const void *)job : (const void *)&job->shots[shot];
}

static bool same_in_all_shots(const struct job_options *job, const struct setting *s)
{
    char *first = setting_text(s, record_of(job, s, 0));
    bool same = true;
    for (int i = 1; i < job->shot_count && same && s->scope == SCOPE_SHOT; i++) {
        char *other = setting_text(s, record_of(job, s, i));
        same = strcmp(first, other) == 0;
        free(other);
    }
    free(first);
    return same;
}

static void print_header_line(FILE *out, const struct setting *s, const void *record)
{
    fprintf(out, "  %c %-32s ", setting_is_default(s, record) ? ' ' : '*', s->key);
    setting_print(out, s, record);
    fputc('\n', out);
}

void options_print_header(FILE *out, const struct job_options *job)
{
    enum { SHOTS_SHOWN = 8 };
    bool same[SETTINGS_MAX];
    fprintf(out, "job %s, %d shot%s (* marks what is not the default)\n",
            job->job_file ? job->job_file : "from the command line", job->shot_count,
            job->shot_count == 1 ? "" : "s");
    for (int i = 0; i < settings_count; i++) {
        same[i] = settings[i].folded || same_in_all_shots(job, &settings[i]);
        if (settings[i].folded) continue;
        if (same[i]) print_header_line(out, &settings[i], record_of(job, &settings[i], 0));
    }
    for (int shot = 0; shot < job->shot_count && job->shot_count > 1; shot++) {
        if (shot == SHOTS_SHOWN) {
            fprintf(out, "  ... and %d more shots\n", job->shot_count - shot);
            break;
        }
        fprintf(out, "  shot %d\n", shot + 1);
        for (int i = 0; i < settings_count; i++)
            if (!same[i]) print_header_line(out, &settings[i], &job->shots[shot]);
    }
}

/* ---- a shot as a job file -------------------------------------------------------------------- */

/* The sidecar lies elsewhere than the job file: paths of input are written from the root. */
static void make_absolute(const struct setting *s, void *record, const char *folder,
                          struct text_pool *texts)
{
    const char **path;
    for (int i = 0; folder && (path = setting_input_path(s, record, i)); i++) {
        if (!*path || (*path)[0] == '/') continue;
        char *whole = xasprintf("%s/%s", folder, *path);
        *path = text_keep(texts, whole);
        free(whole);
    }
}

char *options_to_yaml(const struct job_options *job, int shot)
{
    struct job_options whole_job = *job;
    struct shot_options whole_shot = job->shots[shot];
    struct text_pool texts = {0};
    char *text = NULL, *folder = getcwd(NULL, 0);
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    CHECK(out, "out of memory");
    for (int i = 0; i < settings_count; i++) {
        const struct setting *s = &settings[i];
        void *record = s->scope == SCOPE_JOB ? (void *)&whole_job : (void *)&whole_shot;
        if (s->folded) continue;
        make_absolute(s, record, folder, &texts);
        fprintf(out, "%s: ", s->key);
        setting_print(out, s, record);
        fputc('\n', out);
    }
    fclose(out);
    free(folder);
    text_pool_free(&texts);
    return text;
}
