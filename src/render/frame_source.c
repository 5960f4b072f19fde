#include "render/frame_source.h"

#include "base/error.h"
#include "media/images.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

struct frame_source {
    const char *path;
    int (*next)(struct frame_source *s, struct rgb_frame *frame);
    struct reader *reader;       /* of the file, or of the sequence's current one */
    const struct tensor *frames; /* [F, H, W, 3] */
    int64_t first;               /* number of a sequence's first frame */
    int64_t count;               /* frames given */
    int width, height;           /* of a sequence's first frame */
};

static int next_of_file(struct frame_source *s, struct rgb_frame *frame)
{
    return reader_next(s->reader, frame);
}

/* ---- a sequence of images -------------------------------------------------------------------- */

static int read_image(struct frame_source *s, const char *path, struct rgb_frame *frame)
{
    TRY(reader_open(&s->reader, path));
    TRY(reader_next(s->reader, frame));
    if (s->count == 0) {
        s->width = frame->width;
        s->height = frame->height;
    }
    if (frame->width != s->width || frame->height != s->height)
        return error_set(STATUS_INPUT, "%s: %dx%d, those before are %dx%d; all must have one size",
                         path, frame->width, frame->height, s->width, s->height);
    s->count++;
    return STATUS_OK;
}

static int next_of_sequence(struct frame_source *s, struct rgb_frame *frame)
{
    char *path;
    int status = STATUS_OK;
    *frame = (struct rgb_frame){0};
    TRY(images_frame_path(&path, s->path, s->first + s->count));
    reader_close(s->reader);
    s->reader = NULL;
    bool is_end = s->count > 0 && access(path, F_OK) != 0 && errno == ENOENT;
    if (!is_end) status = read_image(s, path, frame);
    free(path);
    return status;
}

/* ---- a dump ---------------------------------------------------------------------------------- */

static int find_frames(struct frame_source *s, const struct safetensors *tensors)
{
    const struct tensor *t = safetensors_find(tensors, "frames");
    if (!t || t->dtype != DTYPE_U8 || t->rank != 4 || t->shape[3] != 3)
        return error_set(STATUS_INPUT,
                         "%s: holds tensors; pictures can only be compared with a tensor 'frames', "
                         "U8 [F,H,W,3]",
                         s->path);
    int64_t height = t->shape[1], width = t->shape[2];
    if (t->shape[0] < 1 || height < 1 || width < 1 || width > READER_MAX_PIXELS / height)
        return error_set(STATUS_INPUT,
                         "%s: tensor frames: %" PRId64 " pictures of %" PRId64 "x%" PRId64
                         "; at least 1, of at most %d pixels, can be compared",
                         s->path, t->shape[0], width, height, READER_MAX_PIXELS);
    s->frames = t;
    return STATUS_OK;
}

static int next_of_dump(struct frame_source *s, struct rgb_frame *frame)
{
    *frame = (struct rgb_frame){0};
    if (s->count == s->frames->shape[0]) return STATUS_OK;
    int width = (int)s->frames->shape[2], height = (int)s->frames->shape[1];
    ptrdiff_t stride = 3 * (ptrdiff_t)width;
    const uint8_t *first = s->frames->data;
    *frame = (struct rgb_frame){.width = width,
                                .height = height,
                                .stride = stride,
                                .rgb = first + s->count * height * stride};
    s->count++;
    return STATUS_OK;
}

/* ---- whichever it is ------------------------------------------------------------------------- */

static int open_pictures(struct frame_source *s)
{
    char *first = NULL;
    if (access(s->path, F_OK) != 0) TRY(images_frame_path(&first, s->path, 0));
    s->next = first ? next_of_sequence : next_of_file;
    if (first) s->first = images_first(s->path);
    int status = first ? STATUS_OK : reader_open(&s->reader, s->path);
    free(first);
    return status;
}

int frame_source_open(struct frame_source **out, const char *path,
                      const struct safetensors *tensors)
{
    *out = NULL;
    struct frame_source *s = xcalloc(1, sizeof *s);
    s->path = path;
    s->next = next_of_dump;
    int status = tensors ? find_frames(s, tensors) : open_pictures(s);
    if (status != STATUS_OK)
        frame_source_close(s);
    else
        *out = s;
    return status;
}

int frame_source_next(struct frame_source *s, struct rgb_frame *frame) { return s->next(s, frame); }

void frame_source_close(struct frame_source *s)
{
    if (!s) return;
    reader_close(s->reader);
    free(s);
}
