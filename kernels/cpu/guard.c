/* Device memory that the host cannot touch, on a CPU: for tests. Pages can be read and written
 * while an op runs and by no one at other times, so that code which will not work on a GPU faults
 * here, at the line that is wrong. */
#include "kernels/cpu/cpu.h"

#include "base/error.h"

#include <signal.h>
#include <sys/mman.h>

enum { REGIONS = 64 };

static struct region { /* an arena; base NULL: free */
    unsigned char *base;
    size_t bytes;
    const char *name;
} regions[REGIONS];
static int depth; /* of ops within ops */

static bool contains(const struct region *r, const void *p, size_t bytes)
{
    const unsigned char *at = p;
    return r->base && at >= r->base && bytes <= r->bytes && at <= r->base + (r->bytes - bytes);
}

static int protection(void) { return depth > 0 ? PROT_READ | PROT_WRITE : PROT_NONE; }

static void protect_all(void)
{
    for (int i = 0; i < REGIONS; i++)
        if (regions[i].base)
            CHECK(mprotect(regions[i].base, regions[i].bytes, protection()) == 0,
                  "device memory \"%s\" cannot be protected", regions[i].name);
}

void guard_enter(void)
{
    if (depth++ == 0) protect_all();
}

void guard_leave(void)
{
    if (--depth == 0) protect_all();
}

bool guard_owns(const void *p, size_t bytes)
{
    for (int i = 0; i < REGIONS; i++)
        if (contains(&regions[i], p, bytes)) return true;
    return false;
}

static void *guard_take(size_t bytes, const char *name)
{
    struct region *r = regions;
    while (r < regions + REGIONS && r->base) r++;
    CHECK(r < regions + REGIONS, "more than %d arenas of guarded memory", REGIONS);
    void *p = mmap(NULL, bytes, protection(), MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    *r = (struct region){p, bytes, name};
    return p;
}

static void guard_give(void *memory, size_t bytes)
{
    munmap(memory, bytes);
    for (int i = 0; i < REGIONS; i++)
        if (regions[i].base == memory) regions[i] = (struct region){0};
}

const struct arena_memory guard_memory = {guard_take, guard_give, NULL};

/* The fault is one of our own instructions, so that messages can be printed as anywhere else. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    for (int i = 0; i < REGIONS; i++)
        CHECK(!contains(&regions[i], info->si_addr, 1),
              "the host touches memory of the device: arena \"%s\", byte %zu of %zu",
              regions[i].name, (size_t)((unsigned char *)info->si_addr - regions[i].base),
              regions[i].bytes);
    signal(number, SIG_DFL); /* something else: it happens again, unexplained */
}

void guard_start(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}
