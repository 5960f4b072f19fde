/* The words of `ringreel decode` and `ringreel encode`: a file, a job, where to write. Local. */
#ifndef RINGREEL_RECODE_WORDS_H
#define RINGREEL_RECODE_WORDS_H

#include <stdbool.h>

struct recode_words {
    const char *input, *output;
    int shot;
    bool help;
    int argc; /* what is left is a render's; free argv, also after an error */
    char **argv;
};

/* command: "decode" or "encode", for messages. */
int recode_words_read(struct recode_words *w, const char *command, int argc, char **argv);

#endif
