/* What tensor cores do at once: mma.sync, and the loads and stores of its fragments. */
#ifndef RINGREEL_EMULATION_MMA_H
#define RINGREEL_EMULATION_MMA_H

#include "place.h"

#include <cstdint>

namespace emulation
{

/* Each lane names a row of 16 bytes: rows 8 j … 8 j + 7 of lanes are matrix j, 8x8 of 16 bits. */
void load_matrices(uint32_t (&r)[4], uint32_t row, bool transposed, Place at);
void store_matrices(uint32_t row, const uint32_t (&r)[4], bool transposed, Place at);

/* c += a b: m16n8k16 of bf16, m16n8k8 of tf32 (fp32 of which the low 13 bits are not seen) */
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Place at);
void mma_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Place at);

} // namespace emulation

#endif
