/* Backends in libraries of their own, so that the program starts on machines without what those need:
 * found beside the program, opened when asked for, and refused where they are of another version. */
#include "backend.h"

#include "base/error.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char variable[] = "RINGREEL_CUDA_LIBRARY", file_name[] = "libringreel_cuda.so",
                  symbol[] = "ringreel_cuda";

/* The named file, or the one beside the program, or that of an installed one. *built: there is one. */
static void *open_library(bool *built, char *why, size_t room)
{
    *built = true;
    const char *named = getenv(variable);
    char program[PATH_MAX] = "", path[PATH_MAX + 64];
    if (named) {
        void *library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
        if (!library) snprintf(why, room, "%s: %s", variable, dlerror());
        return library;
    }
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) program[0] = 0;
    static const char *const places[] = {"", "../lib/"};
    const char *folder = dirname(program);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s%s", folder, places[i], file_name);
        if (access(path, R_OK) != 0) continue;
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library) snprintf(why, room, "%s", dlerror());
        return library;
    }
    *built = false;
    snprintf(why, room, "this build has the CPU backend only (no %s beside the program)",
             file_name);
    return NULL;
}

static const struct backend_library *load(bool *built, char *why, size_t room)
{
    void *library = open_library(built, why, room);
    const struct backend_library *backend = library ? dlsym(library, symbol) : NULL;
    if (library && (!backend || backend->version != BACKEND_VERSION ||
                    backend->ops_bytes != sizeof(struct ops))) {
        snprintf(why, room, "%s is of another version than the program", file_name);
        backend = NULL;
    }
    return backend; /* stays open until the process ends */
}

static const struct backend_library *cuda_library(bool *built, const char **why)
{
    static const struct backend_library *backend;
    static char reason[1024];
    static bool tried, there;
    if (!tried) backend = load(&there, reason, sizeof reason);
    tried = true;
    *why = reason;
    *built = there;
    return backend;
}

int device_cuda_count(const char **why)
{
    static char reason[256];
    bool built;
    const struct backend_library *backend = cuda_library(&built, why);
    if (!backend) return built ? 0 : -1;
    int count = backend->count_devices(reason, sizeof reason);
    *why = reason;
    return count;
}

struct device *device_open_cuda(int index, int threads, enum precision precision)
{
    const char *why;
    bool built;
    const struct backend_library *backend = cuda_library(&built, &why);
    CHECK(backend, "CUDA: %s", why);
    return backend->open(index, threads, precision);
}
