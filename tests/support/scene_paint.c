/* The synthetic world and its painter: outlines, light and shadow of tools/tiny/world.py, without
 * its variations of tint, tempo and place. */
#include "base/error.h"
#include "tests/support/scene.h"

#include <math.h>

const double scene_colours[COLOURS][3] = {
    [RED] = {226, 38, 36},     [ORANGE] = {246, 130, 20}, [YELLOW] = {250, 218, 40},
    [GREEN] = {38, 172, 58},   [CYAN] = {36, 200, 216},   [BLUE] = {36, 78, 226},
    [PURPLE] = {140, 48, 204}, [PINK] = {246, 104, 178}};
const double scene_floors[FLOORS][3] = {
    [ON_GREY] = {128, 130, 134},  [ON_WHITE] = {224, 224, 220},  [ON_BLACK] = {44, 45, 50},
    [ON_BLUE] = {84, 110, 160},   [ON_GREEN] = {98, 138, 102},   [ON_BROWN] = {136, 106, 82},
    [ON_PURPLE] = {118, 98, 148}, [ON_YELLOW] = {200, 182, 122}, [ON_RED] = {154, 88, 84}};
const double scene_radii[SIZES] = {[SMALL] = 16, [MEDIUM] = 24, [LARGE] = 34};
const double scene_lanes[4] = {0.5, 0.27, 0.5, 0.73};
const int scene_steps[MOTIONS][2] = {
    [RIGHTWARDS] = {1, 0}, [LEFTWARDS] = {-1, 0}, [UPWARDS] = {0, -1},  [DOWNWARDS] = {0, 1},
    [DOWN_RIGHT] = {1, 1}, [DOWN_LEFT] = {-1, 1}, [UP_RIGHT] = {1, -1}, [UP_LEFT] = {-1, -1}};

static const double path_begins = 0.2, path_ends = 0.8; /* shares of the side */
static const double clear = 4;                          /* pixels between a thing and the edge */
static const double soft = 2.6;                         /* pixels over which an edge fades */
static const double light[3] = {-0.45, -0.6, 0.66};     /* where it comes from */
static const double shadow[2] = {0.22, 0.32};           /* its offset, in radii */

static double clamp(double v, double low, double high) { return fmin(fmax(v, low), high); }

/* ---- outlines -------------------------------------------------------------------------------- */

static double square_distance(double x, double y, double r)
{
    double corner = 0.14 * r, side = 0.88 * r - corner;
    double qx = fabs(x) - side, qy = fabs(y) - side;
    return hypot(fmax(qx, 0), fmax(qy, 0)) + fmin(fmax(qx, qy), 0) - corner;
}

/* Upright; close enough outside its corners. */
static double triangle_distance(double x, double y, double r)
{
    double half = 0.59 * r;
    return fmax(y - half, 0.8660254 * fabs(x) - 0.5 * y - half) - 0.06 * r;
}

/* Five points, one of them up: the plane is folded until one edge of one point is left. */
static double star_distance(double x, double y, double r)
{
    const double c = 0.809017, s = 0.587785; /* of 36 degrees */
    x = fabs(x), y = -y, r *= 1.2;
    for (int side = 1; side >= -1; side -= 2) {
        double d = 2 * fmax(side * c * x - s * y, 0);
        x -= d * side * c;
        y += d * s;
    }
    x = fabs(x), y -= r;
    double bx = 0.5 * s, by = 0.5 * c - 1;
    double h = clamp((x * bx + y * by) / (bx * bx + by * by), 0, r);
    double inside = y * bx - x * by;
    return hypot(x - bx * h, y - by * h) * ((inside > 0) - (inside < 0));
}

double scene_distance(int shape, double x, double y, double r)
{
    switch (shape) {
    case SQUARE:
        return square_distance(x, y, r);
    case TRIANGLE:
        return triangle_distance(x, y, r);
    case STAR:
        return star_distance(x, y, r);
    case RING:
        return fabs(hypot(x, y) - 0.73 * r) - 0.29 * r;
    default:
        return hypot(x, y) - r;
    }
}

/* ---- a frame --------------------------------------------------------------------------------- */

