#include "media/pixels.h"

#include "base/error.h"
#include "media/media.h"
#include "media/deep.h"

#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdlib.h>

struct pixels {
    AVFrame *like; /* what a frame says of itself; it has no samples */
    /* A copy of the RGB picture: swscale reads some bytes beyond the last pixel, and callers'
     * memory may end there. */
    AVFrame *padded;
    struct SwsContext *sws; /* NULL above 8 bits: deep.h */
};

/* Chroma is averaged over all pixels around its place and its place is the one the stream's tags
 * name: beside the left pixel, between the two lines when lines are halved too. (In swscale's terms
 * 256 is the distance of two chroma samples.) */
static struct SwsContext *open_sws(const AVCodecContext *e)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(e->pix_fmt);
    struct SwsContext *sws = media_open_sws(e->width, e->height, AV_PIX_FMT_RGB24, true, e->pix_fmt,
                                            e->color_range == AVCOL_RANGE_JPEG);
    if (d->log2_chroma_w > 0) av_opt_set_int(sws, "dst_h_chr_pos", 0, 0);
    if (d->log2_chroma_h > 0) av_opt_set_int(sws, "dst_v_chr_pos", 128, 0);
    int code = sws_init_context(sws, NULL, NULL);
    CHECK(code >= 0, "swscale refuses RGB to %s", d->name);
    /* RGB to RGB moves bytes; given a matrix swscale would apply it there and back, and round. */
    if (d->flags & AV_PIX_FMT_FLAG_RGB) return sws;
    code = sws_setColorspaceDetails(sws, sws_getCoefficients(SWS_CS_DEFAULT), 1,
                                    sws_getCoefficients((int)e->colorspace),
                                    e->color_range == AVCOL_RANGE_JPEG, 0, 1 << 16, 1 << 16);
    CHECK(code >= 0, "swscale has no matrix for RGB to %s", d->name);
    return sws;
}

static AVFrame *new_frame(enum AVPixelFormat format, int width, int height)
{
    AVFrame *f = av_frame_alloc();
    CHECK(f, "out of memory");
    f->format = format;
    f->width = width;
    f->height = height;
    CHECK(av_frame_get_buffer(f, 0) >= 0, "out of memory for a frame of %dx%d", width, height);
    return f;
}

struct pixels *pixels_open(const AVCodecContext *e, int bit_depth)
{
    struct pixels *p = xcalloc(1, sizeof *p);
    p->like = av_frame_alloc();
    CHECK(p->like, "out of memory");
    p->like->format = e->pix_fmt;
    p->like->width = e->width;
    p->like->height = e->height;
    p->like->color_range = e->color_range;
    p->like->colorspace = e->colorspace;
    p->like->color_primaries = e->color_primaries;
    p->like->color_trc = e->color_trc;
    p->like->chroma_location = e->chroma_sample_location;
    p->like->sample_aspect_ratio = e->sample_aspect_ratio;
    if (bit_depth > 8) return p;
    p->sws = open_sws(e);
    p->padded = new_frame(AV_PIX_FMT_RGB24, e->width, e->height);
    return p;
}

AVFrame *pixels_convert(struct pixels *p, const void *rgb)
{
    AVFrame *f = new_frame(p->like->format, p->like->width, p->like->height);
    CHECK(av_frame_copy_props(f, p->like) >= 0, "out of memory");
    if (!p->sws) {
        deep_fill(f, rgb);
        return f;
    }
    av_image_copy_plane(p->padded->data[0], p->padded->linesize[0], rgb, 3 * f->width, 3 * f->width,
                        f->height);
    int rows = sws_scale(p->sws, (const uint8_t *const *)p->padded->data, p->padded->linesize, 0,
                         f->height, f->data, f->linesize);
    CHECK(rows == f->height, "swscale made %d of %d rows", rows, f->height);
    return f;
}

void pixels_close(struct pixels *p)
{
    if (!p) return;
    sws_freeContext(p->sws);
    av_frame_free(&p->like);
    av_frame_free(&p->padded);
    free(p);
}
