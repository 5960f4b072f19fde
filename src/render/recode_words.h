/* The words of `ringreel decode` and `ringreel encode`: a file, a job, where to write. */
#ifndef RINGREEL_RECODE_WORDS_H
#define RINGREEL_RECODE_WORDS_H

#include "config/options.h"
#include "parallel/world.h"

#include <stdbool.h>

struct recode_words {
    const char *input, *output;
    int shot;
    bool help;
    int argc; /* what is left is a render's; free argv, also after an error */
    char **argv;
};

/* Reads the words after `ringreel COMMAND` and the job they name, answers --help on rank 0, and
 * else has the command run. Collective over the world. */
int recode_run(struct world *world, int argc, char **argv, const char *command,
               const char *help_text,
               int (*run)(struct world *world, const struct job_options *job,
                          const struct recode_words *words));

#endif
