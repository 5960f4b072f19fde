/* What a film shows, by plain image processing; the C counterpart of tools/tiny/measure.py. */
#include "tests/support/scene.h"
#include "base/error.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A pixel is floor where its colour is the floor's at some brightness between these: the floor is
 * lit unevenly, and things cast shadows. */
static const double darkest = 0.45, brightest = 1.25;
static const double stands_out = 0.1; /* so much colour is another colour; noise stays below */
static const double edge = 0.5;       /* of the mean of what stands out: where a soft edge is cut */
static const double of_one_colour = 0.6; /* share of the thing that its colour must cover */
static const double of_floor = 0.55;     /* share of the picture that the floor must cover */
static const double alike = 0.85;        /* correlation with a shape, below which it is none */
static const double moved = 0.12, rested = 0.08; /* shares of the side of the picture */
static const double slanted = 3.5; /* a path this much longer along one side is straight */
enum { LEAST_AREA = 120, MOST_AREA = 6000 }; /* half and twice of what the world's things cover */
enum { NEIGHBOURS = 5 };                     /* of 9 that must stand out as well: no specks */

/* One frame. */
struct glance {
    double floor[3];          /* its colour */
    int64_t area, pixels;     /* of what stands out; of the frame */
    double x, y;              /* its middle, in pixels */
    int64_t inner;            /* pixels of area that stand out clearly */
    int64_t colours[COLOURS]; /* of these, by the nearest colour */
};

/* A thing by itself: how strongly it stands out, around its middle, in a square of four times the
 * radius of the disc of its area. So all things have one size. */
enum { SIDE = 48 };
static const double span = 4, cell = 4.0 / SIDE;
struct portrait {
    double is[SIDE][SIDE];
};

/* ---- colour ---------------------------------------------------------------------------------- */

static double sum3(const double *v) { return v[0] + v[1] + v[2]; }

/* Colour without brightness; near black it is uncertain and counts for less. */
static void chroma(double out[3], const double rgb[3])
{
    for (int c = 0; c < 3; c++) out[c] = rgb[c] / (sum3(rgb) + 60);
}

static double distance3(const double *a, const double *b)
{
    return fabs(a[0] - b[0]) + fabs(a[1] - b[1]) + fabs(a[2] - b[2]);
}

static void median_colour(double out[3], const uint8_t *rgb, int64_t pixels)
{
    for (int c = 0; c < 3; c++) {
        int64_t counts[256] = {0}, below = 0;
        for (int64_t i = 0; i < pixels; i++) counts[rgb[3 * i + c]]++;
        int value = 0;
        while ((below += counts[value]) * 2 < pixels) value++;
        out[c] = value;
    }
}

/* How much of a pixel's colour is not the floor's. */
static double contrast(const double rgb[3], const double floor[3])
{
    double k = fmin(fmax(sum3(rgb) / fmax(sum3(floor), 1), darkest), brightest);
    double lit[3] = {k * floor[0], k * floor[1], k * floor[2]}, a[3], b[3];
    chroma(a, rgb);
    chroma(b, lit);
    return distance3(a, b);
}

static int nearest_colour(const double rgb[3])
{
    double c[3], p[3], least = INFINITY;
    int nearest = UNSAID;
    chroma(c, rgb);
    for (int i = 1; i < COLOURS; i++) {
        chroma(p, scene_colours[i]);
        double far = distance3(c, p);
        if (far < least) least = far, nearest = i;
    }
    return nearest;
}

static int nearest_floor(const double rgb[3])
{
    double c[3], p[3], least = INFINITY;
    int nearest = UNSAID;
    chroma(c, rgb);
    for (int i = 1; i < FLOORS; i++) {
        chroma(p, scene_floors[i]);
        double far = 6 * distance3(c, p) + fabs(sum3(rgb) - sum3(scene_floors[i])) / 3 / 128;
        if (far < least) least = far, nearest = i;
    }
    return nearest;
}

/* ---- one frame ------------------------------------------------------------------------------- */

/* How strongly pixels stand out from the floor (0: not at all), and which do: [height][width].
 * Returns the mean of those that do. */
static double stand_out(uint8_t *out, double *much, const uint8_t *rgb, const struct glance *g)
{
    double sum = 0, count = 0;
    for (int64_t i = 0; i < g->pixels; i++) {
        double pixel[3] = {rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]};
        much[i] = contrast(pixel, g->floor);
        if (much[i] <= stands_out) much[i] = 0;
        sum += much[i];
        count += much[i] > 0;
    }
    double mean = count > 0 ? sum / count : 0;
    for (int64_t i = 0; i < g->pixels; i++) out[i] = much[i] > edge * mean;
    return mean;
}

