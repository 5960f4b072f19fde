/* tensor_diff A.safetensors B.safetensors NAME LIMIT: the relative RMS difference of one tensor, |a
 * - b| / |a|, is printed and must be at most LIMIT (exit code 1 otherwise, 2 when it cannot be
 * told). For the shell tests; not a test itself. */
#include "base/error.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The values of tensor `name` as fp32; the caller frees them. */
static int read_values(const char *path, const char *name, float **values, struct tensor *shape)
{
    struct safetensors *file;
    TRY(safetensors_open(&file, path));
    const struct tensor *t = safetensors_find(file, name);
    if (!t || !dtype_is_float(t->dtype)) {
        safetensors_close(file);
        return error_set(STATUS_INPUT, "%s: there is no floating-point tensor %s", path, name);
    }
    size_t count = (size_t)tensor_count(t);
    *values = xmalloc(count * sizeof **values);
    dtype_to_f32(*values, t->data, t->dtype, count);
    *shape = *t;
    safetensors_close(file);
    return STATUS_OK;
}

static double relative_rms(const float *a, const float *b, size_t count)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)a[i] * a[i];
    }
    return sqrt(difference / size);
}

static bool same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank &&
           memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0;
}

static int compare(const char *path_a, const char *path_b, const char *name, double limit)
{
    float *a, *b;
    struct tensor shape_a, shape_b;
    TRY(read_values(path_a, name, &a, &shape_a));
    int status = read_values(path_b, name, &b, &shape_b);
    if (status == STATUS_OK) {
        double difference = same_shape(&shape_a, &shape_b)
                                ? relative_rms(a, b, (size_t)tensor_count(&shape_a))
                                : INFINITY;
        printf("%s: relative RMS difference %.3e, at most %g\n", name, difference, limit);
        status = difference <= limit ? STATUS_OK : STATUS_MACHINE; /* so that NaN fails */
        free(b);
    }
    free(a);
    return status;
}

int main(int argc, char **argv)
{
    int status = argc == 5
                     ? compare(argv[1], argv[2], argv[3], atof(argv[4]))
                     : error_set(STATUS_INPUT,
                                 "usage: tensor_diff A.safetensors B.safetensors TENSOR LIMIT");
    if (error_message()[0]) fprintf(stderr, "tensor_diff: %s\n", error_message());
    return status;
}
