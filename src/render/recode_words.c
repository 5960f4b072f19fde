#include "render/recode_words.h"

#include "base/error.h"
#include "base/log.h"
#include "render/render.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static int read_words(struct recode_words *w, const char *command, int argc, char **argv)
{
    *w = (struct recode_words){.shot = 1, .argv = xcalloc((size_t)argc + 1, sizeof *argv)};
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
            w->input = argv[i];
        else
            w->argv[w->argc++] = argv[i];
        w->help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    }
    if (!w->input && !w->help)
        return error_set(STATUS_INPUT,
                         "command line: the first word must be a file (ringreel %s --help)",
                         command);
    if (!w->output && !w->help)
        return error_set(STATUS_INPUT, "command line: -o FILE is missing (ringreel %s --help)",
                         command);
    return STATUS_OK;
}

int recode_run(struct world *world, int argc, char **argv, const char *command,
               const char *help_text,
               int (*run)(struct world *world, const struct job_options *job,
                          const struct recode_words *words))
{
    struct job_options job = {0};
    struct recode_words w;
    bool help = false;
    int status = world_agree(world, read_words(&w, command, argc, argv));
    if (status == STATUS_OK && w.help && world->rank == 0) fputs(help_text, stdout);
    if (status == STATUS_OK && !w.help) {
        status = render_configure(&job, world, w.argc, w.argv, &help);
        log_init(world->rank, job.quiet ? LOG_WARN : job.verbose ? LOG_DEBUG : LOG_INFO);
        if (status == STATUS_OK) status = run(world, &job, &w);
        options_free(&job);
    }
    free(w.argv);
    return status;
}
