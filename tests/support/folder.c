#include "tests/support/folder.h"

#include "tests/support/synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

char *test_folder;

int folder_make(void **state)
{
    (void)state;
    test_folder = temp_dir_make();
    return 0;
}

int folder_remove(void **state)
{
    (void)state;
    temp_dir_remove(test_folder);
    test_folder = NULL;
    return 0;
}

int folder_remove_empty(void **state)
{
    (void)state;
    int status = rmdir(test_folder);
    free(test_folder);
    test_folder = NULL;
    return status;
}

const char *folder_path(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", test_folder, name);
    return path;
}
