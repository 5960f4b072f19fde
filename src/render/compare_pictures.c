#include "base/error.h"
#include "media/quality.h"
#include "render/compare_parts.h"
#include "render/frame_source.h"

#include <inttypes.h>
#include <math.h>

/* Two streams of frames, and what was found in those compared so far. */
struct pair {
    struct frame_source *source[2];
    struct rgb_frame frame[2]; /* the current ones; rgb is NULL at the end */
    int width[2], height[2];
    int64_t frames[2]; /* of A and B; the common ones are compared */
    struct quality *quality;
    int64_t compared, differing, first; /* frames */
    int64_t bytes;                      /* that differ */
    uint64_t squares;
    double ssim_sum;
    int largest;
    int64_t largest_frame, worst_frame; /* worst: of the lowest PSNR */
    uint64_t worst_squares;
    double worst_ssim;
};

static int64_t frame_bytes(const struct pair *p) { return 3 * (int64_t)p->width[0] * p->height[0]; }

static bool same_size(const struct pair *p)
{
    return p->width[0] == p->width[1] && p->height[0] == p->height[1];
}

static void psnr_text(char out[32], uint64_t squares, int64_t bytes)
{
    if (squares == 0)
        snprintf(out, 32, "identical");
    else
        snprintf(out, 32, "%.2f dB", quality_psnr(squares, bytes));
}

/* Cut, not rounded: 0.9999999 must not look like 1. */
static void ssim_text(char out[32], double ssim)
{
    if (isnan(ssim))
        snprintf(out, 32, "-");
    else
        snprintf(out, 32, "%.6f", floor(ssim * 1e6) / 1e6);
}

/* ---- frame by frame -------------------------------------------------------------------------- */

static void add(struct pair *p, const struct picture_difference *d)
{
    int64_t frame = p->compared++;
    p->ssim_sum += d->ssim;
    if (d->bytes == 0) return;
    if (p->differing++ == 0) p->first = frame;
    p->bytes += d->bytes;
    p->squares += d->squares;
    if (d->largest > p->largest) {
        p->largest = d->largest;
        p->largest_frame = frame;
    }
    if (d->squares > p->worst_squares) {
        p->worst_squares = d->squares;
        p->worst_ssim = d->ssim;
        p->worst_frame = frame;
    }
}

static void print_row(const struct comparison *c, const struct pair *p,
                      const struct picture_difference *d)
{
    char psnr[32], ssim[32];
    psnr_text(psnr, d->squares, frame_bytes(p));
    ssim_text(ssim, d->ssim);
    fprintf(c->out, "%8" PRId64 " %8d %12s %9s %12" PRId64 "\n", p->compared, d->largest, psnr,
            ssim, d->bytes);
}

static int advance(struct pair *p, int side)
{
    struct rgb_frame *f = &p->frame[side];
    TRY(frame_source_next(p->source[side], f));
    if (!f->rgb) return STATUS_OK;
    if (p->frames[side]++ == 0) {
        p->width[side] = f->width;
        p->height[side] = f->height;
    }
    return STATUS_OK;
}

static int compare_common_frames(const struct comparison *c, struct pair *p)
{
    p->quality = quality_open(p->width[0], p->height[0]);
    if (c->frame_rows)
        fprintf(c->out, "%8s %8s %12s %9s %12s\n", "frame", "largest", "PSNR", "SSIM", "bytes");
    while (p->frame[0].rgb && p->frame[1].rgb) {
        struct picture_difference d = quality_measure(p->quality, &p->frame[0], &p->frame[1]);
        if (c->frame_rows) print_row(c, p, &d);
        add(p, &d);
        for (int side = 0; side < 2; side++) TRY(advance(p, side));
    }
    return STATUS_OK;
}

/* To the end of both, also of the longer: damage there is found, and its frames are counted. */
static int compare_streams(const struct comparison *c, struct pair *p)
{
    for (int side = 0; side < 2; side++) {
        TRY(frame_source_open(&p->source[side], c->path[side], c->tensors[side]));
        TRY(advance(p, side));
    }
    if (same_size(p)) TRY(compare_common_frames(c, p));
    for (int side = 0; side < 2; side++)
        while (p->frame[side].rgb) TRY(advance(p, side));
    return STATUS_OK;
}

/* ---- what was found -------------------------------------------------------------------------- */

static void print_differences(FILE *out, const struct pair *p)
{
    char all[32], worst[32], mean[32], lowest[32];
    int64_t bytes = p->compared * frame_bytes(p);
    psnr_text(all, p->squares, bytes);
    psnr_text(worst, p->worst_squares, frame_bytes(p));
    ssim_text(mean, p->ssim_sum / (double)p->compared);
    ssim_text(lowest, p->worst_ssim);
    fprintf(out,
            "%" PRId64 " of %" PRId64 " frames differ, the first is frame %" PRId64
            " (counted from 0); %" PRId64 " of %" PRId64 " bytes\n",
            p->differing, p->compared, p->first, p->bytes, bytes);
    fprintf(out, "largest difference %d of 255, in frame %" PRId64 "\n", p->largest,
            p->largest_frame);
    if (isnan(p->ssim_sum))
        fprintf(out, "PSNR %s; SSIM needs pictures of at least %dx%d\n", all, QUALITY_WINDOW,
                QUALITY_WINDOW);
    else
        fprintf(out, "PSNR %s, mean SSIM %s\n", all, mean);
    fprintf(out, "worst frame %" PRId64 ": PSNR %s, SSIM %s\n", p->worst_frame, worst, lowest);
}

static void print_summary(const struct comparison *c, const struct pair *p)
{
    if (!same_size(p))
        fprintf(c->out,
                "sizes differ, so that no frame was compared: A is %dx%d (%" PRId64
                " frames), B is %dx%d (%" PRId64 " frames)\n",
                p->width[0], p->height[0], p->frames[0], p->width[1], p->height[1], p->frames[1]);
    else if (p->frames[0] != p->frames[1])
        fprintf(c->out,
                "A has %" PRId64 " frames, B has %" PRId64 "; the first %" PRId64
                " of each were compared\n",
                p->frames[0], p->frames[1], p->compared);
    if (p->differing > 0) print_differences(c->out, p);
    if (p->compared > 0 && p->differing == 0)
        fprintf(c->out, "%" PRId64 " frame%s of %dx%d: identical\n", p->compared,
                p->compared == 1 ? "" : "s", p->width[0], p->height[0]);
    if (c->tolerant && p->differing > 0)
        fprintf(c->out, "%s the tolerance of %g\n",
                p->largest <= c->tolerance ? "within" : "not within", c->tolerance);
}

int compare_pictures(const struct comparison *c, bool *same)
{
    struct pair p = {0};
    int status = compare_streams(c, &p);
    if (status == STATUS_OK) {
        *same = same_size(&p) && p.frames[0] == p.frames[1] && p.largest <= c->tolerance;
        print_summary(c, &p);
    }
    for (int side = 0; side < 2; side++) frame_source_close(p.source[side]);
    quality_close(p.quality);
    return status;
}