/* Of a pixel and those around it, how many are set? */
static int neighbours(const uint8_t *out, int height, int width, int y, int x)
{
    int count = 0;
    for (int i = y > 0 ? y - 1 : 0; i <= y + 1 && i < height; i++)
        for (int j = x > 0 ? x - 1 : 0; j <= x + 1 && j < width; j++)
            count += out[(int64_t)i * width + j];
    return count;
}

static bool is_thing(const struct glance *g)
{
    return g->area >= LEAST_AREA && g->area <= MOST_AREA;
}

/* Adds to the portrait; much: [height][width]. */
static void portray(struct portrait *p, const double *much, int height, int width,
                    const struct glance *g)
{
    double unit = sqrt((double)g->area / M_PI);
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            double x = g->x + ((j + 0.5) * cell - span / 2) * unit - 0.5;
            double y = g->y + ((i + 0.5) * cell - span / 2) * unit - 0.5;
            int x0 = (int)floor(x), y0 = (int)floor(y);
            if (x0 < 0 || y0 < 0 || x0 + 1 >= width || y0 + 1 >= height) continue;
            const double *at = much + (int64_t)y0 * width + x0;
            double u = x - x0, v = y - y0;
            p->is[i][j] += (1 - v) * ((1 - u) * at[0] + u * at[1]) +
                           v * ((1 - u) * at[width] + u * at[width + 1]);
        }
    }
}

struct scratch {
    double *much; /* [height][width] */
    uint8_t *out; /* [height][width] */
};

static void glance(struct glance *g, struct portrait *p, const uint8_t *rgb, int height, int width,
                   struct scratch *s)
{
    *g = (struct glance){.pixels = (int64_t)height * width};
    median_colour(g->floor, rgb, g->pixels);
    double mean = stand_out(s->out, s->much, rgb, g);
    for (int64_t i = 0; i < g->pixels; i++) {
        int y = (int)(i / width), x = (int)(i % width);
        int around = s->out[i] ? neighbours(s->out, height, width, y, x) : 0;
        if (around < NEIGHBOURS) continue;
        g->area++;
        g->x += x + 0.5;
        g->y += y + 0.5;
        if (s->much[i] < mean) continue; /* an edge has mixed colours */
        double pixel[3] = {rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]};
        g->inner++;
        g->colours[nearest_colour(pixel)]++;
    }
    if (!is_thing(g)) return;
    g->x /= (double)g->area;
    g->y /= (double)g->area;
    portray(p, s->much, height, width, g);
}

/* ---- shapes ---------------------------------------------------------------------------------- */

/* An ideal shape, drawn with radius r, its middle at (x, y) of the portrait, more or less soft. */
static const double softness[] = {0.05, 0.15, 0.25, 0.35, 0.45};
enum { SOFTNESSES = sizeof softness / sizeof *softness };
struct ideal {
    struct portrait picture;
    double r, x, y;
};

static void blur_line(double *line, int stride, double sigma)
{
    double source[SIDE];
    for (int i = 0; i < SIDE; i++) source[i] = line[i * stride];
    for (int i = 0; i < SIDE; i++) {
        double sum = 0, weights = 0;
        for (int k = 0; k < SIDE; k++) {
            double w = exp(-0.5 * (k - i) * (k - i) / (sigma * sigma));
            sum += w * source[k];
            weights += w;
        }
        line[i * stride] = sum / weights;
    }
}

static void draw_ideal(struct ideal *ideal, int shape, double blur)
{
    struct portrait *p = &ideal->picture;
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            double x = (j + 0.5) * cell - span / 2, y = (i + 0.5) * cell - span / 2;
            double d = scene_distance(shape, x - ideal->x, y - ideal->y, ideal->r);
            p->is[i][j] = fmin(fmax(0.5 - d / cell, 0), 1);
        }
    }
    for (int i = 0; i < SIDE; i++) blur_line(&p->is[i][0], 1, blur / cell);
    for (int j = 0; j < SIDE; j++) blur_line(&p->is[0][j], SIDE, blur / cell);
}

/* Moves and scales it so that what stands out has its middle in the middle and the area of a disc
 * of radius 1, as portraits have. */
