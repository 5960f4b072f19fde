/* Values of settings: from YAML nodes and from flags into the structs of options.h, and back. */
#include "config/settings.h"

#include "base/error.h"
#include "base/utf8.h"
#include "config/conditioning.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *field(const struct setting *s, void *record) { return (char *)record + s->offset; }

/* One scalar. A flag has no quotes to tell text from numbers: it is what the setting wants. */
struct scalar {
    const char *text;
    enum { FROM_FLAG, PLAIN, QUOTED } style;
};

static bool is_null(struct scalar v)
{
    return v.style != QUOTED && strcmp(v.text, "") != 0 && yaml_scalar_kind(v.text) == YAML_NULL;
}

/* ---- what is allowed ------------------------------------------------------------------------- */

static void print_choices(FILE *out, const struct setting *s)
{
    const char *before = "";
    for (const struct setting_choice *c = s->choices; c->name; c++) {
        if (c->unsupported) continue;
        fprintf(out, "%s%s", before, c->name);
        if (c->alias) fprintf(out, " (%s)", c->alias);
        before = c[1].name && !c[2].name && !c[1].unsupported ? " or " : ", ";
    }
}

static void print_limits(FILE *out, const struct setting *s)
{
    switch (s->type) {
    case TYPE_TEXT:
    case TYPE_PATH:
    case TYPE_INPUT_PATH:
    case TYPE_BOOL:
    case TYPE_CONDITIONING:
    case TYPE_IMAGE:
        break;
    case TYPE_WORD:
    case TYPE_CHOICE:
        print_choices(out, s);
        break;
    case TYPE_INT:
    case TYPE_INT64:
    case TYPE_BLOCKS:
    case TYPE_RANGE:
        fprintf(out, "%lld to %lld", (long long)s->int_min, (long long)s->int_max);
        break;
    case TYPE_FLOAT:
    case TYPE_DURATION:
    case TYPE_FLOATS:
        fprintf(out, s->above_min ? "above %g, up to %g" : "%g to %g", s->min, s->max);
        break;
    }
}

const char *setting_limits(char out[256], const struct setting *s)
{
    FILE *to = fmemopen(out, 256, "w");
    CHECK(to, "out of memory");
    out[0] = '\0';
    print_limits(to, s);
    fclose(to);
    return out;
}

/* "must be ..." */
static const char *allowed(char out[256], const struct setting *s)
{
    char limits[256];
    setting_limits(limits, s);
    const char *what = "", *from = s->above_min ? " " : " from ", *after = "";
    switch (s->type) {
    case TYPE_TEXT:
        return "text";
    case TYPE_PATH:
    case TYPE_INPUT_PATH:
    case TYPE_IMAGE:
        return "a path";
    case TYPE_CONDITIONING:
        return "a list of maps such as {media: FILE, frame: 0, strength: 1}";
    case TYPE_BOOL:
        return "true or false";
    case TYPE_WORD:
    case TYPE_CHOICE:
        from = "";
        break;
    case TYPE_INT:
    case TYPE_INT64:
        what = "a whole number";
        break;
    case TYPE_RANGE:
        what = "all, a frame (5) or a range of them (100-199)";
        from = ", ";
        break;
    case TYPE_FLOAT:
        what = "a number";
        after = s->nullable ? ", or null" : "";
        break;
    case TYPE_DURATION:
        what = "a time (600, 600s, 10m or 2h)";
        after = " seconds";
        break;
    case TYPE_FLOATS:
        what = "a number or a list of numbers";
        break;
    case TYPE_BLOCKS:
        what = "a list of block numbers";
        after = ", or a list of such lists";
        break;
    }
    snprintf(out, 256, "%s%s%.150s%s", what, from, limits, after);
    return out;
}

static bool refuse(const struct setting *s, struct setting_problem *p, const char *found)
{
    char what[256], shown[TEXT_SHOWN];
    snprintf(p->why, sizeof p->why, "must be %s, not %s", allowed(what, s),
             text_show(shown, found));
    return false;
}

