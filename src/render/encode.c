/* ringreel encode: every rank reads the file and encodes its share of the picture; rank 0 puts the
 * latents together and writes them. */
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "media/reader.h"
#include "model/safetensors.h"
#include "render/engine.h"
#include "render/recode.h"
#include "render/recode_words.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_PART = 71 };

static const char help_text[] =
    "usage: ringreel encode MEDIA --config JOB.yaml -o LATENTS.safetensors [FLAGS]\n"
    "       mpirun -n N ringreel encode ...\n"
    "\n"
    "Encodes a video or an image: the tensor \"latents\" [C, f, h, w], normalised, as `ringreel "
    "decode`\n"
    "takes it: the mean of what the encoder believes, no chance in it. The picture is padded with "
    "grey\n"
    "to whole latents as a render's is; frames that do not fill a latent at the end are left out.\n"
    "\n"
    "  --config JOB.yaml   of the job only checkpoint_path and what concerns the machine are used\n"
    "\n"
    "All ranks encode.\n";

/* ---- a rank's latents ------------------------------------------------------------------------ */

struct encoding {
    struct engine *e;
    struct vae_task task;
    int64_t positions; /* of this rank, in a frame of latents */
    int64_t frames, room;
    float *latents; /* [frames][positions][C] normalised */
    float *encoded; /* what a frame of them is made of: [positions][outputs] */
};

