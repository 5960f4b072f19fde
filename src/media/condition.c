#include "media/condition.h"

#include "base/error.h"
#include "media/crf.h"

#include <stdlib.h>
#include <string.h>

/* [height][width][3]; at most READER_MAX_PIXELS, so that sizes fit wherever they are computed. */
struct picture {
    int width, height;
    float *v;
};

static float *row_of(const struct picture *p, int y)
{
    return p->v + (size_t)y * (size_t)p->width * 3;
}

static size_t values_of(const struct picture *p)
{
    return (size_t)p->width * (size_t)p->height * 3;
}

/* ---- cutting --------------------------------------------------------------------------------- */

/* In double and truncated, as the reference computes it: the last row may depend on it. */
struct condition_crop condition_crop(int source_width, int source_height, int width, int height)
{
    double shape = (double)width / height, source_shape = (double)source_width / source_height;
    struct condition_crop c = {0, 0, source_width, source_height};
    if (source_shape > shape)
        c.width = (int)(source_height * shape);
    else
        c.height = (int)(source_width / shape);
    c.x = (source_width - c.width) / 2;
    c.y = (source_height - c.height) / 2;
    return c;
}

/* ---- softening ------------------------------------------------------------------------------- */

/* Outside the picture its border is a mirror; the edge pixel itself is not repeated. */
static int reflect(int i, int n) { return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i; }

/* The cut out bytes into [0, 1], through a Gaussian of 3x3 with sigma 1. */
static void blur(struct picture *p, const struct rgb_frame *frame,
                 const struct condition_crop *crop)
{
    const float side = 0.27406862f, middle = 0.45186276f;
    int w = crop->width, h = crop->height;
    float *line = xmalloc((size_t)w * 3 * sizeof *line);
    for (int y = 0; y < h; y++) {
        const uint8_t *rows[3];
        for (int k = 0; k < 3; k++)
            rows[k] = frame->rgb + (crop->y + reflect(y - 1 + k, h)) * frame->stride +
                      (ptrdiff_t)crop->x * 3;
        for (int i = 0; i < 3 * w; i++)
            line[i] = (side * (float)(rows[0][i] + rows[2][i]) + middle * rows[1][i]) / 255.0f;
        float *to = row_of(p, y);
        for (int x = 0; x < w; x++) {
            const float *before = line + 3 * reflect(x - 1, w), *here = line + 3 * x,
                        *after = line + 3 * reflect(x + 1, w);
            for (int c = 0; c < 3; c++)
                to[3 * x + c] = side * (before[c] + after[c]) + middle * here[c];
        }
    }
    free(line);
}

/* ---- degrading ------------------------------------------------------------------------------- */

/* H.264 with 4:2:0 wants even sizes: the last row and column go. */
static int degrade(struct picture *p, int crf, const char *name)
{
    int w = p->width & ~1, h = p->height & ~1;
    if (w > CRF_MAX_SIDE || h > CRF_MAX_SIDE)
        return error_set(
            STATUS_INPUT,
            "%s: %dx%d of it are used, and H.264 takes at most %d pixels a side; use a "
            "smaller picture or set conditioning_crf to 0",
            name, w, h, CRF_MAX_SIDE);
    uint8_t *rgb = xmalloc((size_t)w * (size_t)h * 3), *to = rgb;
    for (int y = 0; y < h; y++) {
        const float *from = row_of(p, y);
        for (int i = 0; i < 3 * w; i++) *to++ = (uint8_t)(from[i] * 255.0f);
    }
    p->width = w;
    p->height = h;
    int status = crf_round_trip(rgb, w, h, crf, name);
    for (size_t i = 0, n = values_of(p); i < n; i++) p->v[i] = rgb[i] / 255.0f;
    free(rgb);
    return status;
}

/* ---- scaling --------------------------------------------------------------------------------- */

/* The two rows (columns) that output i of n lies between, in an input of `size`, and how far it is
 * from the first. In fp32, as the reference's sampling points are. */
struct between {
    int first, second;
    float part;
};
static struct between place(int i, int n, int size)
{
    float at = (float)size / (float)n * ((float)i + 0.5f) - 0.5f;
    if (at < 0) at = 0;
    int first = (int)at < size - 1 ? (int)at : size - 1;
    float part = at - (float)first;
    return (struct between){first, first < size - 1 ? first + 1 : first, part < 1 ? part : 1};
}

/* Bilinear, without averaging over what lies between sampling points when it gets smaller. */
static void resize_row(float *to, const struct picture *p, const struct between *columns, int width,
                       struct between y)
{
    const float *above = row_of(p, y.first), *below = row_of(p, y.second);
    for (int x = 0; x < width; x++) {
        struct between b = columns[x];
        for (int c = 0; c < 3; c++) {
            int i = 3 * b.first + c, j = 3 * b.second + c;
            float top = (1 - b.part) * above[i] + b.part * above[j];
            float bottom = (1 - b.part) * below[i] + b.part * below[j];
            to[3 * x + c] = (1 - y.part) * top + y.part * bottom;
        }
    }
}

static void resize_into(float *out, const struct picture *p, const struct condition_size *s)
{
    struct between *columns = xmalloc((size_t)s->width * sizeof *columns);
    size_t padded_row = (size_t)s->padded_width * 3;
    for (int x = 0; x < s->width; x++) columns[x] = place(x, s->width, p->width);
    memset(out, 0, (size_t)s->padded_height * padded_row * sizeof *out);
    for (int y = 0; y < s->height; y++)
        resize_row(out + (size_t)(s->top + y) * padded_row + 3 * (size_t)s->left, p, columns,
                   s->width, place(y, s->height, p->height));
    free(columns);
}

/* ---- all of it ------------------------------------------------------------------------------- */

int condition_frame(float *out, const struct rgb_frame *frame, const struct condition_size *size,
                    int crf, const char *name)
{
    struct condition_crop crop =
        condition_crop(frame->width, frame->height, size->width, size->height);
    if (crop.width < 2 || crop.height < 2)
        return error_set(
            STATUS_INPUT, "%s: of %dx%d only %dx%d has the shape of %dx%d; at least 2x2 are needed",
            name, frame->width, frame->height, crop.width, crop.height, size->width, size->height);
    struct picture p = {.width = crop.width, .height = crop.height};
    p.v = xmalloc(values_of(&p) * sizeof *p.v);
    blur(&p, frame, &crop);
    int status = crf > 0 ? degrade(&p, crf, name) : STATUS_OK;
    if (status == STATUS_OK) {
        for (size_t i = 0, n = values_of(&p); i < n; i++) p.v[i] = p.v[i] * 255.0f / 127.5f - 1.0f;
        resize_into(out, &p, size);
    }
    free(p.v);
    return status;
}

int condition_image(float *out, const char *path, const struct condition_size *size, int crf)
{
    struct reader *reader;
    struct rgb_frame frame;
    TRY(reader_open(&reader, path));
    int status = reader_next(reader, &frame);
    if (status == STATUS_OK) status = condition_frame(out, &frame, size, crf, path);
    reader_close(reader);
    return status;
}
