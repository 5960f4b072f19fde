/* device_streams frames|weights|uploads|recordings: what the CUDA backend does beside its ops must
 * give what it would give in their order: frames that leave while their memory is used again,
 * weights and uploads that come while the device computes, ops that are recorded. Prints what
 * differs; exit code 1 then. Run by tests/emulation/streams.sh; not a test by itself. */
#include "base/error.h"
#include "base/log.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 64, ROWS = 16, TILE = 16 };

static int wrong;

static void expect(bool good, const char *what, int number)
{
    if (good) return;
    printf("wrong: %s %d\n", what, number);
    wrong = 1;
}

static struct arena arena_on(const struct arena_memory *memory, size_t bytes)
{
    struct arena a;
    arena_init_on(&a, "test", memory);
    arena_take(&a, bytes);
    arena_commit(&a);
    return a;
}

static void fill(float *p, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (float)(seed >> 8) * 0x1p-23f - 1;
    }
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* All are made in the same place, one after the other, and looked at when six more have been asked
 * for: as when a film is written, but further behind than the backend has memory for. */
static void frames(struct device *dev)
{
    enum { FRAMES = 14, AHEAD = 6, VALUES = 4096 };
    struct arena device = arena_on(device_memory(dev), VALUES * sizeof(float));
    struct arena host = arena_on(device_staging(dev), (size_t)FRAMES * VALUES);
    float *y = (float *)(void *)device.base, values[VALUES];
    uint64_t marks[FRAMES];
    for (int i = 0; i < FRAMES + AHEAD; i++) {
        if (i < FRAMES) {
            for (int k = 0; k < VALUES; k++) values[k] = (float)(i + k % 7) / 32 - 0.5f;
            op_upload(dev, y, values, sizeof values);
            op_to_bytes(dev, host.base + (size_t)i * VALUES, y, VALUES, VALUES, 1);
            marks[i] = device_mark(dev);
        }
        if (i < AHEAD) continue;
        const uint8_t *frame = host.base + (size_t)(i - AHEAD) * VALUES;
        device_wait(dev, marks[i - AHEAD]);
        bool good = true;
        for (int k = 0; k < VALUES; k++) {
            float value = 0.5f * ((float)(i - AHEAD + k % 7) / 32 - 0.5f) + 0.5f;
            good &= frame[k] == (uint8_t)(255 * value);
        }
        expect(good, "frame", i - AHEAD);
    }
    device_finish(dev);
    arena_free(&device);
    arena_free(&host);
}

/* ---- weights --------------------------------------------------------------------------------- */

enum { LAYERS = 7 };

/* x through all layers and back to the host */
static void run_layers(struct device *dev, const struct linear *layers, struct mat x, struct mat y,
                       const float *input, float *output)
{
    size_t bytes = ROWS * WIDTH * sizeof *input;
    op_upload(dev, x.p, input, bytes);
    for (int i = 0; i < LAYERS; i++) {
        op_linear(dev, y, x, &layers[i], EPILOGUE_NONE, TILE);
        struct mat next = y;
        y = x;
        x = next;
    }
    op_download(dev, output, x.p, bytes);
    device_finish(dev);
}

/* Layers that come from the host one by one multiply like those that have stayed. */
static void weights(struct device *dev)
{
    static float data[LAYERS][WIDTH * WIDTH], bias_data[LAYERS][WIDTH];
    float input[ROWS * WIDTH], streamed[ROWS * WIDTH], resident[ROWS * WIDTH];
    struct tensor weight[LAYERS], bias[LAYERS];
    struct linear layers[LAYERS];
    struct arena device = arena_on(device_memory(dev), 2 * sizeof input);
    struct mat x = mat_f32((float *)(void *)device.base, ROWS, WIDTH), y = x;
    y.p = (float *)x.p + ROWS * WIDTH;
    fill(input, ROWS * WIDTH, 1);
    for (int i = 0; i < LAYERS; i++) {
        fill(data[i], WIDTH * WIDTH, (uint32_t)i + 2);
        fill(bias_data[i], WIDTH, (uint32_t)i + 20);
        weight[i] = (struct tensor){"weight", DTYPE_F32, 2, {WIDTH, WIDTH}, data[i], sizeof *data};
        bias[i] = (struct tensor){"bias", DTYPE_F32, 1, {WIDTH}, bias_data[i], sizeof *bias_data};
        layers[i] = linear_make(&weight[i], &bias[i]);
    }
    run_layers(dev, layers, x, y, input, streamed);
    run_layers(dev, layers, x, y, input, streamed); /* and when the memory for them is there */
    for (int i = 0; i < LAYERS; i++) op_linear_pack(dev, &layers[i]);
    device_finish(dev);
    run_layers(dev, layers, x, y, input, resident);
    expect(memcmp(streamed, resident, sizeof streamed) == 0, "streamed layers", LAYERS);
    for (int i = 0; i < LAYERS; i++) op_linear_unpack(dev, &layers[i]);
    arena_free(&device);
}

/* ---- uploads --------------------------------------------------------------------------------- */

/* More than the pinned memory that they pass through, from memory that is written again at once; in
 * rows, in one piece, and rows wider than a slot. */
