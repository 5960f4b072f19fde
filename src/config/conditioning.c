#include "config/conditioning.h"

#include <string.h>

/* An item is a record with a table of its own. Its strength is filled in later when it gives none
 * (checks.c). */
#define FIELD(key_) .key = #key_, .offset = offsetof(struct conditioning_item, key_)
static const struct setting fields[] = {
    {FIELD(media), .type = TYPE_INPUT_PATH},
    {FIELD(frame), .type = TYPE_INT64, .initial = "0", .int_max = 99999},
    {FIELD(strength), .type = TYPE_FLOAT, .initial = "null", .max = 1, .nullable = true},
};
enum { FIELDS = (int)(sizeof fields / sizeof *fields) };

static bool refuse(struct setting_problem *p, const struct yaml_node *at, const char *key,
                   const char *cause)
{
    char why[sizeof p->why];
    snprintf(why, sizeof why, "%.*s: %.400s", TEXT_SHOWN, key, cause);
    strcpy(p->why, why);
    p->at = at;
    return false;
}

static bool read_field(struct conditioning_item *item, struct text_pool *texts,
                       const struct yaml_doc *doc, const struct yaml_node *key,
                       const struct yaml_node *value, bool seen[FIELDS], struct setting_problem *p)
{
    char shown[TEXT_SHOWN];
    int i = 0;
    while (i < FIELDS && strcmp(fields[i].key, key->text) != 0) i++;
    if (i == FIELDS)
        return refuse(p, key, text_show(shown, key->text),
                      "unknown; the keys of an item are media, frame and strength");
    if (seen[i]) return refuse(p, key, key->text, "given twice in the same map");
    seen[i] = true;
    return setting_from_node(&fields[i], item, texts, doc, value, p)
               ? true
               : refuse(p, p->at, key->text, p->why);
}

static bool read_item(struct conditioning_item *item, struct text_pool *texts,
                      const struct yaml_doc *doc, const struct yaml_node *node,
                      struct setting_problem *p)
{
    bool seen[FIELDS] = {false};
    for (int i = 0; i < FIELDS; i++) setting_reset(&fields[i], item, texts);
    for (const struct yaml_node *key = yaml_doc_first(doc, node); key;) {
        const struct yaml_node *value = yaml_doc_next(doc, key);
        if (!read_field(item, texts, doc, key, value, seen, p)) return false;
        key = yaml_doc_next(doc, value);
    }
    return item->media ? true : refuse(p, node, "media", "missing; give the path of an image");
}

bool conditioning_from_node(struct conditioning *list, struct text_pool *texts,
                            const struct yaml_doc *doc, const struct yaml_node *node,
                            struct setting_problem *problem)
{
    const struct yaml_node *item = yaml_doc_first(doc, node);
    for (; item; item = yaml_doc_next(doc, item)) {
        problem->at = item;
        if (list->count == MAX_CONDITIONING) {
            snprintf(problem->why, sizeof problem->why, "has more than %d items", MAX_CONDITIONING);
            return false;
        }
        if (item->kind != YAML_MAP) {
            snprintf(problem->why, sizeof problem->why,
                     "every item must be a map such as {media: FILE, frame: 0, strength: 1}");
            return false;
        }
        if (!read_item(&list->items[list->count], texts, doc, item, problem)) return false;
        list->count++;
    }
    return true;
}

void conditioning_print(FILE *out, const struct conditioning *list)
{
    fputc('[', out);
    for (int i = 0; i < list->count; i++) {
        for (int k = 0; k < FIELDS; k++) {
            fprintf(out, "%s%s: ", k ? ", " : i ? ", {" : "{", fields[k].key);
            setting_print(out, &fields[k], &list->items[i]);
        }
        fputc('}', out);
    }
    fputc(']', out);
}