/* For things that have no short text of their own: "a map". */
static bool refuse_kind(const struct setting *s, struct setting_problem *p, const char *found)
{
    char what[256];
    snprintf(p->why, sizeof p->why, "must be %s, not %s", allowed(what, s), found);
    return false;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* Decimal, 0x or 0o as in YAML 1.2: a leading zero means nothing. */
static bool read_whole(const char *text, int64_t *value)
{
    int base = strncmp(text, "0x", 2) == 0 ? 16 : strncmp(text, "0o", 2) == 0 ? 8 : 10;
    const char *digits = text + (base != 10 ? 2 : 0);
    const char *unsigned_part = digits + (base == 10 && (*digits == '-' || *digits == '+'));
    if (yaml_scalar_kind(text) != YAML_NUMBER || strpbrk(unsigned_part, base == 16 ? "" : ".eE"))
        return false;
    char *end;
    errno = 0;
    *value = strtoll(digits, &end, base);
    return errno == 0 && end != digits && *end == '\0';
}

static bool read_real(const char *text, double *value)
{
    if (yaml_scalar_kind(text) != YAML_NUMBER) return false;
    char *end;
    *value = strtod(text, &end); /* hexadecimal and octal forms stop early or overshoot: refused */
    return *end == '\0' && isfinite(*value) && !strpbrk(text, "xX");
}

static bool whole_in_range(const struct setting *s, struct scalar v, struct setting_problem *p,
                           int64_t *value)
{
    if (v.style == QUOTED) return refuse_kind(s, p, "quoted text");
    return read_whole(v.text, value) && *value >= s->int_min && *value <= s->int_max
               ? true
               : refuse(s, p, v.text);
}

static bool real_in_range(const struct setting *s, struct scalar v, struct setting_problem *p,
                          double *value)
{
    if (v.style == QUOTED) return refuse_kind(s, p, "quoted text");
    if (!read_real(v.text, value)) return refuse(s, p, v.text);
    bool above = s->above_min ? *value > s->min : *value >= s->min;
    if (*value == 0) *value = 0; /* -0 would be printed as such */
    return above && *value <= s->max ? true : refuse(s, p, v.text);
}

static bool duration_in_range(const struct setting *s, struct scalar v, struct setting_problem *p,
                              double *value)
{
    static const struct {
        char letter;
        double seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}};
    char number[32];
    size_t n = strlen(v.text);
    double unit = 1;
    for (size_t i = 0; n > 0 && i < sizeof units / sizeof *units; i++)
        if (v.text[n - 1] == units[i].letter) {
            unit = units[i].seconds;
            n--;
            break;
        }
    if (n >= sizeof number) return refuse(s, p, v.text);
    memcpy(number, v.text, n);
    number[n] = '\0';
    if (!read_real(number, value)) return refuse(s, p, v.text);
    *value *= unit;
    return *value >= s->min && *value <= s->max ? true : refuse(s, p, v.text);
}

/* Digits and nothing else: the range of int_max is small. */
static bool read_frame(const struct setting *s, const char **text, int *value)
{
    size_t digits = strspn(*text, "0123456789");
    if (digits == 0 || digits > 9) return false;
    *value = (int)strtol(*text, NULL, 10);
    *text += digits;
    return *value <= s->int_max;
}

/* "100-199" is text in YAML, 5 a number: both are meant, with or without quotes. */
static bool read_range(const struct setting *s, struct scalar v, struct setting_problem *p,
                       struct frame_range *range)
{
    const char *text = v.text;
    *range = (struct frame_range){0, -1};
    if (strcasecmp(text, "all") == 0) return true;
    bool good = read_frame(s, &text, &range->first);
    range->last = range->first;
    if (good && *text == '-') {
        text++;
        good = read_frame(s, &text, &range->last);
    }
    if (good && *text == '\0' && range->first <= range->last) return true;
    return refuse(s, p, v.text);
}

/* ---- words ----------------------------------------------------------------------------------- */

static bool find_choice(const struct setting *s, struct scalar v, struct setting_problem *p,
                        const struct setting_choice **found)
{
    for (const struct setting_choice *c = s->choices; c->name; c++) {
        bool same = strcasecmp(v.text, c->name) == 0;
        if (!same && !(c->alias && strcasecmp(v.text, c->alias) == 0)) continue;
        *found = c;
        char what[256];
        if (c->unsupported)
            snprintf(p->why, sizeof p->why, "%s is not supported yet; use %s", c->name,
                     allowed(what, s));
        return !c->unsupported;
    }
    return refuse(s, p, v.text);
}

