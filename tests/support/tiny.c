#include "tests/support/tiny.h"

#include <stdlib.h>
#include <string.h>

const char *tiny_folder(void)
{
    const char *named = getenv("RINGREEL_MODEL");
    return named ? named : "models/tiny";
}

bool tiny_sanitized(void)
{
    const char *value = getenv("SANITIZE");
    return value && strcmp(value, "1") == 0;
}
