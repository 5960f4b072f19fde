/* Images and videos in through FFmpeg's libraries: the frames of a file in the order in which they
 * are shown, one at a time, as RGB. What the file is follows from its contents, not from its name;
 * only that file is opened (no patterns, no playlists, no network).
 *
 *     struct reader *r;
 *     struct rgb_frame frame;
 *     TRY(reader_open(&r, "photo.jpg"));
 *     int status = reader_next(r, &frame);
 *     ... frame.rgb, until the next call; NULL after the last frame ...
 *     reader_close(r);
 *
 * Turning and mirroring that a camera noted beside the picture (EXIF, display matrix) is not
 * applied; alpha is dropped. The official command line does neither as well. */
#ifndef RINGREEL_READER_H
#define RINGREEL_READER_H

#include <stddef.h>
#include <stdint.h>

/* A picture declared larger is refused before memory is taken for it. */
enum { READER_MAX_PIXELS = 1 << 26 };

struct reader;

struct rgb_frame {
    int width, height;
    ptrdiff_t stride;   /* bytes from a row to the next */
    const uint8_t *rgb; /* [height][width][3] */
};

/* STATUS_INPUT, one line that begins with the path, for whatever is wrong with the file. */
int reader_open(struct reader **out, const char *path);
/* frame->rgb is NULL after the last frame. A file without any frame, a damaged one, and frames that
 * change their size are STATUS_INPUT. */
int reader_next(struct reader *r, struct rgb_frame *frame);
void reader_close(struct reader *r); /* NULL is fine */

#endif
