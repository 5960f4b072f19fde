#include "model/checkpoint_files.h"

#include "base/error.h"
#include "model/json_input.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char extension[] = ".safetensors";

int files_open(struct file_list *list, const char *path)
{
    struct safetensors *file;
    TRY(safetensors_open(&file, path));
    list->files = xrealloc(list->files, (size_t)(list->count + 1) * sizeof *list->files);
    list->files[list->count++] = file;
    return STATUS_OK;
}

void files_close(struct file_list *list)
{
    for (int i = 0; i < list->count; i++) safetensors_close(list->files[i]);
    free(list->files);
    *list = (struct file_list){0};
}

bool files_exist(const char *folder, const char *name)
{
    char *path = xasprintf("%s/%s", folder, name);
    bool exists = access(path, F_OK) == 0;
    free(path);
    return exists;
}

/* ---- shards ---------------------------------------------------------------------------------- */

static const char *base_name(const struct safetensors *file)
{
    const char *slash = strrchr(safetensors_path(file), '/');
    return slash ? slash + 1 : safetensors_path(file);
}

static struct safetensors *find_shard(const struct file_list *list, int first, const char *shard)
{
    for (int i = first; i < list->count; i++) {
        if (strcmp(base_name(list->files[i]), shard) == 0) return list->files[i];
    }
    return NULL;
}

/* The index is data: it may only name files beside itself. */
static int open_shard(struct file_list *list, const char *folder, const char *index,
                      const char *tensor, const json_t *shard)
{
    const char *name = json_string_value(shard);
    if (!name || !name[0] || strpbrk(name, "/\\") || strstr(name, ".."))
        return error_set(STATUS_INPUT,
                         "%s: tensor %.200s: the shard \"%.80s\" is not a plain file name", index,
                         tensor, name ? name : "");
    char *path = xasprintf("%s/%s", folder, name);
    int status = files_open(list, path);
    free(path);
    return status;
}

static int open_mapped(struct file_list *list, int first, const char *folder, const char *index,
                       json_t *map)
{
    const char *tensor;
    json_t *shard;
    json_object_foreach (map, tensor, shard) {
        const char *name = json_string_value(shard);
        struct safetensors *file = name ? find_shard(list, first, name) : NULL;
        if (!file) {
            TRY(open_shard(list, folder, index, tensor, shard));
            file = list->files[list->count - 1];
        }
        if (!safetensors_find(file, tensor))
            return error_set(STATUS_INPUT, "%s: tensor %.200s is missing; %s puts it there",
                             safetensors_path(file), tensor, index);
    }
    return STATUS_OK;
}

static int check_unmapped(const struct file_list *list, int first, const char *index,
                          const json_t *map)
{
    for (int i = first; i < list->count; i++) {
        const struct safetensors *file = list->files[i];
        for (int j = 0; j < safetensors_count(file); j++) {
            const char *tensor = safetensors_at(file, j)->name;
            const char *shard = json_string_value(json_object_get(map, tensor));
            if (!shard || strcmp(shard, base_name(file)) != 0)
                return error_set(STATUS_INPUT, "%s: tensor %s does not belong here: %s %s%s",
                                 safetensors_path(file), tensor, index,
                                 shard ? "puts it into " : "does not list it", shard ? shard : "");
        }
    }
    return STATUS_OK;
}

static int open_index(struct file_list *list, const char *folder, const char *index)
{
    json_t *root;
    TRY(json_input_read(&root, index));
    json_t *map = json_object_get(root, "weight_map");
    int status, first = list->count;
    if (json_object_size(map) == 0) {
        status = error_set(STATUS_INPUT, "%s: no weight_map, or an empty one", index);
        goto done;
    }
    TRY_OR(done, status, open_mapped(list, first, folder, index, map));
    status = check_unmapped(list, first, index, map);
done:
    json_decref(root);
    return status;
}

/* ---- choosing -------------------------------------------------------------------------------- */

static bool is_between(const char *name, const char *prefix, const char *suffix, bool plain)
{
    size_t length = strlen(name), front = strlen(prefix), back = strlen(suffix);
    if (length <= front + back || strncmp(name, prefix, front) != 0 ||
        strcmp(name + length - back, suffix) != 0)
        return false;
    return !plain || strcspn(name + front, ".-") == length - front - back;
}

/* The alphabetically first PREFIX...SUFFIX of a folder, so that bf16 comes before fp16 and fp32;
 * with `plain` the part between holds no dot or dash (shards do). NULL if there is none. *matches
 * counts them. */
static char *first_between(const char *folder, const char *prefix, const char *suffix, bool plain,
                           int *matches)
{
    char *first = NULL;
    *matches = 0;
    DIR *dir = opendir(folder);
    if (!dir) return NULL;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (!is_between(entry->d_name, prefix, suffix, plain)) continue;
        (*matches)++;
        if (first && strcmp(first, entry->d_name) < 0) continue;
        free(first);
        first = xstrdup(entry->d_name);
    }
    closedir(dir);
    return first;
}

/* File name inside the folder, NULL if nothing fits. */
static char *choose(const char *folder, const char *stem, bool *is_index)
{
    char *plain = xasprintf("%s%s", stem, extension),
         *index = xasprintf("%s%s.index.json", stem, extension);
    char *variant = xasprintf("%s.", stem),
         *variant_index = xasprintf("%s%s.index.", stem, extension), *chosen = NULL;
    int matches;
    *is_index = false;
    if (files_exist(folder, plain)) {
        chosen = xstrdup(plain);
    } else if (files_exist(folder, index)) {
        *is_index = true;
        chosen = xstrdup(index);
    } else if (!(chosen = first_between(folder, variant, extension, true, &matches))) {
        chosen = first_between(folder, variant_index, ".json", true, &matches);
        *is_index = chosen != NULL;
    }
    if (!chosen) {
        chosen = first_between(folder, "", extension, false, &matches);
        if (matches != 1) {
            free(chosen);
            chosen = NULL;
        }
    }
    free(plain);
    free(index);
    free(variant);
    free(variant_index);
    return chosen;
}

int files_open_folder(struct file_list *list, const char *folder, const char *stem)
{
    bool is_index;
    char *name = choose(folder, stem, &is_index);
    if (!name)
        return error_set(STATUS_INPUT, "%s: neither %s%s nor %s%s.index.json is there", folder,
                         stem, extension, stem, extension);
    char *path = xasprintf("%s/%s", folder, name);
    int status = is_index ? open_index(list, folder, path) : files_open(list, path);
    free(path);
    free(name);
    return status;
}
