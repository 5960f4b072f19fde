/* One shot, from what was asked to what is computed: padded sizes, grid, crop, noise levels. */
#ifndef RINGREEL_SHOT_H
#define RINGREEL_SHOT_H

#include "config/options.h"
#include "model/schedule.h"

#include <stdbool.h>
#include <stdint.h>

struct shot {
    int number; /* 0-based; messages say number + 1 */
    const struct shot_options *options;
    int64_t f, h, w;               /* latent grid */
    int64_t frames, height, width; /* decoded: 8(f-1)+1, 32h, 32w; cropped to what was asked */
    int64_t top, left;             /* first row and column that are kept */
    int64_t first_frame, written;  /* of what was asked: the first frame of the file, how many */
    int64_t tokens;                /* f h w */
    int time_factor, space_factor; /* 8, 32 */
    bool uses_negative;            /* some step's guidance_scale is > 1 */
    struct schedule schedule;
};

/* STATUS_INPUT from the schedule or for guidance lists that do not fit. Local. */
int shot_prepare(struct shot *s, int number, const struct shot_options *o,
                 const struct scheduler_config *scheduler, int time_factor, int space_factor);

#endif