static bool read_bool(const struct setting *s, struct scalar v, struct setting_problem *p,
                      bool *value)
{
    static const char *const habits[] = {"yes", "no", "on", "off", "y", "n", "1", "0"};
    if (v.style == QUOTED) return refuse_kind(s, p, "quoted text");
    if (yaml_scalar_kind(v.text) == YAML_BOOL) {
        *value = v.text[0] == 't' || v.text[0] == 'T';
        return true;
    }
    refuse(s, p, v.text);
    for (size_t i = 0; i < sizeof habits / sizeof *habits; i++)
        if (strcasecmp(v.text, habits[i]) == 0)
            strncat(p->why, " (only true and false are yes and no here)",
                    sizeof p->why - strlen(p->why) - 1);
    return false;
}

static bool read_text(const struct setting *s, struct scalar v, struct setting_problem *p,
                      struct text_pool *texts, const char **value)
{
    enum yaml_scalar kind = v.style == PLAIN ? yaml_scalar_kind(v.text) : YAML_TEXT;
    char shown[TEXT_SHOWN];
    if (kind == YAML_NULL && !s->initial) {
        *value = NULL;
        return true;
    }
    if (kind == YAML_NULL) return refuse_kind(s, p, "null; write \"\" for empty text");
    if (kind != YAML_TEXT) {
        snprintf(p->why, sizeof p->why, "must be text, not %s %s; put it in quotes",
                 kind == YAML_BOOL ? "the boolean" : "the number", text_show(shown, v.text));
        return false;
    }
    if (!utf8_valid(v.text, strlen(v.text))) {
        snprintf(p->why, sizeof p->why, "%s is not valid UTF-8", text_show(shown, v.text));
        return false;
    }
    if (s->type != TYPE_TEXT && v.text[0] == '\0') return refuse_kind(s, p, "empty text");
    *value = text_keep(texts, v.text);
    return true;
}

/* null: none, where another image is the default. */
static bool read_image(const struct setting *s, struct scalar v, struct setting_problem *p,
                       struct text_pool *texts, struct conditioning *list)
{
    *list = (struct conditioning){.items[0].strength = -1};
    if (!read_text(s, v, p, texts, &list->items[0].media)) return false;
    list->count = list->items[0].media != NULL;
    return true;
}

