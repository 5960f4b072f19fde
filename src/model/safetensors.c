#include "model/safetensors.h"

#include "base/error.h"
#include "model/json_input.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LENGTH_BYTES = 8,            /* the little-endian header length in front */
    MAX_HEADER_BYTES = 16 << 20, /* the format allows 100 MB; released models have less than 1 MB */
    MAX_HEADER_DEPTH = 4,        /* object, tensor, list: 3 */
    MAX_TENSORS = 100 * 1000,
    MAX_NAME_BYTES = 512,
};

static const char metadata_key[] = "__metadata__";

/* Every dtype of the format, so that files with tensors we never use can still be checked and
 * opened. */
static const struct {
    const char *name;
    unsigned bits;
} format_dtypes[] = {
    {"F32", 32},    {"BF16", 16}, {"F16", 16},        {"F8_E4M3", 8},     {"F64", 64},
    {"I64", 64},    {"I32", 32},  {"U8", 8},          {"BOOL", 8},        {"I8", 8},
    {"I16", 16},    {"U16", 16},  {"U32", 32},        {"U64", 64},        {"F8_E5M2", 8},
    {"F8_E8M0", 8}, {"C64", 64},  {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6},
    {"F6_E3M2", 6}, {"F4", 4},
};

struct record {
    struct tensor tensor; /* first: safetensors_dtype goes back from the tensor to its record */
    const char *dtype_name;
    uint64_t begin;
};

struct safetensors {
    char *path;
    const unsigned char *map;
    size_t map_bytes;
    json_t *header; /* owns names and metadata */
    struct record *records;
    int count;
};

/* ---- the file -------------------------------------------------------------------------------- */

/* The size is fixed here. If another process truncates the file later, touching the lost pages ends
 * this process with SIGBUS; replacing the file by rename is safe, because the mapping keeps the old
 * one. */
static int map_file(struct safetensors *f)
{
    /* Not blocking: a FIFO must not hold us before fstat sees it. */
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set(STATUS_INPUT, "%s: %s", f->path, strerror(errno));
    struct stat info;
    int status = STATUS_OK;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = error_set(STATUS_INPUT, "%s: not a regular file", f->path);
    } else if (info.st_size < LENGTH_BYTES) {
        status = error_set(STATUS_INPUT, "%s: not a safetensors file: only %lld bytes", f->path,
                           (long long)info.st_size);
    } else {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            status = error_set(STATUS_INPUT, "%s: cannot map %lld bytes: %s", f->path,
                               (long long)info.st_size, strerror(errno));
        } else {
            f->map = map;
            f->map_bytes = (size_t)info.st_size;
        }
    }
    close(fd);
    return status;
}

/* On return *data_bytes is what follows the header. */
static int load_header(struct safetensors *f, uint64_t *header_bytes, uint64_t *data_bytes)
{
    uint64_t n;
    memcpy(&n, f->map, sizeof n);
    n = le64toh(n);
    uint64_t available = f->map_bytes - LENGTH_BYTES;
    if (n > MAX_HEADER_BYTES)
        return error_set(STATUS_INPUT,
                         "%s: not a safetensors file, or not one of a model: a header of %llu bytes"
                         " (at most %d MiB are allowed)",
                         f->path, (unsigned long long)n, MAX_HEADER_BYTES >> 20);
    if (n > available)
        return error_set(
            STATUS_INPUT,
            "%s: truncated: the header should have %llu bytes, the file ends after %llu", f->path,
            (unsigned long long)n, (unsigned long long)available);
    const char *text = (const char *)f->map + LENGTH_BYTES;
    if (n == 0 || text[0] != '{')
        return error_set(STATUS_INPUT,
                         "%s: not a safetensors file: the header does not begin with '{'", f->path);
    *header_bytes = n;
    *data_bytes = available - n;
    return json_input_parse(&f->header, f->path, text, (size_t)n, MAX_HEADER_DEPTH);
}

/* ---- one tensor of the header ---------------------------------------------------------------- */

static int check_name(const struct safetensors *f, const char *name)
{
    size_t length = strlen(name);
    if (length > MAX_NAME_BYTES)
        return error_set(STATUS_INPUT, "%s: a tensor name of %zu bytes (at most %d)", f->path,
                         length, MAX_NAME_BYTES);
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return error_set(STATUS_INPUT, "%s: a tensor name holds the control character 0x%02x",
                             f->path, name[i]);
    }
    return STATUS_OK;
}

