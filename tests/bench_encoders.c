/* bench_encoders [WIDTH HEIGHT FRAMES [RUNS]]: what encoding a synthetic film takes, as one stream
 * and in segments of 32 frames by one encoder and by two (src/media/segments.c), with encoders as
 * they are by themselves and with a single thread each. Prints medians of RUNS rounds, in which
 * every way has its turn; every other round goes backwards. */
#include "base/error.h"
#include "base/log.h"
#include "media/video.h"
#include "tests/support/synth.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { SEGMENT = 32, MOST_RUNS = 9, PICTURES = 16 };

static const struct way {
    const char *name;
    int segment, encoders;
    const char *options;
} ways[] = {
    {"one stream", 1 << 20, 1, ""},
    {"segments, one encoder", SEGMENT, 1, ""},
    {"segments, two encoders", SEGMENT, 2, ""},
    {"segments, one encoder of a thread", SEGMENT, 1, "threads=1"},
    {"segments, two encoders of a thread", SEGMENT, 2, "threads=1"},
};
enum { WAYS = sizeof ways / sizeof *ways };

struct result {
    double wall_s, processor_s, bytes;
};

static uint32_t mix(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    return x ^ (x >> 16);
}

/* A ball crosses a slowly moving pattern with some grain on it. */
static void paint(uint8_t *rgb, int width, int height, int frame)
{
    int cx = width / 8 + width * 3 / 4 * frame / 64, cy = height / 2, radius = height / 6;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, rgb += 3) {
            int64_t dx = x - cx, dy = y - cy;
            bool in_ball = dx * dx + dy * dy < (int64_t)radius * radius;
            int u = x + 2 * frame, v = y + frame;
            int tile = (u / 48 + v / 48) % 2 ? 24 : 0;
            int grain = (int)(mix((uint32_t)(u * 8191 + v)) % 12);
            rgb[0] = (uint8_t)(in_ball ? 200 + grain : 60 + tile + 80 * y / height + grain);
            rgb[1] = (uint8_t)(in_ball ? 40 + grain : 90 + tile + 60 * x / width + grain);
            rgb[2] = (uint8_t)(in_ball ? 30 + grain : 140 - tile + grain);
        }
}

static double processor_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static double file_bytes(const char *path)
{
    struct stat s;
    CHECK(stat(path, &s) == 0, "%s is not there", path);
    return (double)s.st_size;
}

struct film_size {
    int width, height, frames;
};

/* Its first pictures come forwards and backwards by turns: the rest of a film, without the room. */
static const uint8_t *picture(const uint8_t *film, const struct film_size *size, int frame)
{
    int at = frame % (2 * PICTURES);
    at = at < PICTURES ? at : 2 * PICTURES - 1 - at;
    return film + (int64_t)at * size->width * size->height * 3;
}

static int encode(const struct way *way, const uint8_t *film, const struct film_size *size,
                  const char *path, struct result *result)
{
    struct video_settings s = {.path = path,
                               .encoder_options = way->options,
                               .bit_depth = 8,
                               .width = size->width,
                               .height = size->height,
                               .frame_rate = 24,
                               .frames = size->frames,
                               .segment_frames = way->segment,
                               .encoders = way->encoders};
    struct video_writer *w;
    double start_s = clock_s(), processor_start_s = processor_s();
    TRY(video_open(&w, &s));
    int status = STATUS_OK;
    for (int i = 0; i < size->frames && status == STATUS_OK; i++)
        status = video_write(w, picture(film, size, i));
    if (status == STATUS_OK)
        status = video_finish(w);
    else
        video_abandon(w);
    if (status == STATUS_OK)
        *result = (struct result){.wall_s = clock_s() - start_s,
                                  .processor_s = processor_s() - processor_start_s,
                                  .bytes = file_bytes(path)};
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const struct result *r, int runs, size_t member)
{
    double values[MOST_RUNS];
    for (int i = 0; i < runs; i++)
        values[i] = *(const double *)(const void *)((const char *)&r[i] + member);
    qsort(values, (size_t)runs, sizeof *values, by_value);
    return values[runs / 2];
}

static int measure(const uint8_t *film, const struct film_size *size, const char *path, int runs)
{
    static struct result results[WAYS][MOST_RUNS];
    for (int run = 0; run < runs; run++)
        for (int i = 0; i < WAYS; i++) {
            int way = run % 2 ? WAYS - 1 - i : i;
            TRY(encode(&ways[way], film, size, path, &results[way][run]));
        }
    printf("\nencoding %d frames of %dx%d %21s %10s %10s\n", size->frames, size->width,
           size->height, "seconds", "processor", "MB");
    for (int i = 0; i < WAYS; i++) {
        const struct result *r = results[i];
        printf("%-52s %10.2f %10.2f %10.2f\n", ways[i].name,
               median(r, runs, offsetof(struct result, wall_s)),
               median(r, runs, offsetof(struct result, processor_s)),
               1e-6 * median(r, runs, offsetof(struct result, bytes)));
    }
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    struct film_size size = {1920, 1088, 64};
    int runs = argc > 4 ? atoi(argv[4]) : 3;
    if (argc > 3) size = (struct film_size){atoi(argv[1]), atoi(argv[2]), atoi(argv[3])};
    CHECK(size.width > 0 && size.height > 0 && size.frames > 0 && runs > 0 && runs <= MOST_RUNS,
          "usage: bench_encoders [WIDTH HEIGHT FRAMES [RUNS]]");
    size_t frame = (size_t)size.width * (size_t)size.height * 3;
    uint8_t *film = xmalloc(PICTURES * frame);
    for (int i = 0; i < PICTURES; i++) paint(film + (size_t)i * frame, size.width, size.height, i);
    char *folder = temp_dir_make(), *path = xasprintf("%s/film.mp4", folder);
    int status = measure(film, &size, path, runs);
    if (status != STATUS_OK) fprintf(stderr, "%s\n", error_message());
    temp_dir_remove(folder);
    free(path);
    free(film);
    return status;
}
