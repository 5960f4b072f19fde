#include "render/dump.h"

#include "base/error.h"
#include "media/partial.h"
#include "model/safetensors.h"
#include "parallel/heartbeat.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_DUMP = 31 };

static char *path_of(const char *dir, int shot, const char *file)
{
    return xasprintf("%s/shot-%04d/%s.safetensors", dir, shot + 1, file);
}

int dump_prepare(const char *dir, int shots)
{
    int status = STATUS_OK;
    for (int i = 0; i < shots && status == STATUS_OK; i++) {
        char *path = path_of(dir, i, "inputs");
        status = partial_make_folders("dump", path);
        free(path);
    }
    return status;
}

static int write_file(const char *dir, int shot, const char *file, const struct tensor *tensors,
                      int count)
{
    char *path = path_of(dir, shot, file);
    int status = safetensors_write(path, tensors, count, NULL);
    free(path);
    return status;
}

static struct tensor tensor_2d(const char *name, const float *data, int64_t rows, int64_t cols)
{
    return (struct tensor){.name = name,
                           .dtype = DTYPE_F32,
                           .rank = 2,
                           .shape = {rows, cols},
                           .data = data,
                           .bytes = (size_t)(rows * cols) * sizeof(float)};
}

/* `rows` on the host: this rank's; on rank 0 room for all of them, [S, C], behind its own. */
static void gather_rows(struct comm *group, const struct shard_plan *plan, int64_t channels,
                        float *rows)
{
    int me = comm_rank(group);
    struct transfer t = {0};
    if (me != 0) {
        if (shard_tokens(plan, me))
            comm_send_start(group, &t, rows, shard_tokens(plan, me), channels, 0, TAG_DUMP);
        comm_wait(group, &t);
        return;
    }
    for (int r = 1; r < plan->ranks; r++) {
        if (shard_tokens(plan, r) == 0) continue;
        comm_receive_start(group, &t, rows + shard_first_token(plan, r) * channels,
                           shard_tokens(plan, r), channels, r, TAG_DUMP);
        comm_wait(group, &t);
    }
}

int dump_sharded(const char *dir, int shot, const char *file, struct device *dev,
                 struct comm *group, const struct shard_plan *plan, const struct dump_part *parts,
                 int count)
{
    struct tensor tensors[2];
    float *rows[2] = {NULL, NULL}; /* rank 0: of all ranks */
    int status = STATUS_OK;
    for (int i = 0; i < count; i++) {
        struct mat own = parts[i].rows;
        int64_t tokens = comm_rank(group) == 0 ? plan->tokens : own.rows;
        rows[i] = xmalloc((size_t)(tokens * own.cols) * sizeof(float));
        op_download(dev, rows[i], own.p, (size_t)(own.rows * own.cols) * sizeof(float));
        device_finish(dev);
        gather_rows(group, plan, own.cols, rows[i]);
        tensors[i] = tensor_2d(parts[i].name, rows[i], plan->tokens, own.cols);
    }
    if (comm_rank(group) == 0) status = write_file(dir, shot, file, tensors, count);
    free(rows[0]);
    free(rows[1]);
    return status;
}

int dump_inputs(const char *dir, int shot, const struct shot_input *input, int64_t width,
                int64_t channels, const float *sigmas, int steps)
{
    struct tensor t[6];
    int count = 0;
    const int64_t *tokens = input->head.tokens;
    int64_t longest = tokens[0] > tokens[1] ? tokens[0] : tokens[1];
    int32_t *mask = xmalloc((size_t)longest *
                            sizeof *mask); /* every row is a real token: pads are never computed */
    for (int64_t i = 0; i < longest; i++) mask[i] = 1;
    t[count++] = tensor_2d("prompt_embeds", input->embeds + tokens[0] * width, tokens[1], width);
    t[count++] = (struct tensor){.name = "prompt_mask",
                                 .dtype = DTYPE_I32,
                                 .rank = 1,
                                 .shape = {tokens[1]},
                                 .data = mask,
                                 .bytes = (size_t)tokens[1] * sizeof *mask};
    if (tokens[0]) {
        t[count++] = tensor_2d("negative_embeds", input->embeds, tokens[0], width);
        t[count++] = (struct tensor){.name = "negative_mask",
                                     .dtype = DTYPE_I32,
                                     .rank = 1,
                                     .shape = {tokens[0]},
                                     .data = mask,
                                     .bytes = (size_t)tokens[0] * sizeof *mask};
    }
    if (input->head.conditioned)
        t[count++] = tensor_2d("condition", input->condition, input->head.conditioned, channels);
    t[count++] = (struct tensor){.name = "sigmas",
                                 .dtype = DTYPE_F32,
                                 .rank = 1,
                                 .shape = {steps},
                                 .data = sigmas,
                                 .bytes = (size_t)steps * sizeof *sigmas};
    int status = write_file(dir, shot, "inputs", t, count);
    free(mask);
    return status;
}

int dump_latents_open(struct latents_dump *d, const char *dir, int shot, int64_t c, int64_t f,
                      int64_t h, int64_t w)
{
    *d = (struct latents_dump){.channels = c, .tokens = f * h * w};
    struct tensor t = {.name = "latents",
                       .dtype = DTYPE_F32,
                       .rank = 4,
                       .shape = {c, f, h, w},
                       .bytes = (size_t)(c * d->tokens) * sizeof(float)};
    char *path = path_of(dir, shot, "latents");
    int status = safetensors_begin(&d->file, path, &t, &d->begin);
    free(path);
    return status;
}

int dump_latents_add(struct latents_dump *d, const float *latents, int64_t tokens)
{
    float *plane = xmalloc((size_t)tokens * sizeof *plane);
    for (int64_t c = 0; c < d->channels && d->file.error == 0; c++) {
        for (int64_t i = 0; i < tokens; i++) plane[i] = latents[i * d->channels + c];
        partial_write_at(&d->file, plane, (size_t)tokens * sizeof *plane,
                         d->begin + (uint64_t)(c * d->tokens + d->written) * sizeof *plane);
    }
    free(plane);
    d->written += tokens;
    return d->file.error == 0 ? STATUS_OK : partial_failed(&d->file);
}

int dump_latents_close(struct latents_dump *d, int status)
{
    if (status == STATUS_OK) return partial_commit(&d->file);
    partial_drop(&d->file);
    return status;
}

int dump_frames(const char *dir, int shot, const uint8_t *frames, int64_t f, int64_t h, int64_t w)
{
    struct tensor t = {.name = "frames",
                       .dtype = DTYPE_U8,
                       .rank = 4,
                       .shape = {f, h, w, 3},
                       .data = frames,
                       .bytes = (size_t)(f * h * w * 3)};
    return write_file(dir, shot, "frames", &t, 1);
}
