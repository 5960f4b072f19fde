#include "base/error.h"
#include "render/compare_parts.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { CHUNK = 4096 };

struct tensor_difference {
    int64_t differing, first; /* elements; a NaN on one side is one */
    int64_t lone_nans;
    double largest;       /* absolute difference, NaNs left out */
    int64_t at;           /* of the largest */
    double values[2];     /* there */
    double squares, size; /* sums of (a - b)^2 and of a^2, non-finite pairs left out */
};

/* ---- elements -------------------------------------------------------------------------------- */

/* Elements [first, first + n) as numbers: exact but for I64 beyond 2^53. */
static void read_numbers(double *to, const struct tensor *t, int64_t first, size_t n)
{
    float floats[CHUNK];
    const char *from = (const char *)t->data + (size_t)first * dtype_size(t->dtype);
    if (t->dtype == DTYPE_F64) {
        memcpy(to, from, n * sizeof *to);
        return;
    }
    if (dtype_is_float(t->dtype)) {
        dtype_to_f32(floats, from, t->dtype, n);
        for (size_t i = 0; i < n; i++) to[i] = floats[i];
        return;
    }
    for (size_t i = 0; i < n; i++) {
        int64_t wide;
        int32_t narrow;
        switch (t->dtype) {
        case DTYPE_I64:
            memcpy(&wide, from + i * sizeof wide, sizeof wide);
            to[i] = (double)wide;
            break;
        case DTYPE_I32:
            memcpy(&narrow, from + i * sizeof narrow, sizeof narrow);
            to[i] = narrow;
            break;
        default: /* U8, BOOL */
            to[i] = (uint8_t)from[i];
        }
    }
}

/* Of two I64; 2^53 and 2^53 + 1 are the same double. */
static double integer_distance(const struct tensor *a, const struct tensor *b, int64_t i)
{
    int64_t x, y;
    memcpy(&x, (const char *)a->data + (size_t)i * sizeof x, sizeof x);
    memcpy(&y, (const char *)b->data + (size_t)i * sizeof y, sizeof y);
    return (double)(x > y ? (uint64_t)x - (uint64_t)y : (uint64_t)y - (uint64_t)x);
}

/* Infinity is no distance from itself, NaN none from NaN, and NaN otherwise. */
static double distance(double a, double b)
{
    return a == b || (isnan(a) && isnan(b)) ? 0 : fabs(a - b);
}

static void add_element(struct tensor_difference *d, int64_t i, double a, double b, double apart)
{
    if (isfinite(a)) d->size += a * a;
    if (apart == 0) return;
    if (d->differing++ == 0) d->first = i;
    if (isnan(apart)) {
        d->lone_nans++;
        return;
    }
    if (isfinite(apart)) d->squares += apart * apart;
    if (apart > d->largest) {
        d->largest = apart;
        d->at = i;
        d->values[0] = a;
        d->values[1] = b;
    }
}

static struct tensor_difference measure(const struct tensor *a, const struct tensor *b)
{
    struct tensor_difference d = {0};
    double x[CHUNK], y[CHUNK];
    bool both_wide = a->dtype == DTYPE_I64 && b->dtype == DTYPE_I64;
    int64_t count = tensor_count(a);
    for (int64_t first = 0; first < count; first += CHUNK) {
        size_t n = (size_t)(count - first < CHUNK ? count - first : CHUNK);
        read_numbers(x, a, first, n);
        read_numbers(y, b, first, n);
        for (size_t i = 0; i < n; i++) {
            int64_t element = first + (int64_t)i;
            double apart = both_wide ? integer_distance(a, b, element) : distance(x[i], y[i]);
            add_element(&d, element, x[i], y[i], apart);
        }
    }
    return d;
}

/* ---- one tensor of both files ---------------------------------------------------------------- */

/* "[3,0,12]" */
static char *place_text(const struct tensor *t, int64_t element, char out[96])
{
    struct tensor place = {.rank = t->rank};
    for (int i = t->rank - 1; i >= 0; i--) {
        place.shape[i] = element % t->shape[i];
        element /= t->shape[i];
    }
    return tensor_shape_text(&place, out);
}