static int parse_dtype(const struct safetensors *f, struct record *r, const json_t *dtype,
                       unsigned *bits)
{
    const char *text = json_string_value(dtype);
    if (!text)
        return error_set(STATUS_INPUT, "%s: tensor %s: dtype is not a string", f->path,
                         r->tensor.name);
    for (size_t i = 0; i < sizeof format_dtypes / sizeof format_dtypes[0]; i++) {
        if (strcmp(text, format_dtypes[i].name) != 0) continue;
        r->dtype_name = format_dtypes[i].name;
        *bits = format_dtypes[i].bits;
        if (!dtype_from_name(text, &r->tensor.dtype)) r->tensor.dtype = DTYPE_COUNT;
        return STATUS_OK;
    }
    return error_set(STATUS_INPUT, "%s: tensor %s: unknown dtype \"%.40s\"", f->path,
                     r->tensor.name, text);
}

/* Fills rank and shape and counts the elements. */
static int parse_shape(const struct safetensors *f, struct record *r, const json_t *shape,
                       uint64_t *count)
{
    const char *name = r->tensor.name;
    if (!json_is_array(shape))
        return error_set(STATUS_INPUT, "%s: tensor %s: shape is not a list", f->path, name);
    size_t rank = json_array_size(shape);
    if (rank > TENSOR_MAX_RANK)
        return error_set(STATUS_INPUT, "%s: tensor %s: %zu dimensions (at most %d)", f->path, name,
                         rank, (int)TENSOR_MAX_RANK);
    *count = 1;
    r->tensor.rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *extent = json_array_get(shape, i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return error_set(STATUS_INPUT,
                             "%s: tensor %s: dimension %zu of its shape is not a whole number >= 0",
                             f->path, name, i);
        r->tensor.shape[i] = json_integer_value(extent);
        if (__builtin_mul_overflow(*count, (uint64_t)r->tensor.shape[i], count) ||
            *count > INT64_MAX)
            return error_set(STATUS_INPUT, "%s: tensor %s: the product of its shape overflows",
                             f->path, name);
    }
    return STATUS_OK;
}

static int parse_offsets(const struct safetensors *f, struct record *r, const json_t *offsets,
                         uint64_t data_bytes)
{
    const char *name = r->tensor.name;
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < 0)
        return error_set(STATUS_INPUT,
                         "%s: tensor %s: data_offsets is not a pair of whole numbers >= 0", f->path,
                         name);
    uint64_t first = (uint64_t)json_integer_value(begin), last = (uint64_t)json_integer_value(end);
    if (first > last)
        return error_set(STATUS_INPUT, "%s: tensor %s: data_offsets [%llu,%llu] run backwards",
                         f->path, name, (unsigned long long)first, (unsigned long long)last);
    if (last > data_bytes)
        return error_set(STATUS_INPUT,
                         "%s: tensor %s: data_offsets [%llu,%llu] reach past the %llu bytes of data"
                         " (file truncated?)",
                         f->path, name, (unsigned long long)first, (unsigned long long)last,
                         (unsigned long long)data_bytes);
    r->begin = first;
    r->tensor.bytes = (size_t)(last - first);
    return STATUS_OK;
}

static int parse_tensor(const struct safetensors *f, struct record *r, const char *name,
                        const json_t *info, uint64_t data_bytes)
{
    TRY(check_name(f, name));
    r->tensor.name = name;
    if (!json_is_object(info) || json_object_size(info) != 3)
        return error_set(STATUS_INPUT,
                         "%s: tensor %s: not an object of dtype, shape and data_offsets", f->path,
                         name);
    unsigned bits = 0;
    uint64_t count = 0, total_bits;
    TRY(parse_dtype(f, r, json_object_get(info, "dtype"), &bits));
    TRY(parse_shape(f, r, json_object_get(info, "shape"), &count));
    TRY(parse_offsets(f, r, json_object_get(info, "data_offsets"), data_bytes));
    char shape[96];
    if (__builtin_mul_overflow(count, (uint64_t)bits, &total_bits))
        return error_set(STATUS_INPUT, "%s: tensor %s: the size of %s %s overflows", f->path, name,
                         r->dtype_name, tensor_shape_text(&r->tensor, shape));
    if (total_bits % 8 != 0 || total_bits / 8 != r->tensor.bytes)
        return error_set(
            STATUS_INPUT, "%s: tensor %s: %s %s does not take the %zu bytes of its data_offsets",
            f->path, name, r->dtype_name, tensor_shape_text(&r->tensor, shape), r->tensor.bytes);
    return STATUS_OK;
}

