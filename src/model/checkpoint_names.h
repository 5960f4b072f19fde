/* The tensor names of diffusers folders (spec transformer 4.3, vae-and-scheduler 3.2). */
#ifndef RINGREEL_CHECKPOINT_NAMES_H
#define RINGREEL_CHECKPOINT_NAMES_H

#include "model/checkpoint.h"

#include <stdbool.h>
#include <stddef.h>

enum { TENSOR_NAME_BYTES = 640 }; /* the longest name a safetensors file may have, renamed */

/* Official -> diffusers, both without prefix ("decoder.up_blocks.1.conv.conv.weight", no "vae.").
 * false: the name has no counterpart there (or is too long). */
bool names_transformer_to_diffusers(char out[TENSOR_NAME_BYTES], const char *official);
bool names_vae_to_diffusers(char out[TENSOR_NAME_BYTES], const char *official,
                            enum vae_generation generation);

#endif
