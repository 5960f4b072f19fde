/* Scenes of the synthetic world that models/tiny learns (tools/tiny/world.py): what a prompt asks
 * for, what a film shows of it, and a painter of such films.
 *
 * scene_measure is plain image processing, nothing is learnt: the floor is the median colour; what
 * differs from it in colour, not only in brightness, is the thing that stands on it. Its colour is
 * the nearest of the palette, its shape the one whose ideal picture, more or less blurred, is most
 * like it on the mean of all sampled frames,
 * its motion the way from the first sampled frame to the last. */
#ifndef RINGREEL_TESTS_SCENE_H
#define RINGREEL_TESTS_SCENE_H

#include "tests/support/film.h"

/* In every list 0 means: not asked for, or not to be recognised. */
enum { UNSAID };
enum scene_shape { BALL = 1, SQUARE, TRIANGLE, STAR, RING, SHAPES };
enum scene_colour { RED = 1, ORANGE, YELLOW, GREEN, CYAN, BLUE, PURPLE, PINK, COLOURS };
enum scene_floor {
    ON_GREY = 1,
    ON_WHITE,
    ON_BLACK,
    ON_BLUE,
    ON_GREEN,
    ON_BROWN,
    ON_PURPLE,
    ON_YELLOW,
    ON_RED,
    FLOORS
};
enum scene_size { SMALL = 1, MEDIUM, LARGE, SIZES };
enum scene_motion {
    STILL = 1,
    RIGHTWARDS,
    LEFTWARDS,
    UPWARDS,
    DOWNWARDS,
    DOWN_RIGHT,
    DOWN_LEFT,
    UP_RIGHT,
    UP_LEFT,
    MOTIONS
};
/* A third of the picture, along x and along y: where a thing rests, or the lane of its path. */
enum scene_column { AT_LEFT = 1, AT_CENTRE, AT_RIGHT, COLUMNS };
enum scene_row { AT_TOP = 1, AT_MIDDLE, AT_BOTTOM, ROWS };

struct scene {
    int shape, colour, motion, floor, size, column, row;
};

/* ---- measuring ------------------------------------------------------------------------------- */

struct scene scene_measure(const struct film *film);

enum scene_attribute {
    SCENE_FLOOR,
    SCENE_COLOUR,
    SCENE_SHAPE,
    SCENE_SIZE,
    SCENE_MOTION,
    SCENE_PLACE, /* column and row, as far as they are asked for */
    SCENE_ATTRIBUTES
};
enum scene_verdict { NOT_ASKED, WRONG, RIGHT };
enum scene_verdict scene_verdict(const struct scene *asked, const struct scene *seen,
                                 enum scene_attribute attribute);
const char *scene_attribute_name(enum scene_attribute attribute);

struct scene_score {
    int asked[SCENE_ATTRIBUTES], right[SCENE_ATTRIBUTES];
};
void scene_score_add(struct scene_score *score, const struct scene *asked,
                     const struct scene *seen);
/* Of all attributes together, 0 to 1. */
double scene_score_share(const struct scene_score *score);

/* "large red ball, right, blue floor, middle row". */
void scene_words(char *out, size_t bytes, const struct scene *scene);

/* ---- painting -------------------------------------------------------------------------------- */

/* The nearest scene that can be painted: what is UNSAID becomes medium, red, in the middle, ... */
struct scene scene_complete(const struct scene *scene);

/* A frame whose thing stands at (x, y), in pixels; scene is complete. */
void scene_paint(uint8_t *rgb, int height, int width, const struct scene *scene, double x,
                 double y);

/* The whole film: from end to end in `seconds`, at an even speed. Free it with film_free. */
struct film scene_film(const struct scene *scene, int frames, int height, int width, double rate,
                       double seconds);

/* Can the thing be told from the floor by its colour? */
int scene_possible(const struct scene *scene);

/* ---- the world ------------------------------------------------------------------------------- */

/* Distance in pixels from a point to the outline of a shape of radius r around (0, 0), y down;
 * negative inside. */
double scene_distance(int shape, double x, double y, double r);

extern const double scene_colours[COLOURS][3], scene_floors[FLOORS][3]; /* RGB, 0 to 255 */
extern const double scene_radii[SIZES];                                 /* pixels */
extern const double scene_lanes[4];       /* shares of the side, by column or row */
extern const int scene_steps[MOTIONS][2]; /* -1, 0 or 1 along x and y */

#endif
