/* Backends in libraries of their own, so that the program starts on machines without what those
 * need: found beside the program, opened when asked for, and refused where they are of another
 * version. */
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

/* Without a driver NVIDIA's libraries would be loaded, some hundred megabytes, to learn just that.
 */
static bool has_driver(char *why, size_t room)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!driver)
        snprintf(why, room, "no NVIDIA driver (libcuda.so.1)");
    else
        dlclose(driver);
    return driver;
}

/* Beside the program, or where it is installed to. */
static bool find_library(char *path, size_t room)
{
    static const char *const places[] = {"", "../lib/"};
    char program[PATH_MAX] = "";
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) return false;
    const char *folder = dirname(program);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, room, "%s/%s%s", folder, places[i], file_name);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

/* The file that the environment names, whose empty name stands for none, else the one that was
 * built. *built: there is one. */
static void *open_library(bool computes, bool *built, char *why, size_t room)
{
    const char *named = getenv(variable);
    char path[PATH_MAX + 64];
    *built = named ? named[0] != 0 : find_library(path, sizeof path);
    if (!*built)
        snprintf(why, room, named ? "%s is empty" : "this build has the CPU backend only (no %s)",
                 named ? variable : file_name);
    if (!*built || (computes && !named && !has_driver(why, room))) return NULL;
    void *library = dlopen(named ? named : path, RTLD_NOW | RTLD_LOCAL);
    if (!library) snprintf(why, room, "%s", dlerror());
    return library;
}

/* computes: nothing is loaded where there is no driver. */
static const struct backend_library *load(bool computes, bool *built, char *why, size_t room)
{
    void *library = open_library(computes, built, why, room);
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
    if (!tried) backend = load(true, &there, reason, sizeof reason);
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

struct device *device_open_cuda_plan(int threads, enum precision precision, const char **why)
{
    static char reason[1024];
    bool built;
    const struct backend_library *backend = load(false, &built, reason, sizeof reason);
    *why = reason;
    return backend ? backend->open_plan(threads, precision) : NULL;
}

int device_backend_version(void) { return BACKEND_VERSION; }
