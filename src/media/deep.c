#include "media/deep.h"

#include "base/error.h"

#include <libavutil/bswap.h>
#include <libavutil/pixdesc.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* ---- RGB ------------------------------------------------------------------------------------- */

/* The samples of one colour, to the nearest of those that the format has. */
static void fill_colour(AVFrame *f, const AVComponentDescriptor *to, const uint16_t *rgb, bool swap)
{
    uint32_t most = (1u << to->depth) - 1;
    for (int y = 0; y < f->height; y++, rgb += 3 * (size_t)f->width) {
        uint8_t *at = f->data[to->plane] + (ptrdiff_t)y * f->linesize[to->plane] + to->offset;
        for (int x = 0; x < f->width; x++, at += to->step) {
            uint16_t v = (uint16_t)((rgb[3 * x] * most + 32767) / 65535);
            *(uint16_t *)(void *)at = swap ? av_bswap16(v) : v;
        }
    }
}

static void fill_rgb(AVFrame *f, const AVPixFmtDescriptor *d, const uint16_t *rgb)
{
    bool swap = ((d->flags & AV_PIX_FMT_FLAG_BE) != 0) != (AV_HAVE_BIGENDIAN != 0);
    for (int c = 0; c < 3; c++) fill_colour(f, &d->comp[c], rgb + c, swap);
}

/* ---- Y'CbCr of 10 bits ----------------------------------------------------------------------- */

/* 1023 units of 2^20 are below 2^31. Between rows and columns chroma is summed with 6 bits left. */
enum { UNIT_BITS = 20, KEPT_BITS = 6, MOST = 1023 };

struct weights {
    int32_t of[3][3]; /* of R, G and B in Y', Cb and Cr */
    int32_t zero[3];
};

static struct weights weights_of(const AVFrame *f)
{
    bool is_full = f->color_range == AVCOL_RANGE_JPEG;
    double red, blue; /* of luma: ITU-R BT.709, BT.2020, BT.601 */
    switch (f->colorspace) {
    case AVCOL_SPC_BT2020_NCL:
        red = 0.2627, blue = 0.0593;
        break;
    case AVCOL_SPC_SMPTE170M:
    case AVCOL_SPC_BT470BG:
        red = 0.299, blue = 0.114;
        break;
    default:
        red = 0.2126, blue = 0.0722;
    }
    const double luma[3] = {red, 1 - red - blue, blue};
    const double unit = (double)(1 << UNIT_BITS) / 65535;
    const double y = (is_full ? 1023 : 876) * unit, c = (is_full ? 1023 : 896) * unit;
    struct weights w = {
        .zero = {(is_full ? 0 : 64) << UNIT_BITS, 512 << UNIT_BITS, 512 << UNIT_BITS}};
    for (int i = 0; i < 3; i++) {
        w.of[0][i] = (int32_t)lround(y * luma[i]);
        w.of[1][i] = (int32_t)lround(c * ((i == 2) - luma[i]) / (2 * (1 - blue)));
        w.of[2][i] = (int32_t)lround(c * ((i == 0) - luma[i]) / (2 * (1 - red)));
    }
    return w;
}

/* One component of a line of pixels, with `spare` bits behind the point. */
static void weigh(int32_t *restrict out, const uint16_t *restrict rgb, int n,
                  const struct weights *w, int c, int spare)
{
    const int32_t r = w->of[c][0], g = w->of[c][1], b = w->of[c][2];
    const int shift = UNIT_BITS - spare;
    const int32_t zero = w->zero[c] + (1 << (shift - 1));
    for (int x = 0; x < n; x++)
        out[x] = (r * rgb[3 * x] + g * rgb[3 * x + 1] + b * rgb[3 * x + 2] + zero) >> shift;
}

static void store(const AVFrame *f, const AVComponentDescriptor *to, int y, const int32_t *values,
                  int n)
{
    uint8_t *at = f->data[to->plane] + (ptrdiff_t)y * f->linesize[to->plane] + to->offset;
    for (int x = 0; x < n; x++, at += to->step) {
        int32_t v = values[x] < 0 ? 0 : values[x] > MOST ? MOST : values[x];
        *(uint16_t *)(void *)at = (uint16_t)(v << to->shift);
    }
}

/* Line y of a chroma plane: the mean of its lines of pixels; where columns are halved, a quarter of
 * each neighbour and half of the pixel that it lies on. */
static void fill_chroma(AVFrame *f, const AVPixFmtDescriptor *d, const uint16_t *rgb,
                        const struct weights *w, int c, int y, int32_t *room)
{
    int lines = 1 << d->log2_chroma_h, n = f->width, bits = KEPT_BITS + d->log2_chroma_h;
    int32_t *line = room, *sum = room + n;
    for (int x = 0; x < n; x++) sum[x] = 0;
    for (int i = 0; i < lines; i++) {
        weigh(line, rgb + (size_t)(y * lines + i) * 3 * (size_t)n, n, w, c, KEPT_BITS);
        for (int x = 0; x < n; x++) sum[x] += line[x];
    }
    if (d->log2_chroma_w == 1) {
        bits += 2;
        for (int x = 0; x < n; x += 2) {
            int32_t left = sum[x > 0 ? x - 1 : 0], right = sum[x + 1 < n ? x + 1 : x];
            line[x / 2] = left + 2 * sum[x] + right;
        }
        n = (n + 1) / 2;
        sum = line;
    }
    for (int x = 0; x < n; x++) sum[x] = (sum[x] + (1 << (bits - 1))) >> bits;
    store(f, &d->comp[c], y, sum, n);
}

static void fill_ycbcr(AVFrame *f, const AVPixFmtDescriptor *d, const uint16_t *rgb)
{
    struct weights w = weights_of(f);
    int32_t *room = xmalloc(2 * (size_t)f->width * sizeof *room);
    CHECK(d->comp[0].depth == 10 && d->log2_chroma_w <= 1 && d->log2_chroma_h <= 1, "frames of %s",
          d->name);
    for (int y = 0; y < f->height; y++) {
        weigh(room, rgb + (size_t)y * 3 * (size_t)f->width, f->width, &w, 0, 0);
        store(f, &d->comp[0], y, room, f->width);
    }
    for (int y = 0; y < f->height >> d->log2_chroma_h; y++)
        for (int c = 1; c < 3; c++) fill_chroma(f, d, rgb, &w, c, y, room);
    free(room);
}

void deep_fill(AVFrame *f, const uint16_t *rgb)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
    if (d->flags & AV_PIX_FMT_FLAG_RGB)
        fill_rgb(f, d, rgb);
    else
        fill_ycbcr(f, d, rgb);
}
