/* Clips as tests hold them: every frame in memory, as RGB bytes; and pictures to look at. */
#ifndef RINGREEL_TESTS_FILM_H
#define RINGREEL_TESTS_FILM_H

#include <stddef.h>
#include <stdint.h>

struct film {
    uint8_t *pixels; /* [frames][height][width][3] */
    int frames, height, width;
};

struct film film_make(int frames, int height, int width); /* black */
void film_free(struct film *film);
uint8_t *film_frame(const struct film *film, int frame);

/* The frames that are looked at: SAMPLES of them from the first to the last, at even distances. */
enum { FILM_SAMPLES = 5 };
uint8_t *film_sample(const struct film *film, int sample);

/* Of bytes; infinite when all are equal. */
double film_psnr(const uint8_t *a, const uint8_t *b, size_t bytes);

/* PNG files; the running test fails where one cannot be written. A sheet has a row of samples for
 * each of the films, which are of one size. */
void film_write_png(const char *path, const uint8_t *rgb, int height, int width);
void film_write_sheet(const char *path, const struct film *films, int count);

#endif
