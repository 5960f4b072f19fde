/* safetensors files: mapped, checked once against hostile headers (spec transformer 4.6), then only
 * looked at. */
#ifndef RINGREEL_SAFETENSORS_H
#define RINGREEL_SAFETENSORS_H

#include "base/tensor.h"
#include "media/partial.h"

#include <stddef.h>
#include <stdint.h>

struct safetensors; /* one open file */

/* STATUS_INPUT naming path and tensor for: not a file, shorter than its header says, header over
 * 16 MiB, bad UTF-8 or JSON, too deep, too many values, unknown dtype, shape product overflow, size
 * mismatch, holes, overlaps, out of range, duplicate names, trailing bytes. A tensor of a dtype
 * that the format knows but enum dtype does not (F8_E5M2, I8, ...) is kept with dtype DTYPE_COUNT:
 * it may be there, but it cannot be read; safetensors_dtype gives the file's spelling for the
 * message. */
int safetensors_open(struct safetensors **out, const char *path);
void safetensors_close(struct safetensors *f);
const char *safetensors_path(const struct safetensors *f);
int safetensors_count(const struct safetensors *f);
const struct tensor *safetensors_at(const struct safetensors *f, int i); /* sorted by name */
const struct tensor *safetensors_find(const struct safetensors *f,
                                      const char *name);                        /* NULL if absent */
const char *safetensors_metadata(const struct safetensors *f, const char *key); /* NULL if absent */
const char *safetensors_dtype(
    const struct tensor *t); /* "F8_E5M2"; t must come from safetensors_at or _find */

/* Writes tensors beside `path` and renames when whole; makes the folder if missing. metadata: key,
 * value, key, value, ..., NULL; may be NULL. */
int safetensors_write(const char *path, const struct tensor *tensors, int count,
                      const char *const *metadata);

/* A file of one tensor whose data comes in parts, in any order: opens `file` with the header of t;
 * *begin: where t's data begins. The caller writes it (partial_write_at), and commits or drops. */
int safetensors_begin(struct partial *file, const char *path, const struct tensor *t,
                      uint64_t *begin);

#endif
