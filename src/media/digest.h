/* SHA-256 (libavutil's). */
#ifndef RINGREEL_DIGEST_H
#define RINGREEL_DIGEST_H

#include <stddef.h>

struct digest;
struct digest *digest_open(void);
void digest_add(struct digest *d, const void *data, size_t bytes);
void digest_close(struct digest *d, char hex[65]); /* frees d */
void digest_of(const void *data, size_t bytes, char hex[65]);

#endif
