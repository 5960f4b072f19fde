/* `ringreel render`: from a job file to videos. All functions are Collective over the world. */
#ifndef RINGREEL_RENDER_H
#define RINGREEL_RENDER_H

#include "config/options.h"
#include "parallel/world.h"
#include "render/engine.h"

/* Rank 0 reads the job file, everybody parses the same bytes. *help: only --help was asked for. */
int render_configure(struct job_options *job, struct world *world, int argc, char **argv,
                     bool *help);

/* Prints what this run uses and starts the logs that were asked for. */
int render_announce(const struct engine *e);

/* A world of one plays both roles in turn: the same functions, pointers in place of messages. */
int render_alone(struct engine *e);

#endif
