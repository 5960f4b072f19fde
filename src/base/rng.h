/* The random numbers of PyTorch's CPU generator, bit for bit: MT19937 and the two ways torch.randn
 * turns its words into normals (spec: shared/spec/vae-and-scheduler.md section 7; source:
 * ATen/native/cpu/DistributionTemplates.h). Every rank may draw the same stream and keep its own
 * part, so no noise is ever communicated. */
#ifndef RINGREEL_RNG_H
#define RINGREEL_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rng {
    uint32_t state[624];
    int next;
    bool has_cached_normal; /* the scalar path draws pairs and keeps the second */
    double cached_normal;
};

void rng_seed(struct rng *r, uint64_t seed); /* as torch.manual_seed: the low 32 bits are used */
uint32_t rng_u32(struct rng *r);
uint64_t rng_u64(struct rng *r); /* first word drawn is the high half */

/* torch.randn(n) into a contiguous float32 tensor: n >= 16 takes the vector path (blocks of 16), n
 * < 16 the scalar one. */
void rng_randn(struct rng *r, float *out, size_t n);
/* torch.randn_like of a non-contiguous (e.g. permuted) float32 tensor: scalar double path, in
 * memory order. */
void rng_randn_strided(struct rng *r, float *out, size_t n);

#endif
