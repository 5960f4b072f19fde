/* Memory belongs to named arenas and is taken when the engine opens; nothing allocates in the step
 * loop.
 *
 * A layout function is called twice with the same arena: first while `base` is NULL (planning: it
 * only counts), then after arena_commit. So the plan that is printed and the memory that is used
 * come from the same lines of code:
 *
 *     struct arena a;
 *     arena_init(&a, "transformer activations");
 *     lay_out(&a, &model);      // counts
 *     arena_commit(&a);         // one mapping, 64-byte aligned, zeroed
 *     lay_out(&a, &model);      // hands out the same sequence of blocks
 */
#ifndef RINGREEL_ARENA_H
#define RINGREEL_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct arena {
    const char *name;
    unsigned char *base;
    size_t used_bytes, size_bytes;
};

void arena_init(struct arena *a, const char *name);
void *arena_take(struct arena *a, size_t bytes); /* 64-byte aligned; NULL while planning */
float *arena_floats(struct arena *a, int64_t count);
void arena_commit(
    struct arena *a); /* maps size_bytes; CHECK-fails naming the arena and the bytes */
void arena_free(struct arena *a);

#endif