/* ---- the whole header ------------------------------------------------------------------------ */

static int check_metadata(const struct safetensors *f, const json_t *metadata)
{
    if (!json_is_object(metadata))
        return error_set(STATUS_INPUT, "%s: %s is not an object", f->path, metadata_key);
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return error_set(STATUS_INPUT, "%s: %s: the value of \"%.80s\" is not a string",
                             f->path, metadata_key, key);
    }
    return STATUS_OK;
}

static int parse_records(struct safetensors *f, uint64_t data_bytes)
{
    size_t entries = json_object_size(f->header);
    if (entries > MAX_TENSORS)
        return error_set(STATUS_INPUT, "%s: %zu tensors (at most %d)", f->path, entries,
                         MAX_TENSORS);
    f->records = xcalloc(entries, sizeof *f->records);
    const char *key;
    json_t *value;
    json_object_foreach (f->header, key, value) {
        if (strcmp(key, metadata_key) == 0) {
            TRY(check_metadata(f, value));
        } else {
            TRY(parse_tensor(f, &f->records[f->count], key, value, data_bytes));
            f->count++;
        }
    }
    return STATUS_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->tensor.bytes == y->tensor.bytes) return 0;
    return x->tensor.bytes < y->tensor.bytes ? -1 : 1; /* empty tensors first */
}

/* The tensors must tile the data exactly: the format allows neither holes nor overlaps. */
static int check_layout(struct safetensors *f, uint64_t data_bytes)
{
    qsort(f->records, (size_t)f->count, sizeof *f->records, compare_places);
    uint64_t at = 0;
    for (int i = 0; i < f->count; i++) {
        const struct record *r = &f->records[i];
        if (r->begin < at)
            return error_set(STATUS_INPUT, "%s: tensor %s overlaps tensor %s", f->path,
                             r->tensor.name, f->records[i - 1].tensor.name);
        if (r->begin > at)
            return error_set(
                STATUS_INPUT,
                "%s: tensor %s begins at byte %llu of the data, leaving a hole from %llu", f->path,
                r->tensor.name, (unsigned long long)r->begin, (unsigned long long)at);
        at += r->tensor.bytes;
    }
    if (at != data_bytes)
        return error_set(STATUS_INPUT, "%s: %llu trailing bytes after the last tensor", f->path,
                         (unsigned long long)(data_bytes - at));
    return STATUS_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct record *)a)->tensor.name, ((const struct record *)b)->tensor.name);
}

static int parse_file(struct safetensors *f)
{
    uint64_t header_bytes = 0, data_bytes = 0;
    TRY(map_file(f));
    TRY(load_header(f, &header_bytes, &data_bytes));
    TRY(parse_records(f, data_bytes));
    TRY(check_layout(f, data_bytes));
    for (int i = 0; i < f->count; i++)
        f->records[i].tensor.data = f->map + LENGTH_BYTES + header_bytes + f->records[i].begin;
    qsort(f->records, (size_t)f->count, sizeof *f->records, compare_names);
    return STATUS_OK;
}

int safetensors_open(struct safetensors **out, const char *path)
{
    struct safetensors *f = xcalloc(1, sizeof *f);
    f->path = xstrdup(path);
    int status = parse_file(f);
    if (status != STATUS_OK) {
        safetensors_close(f);
        return status;
    }
    *out = f;
    return STATUS_OK;
}

void safetensors_close(struct safetensors *f)
{
    if (!f) return;
    if (f->map) munmap((void *)f->map, f->map_bytes);
    json_decref(f->header);
    free(f->records);
    free(f->path);
    free(f);
}

const char *safetensors_path(const struct safetensors *f) { return f->path; }
int safetensors_count(const struct safetensors *f) { return f->count; }
const struct tensor *safetensors_at(const struct safetensors *f, int i)
{
    return &f->records[i].tensor;
}
const char *safetensors_dtype(const struct tensor *t)
{
    return ((const struct record *)t)->dtype_name;
}

