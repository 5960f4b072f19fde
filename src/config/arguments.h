/* The words after `ringreel render`: the job file, and flags made of the settings' keys. */
#ifndef RINGREEL_ARGUMENTS_H
#define RINGREEL_ARGUMENTS_H

#include "config/settings.h"

struct arguments { /* walks argv; start with {argc, argv} */
    int argc;
    char **argv;
    int next;
    bool only_files; /* after "--" */
};

struct argument {
    enum { ARGUMENT_NONE, ARGUMENT_HELP, ARGUMENT_FILE, ARGUMENT_SETTING } kind;
    const char *file;
    const struct setting *setting;
    const char *flag; /* as written, for messages: "--num-frames=9" up to the '=' */
    int flag_length;
    const char *value;
};

/* The next argument, ARGUMENT_NONE at the end. STATUS_INPUT for a flag that is unknown or lacks its
 * value. Values are not looked at. */
int arguments_next(struct arguments *walk, struct argument *out);

#endif
