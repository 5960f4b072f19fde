/* UTF-8, strictly: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef RINGREEL_UTF8_H
#define RINGREEL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length in bytes of the character at `text` (1..4) and its code point; 0 if it is none or cut off.
 * `bytes` > 0. */
size_t utf8_decode(const void *text, size_t bytes, uint32_t *code);

/* Bytes of the longest prefix that is valid. */
size_t utf8_prefix(const void *text, size_t bytes);
static inline bool utf8_valid(const void *text, size_t bytes)
{
    return utf8_prefix(text, bytes) == bytes;
}

#endif
