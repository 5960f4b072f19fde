#include "render/noise.h"

#include "base/error.h"

enum { PIECE = 4096 }; /* a multiple of 16 */

void noise_draw(struct rng *r, enum rng_kind order, int64_t tokens, int64_t channels, int64_t first,
                int64_t rows, float *out)
{
    float piece[PIECE];
    int64_t total = tokens * channels;
    CHECK(total % 16 == 0, "noise for %lld x %lld values: not a multiple of 16", (long long)tokens,
          (long long)channels);
    for (int64_t at = 0; at < total; at += PIECE) {
        int64_t n = total - at < PIECE ? total - at : PIECE;
        rng_randn(r, piece, (size_t)n);
        for (int64_t i = 0; out && i < n; i++) {
            int64_t token = order == RNG_TORCH ? (at + i) / channels : (at + i) % tokens;
            int64_t channel = order == RNG_TORCH ? (at + i) % channels : (at + i) / tokens;
            if (token >= first && token < first + rows)
                out[(token - first) * channels + channel] = piece[i];
        }
    }
}
