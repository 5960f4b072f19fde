#include "base/memory.h"

#include "base/error.h"
#include "base/numbers.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { FILE_BYTES = 16384 };

/* ---- the system's small files ---------------------------------------------------------------- */

/* Reads FOLDER/FILE; false if there is none. */
static bool read_small(char text[FILE_BYTES], const char *folder, const char *file)
{
    char *path = xasprintf("%s/%s", folder, file);
    FILE *f = fopen(path, "r");
    free(path);
    if (!f) return false;
    text[fread(text, 1, FILE_BYTES - 1, f)] = '\0';
    fclose(f);
    return true;
}

/* The number behind `key` at the start of a line of the form "KEY NUMBER"; -1: there is none. */
static int64_t find_number(const char *text, const char *key)
{
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        char *end;
        if (strncmp(line, key, length) != 0) continue;
        long long n = strtoll(line + length, &end, 10);
        if (end != line + length && n >= 0) return n;
    }
    return -1;
}

/* The number that a file consists of; -1 if it is not there or not a number ("max": no limit). */
static int64_t read_number(const char *folder, const char *file)
{
    char text[FILE_BYTES];
    return read_small(text, folder, file) ? find_number(text, "") : -1;
}

/* ---- control groups -------------------------------------------------------------------------- */

/* The files of the two kinds of control groups. */
struct control {
    const char *folder, *limit, *used, *active, *inactive;
};
static const struct control unified = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                       "active_file ", "inactive_file "};
static const struct control legacy = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                      "memory.usage_in_bytes", "total_active_file ",
                                      "total_inactive_file "};

/* What one group leaves. Files in the page cache, such as the mapped checkpoint, count as used but
 * make way. */
static int64_t left_in_group(const struct control *c, const char *folder)
{
    char text[FILE_BYTES];
    int64_t limit = read_number(folder, c->limit), used = read_number(folder, c->used);
    if (limit < 0 || used < 0) return INT64_MAX;
    if (read_small(text, folder, "memory.stat")) {
        int64_t active = find_number(text, c->active), inactive = find_number(text, c->inactive);
        used -= (active > 0 ? active : 0) + (inactive > 0 ? inactive : 0);
    }
    used = used < 0 ? 0 : used;
    return limit > used ? limit - used : 0;
}

/* The group and all around it. In a container the outer part of its name may lead nowhere: that is
 * left out. */
static int64_t left_in_groups(const struct control *c, const char *root, const char *group)
{
    int64_t left = INT64_MAX;
    char *folder = xasprintf("%s%s%s", root, c->folder, group),
         *base = folder + strlen(root) + strlen(c->folder);
    for (char *end = base + strlen(group); end; end = strrchr(base, '/')) {
        *end = '\0';
        left = smaller(left, left_in_group(c, folder));
    }
    free(folder);
    return left;
}

/* A line of /proc/self/cgroup: "0::/group" or "4:memory:/group", or of controllers that do not
 * matter. */
static int64_t left_by_line(char *line, const char *root)
{
    char *controllers = strchr(line, ':'),
         *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) return INT64_MAX;
    *group++ = '\0';
    controllers++;
    if (!*controllers) return left_in_groups(&unified, root, group);
    char *rest = NULL;
    for (char *name = strtok_r(controllers, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        if (strcmp(name, "memory") == 0) return left_in_groups(&legacy, root, group);
    return INT64_MAX;
}

/* ---- what there is --------------------------------------------------------------------------- */

int64_t memory_available_in(const char *root)
{
    char text[FILE_BYTES];
    int64_t left = INT64_MAX;
    int64_t kib = read_small(text, root, "proc/meminfo") ? find_number(text, "MemAvailable:") : -1;
    if (kib >= 0 && kib < INT64_MAX / 1024) left = kib * 1024;
    if (!read_small(text, root, "proc/self/cgroup")) return left;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        left = smaller(left, left_by_line(line, root));
    return left;
}

int64_t memory_available(void) { return memory_available_in(""); }

int64_t memory_addresses(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur > INT64_MAX)
        return INT64_MAX;
    int64_t pages = read_number("/proc/self", "statm"), total = (int64_t)limit.rlim_cur;
    int64_t used = pages < 0 ? 0 : pages * sysconf(_SC_PAGESIZE);
    return total > used ? total - used : 0;
}

int64_t memory_peak(void)
{
    char text[FILE_BYTES];
    int64_t kib = read_small(text, "/proc/self", "status") ? find_number(text, "VmHWM:") : -1;
    return kib > 0 ? kib * 1024 : 0;
}

/* ---- the plan -------------------------------------------------------------------------------- */

void memory_plan_add(struct memory_plan *p, const char *name, int64_t bytes)
{
    CHECK(bytes >= 0, "\"%s\" takes %lld bytes", name, (long long)bytes);
    if (bytes == 0) return;
    CHECK(p->count < MEMORY_PARTS, "a plan of more than %d parts", MEMORY_PARTS);
    int at = p->count++;
    for (; at > 0 && p->parts[at - 1].bytes < bytes; at--) /* the largest first */
        p->parts[at] = p->parts[at - 1];
    p->parts[at] = (struct memory_part){name, bytes};
}

int64_t memory_plan_bytes(const struct memory_plan *p)
{
    int64_t bytes = 0;
    for (int i = 0; i < p->count; i++) bytes += p->parts[i].bytes;
    return bytes;
}

char *memory_text(int64_t bytes, char out[32])
{
    if (bytes == INT64_MAX)
        snprintf(out, 32, "an unknown amount");
    else if (bytes >= (int64_t)1 << 30)
        snprintf(out, 32, "%.2f GiB", (double)bytes / 0x1p30);
    else
        snprintf(out, 32, "%.1f MiB", (double)bytes / 0x1p20);
    return out;
}

char *memory_plan_text(const struct memory_plan *p, char *out, size_t size)
{
    char bytes[32];
    int64_t total = memory_plan_bytes(p), rest = total;
    size_t at = (size_t)snprintf(out, size, "%s", memory_text(total, bytes));
    for (int i = 0; i < p->count && p->parts[i].bytes >= total / 100 && at < size; i++) {
        at += (size_t)snprintf(out + at, size - at, "%s%s %s", i ? ", " : ": ", p->parts[i].name,
                               memory_text(p->parts[i].bytes, bytes));
        rest -= p->parts[i].bytes;
    }
    if (rest >= total / 100 && rest > 0 && at < size)
        snprintf(out + at, size - at, ", other %s", memory_text(rest, bytes));
    return out;
}

static char planned[1200];

void memory_plan_keep(const char *text)
{
    snprintf(planned, sizeof planned, "; the plan (--dry-run) was %s", text);
}

const char *memory_planned(void) { return planned; }
