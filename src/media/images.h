/* One PNG file a frame: "frames/%06d.png" counts from 0, "still.png" holds a single frame. */
#ifndef RINGREEL_IMAGES_H
#define RINGREEL_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct images;

bool images_wanted(const char *path); /* does the name end in .png? */

bool images_are_many(const char *path); /* is the name a pattern for several? */

/* `frames` is how many will come, 0 when not known, `first` the number of the first. Checks the
 * name and that files can be made. */
int images_open(struct images **out, const char *path, int64_t frames, int64_t first);
/* In any order, of a sequence from several threads at a time. */
int images_put(struct images *images, int64_t number, const void *png, size_t bytes);
int images_finish(struct images *images); /* frees images whatever happens */
/* Whole frames of a sequence stay. NULL is fine. */
void images_drop(struct images *images);

/* The file of frame `number` of a sequence; the caller frees it. NULL: the path is no pattern.
 * STATUS_INPUT for a pattern that cannot be meant. */
int images_frame_path(char **out, const char *path, int64_t number);
/* The smallest number of which a sequence has a file, 0 when there is none. `path` is a pattern
 * that images_frame_path takes. */
int64_t images_first(const char *path);

#endif
