/* OUTPUT.json beside every video: all that is needed to render it again. */
#ifndef RINGREEL_SIDECAR_H
#define RINGREEL_SIDECAR_H

#include "render/engine.h"

struct sidecar_facts {
    char latents_sha256[65], frames_sha256[65];
    double decode_s;
};
/* Can the sidecar of this shot be written? STATUS_INPUT. Leaves no file behind. */
int sidecar_check(const struct shot_options *o);
/* Written beside and renamed. STATUS_INPUT. */
int sidecar_write(const struct engine *e, const struct shot *s, const struct sidecar_facts *facts);

#endif