/* Every type but lists. */
static bool read_scalar(const struct setting *s, void *record, struct text_pool *texts,
                        struct scalar v, struct setting_problem *p)
{
    void *to = field(s, record);
    const struct setting_choice *choice;
    int64_t whole;
    double real;
    bool yes = false;
    switch (s->type) {
    case TYPE_TEXT:
    case TYPE_PATH:
    case TYPE_INPUT_PATH:
        return read_text(s, v, p, texts, to);
    case TYPE_WORD:
        if (!find_choice(s, v, p, &choice)) return false;
        *(const char **)to = choice->name;
        return true;
    case TYPE_CHOICE:
        if (!find_choice(s, v, p, &choice)) return false;
        *(int *)to = choice->value;
        return true;
    case TYPE_INT:
    case TYPE_INT64:
        if (!whole_in_range(s, v, p, &whole)) return false;
        if (s->type == TYPE_INT)
            *(int *)to = (int)whole;
        else
            *(int64_t *)to = whole;
        return true;
    case TYPE_FLOAT:
        if (s->nullable && is_null(v))
            real = -1;
        else if (!real_in_range(s, v, p, &real))
            return false;
        *(double *)to = real;
        return true;
    case TYPE_DURATION:
        if (!duration_in_range(s, v, p, &real)) return false;
        *(double *)to = real;
        return true;
    case TYPE_BOOL:
        if (!read_bool(s, v, p, &yes)) return false;
        *(bool *)to = yes;
        return true;
    case TYPE_RANGE:
        return read_range(s, v, p, to);
    case TYPE_IMAGE:
        return read_image(s, v, p, texts, to);
    case TYPE_FLOATS:
    case TYPE_BLOCKS:
    case TYPE_CONDITIONING:
        break;
    }
    return false;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static bool too_many(struct setting_problem *p, int most, const char *what)
{
    snprintf(p->why, sizeof p->why, "has more than %d %s", most, what);
    return false;
}

static bool add_number(const struct setting *s, struct float_list *list, struct scalar v,
                       struct setting_problem *p)
{
    if (list->count == MAX_LIST) return too_many(p, MAX_LIST, "numbers");
    return real_in_range(s, v, p, &list->v[list->count]) ? ++list->count : false;
}

static bool add_block(const struct setting *s, struct block_lists *lists, int level,
                      struct scalar v, struct setting_problem *p)
{
    enum { MOST = sizeof lists->lists[0].v / sizeof lists->lists[0].v[0] };
    int64_t block;
    if (lists->lists[level].count == MOST) return too_many(p, MOST, "blocks in one list");
    if (!whole_in_range(s, v, p, &block)) return false;
    lists->lists[level].v[lists->lists[level].count++] = (int)block;
    return true;
}

static bool add_level(struct block_lists *lists, struct setting_problem *p)
{
    enum { MOST = sizeof lists->lists / sizeof lists->lists[0] };
    if (lists->count == MOST) return too_many(p, MOST, "lists");
    lists->count++;
    return true;
}

static bool check_count(const struct setting *s, const struct float_list *list,
                        struct setting_problem *p)
{
    return list->count > 0 || s->list_may_be_empty ? true : refuse_kind(s, p, "an empty list");
}

/* The scalar of a node inside a list, or false with the problem. */
static bool element(const struct setting *s, const struct yaml_node *node, struct scalar *v,
                    struct setting_problem *p)
{
    p->at = node;
    if (node->kind != YAML_SCALAR)
        return refuse_kind(s, p, node->kind == YAML_MAP ? "a map" : "a list at this place");
    *v = (struct scalar){node->text, node->plain ? PLAIN : QUOTED};
    return true;
}

static bool floats_from_node(const struct setting *s, struct float_list *list,
                             const struct yaml_doc *doc, const struct yaml_node *node,
                             struct setting_problem *p)
{
    struct scalar v;
    list->is_scalar = node->kind == YAML_SCALAR;
    if (list->is_scalar) return element(s, node, &v, p) && add_number(s, list, v, p);
    const struct yaml_node *item = yaml_doc_first(doc, node);
    for (; item; item = yaml_doc_next(doc, item))
        if (!element(s, item, &v, p) || !add_number(s, list, v, p)) return false;
    p->at = node;
    return check_count(s, list, p);
}

/* One level of skip blocks. */
static bool blocks_from_sequence(const struct setting *s, struct block_lists *lists, int level,
                                 const struct yaml_doc *doc, const struct yaml_node *node,
                                 struct setting_problem *p)
{
    struct scalar v;
    const struct yaml_node *item = yaml_doc_first(doc, node);
    for (; item; item = yaml_doc_next(doc, item))
        if (!element(s, item, &v, p) || !add_block(s, lists, level, v, p)) return false;
    return true;
}

static bool blocks_from_node(const struct setting *s, struct block_lists *lists,
                             const struct yaml_doc *doc, const struct yaml_node *node,
                             struct setting_problem *p)
{
    struct scalar v;
    const struct yaml_node *item = node->kind == YAML_SCALAR ? NULL : yaml_doc_first(doc, node);
    lists->per_level = item && item->kind == YAML_SEQUENCE;
    if (!lists->per_level) {
        lists->count = 1;
        if (node->kind == YAML_SCALAR)
            return element(s, node, &v, p) && add_block(s, lists, 0, v, p);
        return blocks_from_sequence(s, lists, 0, doc, node, p);
    }
    for (; item; item = yaml_doc_next(doc, item)) {
        p->at = item;
        if (item->kind != YAML_SEQUENCE) return refuse_kind(s, p, "a mixture of both");
        if (!add_level(lists, p) || !blocks_from_sequence(s, lists, lists->count - 1, doc, item, p))
            return false;
    }
    return true;
}

/* Walks the pieces of "a,b,c"; an empty text has none. `piece` holds the current one, trimmed. */
static bool next_piece(const char **rest, char separator, char piece[64])
{
    if (!*rest) return false;
    const char *end = strchrnul(*rest, separator), *from = *rest;
    *rest = *end ? end + 1 : NULL;
    while (*from == ' ') from++;
    while (end > from && end[-1] == ' ') end--;
    snprintf(piece, 64, "%.*s", (int)(end - from < 63 ? end - from : 63), from);
    return true;
}

static bool floats_from_text(const struct setting *s, struct float_list *list, const char *text,
                             struct setting_problem *p)
{
    char piece[64];
    const char *rest = *text ? text : NULL;
    list->is_scalar = *text && !strchr(text, ',');
    while (next_piece(&rest, ',', piece))
        if (!add_number(s, list, (struct scalar){piece, FROM_FLAG}, p)) return false;
    return check_count(s, list, p);
}

static bool blocks_from_text(const struct setting *s, struct block_lists *lists, const char *text,
                             struct setting_problem *p)
{
    lists->per_level = strchr(text, ';') != NULL;
    for (const char *level = text; level;) {
        size_t bytes = strcspn(level, ";");
        char *copy = xasprintf("%.*s", (int)bytes, level), piece[64];
        const char *rest = *copy ? copy : NULL;
        bool good = add_level(lists, p);
        while (good && next_piece(&rest, ',', piece))
            good = add_block(s, lists, lists->count - 1, (struct scalar){piece, FROM_FLAG}, p);
        free(copy);
        if (!good) return false;
        level = level[bytes] ? level + bytes + 1 : NULL;
    }
    return true;
}

static bool list_from_brackets(const struct setting *s, void *record, struct text_pool *texts,
                               const char *text, struct setting_problem *p)
{
    struct yaml_doc *doc;
    if (yaml_doc_read(&doc, text, strlen(text), "list") != STATUS_OK) {
        error_clear(); /* the flag's name says more than a position inside the list */
        return refuse(s, p, text);
    }
    bool good = setting_from_node(s, record, texts, doc, yaml_doc_root(doc), p);
    p->at = NULL;
    yaml_doc_free(doc);
    return good;
}

/* ---- the public functions -------------------------------------------------------------------- */

static bool is_list(const struct setting *s)
{
    return s->type == TYPE_FLOATS || s->type == TYPE_BLOCKS || s->type == TYPE_CONDITIONING;
}

bool setting_from_node(const struct setting *s, void *record, struct text_pool *texts,
                       const struct yaml_doc *doc, const struct yaml_node *node,
                       struct setting_problem *problem)
{
    problem->at = node;
    void *to = field(s, record);
    if (node->kind == YAML_MAP) return refuse_kind(s, problem, "a map");
    if (s->type == TYPE_CONDITIONING && node->kind == YAML_SCALAR)
        return refuse(s, problem, node->text);
    if (is_list(s)) {
        memset(to, 0, setting_bytes(s));
        return s->type == TYPE_FLOATS   ? floats_from_node(s, to, doc, node, problem)
               : s->type == TYPE_BLOCKS ? blocks_from_node(s, to, doc, node, problem)
                                        : conditioning_from_node(to, texts, doc, node, problem);
    }
    if (node->kind == YAML_SEQUENCE) return refuse_kind(s, problem, "a list");
    struct scalar v = {node->text, node->plain ? PLAIN : QUOTED};
    if (node->plain && node->text[0] == '\0' && s->initial)
        return refuse_kind(s, problem, "nothing");
    return read_scalar(s, record, texts, v, problem);
}

bool setting_from_text(const struct setting *s, void *record, struct text_pool *texts,
                       const char *text, struct setting_problem *problem)
{
    problem->at = NULL;
    void *to = field(s, record);
    if (!is_list(s))
        return read_scalar(s, record, texts, (struct scalar){text, FROM_FLAG}, problem);
    if (text[0] == '[') return list_from_brackets(s, record, texts, text, problem);
    memset(to, 0, setting_bytes(s));
    if (s->type == TYPE_CONDITIONING) return *text ? refuse(s, problem, text) : true;
    return s->type == TYPE_FLOATS ? floats_from_text(s, to, text, problem)
                                  : blocks_from_text(s, to, text, problem);
}

void setting_reset(const struct setting *s, void *record, struct text_pool *texts)
{
    struct setting_problem problem;
    memset(field(s, record), 0, setting_bytes(s));
    if (s->type == TYPE_BLOCKS) ((struct block_lists *)field(s, record))->count = 1;
    if (s->initial)
        CHECK(setting_from_text(s, record, texts, s->initial, &problem), "default of %s: %s",
              s->key, problem.why);
}

/* ---- printing -------------------------------------------------------------------------------- */

/* The fewest digits that read back as the same number. */
static void print_real(FILE *out, double v)
{
    char text[32];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    fputs(text, out);
}

static void print_floats(FILE *out, const struct float_list *list)
{
    if (list->is_scalar) {
        print_real(out, list->v[0]);
        return;
    }
    fputc('[', out);
    for (int i = 0; i < list->count; i++) {
        fputs(i ? ", " : "", out);
        print_real(out, list->v[i]);
    }
    fputc(']', out);
}

static void print_range(FILE *out, const struct frame_range *range)
{
    if (range->last < 0)
        fputs("all", out);
    else if (range->first == range->last)
        fprintf(out, "%d", range->first);
    else
        fprintf(out, "%d-%d", range->first, range->last);
}

static void print_blocks(FILE *out, const struct block_lists *lists)
{
    fputs(lists->per_level ? "[" : "", out);
    for (int level = 0; level < lists->count; level++) {
        fputs(level ? ", [" : "[", out);
        for (int i = 0; i < lists->lists[level].count; i++)
            fprintf(out, "%s%d", i ? ", " : "", lists->lists[level].v[i]);
        fputc(']', out);
    }
    fputs(lists->per_level ? "]" : "", out);
}

static const char *choice_name(const struct setting *s, int value)
{
    for (const struct setting_choice *c = s->choices; c->name; c++)
        if (c->value == value) return c->name;
    return "?";
}

void setting_print(FILE *out, const struct setting *s, const void *record)
{
    const void *from = (const char *)record + s->offset;
    switch (s->type) {
    case TYPE_TEXT:
    case TYPE_PATH:
    case TYPE_INPUT_PATH:
        if (*(const char *const *)from)
            text_print_quoted(out, *(const char *const *)from);
        else
            fputs("null", out);
        break;
    case TYPE_WORD:
        fputs(*(const char *const *)from, out);
        break;
    case TYPE_CHOICE:
        fputs(choice_name(s, *(const int *)from), out);
        break;
    case TYPE_INT:
        fprintf(out, "%d", *(const int *)from);
        break;
    case TYPE_INT64:
        fprintf(out, "%lld", (long long)*(const int64_t *)from);
        break;
    case TYPE_FLOAT:
    case TYPE_DURATION:
        if (s->nullable && *(const double *)from < 0)
            fputs("null", out);
        else
            print_real(out, *(const double *)from);
        break;
    case TYPE_BOOL:
        fputs(*(const bool *)from ? "true" : "false", out);
        break;
    case TYPE_RANGE:
        print_range(out, from);
        break;
    case TYPE_FLOATS:
        print_floats(out, from);
        break;
    case TYPE_BLOCKS:
        print_blocks(out, from);
        break;
    case TYPE_CONDITIONING:
    case TYPE_IMAGE:
        conditioning_print(out, from);
        break;
    }
}

char *setting_text(const struct setting *s, const void *record)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    CHECK(out, "out of memory");
    setting_print(out, s, record);
    fclose(out);
    return text;
}

bool setting_is_default(const struct setting *s, const void *record)
{
    union {
        struct job_options job;
        struct shot_options shot;
    } initial;
    struct text_pool texts = {0};
    setting_reset(s, &initial, &texts);
    char *a = setting_text(s, record), *b = setting_text(s, &initial);
    bool same = strcmp(a, b) == 0;
    free(a);
    free(b);
    text_pool_free(&texts);
    return same;
}
