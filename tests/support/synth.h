/* What tests need around tensors: checkpoints made from a manifest instead of being stored,
 * fixtures, and comparing. */
#ifndef RINGREEL_TESTS_SYNTH_H
#define RINGREEL_TESTS_SYNTH_H

#include "base/tensor.h"
#include "model/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Expands a manifest into a safetensors file:
 *     {"metadata": {"key": "text", ...},
 *      "tensors": [{"name": "...", "shape": [..], "dtype": "F32|BF16|F16", "seed": 1, "scale": 0.1,
 * "offset": 0}, ...]} A tensor is offset + scale * randn of a generator with its own seed, in fp32
 * with one rounding for each of * and +, then rounded to its dtype. STATUS_INPUT for a bad manifest
 * or an unwritable file. */
int synth_checkpoint(const char *manifest_json_path, const char *out_path);

/* sqrt(sum (a-b)^2 / sum b^2) with b the reference; NaN anywhere gives NaN. */
double relative_rms(const float *a, const float *b, size_t n);

/* A new folder under /tmp; temp_dir_remove deletes it with all it holds and frees the name. */
char *temp_dir_make(void);
void temp_dir_remove(char *dir);

/* All elements as fp32; free() it. */
float *tensor_floats(const struct tensor *t);

/* The named tensor of a fixture file; fails the running test if it is missing. */
static inline const struct tensor *fixture(const struct safetensors *f, const char *name)
{
    const struct tensor *t = safetensors_find(f, name);
    if (!t) fail_msg("%s: fixture tensor %s is missing", safetensors_path(f), name);
    return t;
}

#endif