static void fit_ideal(struct ideal *ideal, int shape, double blur)
{
    *ideal = (struct ideal){.r = 1};
    for (int round = 0; round < 4; round++) {
        double most = 0, area = 0, x = 0, y = 0;
        draw_ideal(ideal, shape, blur);
        const double *is = &ideal->picture.is[0][0];
        for (int i = 0; i < SIDE * SIDE; i++) most = fmax(most, is[i]);
        for (int i = 0; i < SIDE * SIDE; i++) {
            if (is[i] <= edge * most) continue;
            area += cell * cell;
            x += ((i % SIDE + 0.5) * cell - span / 2) * cell * cell;
            y += ((i / SIDE + 0.5) * cell - span / 2) * cell * cell;
        }
        ideal->x -= x / area;
        ideal->y -= y / area;
        ideal->r *= sqrt(M_PI / area);
    }
    draw_ideal(ideal, shape, blur);
}

static const struct ideal *ideals(int shape)
{
    static struct ideal all[SHAPES][SOFTNESSES];
    if (all[shape][0].r == 0)
        for (int b = 0; b < SOFTNESSES; b++) fit_ideal(&all[shape][b], shape, softness[b]);
    return all[shape];
}

static double correlation(const struct portrait *a, const struct portrait *b)
{
    const double *p = &a->is[0][0], *q = &b->is[0][0];
    double pq = 0, pp = 0, qq = 0;
    for (int i = 0; i < SIDE * SIDE; i++) {
        pq += p[i] * q[i];
        pp += p[i] * p[i];
        qq += q[i] * q[i];
    }
    return pq / sqrt(pp * qq);
}

/* ---- all frames ------------------------------------------------------------------------------ */

static int see_floor(const struct glance *g)
{
    double floor[3] = {0}, covered = 0;
    for (int s = 0; s < FILM_SAMPLES; s++) {
        for (int c = 0; c < 3; c++) floor[c] += g[s].floor[c] / FILM_SAMPLES;
        covered += (double)g[s].area / (double)g[s].pixels / FILM_SAMPLES;
    }
    return 1 - covered >= of_floor ? nearest_floor(floor) : UNSAID;
}

static int see_colour(const struct glance *g)
{
    double share[COLOURS] = {0};
    int most = UNSAID;
    for (int s = 0; s < FILM_SAMPLES; s++)
        for (int c = 1; c < COLOURS; c++)
            share[c] += (double)g[s].colours[c] / fmax((double)g[s].inner, 1) / FILM_SAMPLES;
    for (int c = 1; c < COLOURS; c++)
        if (share[c] > share[most]) most = c;
    return share[most] > of_one_colour ? most : UNSAID;
}

/* The best correlation over all degrees of softness; *radius: that shape's, where a portrait's unit
 * is 1. */
static int see_shape(const struct portrait *p, double *radius)
{
    double best = alike;
    int shape = UNSAID;
    *radius = 1;
    for (int k = 1; k < SHAPES; k++) {
        for (int b = 0; b < SOFTNESSES; b++) {
            const struct ideal *ideal = &ideals(k)[b];
            double like = correlation(p, &ideal->picture);
            if (like <= best) continue;
            best = like;
            shape = k;
            *radius = ideal->r;
        }
    }
    return shape;
}

static int see_size(const struct glance *g, double radius)
{
    double area = 0, least = INFINITY;
    int nearest = UNSAID;
    for (int s = 0; s < FILM_SAMPLES; s++) area += (double)g[s].area / FILM_SAMPLES;
    radius *= sqrt(area / M_PI);
    for (int k = 1; k < SIZES; k++) {
        double far = fabs(log(radius / scene_radii[k]));
        if (far < least) least = far, nearest = k;
    }
    return nearest;
}

/* UNSAID between rest and motion. */
static int see_motion(const struct glance *first, const struct glance *last, int height, int width)
{
    double way[2] = {(last->x - first->x) / width, (last->y - first->y) / height};
    double longer = fmax(fabs(way[0]), fabs(way[1])), shorter = fmin(fabs(way[0]), fabs(way[1]));
    int step[2];
    if (longer < rested) return STILL;
    for (int k = 0; k < 2; k++) {
        bool counts =
            fabs(way[k]) > moved && (fabs(way[k]) == longer || longer <= slanted * shorter);
        step[k] = counts ? (way[k] > 0) - (way[k] < 0) : 0;
    }
    if (!step[0] && !step[1]) return UNSAID;
    for (int m = 1; m < MOTIONS; m++)
        if (scene_steps[m][0] == step[0] && scene_steps[m][1] == step[1]) return m;
    return UNSAID;
}

