#include "render/noise.h"

#include "base/error.h"

enum { PIECE = 4096 }; /* a multiple of 16 */

static int64_t count_of(int64_t tokens, int64_t channels)
{
    int64_t total = tokens * channels;
    CHECK(total % 16 == 0, "noise for %lld x %lld values: not a multiple of 16", (long long)tokens,
          (long long)channels);
    return total;
}

static int64_t draw_piece(struct rng *r, float piece[PIECE], int64_t at, int64_t total)
{
    int64_t n = total - at < PIECE ? total - at : PIECE;
    rng_randn(r, piece, (size_t)n);
    return n;
}

/* Copies what [from, from + n) of a stream has in common with [first, end) to out + its distance
 * from `first`, with `stride` values from one to the next. */
static void keep(struct device *dev, float *out, int64_t stride, const float *piece, int64_t from,
                 int64_t n, int64_t first, int64_t end)
{
    int64_t begin = from > first ? from : first;
    int64_t kept = (from + n < end ? from + n : end) - begin;
    if (kept <= 0) return;
    float *to = out + (begin - first) * stride;
    const float *values = piece + (begin - from);
    if (stride == 1)
        op_upload(dev, to, values, (size_t)kept * sizeof *to);
    else
        op_upload_rows(dev, to, (size_t)stride * sizeof *to, values, sizeof *to, sizeof *to, kept);
}

void noise_draw(struct device *dev, struct rng *r, enum rng_kind order, int64_t tokens,
                int64_t channels, int64_t first, int64_t rows, float *out)
{
    float piece[PIECE];
    int64_t total = count_of(tokens, channels), n;
    for (int64_t at = 0; at < total; at += n) {
        n = draw_piece(r, piece, at, total);
        if (order == RNG_TORCH)
            keep(dev, out, 1, piece, at, n, first * channels, (first + rows) * channels);
        for (int64_t i = 0, part; order != RNG_TORCH && i < n; i += part) { /* a channel each */
            int64_t channel = (at + i) / tokens, token = (at + i) % tokens;
            part = tokens - token < n - i ? tokens - token : n - i;
            keep(dev, out + channel, channels, piece + i, token, part, first, first + rows);
        }
    }
}

void noise_skip(struct rng *r, int64_t tokens, int64_t channels)
{
    float piece[PIECE];
    int64_t total = count_of(tokens, channels), n;
    for (int64_t at = 0; at < total; at += n) n = draw_piece(r, piece, at, total);
}
