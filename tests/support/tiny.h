/* The small model that is shipped, for tests of what it has learnt. RINGREEL_MODEL=FOLDER is
 * another one, laid out as models/tiny. */
#ifndef RINGREEL_TESTS_TINY_H
#define RINGREEL_TESTS_TINY_H

#include <stdbool.h>

const char *tiny_folder(void);

/* With the sanitizers all is much slower: such tests then do little and assert no figure, for what
 * they test is the model, not the memory. */
bool tiny_sanitized(void);

#endif
