#include "media/rgb.h"

#include "base/error.h"
#include "media/media.h"

#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct rgb_maker {
    AVFrame *rgb;
    struct SwsContext *sws; /* for frames like the last one */
};

struct rgb_maker *rgb_open(void)
{
    struct rgb_maker *m = xcalloc(1, sizeof *m);
    m->rgb = av_frame_alloc();
    CHECK(m->rgb, "out of memory");
    return m;
}

/* JPEG's own formats say it in their names; grey without a tag is a picture's, not a video's. */
static bool is_full_range(const AVFrame *f, const AVPixFmtDescriptor *d)
{
    if (f->color_range != AVCOL_RANGE_UNSPECIFIED) return f->color_range == AVCOL_RANGE_JPEG;
    return strncmp(d->name, "yuvj", 4) == 0 || d->nb_components < 3;
}

/* libswscale's numbers of matrices are those of the tags; without a tag it is BT.601, as for every
 * reader of JPEG and, by habit, of video. */
static bool has_matrix(const AVFrame *f)
{
    switch (f->colorspace) {
    case AVCOL_SPC_BT709:
    case AVCOL_SPC_UNSPECIFIED:
    case AVCOL_SPC_FCC:
    case AVCOL_SPC_BT470BG:
    case AVCOL_SPC_SMPTE170M:
    case AVCOL_SPC_SMPTE240M:
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
        return true;
    default:
        return false;
    }
}

static int set_matrix(struct rgb_maker *m, const AVFrame *f, const AVPixFmtDescriptor *d,
                      const char *name)
{
    bool is_colour = d->nb_components >= 3; /* grey has no matrix to be wrong about */
    if (is_colour && !has_matrix(f))
        return error_set(STATUS_INPUT, "%s: colours by the matrix \"%s\" cannot be converted", name,
                         av_color_space_name(f->colorspace) ? av_color_space_name(f->colorspace)
                                                            : "?");
    const int *matrix = sws_getCoefficients(is_colour ? (int)f->colorspace : SWS_CS_DEFAULT);
    int code =
        sws_setColorspaceDetails(m->sws, matrix, is_full_range(f, d),
                                 sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    CHECK(code >= 0, "swscale has no matrix for %s to RGB", d->name);
    return STATUS_OK;
}

/* Where a chroma sample lies among its pixels, in 256ths of the distance between two: beside the
 * left one where the tags are silent, as in all video since MPEG-2; in the middle in JPEG. */
static void set_chroma_place(struct SwsContext *sws, const AVFrame *f, const AVPixFmtDescriptor *d)
{
    int h = 0, v = 128;
    switch (f->chroma_location) {
    case AVCHROMA_LOC_CENTER:
        h = 128;
        break;
    case AVCHROMA_LOC_TOPLEFT:
        v = 0;
        break;
    case AVCHROMA_LOC_TOP:
        h = 128, v = 0;
        break;
    case AVCHROMA_LOC_BOTTOMLEFT:
        v = 256;
        break;
    case AVCHROMA_LOC_BOTTOM:
        h = 128, v = 256;
        break;
    default:
        if (strncmp(d->name, "yuvj", 4) == 0) h = 128;
    }
    if (d->log2_chroma_w > 0) av_opt_set_int(sws, "src_h_chr_pos", h, 0);
    if (d->log2_chroma_h > 0) av_opt_set_int(sws, "src_v_chr_pos", v, 0);
}

static struct SwsContext *open_sws(const AVFrame *f, const AVPixFmtDescriptor *d)
{
    struct SwsContext *sws =
        media_open_sws(f->width, f->height, f->format, is_full_range(f, d), AV_PIX_FMT_RGB24, true);
    set_chroma_place(sws, f, d);
    int code = sws_init_context(sws, NULL, NULL);
    CHECK(code >= 0, "swscale refuses %s of %dx%d to RGB", d->name, f->width, f->height);
    return sws;
}

static int prepare(struct rgb_maker *m, const AVFrame *f, const char *name)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
    if (!d || !sws_isSupportedInput(f->format))
        return error_set(STATUS_INPUT, "%s: pixel format %s cannot be converted", name,
                         d ? d->name : "?");
    sws_freeContext(m->sws);
    m->sws = open_sws(f, d);
    /* RGB to RGB moves bytes; given a matrix swscale would apply it there and back, and round. */
    bool is_rgb = d->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL);
    return is_rgb ? STATUS_OK : set_matrix(m, f, d, name);
}

int rgb_convert(struct rgb_maker *m, const AVFrame *frame, const char *name, const AVFrame **out)
{
    TRY(prepare(m, frame, name));
    if (m->rgb->width != frame->width || m->rgb->height != frame->height) {
        av_frame_unref(m->rgb);
        m->rgb->format = AV_PIX_FMT_RGB24;
        m->rgb->width = frame->width;
        m->rgb->height = frame->height;
        CHECK(av_frame_get_buffer(m->rgb, 0) >= 0, "out of memory for a frame of %dx%d",
              frame->width, frame->height);
    }
    int rows = sws_scale(m->sws, (const uint8_t *const *)frame->data, frame->linesize, 0,
                         frame->height, m->rgb->data, m->rgb->linesize);
    CHECK(rows == frame->height, "swscale made %d of %d rows", rows, frame->height);
    *out = m->rgb;
    return STATUS_OK;
}

void rgb_close(struct rgb_maker *m)
{
    if (!m) return;
    sws_freeContext(m->sws);
    av_frame_free(&m->rgb);
    free(m);
}