/* The nearest third, 1 to 3. */
static int see_lane(double share)
{
    int nearest = 1;
    for (int lane = 2; lane <= 3; lane++)
        if (fabs(share - scene_lanes[lane]) < fabs(share - scene_lanes[nearest])) nearest = lane;
    return nearest;
}

struct scene scene_measure(const struct film *film)
{
    size_t pixels = (size_t)film->height * film->width;
    struct scratch scratch = {.much = xcalloc(pixels, sizeof(double)), .out = xcalloc(pixels, 1)};
    struct glance g[FILM_SAMPLES];
    struct portrait portrait = {0};
    double x = 0, y = 0, radius;
    bool there = true;
    for (int s = 0; s < FILM_SAMPLES; s++) {
        glance(&g[s], &portrait, film_sample(film, s), film->height, film->width, &scratch);
        there = there && is_thing(&g[s]);
        x += g[s].x / FILM_SAMPLES / film->width;
        y += g[s].y / FILM_SAMPLES / film->height;
    }
    free(scratch.much);
    free(scratch.out);
    struct scene seen = {.floor = see_floor(g)};
    if (!there) return seen;
    seen.colour = see_colour(g);
    seen.shape = see_shape(&portrait, &radius);
    seen.size = see_size(g, radius);
    seen.motion = see_motion(&g[0], &g[FILM_SAMPLES - 1], film->height, film->width);
    seen.column = see_lane(x);
    seen.row = see_lane(y);
    return seen;
}

/* ---- asked and seen -------------------------------------------------------------------------- */

static enum scene_verdict same(int asked, int seen)
{
    return asked == UNSAID ? NOT_ASKED : asked == seen ? RIGHT : WRONG;
}

enum scene_verdict scene_verdict(const struct scene *asked, const struct scene *seen,
                                 enum scene_attribute attribute)
{
    switch (attribute) {
    case SCENE_FLOOR:
        return same(asked->floor, seen->floor);
    case SCENE_COLOUR:
        return same(asked->colour, seen->colour);
    case SCENE_SHAPE:
        return same(asked->shape, seen->shape);
    case SCENE_SIZE:
        return same(asked->size, seen->size);
    case SCENE_MOTION:
        return same(asked->motion, seen->motion);
    default:
        break;
    }
    enum scene_verdict column = same(asked->column, seen->column),
                       row = same(asked->row, seen->row);
    if (column == NOT_ASKED) return row;
    return row == WRONG ? WRONG : column;
}

const char *scene_attribute_name(enum scene_attribute attribute)
{
    static const char *const names[] = {"floor", "colour", "shape", "size", "motion", "place"};
    return names[attribute];
}

void scene_score_add(struct scene_score *score, const struct scene *asked, const struct scene *seen)
{
    for (int a = 0; a < SCENE_ATTRIBUTES; a++) {
        enum scene_verdict verdict = scene_verdict(asked, seen, a);
        score->asked[a] += verdict != NOT_ASKED;
        score->right[a] += verdict == RIGHT;
    }
}

double scene_score_share(const struct scene_score *score)
{
    int asked = 0, right = 0;
    for (int a = 0; a < SCENE_ATTRIBUTES; a++) {
        asked += score->asked[a];
        right += score->right[a];
    }
    return asked ? (double)right / asked : 0;
}

void scene_words(char *out, size_t bytes, const struct scene *scene)
{
    static const char *const shapes[] = {"thing", "ball", "square", "triangle", "star", "ring"};
    static const char *const colours[] = {"",      "red ",  "orange ", "yellow ", "green ",
                                          "cyan ", "blue ", "purple ", "pink "};
    static const char *const sizes[] = {"", "small ", "medium ", "large "};
    static const char *const motions[] = {"?",    "still",      "right",     "left",     "up",
                                          "down", "down right", "down left", "up right", "up left"};
    static const char *const floors[] = {"?",     "grey",  "white",  "black",  "blue",
                                         "green", "brown", "purple", "yellow", "red"};
    static const char *const columns[] = {"", ", left", ", centre", ", right"};
    static const char *const rows[] = {"", ", top", ", middle", ", bottom"};
    snprintf(out, bytes, "%s%s%s %s on %s%s%s", sizes[scene->size], colours[scene->colour],
             shapes[scene->shape], motions[scene->motion], floors[scene->floor],
             columns[scene->column], rows[scene->row]);
}
