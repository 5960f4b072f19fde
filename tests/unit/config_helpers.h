/* Parsing job files and flags, for the tests of the settings. */
#ifndef RINGREEL_CONFIG_HELPERS_H
#define RINGREEL_CONFIG_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"
#include "config/settings.h"

#include <stdlib.h>
#include <string.h>

#define MODELS "checkpoint_path: /m/c.safetensors\ntext_encoder_model_name_or_path: /m/t5\n"
#define BASE MODELS "prompt: a ball\n"

enum { MAX_ARGUMENTS = 16 };

/* Splits flags at '|', so that values may hold spaces. The caller frees the job when STATUS_OK. */
static inline int parse(struct job_options *job, const char *yaml, const char *flags)
{
    char *copy = strdup(flags), *argv[MAX_ARGUMENTS];
    int argc = 0;
    for (char *word = copy; *copy && word && argc < MAX_ARGUMENTS;) {
        argv[argc++] = strsep(&word, "|");
    }
    bool help = false;
    error_clear();
    int status = options_parse(job, yaml, yaml ? strlen(yaml) : 0, yaml ? "dir/job.yaml" : NULL,
                               argc, argv, &help);
    free(copy);
    assert_false(help);
    return status;
}

static inline void parse_well(struct job_options *job, const char *yaml, const char *flags)
{
    if (parse(job, yaml, flags) != STATUS_OK)
        fail_msg("%s\nwith flags '%s': %s", yaml ? yaml : "(no file)", flags, error_message());
}

#endif
