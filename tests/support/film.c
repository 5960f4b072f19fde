/* Films, their samples, and PNG files of them. */
#include "tests/support/film.h"
#include "base/error.h"
#include "media/video.h"
#include "tests/support/synth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t frame_bytes(const struct film *film)
{
    return (size_t)film->height * film->width * 3;
}

struct film film_make(int frames, int height, int width)
{
    struct film film = {.frames = frames, .height = height, .width = width};
    film.pixels = xcalloc((size_t)frames, frame_bytes(&film));
    return film;
}

void film_free(struct film *film)
{
    free(film->pixels);
    *film = (struct film){0};
}

uint8_t *film_frame(const struct film *film, int frame)
{
    return film->pixels + (size_t)frame * frame_bytes(film);
}

uint8_t *film_sample(const struct film *film, int sample)
{
    return film_frame(film, (film->frames - 1) * sample / (FILM_SAMPLES - 1));
}

double film_psnr(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    double sum = 0;
    for (size_t i = 0; i < bytes; i++) {
        double difference = (double)a[i] - b[i];
        sum += difference * difference;
    }
    if (sum == 0) return INFINITY;
    return 10 * log10(255.0 * 255.0 * (double)bytes / sum);
}

void film_write_png(const char *path, const uint8_t *rgb, int height, int width)
{
    struct video_settings settings = {.path = path,
                                      .bit_depth = 8,
                                      .width = width,
                                      .height = height,
                                      .frame_rate = 1,
                                      .frames = 1};
    struct video_writer *writer = NULL;
    int status = video_open(&writer, &settings);
    if (status == STATUS_OK) {
        status = video_write(writer, rgb);
        if (status == STATUS_OK)
            status = video_finish(writer);
        else
            video_abandon(writer);
    }
    if (status != STATUS_OK) fail_msg("%s", error_message());
}

void film_write_sheet(const char *path, const struct film *films, int count)
{
    int height = films[0].height, width = films[0].width;
    size_t row = (size_t)width * 3;
    struct film sheet = film_make(1, count * height, FILM_SAMPLES * width);
    for (int f = 0; f < count; f++) {
        for (int s = 0; s < FILM_SAMPLES; s++) {
            const uint8_t *from = film_sample(&films[f], s);
            uint8_t *to = sheet.pixels + ((size_t)f * height * FILM_SAMPLES + s) * row;
            for (int y = 0; y < height; y++)
                memcpy(to + y * FILM_SAMPLES * row, from + y * row, row);
        }
    }
    film_write_png(path, sheet.pixels, sheet.height, sheet.width);
    film_free(&sheet);
}