/* Brightness and highlight of a thing's surface; d: distance to the outline. */
static void shade(int shape, double x, double y, double r, double d, double out[2])
{
    if (shape == BALL) {
        double nx = x / r, ny = y / r, nz = sqrt(fmax(1 - nx * nx - ny * ny, 0));
        double lit = fmax(nx * light[0] + ny * light[1] + nz * light[2], 0);
        out[0] = 0.58 + 0.46 * lit;
        out[1] = 0.5 * pow(lit, 14);
        return;
    }
    double slope = -(0.6 * x + 0.8 * y) / r, bevel = clamp(-d / (0.22 * r), 0, 1);
    out[0] = 0.9 + 0.12 * slope + 0.1 * (bevel - 1);
    out[1] = 0.07 * bevel * fmax(slope, 0);
}

/* Brighter where the light falls, darker towards the corners. */
static double floor_glow(double u, double v)
{
    return 1.08 - 0.34 * ((u - 0.42) * (u - 0.42) + (v - 0.4) * (v - 0.4));
}

/* pixel: the floor, over which shadow and thing are laid; (x, y): from the middle of the thing. */
static void lay_thing(double pixel[3], const struct scene *scene, double x, double y)
{
    double r = scene_radii[scene->size], surface[2];
    double d = scene_distance(scene->shape, x - shadow[0] * r, y - shadow[1] * r, r);
    double fade = clamp(0.5 - d / (0.75 * r), 0, 1);
    double dark = 1 - 0.42 * fade * fade * (3 - 2 * fade);
    d = scene_distance(scene->shape, x, y, r);
    double cover = clamp(0.5 - d / soft, 0, 1);
    shade(scene->shape, x, y, r, d, surface);
    for (int c = 0; c < 3; c++) {
        double thing = surface[0] * scene_colours[scene->colour][c];
        thing += surface[1] * (255 - thing);
        pixel[c] = pixel[c] * dark * (1 - cover) + cover * thing;
    }
}

void scene_paint(uint8_t *rgb, int height, int width, const struct scene *scene, double x, double y)
{
    double reach = 2 * scene_radii[scene->size] + 3;
    for (int i = 0; i < height; i++) {
        for (int j = 0; j < width; j++, rgb += 3) {
            double glow = floor_glow((j + 0.5) / width, (i + 0.5) / height), pixel[3];
            double dx = j + 0.5 - x, dy = i + 0.5 - y;
            for (int c = 0; c < 3; c++) pixel[c] = glow * scene_floors[scene->floor][c];
            if (fabs(dx) < reach && fabs(dy) < reach) lay_thing(pixel, scene, dx, dy);
            for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)clamp(pixel[c] + 0.5, 0, 255);
        }
    }
}

/* ---- a film ---------------------------------------------------------------------------------- */

struct scene scene_complete(const struct scene *scene)
{
    struct scene s = *scene;
    if (!s.shape) s.shape = BALL;
    if (!s.colour) s.colour = RED;
    if (!s.motion) s.motion = STILL;
    if (!s.floor) s.floor = ON_GREY;
    if (!s.size) s.size = MEDIUM;
    if (!s.column) s.column = AT_CENTRE;
    if (!s.row) s.row = AT_MIDDLE;
    return s;
}

/* Along one axis, at share p of the path, in pixels. */
static double place(int step, int lane, double p, double side, double radius)
{
    double from = step ? (step > 0 ? path_begins : path_ends) : scene_lanes[lane];
    double to = step ? (step > 0 ? path_ends : path_begins) : scene_lanes[lane];
    double margin = 1.24 * radius + clear;
    from = clamp(from * side, margin, side - margin);
    to = clamp(to * side, margin, side - margin);
    return from + p * (to - from);
}

struct film scene_film(const struct scene *scene, int frames, int height, int width, double rate,
                       double seconds)
{
    struct film film = film_make(frames, height, width);
    struct scene s = scene_complete(scene);
    const int *step = scene_steps[s.motion];
    for (int f = 0; f < frames; f++) {
        double p = clamp(f / rate / seconds, 0, 1), r = scene_radii[s.size];
        scene_paint(film_frame(&film, f), height, width, &s, place(step[0], s.column, p, width, r),
                    place(step[1], s.row, p, height, r));
    }
    return film;
}

int scene_possible(const struct scene *scene)
{
    static const int alike[][2] = {{RED, ON_RED},   {YELLOW, ON_YELLOW}, {GREEN, ON_GREEN},
                                   {BLUE, ON_BLUE}, {PURPLE, ON_PURPLE}, {ORANGE, ON_BROWN}};
    for (size_t i = 0; i < sizeof alike / sizeof *alike; i++)
        if (scene->colour == alike[i][0] && scene->floor == alike[i][1]) return 0;
    return 1;
}
