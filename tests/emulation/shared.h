/* A block's shared memory: one arena in which every variable has a place with forbidden bytes
 * around it.
 *
 * Addresses of PTX (32 bits) are offsets into the arena; those of pointer accesses are ordinary
 * addresses. PTX wrappers are checked against the variables at each use. Ordinary accesses are
 * checked by AddressSanitizer where the build has it; without it a write next to a variable is
 * noticed when the block ends. Fresh memory is NaN in every floating-point format. */
#ifndef RINGREEL_EMULATION_SHARED_H
#define RINGREEL_EMULATION_SHARED_H

#include "place.h"

#include <cstddef>
#include <cstdint>

namespace emulation
{

constexpr size_t SHARED_LIMIT_BYTES = 227 * 1024; /* of a block, compute capability 9.0 and 10.0 */
constexpr size_t STATIC_LIMIT_BYTES = 48 * 1024;

struct SharedMemory {
    struct Variable {
        const void *tag; /* tells variables apart */
        const char *name;
        uint32_t offset, bytes;
    };
    unsigned char *arena;
    Variable variables[64]; /* the first is the dynamic shared memory */
    int count;
    uint32_t top; /* end of what is in use */
    size_t total_bytes, static_bytes;
};

void shared_begin(SharedMemory *s, size_t dynamic_bytes);
/* A variable beside which something was written, or NULL. */
const char *shared_end(SharedMemory *s);

/* For the current thread's block: */
void *shared_static(const void *tag, const char *name, size_t bytes, size_t alignment, Place at);
void *shared_dynamic();
uint32_t shared_address(const void *p, Place at); /* fails unless p is in a variable */
/* The inverse; fails unless all bytes lie within one variable and the address is aligned. */
unsigned char *shared_span(uint32_t address, size_t bytes, size_t alignment, const char *what,
                           Place at);

} // namespace emulation

#endif
