#include "tests/support/tiny.h"

#include "base/error.h"
#include "base/memory.h"
#include "tests/support/synth.h"

#include <stdlib.h>
#include <string.h>

const char *tiny_folder(void)
{
    const char *named = getenv("RINGREEL_MODEL");
    return named ? named : "models/tiny";
}

bool tiny_has_learnt(void)
{
    char *path = xasprintf("%s/ltxv-tiny.safetensors", tiny_folder());
    struct safetensors *f;
    if (safetensors_open(&f, path) != STATUS_OK) fail_msg("%s", error_message());
    bool learnt = safetensors_metadata(f, "learnt") != NULL;
    safetensors_close(f);
    free(path);
    return learnt;
}

bool tiny_sanitized(void)
{
    const char *value = getenv("SANITIZE");
    return value && strcmp(value, "1") == 0;
}
