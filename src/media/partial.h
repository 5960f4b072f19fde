/* Files that appear whole or not at all: written as NAME.part-PID.EXT beside the final name, then
 * synced and renamed. Every name in use stands in a fixed table, so that a signal handler can
 * remove what this process has begun. */
#ifndef RINGREEL_PARTIAL_H
#define RINGREEL_PARTIAL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct partial {
    char *path; /* the final name; NULL: nothing is open */
    char *name; /* what is being written now */
    int fd;
    int slot;  /* in the table of partial files */
    int error; /* errno of the first write that failed, 0 for none */
};

/* Makes the folder (and those above it) if missing, refuses a final name that is a folder, creates
 * the partial file. */
int partial_open(struct partial *p, const char *path);
/* Writes all bytes; on failure remembers errno in p->error and returns its negative. */
int partial_write(struct partial *p, const void *data, size_t bytes);
/* The same at a place of the file, which may lie behind its present end. */
int partial_write_at(struct partial *p, const void *data, size_t bytes, uint64_t offset);
/* A stream into p, to be closed before the commit; the commit reports what it could not write. */
FILE *partial_stream(struct partial *p);
/* STATUS_INPUT "PATH: No space left on device" from p->error. */
int partial_failed(const struct partial *p);
/* Syncs and renames. Closes p; on failure the partial file is removed. */
int partial_commit(struct partial *p);
/* Removes the partial file and closes p; nothing to do when none is open. */
void partial_drop(struct partial *p);

void partial_remove_all(void); /* async-signal-safe */

/* Makes every folder above `path`, if missing. Messages begin with `blame`: a path or a setting. */
int partial_make_folders(const char *blame, const char *path);

#endif