static void print_difference(FILE *out, const struct tensor *t, const struct tensor_difference *d)
{
    char first[96], largest[96];
    fprintf(out, "%" PRId64 " of %" PRId64 " elements differ, the first at %s", d->differing,
            tensor_count(t), place_text(t, d->first, first));
    if (d->largest > 0)
        fprintf(out, "; largest difference %.6g at %s (%.9g, %.9g)", d->largest,
                place_text(t, d->at, largest), d->values[0], d->values[1]);
    if (d->squares > 0)
        fprintf(out, "; relative RMS %.3e", d->size > 0 ? sqrt(d->squares / d->size) : INFINITY);
    if (d->lone_nans > 0) fprintf(out, "; %" PRId64 " NaN on one side only", d->lone_nans);
    fputc('\n', out);
}

static bool same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank &&
           memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0;
}

/* Of dtypes that the format knows and we do not compute with, only bytes can be told apart. */
static bool compare_unread(FILE *out, const struct tensor *a, const struct tensor *b)
{
    bool same = strcmp(safetensors_dtype(a), safetensors_dtype(b)) == 0 && a->bytes == b->bytes &&
                memcmp(a->data, b->data, a->bytes) == 0;
    fputs(same ? "identical\n" : "different; values of this dtype cannot be compared\n", out);
    return same;
}

static bool compare_tensor(const struct comparison *c, const struct tensor *a,
                           const struct tensor *b)
{
    char shape[96];
    const char *dtypes[2] = {safetensors_dtype(a), safetensors_dtype(b)};
    bool same_dtype = strcmp(dtypes[0], dtypes[1]) == 0;
    fprintf(c->out, "%s: %s", a->name, dtypes[0]);
    if (!same_dtype) fprintf(c->out, " in A, %s in B", dtypes[1]);
    if (!same_shape(a, b)) {
        fprintf(c->out, ", shapes differ: %s in A,", tensor_shape_text(a, shape));
        fprintf(c->out, " %s in B\n", tensor_shape_text(b, shape));
        return false;
    }
    fprintf(c->out, " %s: ", tensor_shape_text(a, shape));
    if (a->dtype == DTYPE_COUNT || b->dtype == DTYPE_COUNT) return compare_unread(c->out, a, b);
    struct tensor_difference d = measure(a, b);
    if (d.differing > 0)
        print_difference(c->out, a, &d);
    else
        fputs(same_dtype ? "identical\n" : "equal values\n", c->out);
    return d.lone_nans == 0 && d.largest <= c->tolerance && (same_dtype || c->tolerant);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Names that the other file lacks; returns how many. */
static int print_lonely(const struct comparison *c, int side)
{
    int lonely = 0;
    for (int i = 0; i < safetensors_count(c->tensors[side]); i++) {
        const struct tensor *t = safetensors_at(c->tensors[side], i);
        if (safetensors_find(c->tensors[!side], t->name)) continue;
        fprintf(c->out, "%s: only in %s\n", t->name, side == 0 ? "A" : "B");
        lonely++;
    }
    return lonely;
}

int compare_tensors(const struct comparison *c, bool *same)
{
    int common = 0, different = 0;
    if (c->frame_rows)
        return error_set(STATUS_INPUT, "command line: --frames: %s and %s hold tensors, not frames",
                         c->path[0], c->path[1]);
    for (int i = 0; i < safetensors_count(c->tensors[0]); i++) {
        const struct tensor *a = safetensors_at(c->tensors[0], i);
        const struct tensor *b = safetensors_find(c->tensors[1], a->name);
        if (!b) continue;
        common++;
        different += !compare_tensor(c, a, b);
    }
    int lonely = print_lonely(c, 0) + print_lonely(c, 1);
    *same = different + lonely == 0;
    if (*same)
        fprintf(c->out, "%d tensor%s", common, common == 1 ? "" : "s");
    else
        fprintf(c->out, "%d of %d common tensors", different, common);
    if (c->tolerant)
        fprintf(c->out, " %s the tolerance of %g\n", *same ? "within" : "beyond", c->tolerance);
    else
        fputs(*same ? " identical\n" : " different\n", c->out);
    return STATUS_OK;
}
