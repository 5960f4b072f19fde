/* The table behind options.h: one row per setting. The YAML parser, the flags, the defaults, the
 * help and the run header walk this table; none of them names a setting of its own. */
#ifndef RINGREEL_SETTINGS_H
#define RINGREEL_SETTINGS_H

#include "config/options.h"
#include "config/text.h"
#include "config/yaml.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum setting_scope { SCOPE_JOB, SCOPE_SHOT };

enum setting_type {                    /* in the struct */
                    TYPE_TEXT,         /* const char *  */
                    TYPE_PATH,         /* const char *: a file or folder, from the current folder */
                    TYPE_INPUT_PATH,   /* const char *: as TYPE_PATH, but from the job file's folder
                                        inside one */
                    TYPE_WORD,         /* const char *: the name of one of `choices` */
                    TYPE_CHOICE,       /* int: the value of one of `choices` */
                    TYPE_INT,          /* int */
                    TYPE_INT64,        /* int64_t */
                    TYPE_FLOAT,        /* double */
                    TYPE_DURATION,     /* double, seconds; written as 600, 600s, 10m or 2h */
                    TYPE_BOOL,         /* bool */
                    TYPE_RANGE,        /* struct frame_range: "all", 5, 100-199 */
                    TYPE_FLOATS,       /* struct float_list: a number or a list */
                    TYPE_BLOCKS,       /* struct block_lists: a list, or a list of lists */
                    TYPE_CONDITIONING, /* struct conditioning: a list of maps; as TYPE_INPUT_PATH */
                    TYPE_IMAGE,        /* struct conditioning: the path of its only item */
};

struct setting_choice {
    const char *name, *alias; /* compared without case; the alias may be NULL */
    int value;
    bool unsupported; /* an official name that cannot be rendered yet */
};

struct setting {
    const char *key;
    enum setting_scope scope;
    enum setting_type type;
    size_t offset;            /* in struct job_options or struct shot_options */
    const char *group;        /* heading in the help; rows of a group stand together */
    const char *initial;      /* the default as one would type it; NULL: none given */
    int64_t int_min, int_max; /* TYPE_INT, TYPE_INT64, each block of TYPE_BLOCKS */
    double min, max;          /* TYPE_FLOAT, TYPE_DURATION, each number of TYPE_FLOATS */
    bool above_min;           /* min itself is not allowed */
    bool list_may_be_empty;   /* TYPE_FLOATS: empty means none given */
    bool nullable;            /* TYPE_FLOAT: "null" is stored as -1 */
    bool folded;              /* ends up in the field of another row; only that is printed */
    const struct setting_choice *choices; /* ends with a NULL name */
    char short_flag;                      /* 'o' for -o, 0 for none */
    const char *metavar, *help;
};

enum { SETTINGS_MAX = 80, SETTING_KEY_MAX = 64 };
extern const struct setting settings[];
extern const int settings_count; /* <= SETTINGS_MAX */

const struct setting *setting_find(const char *key);
static inline int setting_index(const struct setting *s) { return (int)(s - settings); }
size_t setting_bytes(const struct setting *s); /* of its field */
/* Another row that sets the same field, NULL if there is none. */
const struct setting *setting_sharing_field(const struct setting *s);
/* The paths of input files in the field, NULL after the last. */
const char **setting_input_path(const struct setting *s, void *record, int i);

/* Why an unknown key is refused, as the tail of a message: official but not supported yet, or
 * unknown with the nearest known name. `value` (may be NULL) is its scalar; NULL is returned when
 * the key is not supported but this value asks for nothing here, so it can be passed over. */
const char *setting_refusal(char out[256], const char *key, const char *value);

/* ---- values (values.c) ------------------------------------------------------------
 * `record` is the struct that holds the field. On failure false is returned and `problem` says what
 * is allowed and what was found; `at` is the offending YAML node (a list's element). */
struct setting_problem {
    char why[512];
    const struct yaml_node *at;
};
bool setting_from_node(const struct setting *s, void *record, struct text_pool *texts,
                       const struct yaml_doc *doc, const struct yaml_node *node,
                       struct setting_problem *problem);
/* From a flag or from the table: numbers of a list separated by ',', lists by ';', or as in YAML
 * with brackets. */
bool setting_from_text(const struct setting *s, void *record, struct text_pool *texts,
                       const char *text, struct setting_problem *problem);
void setting_reset(const struct setting *s, void *record, struct text_pool *texts);

/* The value as YAML on one line; setting_from_node reads it back unchanged. */
void setting_print(FILE *out, const struct setting *s, const void *record);
/* What setting_print writes, as a string; free() it. */
char *setting_text(const struct setting *s, const void *record);
bool setting_is_default(const struct setting *s, const void *record);
/* "32 to 16384", "auto, cpu or cuda", "" where nothing limits the value */
const char *setting_limits(char out[256], const struct setting *s);

#endif
