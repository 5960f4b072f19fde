/* `backend: auto | cpu | cuda`. */
#ifndef RINGREEL_DEVICE_CHOICE_H
#define RINGREEL_DEVICE_CHOICE_H

#include "config/options.h"
#include "kernels/ops.h"
#include "parallel/world.h"

/* Collective over the world. All ranks compute with the same backend: auto takes CUDA where
 * every rank has a device, else the CPU. STATUS_INPUT on every rank that has not what the job
 * asks for, and on all where GPUs or CUDA libraries of ranks differ: then bytes would depend on
 * who computed them. Where `counts` is set and a rank has no device, all get one that can only
 * be asked for sizes. */
int device_choice_open(struct device **dev, struct world *w, const struct job_options *job,
                       bool counts);

#endif
