/* The safetensors files of one part of a model: one file, or the shards of an index. */
#ifndef RINGREEL_CHECKPOINT_FILES_H
#define RINGREEL_CHECKPOINT_FILES_H

#include "model/safetensors.h"

#include <stdbool.h>

struct file_list { /* begin with {0} */
    struct safetensors **files;
    int count;
};

int files_open(struct file_list *list, const char *path);
/* `stem` is "model" or "diffusion_pytorch_model". Takes STEM.safetensors, else the shards of
 * STEM.safetensors.index.json, else the first variant of either ("STEM.bf16.safetensors"), else the
 * only .safetensors file there. With an index every tensor must be in exactly the shard that the
 * index names. */
int files_open_folder(struct file_list *list, const char *folder, const char *stem);
void files_close(struct file_list *list);

bool files_exist(const char *folder, const char *name); /* FOLDER/NAME */

#endif
