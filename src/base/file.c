#include "base/file.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int too_large(const char *path, long long bytes, size_t max_bytes)
{
    if (max_bytes % (1 << 20) == 0)
        return error_set(STATUS_INPUT, "%s: %lld bytes; at most %zu MiB are allowed", path, bytes,
                         max_bytes >> 20);
    return error_set(STATUS_INPUT, "%s: %lld bytes; at most %zu are allowed", path, bytes,
                     max_bytes);
}

static int read_all(int fd, const char *path, char *data, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t got = read(fd, data + at, bytes - at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return error_set(STATUS_INPUT, "%s: %s", path, strerror(errno));
        if (got == 0) return error_set(STATUS_INPUT, "%s: became shorter while it was read", path);
        at += (size_t)got;
    }
    return STATUS_OK;
}

static int read_open_file(int fd, const char *path, size_t max_bytes, char **data, size_t *bytes)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return error_set(STATUS_INPUT, "%s: not a regular file", path);
    if ((unsigned long long)info.st_size > max_bytes)
        return too_large(path, info.st_size, max_bytes);
    size_t size = (size_t)info.st_size;
    char *text = xmalloc(size + 1);
    int status = read_all(fd, path, text, size);
    if (status != STATUS_OK) {
        free(text);
        return status;
    }
    text[size] = '\0';
    *data = text;
    *bytes = size;
    return STATUS_OK;
}

int file_read(const char *path, size_t max_bytes, char **data, size_t *bytes)
{
    *data = NULL;
    *bytes = 0;
    /* Not blocking: a FIFO must not hold us before fstat sees it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set(STATUS_INPUT, "%s: %s", path, strerror(errno));
    int status = read_open_file(fd, path, max_bytes, data, bytes);
    close(fd);
    return status;
}
