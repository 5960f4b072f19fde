/* The frames of whatever holds some, in order: an image or a video, a sequence of images
 * ("frames/%06d.png": from the smallest number there is to the last before one that is missing,
 * unless a file has just that name), or what --dump writes, a tensor "frames" of uint8 [F,H,W,3].
 */
#ifndef RINGREEL_FRAME_SOURCE_H
#define RINGREEL_FRAME_SOURCE_H

#include "media/reader.h"
#include "model/safetensors.h"

struct frame_source;

/* STATUS_INPUT, one line that begins with the path. `tensors` is the open file of this path, or
 * NULL if it is not safetensors; it must outlive the source. */
int frame_source_open(struct frame_source **out, const char *path,
                      const struct safetensors *tensors);
/* As reader_next: frame->rgb is NULL after the last frame. */
int frame_source_next(struct frame_source *s, struct rgb_frame *frame);
void frame_source_close(struct frame_source *s); /* NULL is fine */

#endif
