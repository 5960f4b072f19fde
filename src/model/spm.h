/* The C face of the sentencepiece library (spm.cc). Only tokenizer.c calls it. Nothing here may end
 * the program: the library trusts its model, so a model must have passed spiece_read before it
 * comes here. */
#ifndef RINGREEL_SPM_H
#define RINGREEL_SPM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct spm;

/* `proto`: a serialized ModelProto. NULL on failure, with the library's reason in `error`. */
struct spm *spm_open(const void *proto, size_t bytes, char *error, size_t error_size);
void spm_close(struct spm *s);
/* Normalizes and encodes valid UTF-8; keeps the first `capacity` ids. Returns how many it kept, or
 * -1 with a reason. */
int spm_encode(const struct spm *s, const char *text, size_t bytes, int32_t *ids, int capacity,
               char *error, size_t error_size);

#ifdef __cplusplus
}
#endif

#endif
