/* Files nobody vouches for: job files, JSON beside weights, tokenizers. */
#ifndef RINGREEL_FILE_H
#define RINGREEL_FILE_H

#include <stddef.h>

/* Reads a whole ordinary file of at most `max_bytes`; a NUL byte follows the data. The caller frees
 * *data. STATUS_INPUT naming the path, with *data NULL: not there, a folder, a pipe, too large, cut
 * short while it is read. */
int file_read(const char *path, size_t max_bytes, char **data, size_t *bytes);

#endif
