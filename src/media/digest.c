#include "media/digest.h"

#include "base/error.h"

#include <libavutil/mem.h>
#include <libavutil/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct digest {
    struct AVSHA *sha;
};

struct digest *digest_open(void)
{
    struct digest *d = xmalloc(sizeof *d);
    d->sha = av_sha_alloc();
    CHECK(d->sha && av_sha_init(d->sha, 256) == 0, "libavutil gives no SHA-256");
    return d;
}

/* In pieces, because libavutil releases differ in whether they count bytes in 32 or 64 bits within
 * one call. */
void digest_add(struct digest *d, const void *data, size_t bytes)
{
    const size_t piece = (size_t)1 << 30;
    const uint8_t *p = data;
    for (; bytes > piece; p += piece, bytes -= piece) av_sha_update(d->sha, p, (unsigned)piece);
    if (bytes > 0) av_sha_update(d->sha, p, (unsigned)bytes);
}

void digest_close(struct digest *d, char hex[65])
{
    uint8_t hash[32];
    av_sha_final(d->sha, hash);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    av_free(d->sha);
    free(d);
}

void digest_of(const void *data, size_t bytes, char hex[65])
{
    struct digest *d = digest_open();
    digest_add(d, data, bytes);
    digest_close(d, hex);
}
