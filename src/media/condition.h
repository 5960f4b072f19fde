/* What the model is shown of an image it begins from: cut to the shape of the video, softened,
 * degraded as video is, scaled and padded, as the official command line prepares it. Each frame of
 * a conditioning video is prepared the same way. */
#ifndef RINGREEL_CONDITION_H
#define RINGREEL_CONDITION_H

#include "media/reader.h"

/* The asked picture inside the padded one that the VAE sees (struct shot has these numbers). */
struct condition_size {
    int width, height; /* asked */
    int padded_width, padded_height, left, top;
};

/* The largest part around the centre that has the shape of width x height. It may be empty. */
struct condition_crop {
    int x, y, width, height;
};
struct condition_crop condition_crop(int source_width, int source_height, int width, int height);

/* out: [padded_height][padded_width][3] in [-1, 1], padding 0. crf 1 to 51: quality of the H.264
 * round trip; 0: none. STATUS_INPUT, beginning with `name`, for pictures of which less than two
 * rows or columns remain and where H.264 refuses. Needs 15 bytes a source pixel meanwhile. */
int condition_frame(float *out, const struct rgb_frame *frame, const struct condition_size *size,
                    int crf, const char *name);

/* The same of the first frame of a file. */
int condition_image(float *out, const char *path, const struct condition_size *size, int crf);

#endif
