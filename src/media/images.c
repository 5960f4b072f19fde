#include "media/images.h"

#include "base/error.h"
#include "media/partial.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A path taken apart; it is never used as a format. */
struct pattern {
    const char *path;
    bool is_sequence;
    int prefix, digits; /* of a sequence: bytes in front of the number, least number of digits */
    const char *suffix; /* of a sequence: what follows the number */
};

struct images {
    char *path;
    struct pattern pattern;
    int64_t first;
    struct partial file; /* a single frame waits here for images_finish */
};

bool images_wanted(const char *path)
{
    size_t length = strlen(path);
    return length >= 4 && strcasecmp(path + length - 4, ".png") == 0;
}

/* Understands exactly one %d or %0Nd (N 1 to 9) in the file name. */
static int parse_pattern(struct pattern *p, const char *path)
{
    *p = (struct pattern){.path = path};
    const char *slash = strrchr(path, '/');
    const char *percent = strchr(slash ? slash : path, '%');
    if (!percent) return STATUS_OK;
    const char *rest = percent + 1;
    if (rest[0] == '0' && rest[1] >= '1' && rest[1] <= '9') {
        p->digits = rest[1] - '0';
        rest += 2;
    }
    if (*rest != 'd' || strchr(rest, '%'))
        return error_set(STATUS_INPUT,
                         "%s: the file name of an image sequence has exactly one %%d or %%0Nd in "
                         "it "
                         "(N from 1 to 9), such as %%06d.png",
                         path);
    p->is_sequence = true;
    p->prefix = (int)(percent - path);
    p->suffix = rest + 1;
    return STATUS_OK;
}

static char *frame_path(const struct pattern *p, int64_t number)
{
    return xasprintf("%.*s%0*" PRId64 "%s", p->prefix, p->path, p->digits, number, p->suffix);
}

int images_frame_path(char **out, const char *path, int64_t number)
{
    struct pattern p;
    *out = NULL;
    TRY(parse_pattern(&p, path));
    if (p.is_sequence) *out = frame_path(&p, number);
    return STATUS_OK;
}

/* The number in a file name of the sequence, or -1: it is none. `name` has no folder. */
static int64_t number_of(const struct pattern *p, const char *name)
{
    const char *slash = strrchr(p->path, '/');
    size_t prefix = (size_t)(p->prefix - (slash ? slash + 1 - p->path : 0));
    if (strncmp(name, p->path + p->prefix - prefix, prefix) != 0) return -1;
    size_t digits = strspn(name + prefix, "0123456789");
    if (digits == 0 || digits > 18 || strcmp(name + prefix + digits, p->suffix) != 0) return -1;
    int64_t number = strtoll(name + prefix, NULL, 10);
    char *path = frame_path(p, number); /* with as many zeros as it would be given */
    bool same = strcmp(path + p->prefix - prefix, name) == 0;
    free(path);
    return same ? number : -1;
}

int64_t images_first(const char *path)
{
    struct pattern p;
    int64_t first = -1;
    CHECK(parse_pattern(&p, path) == STATUS_OK && p.is_sequence, "%s is no sequence", path);
    const char *slash = strrchr(path, '/');
    char *name = slash ? xasprintf("%.*s", (int)(slash + 1 - path), path) : xstrdup(".");
    DIR *folder = opendir(name);
    for (struct dirent *e; folder && (e = readdir(folder));) {
        int64_t number = number_of(&p, e->d_name);
        if (number >= 0 && (first < 0 || number < first)) first = number;
    }
    if (folder) closedir(folder);
    free(name);
    return first < 0 ? 0 : first;
}

bool images_are_many(const char *path)
{
    const char *slash = strrchr(path, '/');
    return images_wanted(path) && strchr(slash ? slash : path, '%');
}

static int open_file(const struct images *m, struct partial *file, int64_t number)
{
    if (!m->pattern.is_sequence) return partial_open(file, m->path);
    char *path = frame_path(&m->pattern, number);
    int status = partial_open(file, path);
    free(path);
    return status;
}

static int refuse_many(const struct images *m)
{
    return error_set(STATUS_INPUT, "%s: holds one frame; for more of them put %%06d into the name",
                     m->path);
}

static int check(struct images *m, int64_t frames, int64_t first)
{
    TRY(parse_pattern(&m->pattern, m->path));
    if (!m->pattern.is_sequence && frames > 1) return refuse_many(m);
    struct partial probe;
    TRY(open_file(m, &probe, first));
    partial_drop(&probe);
    return STATUS_OK;
}

int images_open(struct images **out, const char *path, int64_t frames, int64_t first)
{
    struct images *m = xcalloc(1, sizeof *m);
    m->path = xstrdup(path);
    m->first = first;
    int status = check(m, frames, first);
    if (status != STATUS_OK) {
        images_drop(m);
        return status;
    }
    *out = m;
    return STATUS_OK;
}

static int put_one_of_many(const struct images *m, int64_t number, const void *png, size_t bytes)
{
    struct partial file;
    TRY(open_file(m, &file, number));
    partial_write(&file, png, bytes);
    return partial_commit(&file); /* reports what could not be written */
}

int images_put(struct images *m, int64_t number, const void *png, size_t bytes)
{
    if (m->pattern.is_sequence) return put_one_of_many(m, number, png, bytes);
    if (number != m->first) return refuse_many(m); /* no other thread may touch the first one's */
    TRY(open_file(m, &m->file, number));
    return partial_write(&m->file, png, bytes) < 0 ? partial_failed(&m->file) : STATUS_OK;
}

int images_finish(struct images *m)
{
    int status = m->file.path ? partial_commit(&m->file) : STATUS_OK;
    images_drop(m);
    return status;
}

void images_drop(struct images *m)
{
    if (!m) return;
    partial_drop(&m->file);
    free(m->path);
    free(m);
}