const struct tensor *safetensors_find(const struct safetensors *f, const char *name)
{
    const struct record wanted = {.tensor = {.name = name}};
    const struct record *r =
        bsearch(&wanted, f->records, (size_t)f->count, sizeof *f->records, compare_names);
    return r ? &r->tensor : NULL;
}

const char *safetensors_metadata(const struct safetensors *f, const char *key)
{
    return json_string_value(json_object_get(json_object_get(f->header, metadata_key), key));
}

/* ---- writing --------------------------------------------------------------------------------- */

static int compare_alignment(const void *a, const void *b)
{
    const struct tensor *x = *(const struct tensor *const *)a,
                        *y = *(const struct tensor *const *)b;
    size_t xs = dtype_size(x->dtype), ys = dtype_size(y->dtype);
    if (xs != ys) return xs > ys ? -1 : 1;
    return strcmp(x->name, y->name);
}

static json_t *describe_tensor(const struct tensor *t, size_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtype_name(t->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + t->bytes));
}

/* The header text, padded with spaces so that the data begins at a multiple of 8. */
static int make_header(const char *path, const struct tensor *const *order, int count,
                       const char *const *metadata, char **text, size_t *bytes)
{
    json_t *root = json_object();
    if (metadata && metadata[0]) {
        json_t *object = json_object();
        json_object_set_new(root, metadata_key, object);
        for (int i = 0; metadata[i]; i += 2) {
            if (json_object_set_new(object, metadata[i], json_string(metadata[i + 1])) != 0) {
                json_decref(root);
                return error_set(STATUS_INPUT, "%s: metadata \"%.80s\" is not valid UTF-8", path,
                                 metadata[i]);
            }
        }
    }
    size_t begin = 0;
    for (int i = 0; i < count; i++) {
        const struct tensor *t = order[i];
        CHECK(t->bytes == (size_t)tensor_count(t) * dtype_size(t->dtype),
              "%s: tensor %s: %zu bytes do not fit its shape", path, t->name, t->bytes);
        CHECK(!json_object_get(root, t->name), "%s: two tensors named %s", path, t->name);
        CHECK(json_object_set_new(root, t->name, describe_tensor(t, begin)) == 0,
              "%s: tensor %s: bad name", path, t->name);
        begin += t->bytes;
    }
    char *json = json_dumps(root, JSON_COMPACT);
    CHECK(json, "%s: out of memory for the header", path);
    json_decref(root);
    size_t used = strlen(json);
    *bytes = (used + 7) / 8 * 8;
    *text = xmalloc(*bytes);
    memset(*text, ' ', *bytes);
    memcpy(*text, json, used);
    free(json);
    return STATUS_OK;
}

static int open_file(struct partial *file, const char *path, const char *header,
                     size_t header_bytes)
{
    uint64_t length = htole64((uint64_t)header_bytes);
    TRY(partial_open(file, path));
    partial_write(file, &length, sizeof length);
    partial_write(file, header, header_bytes);
    return STATUS_OK;
}

static int write_file(const char *path, const struct tensor *const *order, int count,
                      const char *header, size_t header_bytes)
{
    struct partial file;
    TRY(open_file(&file, path, header, header_bytes));
    for (int i = 0; i < count; i++) partial_write(&file, order[i]->data, order[i]->bytes);
    return partial_commit(&file); /* reports the first write that failed */
}

int safetensors_write(const char *path, const struct tensor *tensors, int count,
                      const char *const *metadata)
{
    const struct tensor **order = xcalloc((size_t)count, sizeof *order);
    for (int i = 0; i < count; i++) order[i] = &tensors[i];
    /* Widest elements first, so that every tensor is aligned in the file. */
    qsort(order, (size_t)count, sizeof *order, compare_alignment);
    char *header = NULL;
    size_t header_bytes = 0;
    int status = make_header(path, order, count, metadata, &header, &header_bytes);
    if (status == STATUS_OK) status = write_file(path, order, count, header, header_bytes);
    free(header);
    free(order);
    return status;
}

int safetensors_begin(struct partial *file, const char *path, const struct tensor *t,
                      uint64_t *begin)
{
    char *header = NULL;
    size_t header_bytes = 0;
    int status = make_header(path, &t, 1, NULL, &header, &header_bytes);
    if (status == STATUS_OK) status = open_file(file, path, header, header_bytes);
    free(header);
    *begin = LENGTH_BYTES + header_bytes;
    return status;
}
