#include "media/pixels.h"

#include "base/error.h"

#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdlib.h>

struct pixels {
    AVFrame *frame;
    /* A copy of the RGB frame: swscale reads some bytes beyond the last pixel, and callers' memory
     * may end there. */
    AVFrame *padded;
    /* NULL for planar 10-bit RGB, which swscale would take through Y'CbCr and round. */
    struct SwsContext *sws;
};

/* Chroma is averaged over all pixels around its place and its place is the one the stream's tags
 * name: beside the left pixel, between the two lines when lines are halved too. (In swscale's terms
 * 256 is the distance of two chroma samples.) */
static struct SwsContext *open_sws(const AVCodecContext *e)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(e->pix_fmt);
    struct SwsContext *sws = sws_alloc_context();
    CHECK(sws, "out of memory");
    av_opt_set_int(sws, "srcw", e->width, 0);
    av_opt_set_int(sws, "srch", e->height, 0);
    av_opt_set_int(sws, "dstw", e->width, 0);
    av_opt_set_int(sws, "dsth", e->height, 0);
    av_opt_set_int(sws, "src_format", AV_PIX_FMT_RGB24, 0);
    av_opt_set_int(sws, "dst_format", e->pix_fmt, 0);
    av_opt_set_int(sws, "src_range", 1, 0);
    av_opt_set_int(sws, "dst_range", e->color_range == AVCOL_RANGE_JPEG, 0);
    av_opt_set_int(
        sws, "sws_flags",
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_FULL_CHR_H_INT | SWS_BITEXACT, 0);
    if (d->log2_chroma_w > 0) av_opt_set_int(sws, "dst_h_chr_pos", 0, 0);
    if (d->log2_chroma_h > 0) av_opt_set_int(sws, "dst_v_chr_pos", 128, 0);
    int code = sws_init_context(sws, NULL, NULL);
    CHECK(code >= 0, "swscale refuses RGB to %s", d->name);
    /* RGB to RGB moves bytes; given a matrix swscale would apply it there and back, and round. */
    if (d->flags & AV_PIX_FMT_FLAG_RGB) return sws;
    int matrix = e->colorspace == AVCOL_SPC_BT470BG ? SWS_CS_ITU601 : SWS_CS_ITU709;
    code = sws_setColorspaceDetails(sws, sws_getCoefficients(SWS_CS_DEFAULT), 1,
                                    sws_getCoefficients(matrix), e->color_range == AVCOL_RANGE_JPEG,
                                    0, 1 << 16, 1 << 16);
    CHECK(code >= 0, "swscale has no matrix for RGB to %s", d->name);
    return sws;
}

static AVFrame *new_frame(enum AVPixelFormat format, const AVCodecContext *e)
{
    AVFrame *f = av_frame_alloc();
    CHECK(f, "out of memory");
    f->format = format;
    f->width = e->width;
    f->height = e->height;
    CHECK(av_frame_get_buffer(f, 0) >= 0, "out of memory for a frame of %dx%d", e->width,
          e->height);
    return f;
}

struct pixels *pixels_open(const AVCodecContext *e)
{
    struct pixels *p = xcalloc(1, sizeof *p);
    p->frame = new_frame(e->pix_fmt, e);
    p->frame->color_range = e->color_range;
    p->frame->colorspace = e->colorspace;
    p->frame->color_primaries = e->color_primaries;
    p->frame->color_trc = e->color_trc;
    p->frame->chroma_location = e->chroma_sample_location;
    p->frame->sample_aspect_ratio = e->sample_aspect_ratio;
    if (e->pix_fmt == AV_PIX_FMT_GBRP10) return p;
    p->sws = open_sws(e);
    p->padded = new_frame(AV_PIX_FMT_RGB24, e);
    return p;
}

/* v * 1023 / 255 to the nearest. */
static void widen_to_gbrp10(AVFrame *f, const uint8_t *rgb)
{
    static const int plane_of[3] = {2, 0, 1}; /* planes are G, B, R */
    for (int y = 0; y < f->height; y++)
        for (int c = 0; c < 3; c++) {
            const uint8_t *from = rgb + (size_t)y * (size_t)f->width * 3 + c;
            uint8_t *row = f->data[plane_of[c]] + (ptrdiff_t)y * f->linesize[plane_of[c]];
            uint16_t *to = (uint16_t *)(void *)row;
            for (int x = 0; x < f->width; x++) to[x] = (uint16_t)((from[3 * x] * 1023 + 127) / 255);
        }
}

AVFrame *pixels_convert(struct pixels *p, const uint8_t *rgb)
{
    AVFrame *f = p->frame;
    CHECK(av_frame_make_writable(f) >= 0, "out of memory for a frame of %dx%d", f->width,
          f->height);
    if (p->sws) {
        av_image_copy_plane(p->padded->data[0], p->padded->linesize[0], rgb, 3 * f->width,
                            3 * f->width, f->height);
        int rows = sws_scale(p->sws, (const uint8_t *const *)p->padded->data, p->padded->linesize,
                             0, f->height, f->data, f->linesize);
        CHECK(rows == f->height, "swscale made %d of %d rows", rows, f->height);
    } else {
        widen_to_gbrp10(f, rgb);
    }
    return f;
}

void pixels_close(struct pixels *p)
{
    if (!p) return;
    sws_freeContext(p->sws);
    av_frame_free(&p->frame);
    av_frame_free(&p->padded);
    free(p);
}