static void take_encoded(void *argument, const float *encoded, int64_t n)
{
    struct encoding *c = argument;
    const struct vae *v = c->e->codec.vae;
    int64_t each = c->positions * c->e->channels;
    if (each > 0 && c->frames + n > c->room) {
        c->room = 2 * (c->frames + n);
        c->latents = realloc(c->latents, (size_t)(c->room * each) * sizeof *c->latents);
        CHECK(c->latents, "out of memory for %lld frames of latents", (long long)c->room);
    }
    for (int64_t i = 0, floats = c->positions * vae_encoder_outputs(v); i < n; i++, c->frames++) {
        float *to = c->latents + c->frames * each;
        op_download(c->e->dev, c->encoded, encoded + i * floats, (size_t)floats * sizeof *encoded);
        device_finish(c->e->dev);
        vae_posterior(v, to, NULL, c->encoded, c->positions);
        vae_normalize(v, to, c->positions);
    }
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* Frames of a file, padded with grey, a few at a time. */
struct frames {
    struct reader *reader;
    int width, height; /* of the file */
    int64_t padded_w, padded_h;
    float *pixels; /* [n][padded_h][padded_w][3] */
};

static void place(struct frames *f, const struct rgb_frame *frame, int64_t index)
{
    int64_t top = (f->padded_h - f->height) / 2, left = (f->padded_w - f->width) / 2;
    float *to = f->pixels + index * f->padded_h * f->padded_w * 3;
    memset(to, 0, sizeof *to * (size_t)(f->padded_h * f->padded_w * 3));
    for (int y = 0; y < frame->height; y++) {
        float *row = to + ((top + y) * f->padded_w + left) * 3;
        for (int i = 0; i < 3 * frame->width; i++)
            row[i] = (float)frame->rgb[y * frame->stride + i] / 127.5f - 1.0f;
    }
}

/* Reads up to `most` frames; *count: how many there were. */
static int read_frames(struct frames *f, int64_t most, int64_t *count)
{
    struct rgb_frame frame;
    for (*count = 0; *count < most; ++*count) {
        TRY(reader_next(f->reader, &frame));
        if (!frame.rgb) break;
        place(f, &frame, *count);
    }
    return STATUS_OK;
}

/* The first frame tells the size. */
static int begin_frames(struct frames *f, const struct engine *e)
{
    struct rgb_frame frame;
    int64_t space = vae_space_factor(e->codec.vae), time = vae_time_factor(e->codec.vae);
    TRY(reader_next(f->reader, &frame));
    f->width = frame.width;
    f->height = frame.height;
    f->padded_w = (frame.width + space - 1) / space * space;
    f->padded_h = (frame.height + space - 1) / space * space;
    f->pixels = xmalloc(sizeof *f->pixels * (size_t)(time * f->padded_w * f->padded_h * 3));
    place(f, &frame, 0);
    return STATUS_OK;
}

/* Frame 0, then eights, until the file ends; all ranks read the same. */
static int push_frames(struct encoding *c, struct frames *f, struct vae_stream *s)
{
    int64_t time = vae_time_factor(c->e->codec.vae), n;
    vae_stream_push(s, f->pixels, 1, false);
    for (;;) {
        TRY(world_agree(c->e->world, read_frames(f, time, &n)));
        if (n < time) break;
        vae_stream_push(s, f->pixels, n, false);
    }
    if (n > 0 && c->e->world->rank == 0)
        log_warn("the last %lld frame%s left out: they do not fill a latent", (long long)n,
                 n == 1 ? " is" : "s are");
    return STATUS_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* A rank's part into planes [C, f, h, w]. */
static void spread(const struct encoding *c, float *planes, const float *part, int rank)
{
    int64_t h = c->task.h, w = c->task.w, channels = c->e->channels;
    bool rows = c->task.axis == VAE_ROWS;
    struct vae_part own = vae_part_of(rows ? h : w, c->e->world->size, rank);
    int64_t part_h = rows ? own.count : h, part_w = rows ? w : own.count;
    for (int64_t i = 0; i < c->frames * part_h * part_w; i++, part += channels) {
        int64_t t = i / (part_h * part_w), y = i / part_w % part_h, x = i % part_w;
        y += rows ? own.first : 0;
        x += rows ? 0 : own.first;
        for (int64_t k = 0; k < channels; k++)
            planes[((k * c->frames + t) * h + y) * w + x] = part[k];
    }
}

static int write_planes(const struct encoding *c, const float *planes, const char *path)
{
    int64_t shape[] = {c->e->channels, c->frames, c->task.h, c->task.w};
    struct tensor t = {.name = "latents", .dtype = DTYPE_F32, .rank = 4, .data = planes};
    memcpy(t.shape, shape, sizeof shape);
    t.bytes = (size_t)tensor_count(&t) * sizeof *planes;
    TRY(safetensors_write(path, &t, 1, NULL));
    log_info("wrote %s: latents [%lld,%lld,%lld,%lld]", path, (long long)shape[0],
             (long long)shape[1], (long long)shape[2], (long long)shape[3]);
    return STATUS_OK;
}

/* Parts come to rank 0 in the order of ranks. */
static int write_latents(struct encoding *c, const char *path)
{
    struct world *w = c->e->world;
    int64_t extent = c->task.axis == VAE_ROWS ? c->task.h : c->task.w;
    int64_t across = c->task.h * c->task.w / extent, channels = c->e->channels;
    int64_t most = vae_part_of(extent, w->size, 0).count * across * c->frames;
    float *planes = NULL, *part = NULL;
    if (w->rank == 0) {
        planes = xmalloc(sizeof *planes * (size_t)(c->frames * extent * across * channels));
        part = xmalloc(sizeof *part * (size_t)(most * channels));
        spread(c, planes, c->latents, 0);
    }
    for (int r = 1; r < w->size; r++) {
        int64_t rows = vae_part_of(extent, w->size, r).count * across * c->frames;
        struct transfer t = {0};
        if (rows == 0) break;
        if (w->rank == r) comm_send_start(w->comm, &t, c->latents, rows, channels, 0, TAG_PART);
        if (w->rank == 0) comm_receive_start(w->comm, &t, part, rows, channels, r, TAG_PART);
        comm_wait(w->comm, &t);
        if (w->rank == 0) spread(c, planes, part, r);
    }
    int status = w->rank == 0 ? write_planes(c, planes, path) : STATUS_OK;
    free(planes);
    free(part);
    return world_agree(w, status);
}

/* ---- the command ----------------------------------------------------------------------------- */

static int open_stream(struct encoding *c, struct vae_stream **s, struct arena *memory)
{
    TRY(vae_stream_open(s, c->e->codec.vae, &c->task));
    arena_init_on(memory, "VAE encoder", device_memory(c->e->dev));
    vae_stream_lay_out(*s, memory);
    if ((int64_t)memory->used_bytes > memory_available() / c->e->world->host_size)
        return error_set(STATUS_INPUT, "not enough memory: the encoder needs %.2f GiB a rank",
                         (double)memory->used_bytes / 0x1p30);
    return STATUS_OK;
}

static int run_stream(struct encoding *c, struct frames *f, struct vae_stream *s,
                      struct arena *memory, const char *path)
{
    arena_commit(memory);
    vae_stream_lay_out(s, memory);
    vae_encoder_make_resident(c->e->codec.vae);
    phase_set("encoding");
    vae_stream_begin(s, 0, 0, NULL, (struct vae_sink){take_encoded, c}, NULL);
    TRY(push_frames(c, f, s));
    return write_latents(c, path);
}

static int encode_frames(struct engine *e, struct frames *f, const char *path)
{
    struct vae_stream *s = NULL;
    struct arena memory = {0};
    struct encoding c = {.e = e};
    int64_t space = vae_space_factor(e->codec.vae), h = f->padded_h / space,
            w = f->padded_w / space;
    enum vae_axis axis = h > w ? VAE_ROWS : VAE_COLUMNS;
    c.task = (struct vae_task){
        .encodes = true, .h = h, .w = w, .chunk = 1, .group = e->mesh.codec_group, .axis = axis};
    c.positions = vae_part_of(axis == VAE_ROWS ? h : w, e->world->size, e->world->rank).count *
                  (axis == VAE_ROWS ? w : h);
    c.encoded =
        xmalloc((size_t)(c.positions * vae_encoder_outputs(e->codec.vae)) * sizeof *c.encoded);
    int status = world_agree(e->world, open_stream(&c, &s, &memory));
    if (status == STATUS_OK) status = run_stream(&c, f, s, &memory, path);
    vae_stream_close(s);
    arena_free(&memory);
    free(c.latents);
    free(c.encoded);
    return status;
}

static int encode_media(struct engine *e, const struct recode_words *w)
{
    struct frames f = {0};
    int status = world_agree(e->world, vae_open_encoder(e->codec.vae, e->checkpoint));
    if (status == STATUS_OK) status = world_agree(e->world, reader_open(&f.reader, w->input));
    if (status == STATUS_OK) status = world_agree(e->world, begin_frames(&f, e));
    if (status == STATUS_OK) status = encode_frames(e, &f, w->output);
    reader_close(f.reader);
    free(f.pixels);
    return status;
}

static int encode_job(struct world *world, const struct job_options *job,
                      const struct recode_words *w)
{
    struct engine engine = {0};
    int status = engine_open_codec(&engine, world, job);
    if (status == STATUS_OK) status = encode_media(&engine, w);
    engine_close(&engine);
    return status;
}

int recode_encode(struct world *world, int argc, char **argv)
{
    return recode_run(world, argc, argv, "encode", help_text, encode_job);
}