static void uploads(struct device *dev)
{
    enum { PIECES = 9, BYTES = 5 << 20, STRIDE = 6 << 20 };
    struct arena device = arena_on(device_memory(dev), (size_t)PIECES * STRIDE);
    struct arena host = arena_on(device_staging(dev), (size_t)PIECES * STRIDE);
    unsigned char *from = xmalloc(2 * STRIDE);
    for (int i = 0; i < PIECES; i++) {
        memset(from, i + 1, 2 * STRIDE);
        unsigned char *to = device.base + (size_t)i * STRIDE;
        if (i % 3 == 0) op_upload(dev, to, from, BYTES);
        if (i % 3 == 1) op_upload_rows(dev, to, 5 << 10, from, 6 << 10, 5 << 10, 1 << 10);
        if (i % 3 == 2) op_upload_rows(dev, to, BYTES / 2, from, STRIDE, BYTES / 2, 2);
    }
    memset(from, 255, 2 * STRIDE);
    op_download(dev, host.base, device.base, (size_t)PIECES * STRIDE);
    device_finish(dev);
    for (int i = 0; i < PIECES; i++) {
        const unsigned char *piece = host.base + (size_t)i * STRIDE;
        bool good = true;
        for (int k = 0; k < BYTES; k++) good &= piece[k] == i + 1;
        expect(good, "upload", i);
    }
    free(from);
    arena_free(&device);
    arena_free(&host);
}

/* ---- recordings ------------------------------------------------------------------------------ */

struct chain {
    struct device *dev;
    float *x, *y, *host;
    struct linear *layer;
};

/* y = layer(x), then x = x + 2 y */
static void ask(const struct chain *c)
{
    op_linear(c->dev, mat_f32(c->y, ROWS, WIDTH), mat_f32(c->x, ROWS, WIDTH), c->layer,
              EPILOGUE_NONE, TILE);
    op_lincomb(c->dev, c->x, 1, c->x, 2, c->y, ROWS * WIDTH);
}

static const float *result(const struct chain *c)
{
    op_download(c->dev, c->host, c->x, ROWS * WIDTH * sizeof(float));
    device_finish(c->dev);
    return c->host;
}

static struct recording *record(const struct chain *c, bool looks)
{
    if (!op_record_begin(c->dev)) return NULL;
    ask(c);
    if (looks) result(c);
    return op_record_end(c->dev);
}

/* From `start`, twice: asked for, and recorded. */
static void replayed_as_asked(const struct chain *c, struct recording *r, int start)
{
    enum { N = ROWS * WIDTH };
    float input[N], asked[N];
    fill(input, N, (uint32_t)start);
    op_upload(c->dev, c->x, input, sizeof input);
    ask(c);
    ask(c);
    memcpy(asked, result(c), sizeof asked);
    op_upload(c->dev, c->x, input, sizeof input);
    for (int i = 0; i < 2; i++) {
        bool valid = op_replay_begin(c->dev, r);
        expect(valid, "replay", start);
        ask(c);
        if (valid) op_replay_end(c->dev);
    }
    expect(memcmp(asked, result(c), sizeof asked) == 0, "replayed bytes", start);
}

static void recordings(struct device *dev)
{
    static float data[WIDTH * WIDTH];
    enum { N = ROWS * WIDTH };
    struct arena device = arena_on(device_memory(dev), 10 * N * sizeof(float));
    struct arena host = arena_on(device_staging(dev), N * sizeof(float));
    struct tensor weight = {"weight", DTYPE_F32, 2, {WIDTH, WIDTH}, data, sizeof data};
    struct linear layer = linear_make(&weight, NULL);
    struct chain c = {.dev = dev,
                      .x = (float *)(void *)device.base,
                      .y = (float *)(void *)device.base + N,
                      .host = (float *)(void *)host.base,
                      .layer = &layer};
    fill(data, WIDTH * WIDTH, 7);
    op_linear_pack(dev, &layer);
    ask(&c);
    struct recording *r = record(&c, false);
    expect(r, "recording", 1);
    for (int start = 1; r && start < 4; start++) replayed_as_asked(&c, r, start);

    /* A product of more rows moves memory that the recording uses. */
    op_linear(dev, mat_f32(c.y + 4 * N, 4 * ROWS, WIDTH), mat_f32(c.y, 4 * ROWS, WIDTH), &layer,
              EPILOGUE_NONE, TILE);
    expect(!r || !op_replay_begin(dev, r), "replay of what has moved", 1);
    op_recording_free(dev, r);
    r = record(&c, false);
    expect(r, "recording", 2);
    if (r) replayed_as_asked(&c, r, 4);
    op_recording_free(dev, r);

    expect(!record(&c, true), "recording of a download", 1);
    float before[N];
    memcpy(before, result(&c), sizeof before); /* nothing was done, and ops go on */
    expect(memcmp(before, result(&c), sizeof before) == 0, "bytes after a refusal", 1);
    expect(!op_record_begin(dev), "recording after a refusal", 1);
    op_linear_unpack(dev, &layer);
    arena_free(&device);
    arena_free(&host);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct device *dev);
    } cases[] = {
        {"frames", frames}, {"weights", weights}, {"uploads", uploads}, {"recordings", recordings}};
    log_init(0, LOG_INFO);
    struct device *dev = device_open_cuda(0, 1, PRECISION_BF16);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (argc == 2 && strcmp(argv[1], cases[i].name) == 0) cases[i].run(dev);
    device_close(dev);
    return wrong;
}
