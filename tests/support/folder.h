/* A folder of the test program's own, for files that its tests write: a set-up and tear-downs for
 * cmocka, of a group or of every test. */
#ifndef RINGREEL_TESTS_FOLDER_H
#define RINGREEL_TESTS_FOLDER_H

extern char *test_folder; /* /tmp/ringreel-..., between set-up and tear-down */

int folder_make(void **state);
int folder_remove(void **state);       /* with all that it holds */
int folder_remove_empty(void **state); /* fails where a test left a file */

/* The path of a file in it, until the next call. */
const char *folder_path(const char *name);

#endif
