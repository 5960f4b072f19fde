/* Memory belongs to named arenas and is taken when the engine opens; nothing allocates in the step
 * loop.
 *
 * A layout function is called twice with the same arena: first while `base` is NULL (planning: it
 * only counts), then after arena_commit. So the plan that is printed and the memory that is used
 * come from the same lines of code:
 *
 *     struct arena a;
 *     arena_init(&a, "latents");                                    // of the host
 *     arena_init_on(&a, "transformer activations", device_memory(dev)); // or of a device
 *     lay_out(&a, &model);      // counts
 *     arena_commit(&a);         // one piece of memory, 64-byte aligned, zeroed
 *     lay_out(&a, &model);      // hands out the same sequence of blocks
 */
#ifndef RINGREEL_ARENA_H
#define RINGREEL_ARENA_H

#include "base/tensor.h"

#include <stddef.h>
#include <stdint.h>

/* Where an arena lies: the host's memory, a device's, or memory of the host that a device copies
 * from and to fast (kernels/ops.h). */
struct arena_memory {
    void *(*take)(size_t bytes,
                  const char *name);          /* 64-byte aligned, zeroed; NULL: there is none */
    void (*give)(void *memory, size_t bytes); /* back */
    /* How much there is, for a message: "of ... 1.50 GiB are free"; NULL: it does not say. */
    void (*describe)(char *text, size_t room);
};
extern const struct arena_memory arena_host;

struct arena {
    const char *name;
    unsigned char *base;
    size_t used_bytes, size_bytes;
    const struct arena_memory *memory;
};

void arena_init(struct arena *a, const char *name); /* on the host */
void arena_init_on(struct arena *a, const char *name, const struct arena_memory *memory);
void *arena_take(struct arena *a, size_t bytes); /* 64-byte aligned; NULL while planning */
float *arena_floats(struct arena *a, int64_t count);
void *arena_values(struct arena *a, int64_t count, enum dtype type);
void arena_commit(
    struct arena *a);             /* takes size_bytes; CHECK-fails naming the arena and the bytes */
void arena_free(struct arena *a); /* can be laid out anew */

#endif
