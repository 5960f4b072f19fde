#include "media/partial.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the table ------------------------------------------------------------------------------- */

enum { SLOT_FREE, SLOT_BEING_FILLED, SLOT_USED, SLOTS = 64 };

/* A slot's name is written while the handler ignores the slot, and is never changed while it is
 * used. */
static struct {
    atomic_int state;
    char name[PATH_MAX];
} slots[SLOTS];

static int slot_take(const char *name)
{
    for (int i = 0; i < SLOTS; i++) {
        int expected = SLOT_FREE;
        if (!atomic_compare_exchange_strong(&slots[i].state, &expected, SLOT_BEING_FILLED))
            continue;
        memcpy(slots[i].name, name, strlen(name) + 1);
        atomic_store(&slots[i].state, SLOT_USED);
        return i;
    }
    CHECK(false, "more than %d outputs are open at once", SLOTS);
}

static void slot_release(int slot) { atomic_store(&slots[slot].state, SLOT_FREE); }

static bool slot_has(const char *name)
{
    for (int i = 0; i < SLOTS; i++)
        if (atomic_load(&slots[i].state) == SLOT_USED && strcmp(slots[i].name, name) == 0)
            return true;
    return false;
}

/* What another thread is just opening may not stay either. */
static atomic_int removals;

void partial_remove_all(void)
{
    int saved = errno;
    atomic_fetch_add(&removals, 1);
    for (int i = 0; i < SLOTS; i++)
        if (atomic_load(&slots[i].state) == SLOT_USED) unlink(slots[i].name);
    errno = saved;
}

/* ---- names and folders ----------------------------------------------------------------------- */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* clip.mp4 -> clip.part-123.mp4: the ending stays, so whoever finds the file can still play it. */
static char *partial_name(const char *path)
{
    const char *dot = strrchr(last_part(path), '.');
    size_t stem = dot ? (size_t)(dot - path) : strlen(path);
    return xasprintf("%.*s.part-%" PRId64 "%s", (int)stem, path, (int64_t)getpid(), path + stem);
}

static int make_folder(const char *blame, const char *folder)
{
    struct stat st;
    int code = mkdir(folder, 0777) == 0 ? 0 : errno;
    bool is_there = stat(folder, &st) == 0; /* then it does not matter what mkdir thought */
    if (is_there && !S_ISDIR(st.st_mode))
        return error_set(STATUS_INPUT, "%s: %s is not a folder", blame, folder);
    if (!is_there)
        return error_set(STATUS_INPUT, "%s: cannot make the folder %s: %s", blame, folder,
                         strerror(code));
    return STATUS_OK;
}

int partial_make_folders(const char *blame, const char *path)
{
    char *folder = xstrdup(path);
    int status = STATUS_OK;
    for (char *c = strchr(folder + 1, '/'); c && status == STATUS_OK; c = strchr(c + 1, '/')) {
        *c = '\0';
        status = make_folder(blame, folder);
        *c = '/';
    }
    free(folder);
    return status;
}

static int check_final_name(const char *path)
{
    struct stat st;
    if (path[0] == '\0') return error_set(STATUS_INPUT, "the output has no name");
    if (strlen(path) >= PATH_MAX - 32)
        return error_set(STATUS_INPUT, "%.60s...: %s", path, strerror(ENAMETOOLONG));
    if (*last_part(path) == '\0')
        return error_set(STATUS_INPUT, "%s: is a folder, an output must be a file", path);
    TRY(partial_make_folders(path, path));
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return error_set(STATUS_INPUT, "%s: is a folder, an output must be a file", path);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return error_set(STATUS_INPUT, "%s: exists and is not an ordinary file", path);
    return STATUS_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

int partial_open(struct partial *p, const char *path)
{
    *p = (struct partial){.fd = -1};
    TRY(check_final_name(path));
    char *name = partial_name(path);
    if (slot_has(name)) {
        free(name);
        return error_set(STATUS_INPUT, "%s: is already being written by this run", path);
    }
    int before = atomic_load(&removals);
    *p = (struct partial){.path = xstrdup(path), .name = name, .fd = -1, .slot = slot_take(name)};
    /* A file of that name can only be the rest of a killed process with our process id. */
    unlink(name);
    p->fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (atomic_load(&removals) != before) unlink(name);
    if (p->fd >= 0) return STATUS_OK;
    int status = error_set(STATUS_INPUT, "%s: cannot be created: %s", path, strerror(errno));
    partial_drop(p);
    return status;
}

int partial_write(struct partial *p, const void *data, size_t bytes)
{
    const char *from = data;
    while (bytes > 0 && p->error == 0) {
        ssize_t n = write(p->fd, from, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            p->error = errno;
        } else {
            from += n;
            bytes -= (size_t)n;
        }
    }
    return -p->error;
}

int partial_write_at(struct partial *p, const void *data, size_t bytes, uint64_t offset)
{
    const char *from = data;
    while (bytes > 0 && p->error == 0) {
        ssize_t n = pwrite(p->fd, from, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            p->error = errno;
        } else {
            from += n;
            offset += (uint64_t)n;
            bytes -= (size_t)n;
        }
    }
    return -p->error;
}

static ssize_t write_stream(void *cookie, const char *data, size_t bytes)
{
    return partial_write(cookie, data, bytes) == 0 ? (ssize_t)bytes : 0;
}

FILE *partial_stream(struct partial *p)
{
    FILE *stream = fopencookie(p, "w", (cookie_io_functions_t){.write = write_stream});
    CHECK(stream, "out of memory for a stream into %s", p->path);
    return stream;
}

int partial_failed(const struct partial *p)
{
    return error_set(STATUS_INPUT, "%s: %s", p->path, strerror(p->error));
}

/* So that the new name survives a power cut too. Some file systems cannot; the file itself is safe
 * by then. */
static void sync_folder(const char *path)
{
    size_t length = (size_t)(last_part(path) - path);
    char *folder = length > 0 ? xasprintf("%.*s", (int)length, path) : xstrdup(".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

int partial_commit(struct partial *p)
{
    int fd = p->fd, status = STATUS_OK;
    p->fd = -1;
    if (p->error == 0 && fsync(fd) != 0) p->error = errno;
    if (close(fd) != 0 && p->error == 0)
        p->error = errno; /* network file systems report a full disk here */
    if (p->error == 0 && rename(p->name, p->path) != 0) p->error = errno;
    if (p->error == 0)
        sync_folder(p->path);
    else
        status = partial_failed(p);
    partial_drop(p);
    return status;
}

void partial_drop(struct partial *p)
{
    if (!p->path) return;
    if (p->fd >= 0) close(p->fd);
    unlink(p->name); /* after a commit the name is gone already */
    slot_release(p->slot);
    free(p->path);
    free(p->name);
    *p = (struct partial){.fd = -1};
}
