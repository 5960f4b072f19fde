#include "shared.h"
#include "block.h"
#include "sanitizers.h"

#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

namespace emulation
{

namespace
{

/* Dynamic shared memory begins here, as on the hardware: an address of 0 is a mistake. */
constexpr uint32_t FIRST = 1024;
constexpr uint32_t GAP = 64; /* forbidden bytes behind each variable */
constexpr size_t ARENA_BYTES = 512 * 1024;
constexpr int FRESH = 0xFF, FORBIDDEN = 0xA5;

void place_variable(SharedMemory *s, const void *tag, const char *name, uint32_t offset,
                    size_t bytes)
{
    Unseen filling;
    s->variables[s->count++] = {tag, name, offset, static_cast<uint32_t>(bytes)};
    s->top = offset + static_cast<uint32_t>(bytes) + GAP;
    allow(s->arena + offset, bytes + GAP);
    memset(s->arena + offset, FRESH, bytes);
    memset(s->arena + offset + bytes, FORBIDDEN, GAP);
    forbid(s->arena + offset + bytes, GAP);
}

/* Blocks of one launch are not ordered by each other; without new pages for each, ThreadSanitizer
 * would take the next block's use of this memory for a race. */
void renew_pages(SharedMemory *s)
{
#if defined(EMULATION_TSAN)
    constexpr bool renew = true;
#else
    bool renew = !s->arena;
#endif
    if (!renew) return;
    if (s->arena) munmap(s->arena, ARENA_BYTES);
    void *p =
        mmap(nullptr, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) abort();
    s->arena = static_cast<unsigned char *>(p);
}

} // namespace

void shared_begin(SharedMemory *s, size_t dynamic_bytes)
{
    renew_pages(s);
    s->count = 0;
    s->total_bytes = dynamic_bytes;
    s->static_bytes = 0;
    forbid(s->arena, ARENA_BYTES);
    place_variable(s, nullptr, "dynamic shared memory", FIRST, dynamic_bytes);
}

const char *shared_end(SharedMemory *s)
{
    allow(s->arena, ARENA_BYTES);
    for (int i = 0; i < s->count; i++) {
        const SharedMemory::Variable &v = s->variables[i];
        for (uint32_t k = 0; k < GAP; k++)
            if (s->arena[v.offset + v.bytes + k] != FORBIDDEN) return v.name;
    }
    return nullptr;
}

void *shared_static(const void *tag, const char *name, size_t bytes, size_t alignment, Place at)
{
    SharedMemory *s = &current->block->shared;
    for (int i = 1; i < s->count; i++)
        if (s->variables[i].tag == tag) return s->arena + s->variables[i].offset;
    if (s->count == sizeof s->variables / sizeof *s->variables)
        fail(at, "%s: too many shared variables", name);
    s->total_bytes += bytes;
    s->static_bytes += bytes;
    if (s->static_bytes > STATIC_LIMIT_BYTES)
        fail(at, "%s: %zu bytes of static shared memory; at most %zu are allowed", name,
             s->static_bytes, STATIC_LIMIT_BYTES);
    if (s->total_bytes > SHARED_LIMIT_BYTES)
        fail(at, "%s: %zu bytes of shared memory; at most %zu are allowed", name, s->total_bytes,
             SHARED_LIMIT_BYTES);
    size_t unit = alignment < 16 ? 16 : alignment;
    uint32_t offset = static_cast<uint32_t>((s->top + unit - 1) / unit * unit);
    place_variable(s, tag, name, offset, bytes);
    return s->arena + offset;
}

void *shared_dynamic() { return current->block->shared.arena + FIRST; }

uint32_t shared_address(const void *p, Place at)
{
    const SharedMemory *s = &current->block->shared;
    size_t offset =
        static_cast<size_t>(static_cast<const unsigned char *>(p) - s->arena); /* huge if below */
    if (offset < FIRST || offset >= s->top) fail(at, "%p is not in shared memory", p);
    return static_cast<uint32_t>(offset);
}

unsigned char *shared_span(uint32_t address, size_t bytes, size_t alignment, const char *what,
                           Place at)
{
    const SharedMemory *s = &current->block->shared;
    if (address % alignment != 0)
        fail(at, "%s: shared address 0x%x is not a multiple of %zu", what, address, alignment);
    for (int i = 0; i < s->count; i++) {
        const SharedMemory::Variable &v = s->variables[i];
        if (address >= v.offset && address - v.offset + bytes <= v.bytes) return s->arena + address;
        if (address >= v.offset && address - v.offset < v.bytes + GAP)
            fail(at, "%s: out of bounds: bytes %u to %zu of %s, which has %u", what,
                 address - v.offset, address - v.offset + bytes - 1, v.name, v.bytes);
    }
    fail(at, "%s: out of bounds: shared address 0x%x is in no variable", what, address);
}

} // namespace emulation
