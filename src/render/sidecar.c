#include "render/sidecar.h"

#include "base/error.h"
#include "media/partial.h"
#include "render/version.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static json_t *describe_file(const char *path)
{
    struct stat st;
    bool found = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    return json_pack("{s:s%, s:I}", "path", path, strlen(path), "bytes",
                     found ? (json_int_t)st.st_size : (json_int_t)0);
}

static json_t *describe_images(const struct conditioning *c)
{
    json_t *list = json_array();
    for (int i = 0; i < c->count; i++)
        json_array_append_new(list, describe_file(c->items[i].media));
    return list;
}

static json_t *describe_sigmas(const struct schedule *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->count; i++) json_array_append_new(list, json_real(s->sigma[i]));
    return list;
}

static json_t *describe(const struct engine *e, const struct shot *s,
                        const struct sidecar_facts *facts)
{
    char *yaml = options_to_yaml(e->job, s->number);
    const struct shot_options *o = s->options;
    json_t *root = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:{s:i, s:i, s:s, s:s, s:i}, s:I, s:o, s:{s:[I,I,I,I], s:s}, "
        "s:{s:[i,i,i,i], s:f, s:s}, s:f, s:s}",
        "ringreel", RINGREEL_VERSION, "media", media_versions(), "checkpoint",
        describe_file(e->job->checkpoint_path), "text_encoder",
        describe_file(e->job->text_encoder_path), "images", describe_images(&o->conditioning),
        "ranks", "denoise", e->mesh.denoise_ranks, "codec", e->mesh.codec_ranks, "backend",
        device_name(e->dev), "isa", device_isa(e->dev), "threads_per_rank", device_threads(e->dev),
        "seed", (json_int_t)o->seed, "sigmas", describe_sigmas(&s->schedule), "latents", "shape",
        (json_int_t)e->channels, (json_int_t)s->f, (json_int_t)s->h, (json_int_t)s->w, "sha256",
        facts->latents_sha256, "frames", "shape", (int)s->written, o->height, o->width, 3,
        "frame_rate", o->frame_rate, "sha256", facts->frames_sha256, "decode_seconds",
        facts->decode_s, "job", yaml);
    free(yaml);
    CHECK(root, "the sidecar's description does not match its format");
    return root;
}

/* OUTPUT.json; an image sequence "frames/%06d.png" has one, "frames/_06d.png.json". */
static char *path_of(const struct shot_options *o)
{
    char *path = xasprintf("%s.json", o->output), *slash = strrchr(path, '/');
    for (char *c = slash ? slash : path; *c; c++)
        if (*c == '%') *c = '_';
    return path;
}

int sidecar_check(const struct shot_options *o)
{
    struct partial file;
    char *path = path_of(o);
    int status = partial_open(&file, path);
    if (status == STATUS_OK) partial_drop(&file);
    free(path);
    return status;
}

int sidecar_write(const struct engine *e, const struct shot *s, const struct sidecar_facts *facts)
{
    struct partial file;
    char *path = path_of(s->options);
    json_t *root = describe(e, s, facts);
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    CHECK(text, "out of memory for %s", path);
    int status = partial_open(&file, path);
    if (status == STATUS_OK) {
        partial_write(&file, text, strlen(text));
        status = partial_commit(&file); /* reports what could not be written */
    }
    free(text);
    json_decref(root);
    free(path);
    return status;
}
