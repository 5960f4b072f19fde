#include "config/text.h"

#include "base/error.h"
#include "base/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct text_pool_item {
    struct text_pool_item *before;
    char text[];
};

const char *text_keep(struct text_pool *pool, const char *text)
{
    size_t bytes = strlen(text) + 1;
    struct text_pool_item *item = xmalloc(sizeof *item + bytes);
    memcpy(item->text, text, bytes);
    item->before = pool->last;
    pool->last = item;
    return item->text;
}

void text_pool_free(struct text_pool *pool)
{
    while (pool->last) {
        struct text_pool_item *item = pool->last;
        pool->last = item->before;
        free(item);
    }
}

static bool is_line_safe(uint32_t c)
{
    return c >= 0x20 && !(c >= 0x7f && c < 0xa0) && c != 0x2028 && c != 0x2029;
}

const char *text_show(char out[TEXT_SHOWN], const char *text)
{
    size_t room = TEXT_SHOWN - 6, n = strlen(text), used = 1, at = 0; /* two quotes, "...", NUL */
    out[0] = '\'';
    while (at < n) {
        uint32_t code;
        size_t length = utf8_decode(text + at, n - at, &code);
        bool plain = length > 0 && is_line_safe(code);
        size_t shown = plain ? length : 1;
        if (used + shown > room) break;
        if (plain)
            memcpy(out + used, text + at, length);
        else
            out[used] = '?';
        used += shown;
        at += length ? length : 1;
    }
    strcpy(out + used, at < n ? "...'" : "'");
    return out;
}

/* What a YAML reader takes verbatim inside double quotes. Line breaks would fold. */
static bool is_verbatim(uint32_t c)
{
    return is_line_safe(c) && c != '"' && c != '\\' && c != 0xfeff && c != 0xfffe && c != 0xffff;
}

void text_print_quoted(FILE *out, const char *text)
{
    size_t n = strlen(text), at = 0;
    fputc('"', out);
    while (at < n) {
        uint32_t code = (unsigned char)text[at];
        size_t length = utf8_decode(text + at, n - at, &code);
        if (length > 0 && is_verbatim(code))
            fwrite(text + at, 1, length, out);
        else if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (int)code);
        else if (code == '\n')
            fputs("\\n", out);
        else if (code < 0x100)
            fprintf(out, "\\x%02X", code);
        else
            fprintf(out, "\\u%04X", code);
        at += length ? length : 1;
    }
    fputc('"', out);
}

static int least(int a, int b) { return a < b ? a : b; }

int text_distance(const char *a, const char *b)
{
    int na = (int)strnlen(a, 64), nb = (int)strnlen(b, 64);
    if (na > 63 || nb > 63) return 64;
    int d[64][64]; /* d[i][j]: the first i bytes of a against the first j of b */
    for (int i = 0; i <= na; i++)
        for (int j = 0; j <= nb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int replace = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            d[i][j] = least(replace, least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[na][nb];
}
