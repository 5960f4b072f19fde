/* Rules between settings, applied when all of them have their final values; and the defaults that
 * follow from others. */
#ifndef RINGREEL_CHECKS_H
#define RINGREEL_CHECKS_H

#include "config/settings.h"

/* Where each value was given, so that a message points there. */
struct origin {
    enum { FROM_DEFAULT, FROM_FILE, FROM_FLAG } kind;
    int line, column;
};
struct shot_origins {
    struct origin at; /* the shot itself; FROM_DEFAULT: there is no `shots:` */
    struct origin of[SETTINGS_MAX];
};
struct origins {
    const char *yaml_name;          /* NULL: no job file */
    struct origin of[SETTINGS_MAX]; /* of the job's settings */
    struct shot_origins *shots;     /* [shot_count] */
};

/* Fills in what follows from other settings (outputs, decode_noise_scale), and checks.
 * STATUS_INPUT. */
int checks_run(struct job_options *job, const struct origins *origins);

#endif
