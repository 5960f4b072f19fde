#include "base/arena.h"

#include "base/error.h"
#include "base/memory.h"

#include <sys/mman.h>

enum { ALIGNMENT = 64 };

static void *host_take(size_t bytes, const char *name)
{
    (void)name;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void host_give(void *memory, size_t bytes) { munmap(memory, bytes); }

const struct arena_memory arena_host = {host_take, host_give, NULL};

void arena_init(struct arena *a, const char *name) { arena_init_on(a, name, &arena_host); }

void arena_init_on(struct arena *a, const char *name, const struct arena_memory *memory)
{
    *a = (struct arena){.name = name, .memory = memory};
}

void *arena_take(struct arena *a, size_t bytes)
{
    size_t at = a->used_bytes;
    CHECK(bytes <= SIZE_MAX / 2 - at, "arena \"%s\": %zu bytes more than fit an address", a->name,
          bytes);
    a->used_bytes = (at + bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (!a->base) return NULL;
    CHECK(a->used_bytes <= a->size_bytes,
          "arena \"%s\": asked for more than was planned (%zu of %zu bytes)", a->name,
          a->used_bytes, a->size_bytes);
    return a->base + at;
}

void *arena_values(struct arena *a, int64_t count, enum dtype type)
{
    CHECK(count >= 0 && (uint64_t)count < SIZE_MAX / 16, "arena \"%s\": bad count", a->name);
    return arena_take(a, (size_t)count * dtype_size(type));
}

float *arena_floats(struct arena *a, int64_t count) { return arena_values(a, count, DTYPE_F32); }

void arena_commit(struct arena *a)
{
    char needed[32], left[256] = "";
    a->size_bytes = a->used_bytes ? a->used_bytes : ALIGNMENT;
    a->used_bytes = 0;
    a->base = a->memory->take(a->size_bytes, a->name);
    if (!a->base && a->memory->describe) a->memory->describe(left, sizeof left);
    CHECK(a->base, "out of memory: arena \"%s\" needs %s%s%s%s", a->name,
          memory_text((int64_t)a->size_bytes, needed), *left ? ", " : "", left, memory_planned());
}

void arena_free(struct arena *a)
{
    if (a->base) a->memory->give(a->base, a->size_bytes);
    arena_init_on(a, a->name, a->memory);
}
