/* What the semantic tests ask for, and how it is said: the wordings are of the kinds that
 * tools/tiny/captions.py teaches. Every list asks for shapes, colours, motions and floors about
 * equally often. Size and place are asked for where the prompt says them. */
#ifndef RINGREEL_TESTS_QUESTIONS_H
#define RINGREEL_TESTS_QUESTIONS_H

#include "tests/support/scene.h"

struct question {
    const char *prompt;
    struct scene asked;
    double from[2]; /* with an image: where the thing stands in it, shares of width and height */
};
#define ASK(shape_, colour_, motion_, floor_, ...)                                                 \
    .asked = {.shape = shape_, .colour = colour_, .motion = motion_, .floor = floor_, __VA_ARGS__}
#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

/* No question has a shape, colour, motion or floor in common with the seventh after it. */
enum { OTHER_QUESTION = 7 };
static const struct question prompts[] = {
    {"a small red ball stands still on the right side in front of a grey wall.",
     ASK(BALL, RED, STILL, ON_GREY, .size = SMALL, .column = AT_RIGHT, .row = AT_MIDDLE)},
    {"an orange square glides from left to right on a green table",
     ASK(SQUARE, ORANGE, RIGHTWARDS, ON_GREEN)},
    {"a huge yellow triangle moves from the right to the left near the bottom on a red table",
     ASK(TRIANGLE, YELLOW, LEFTWARDS, ON_RED, .size = LARGE, .row = AT_BOTTOM)},
    {"a small green star climbs towards the top on a black table",
     ASK(STAR, GREEN, UPWARDS, ON_BLACK, .size = SMALL)},
    {"a cyan hoop drops from the top to the bottom on the right over a plain yellow floor",
     ASK(RING, CYAN, DOWNWARDS, ON_YELLOW, .column = AT_RIGHT)},
    {"a big blue disc rolls from the upper left corner to the lower right corner across a black "
     "floor, soft shadows",
     ASK(BALL, BLUE, DOWN_RIGHT, ON_BLACK, .size = LARGE)},
    {"a small purple square slides from the upper right corner to the lower left corner in front "
     "of a grey wall",
     ASK(SQUARE, PURPLE, DOWN_LEFT, ON_GREY, .size = SMALL)},
    {"a pink triangle glides from the bottom left to the top right over a white floor",
     ASK(TRIANGLE, PINK, UP_RIGHT, ON_WHITE)},
    {"in front of a brown wall, a large red star glides up and to the left",
     ASK(STAR, RED, UP_LEFT, ON_BROWN, .size = LARGE)},
    {"on a white table, an orange ring does not move on the left side",
     ASK(RING, ORANGE, STILL, ON_WHITE, .column = AT_LEFT, .row = AT_MIDDLE)},
    {"a red ball rolls from left to right over a blue floor", ASK(BALL, RED, RIGHTWARDS, ON_BLUE)},
    {"A small green cube slides leftwards through the middle in front of a grey wall, a simple "
     "scene",
     ASK(SQUARE, GREEN, LEFTWARDS, ON_GREY, .size = SMALL, .row = AT_MIDDLE)},
    {"a cyan triangle climbs towards the top in front of a green wall.",
     ASK(TRIANGLE, CYAN, UPWARDS, ON_GREEN)},
    {"a large blue star sinks downwards through the middle on a red floor",
     ASK(STAR, BLUE, DOWNWARDS, ON_RED, .size = LARGE, .column = AT_CENTRE)},
    {"a tiny purple ring slides diagonally down to the right across a blue floor",
     ASK(RING, PURPLE, DOWN_RIGHT, ON_BLUE, .size = SMALL)},
    {"A pink ball travels diagonally down to the left on a yellow table.",
     ASK(BALL, PINK, DOWN_LEFT, ON_YELLOW)},
    {"a large red box moves from the lower left corner to the upper right corner over a black "
     "floor",
     ASK(SQUARE, RED, UP_RIGHT, ON_BLACK, .size = LARGE)},
    {"A small orange triangle glides from the lower right corner to the upper left corner in front "
     "of a purple wall, smooth motion",
     ASK(TRIANGLE, ORANGE, UP_LEFT, ON_PURPLE, .size = SMALL)},
    {"a huge yellow star stands still in the top left corner across a black floor.",
     ASK(STAR, YELLOW, STILL, ON_BLACK, .size = LARGE, .column = AT_LEFT, .row = AT_TOP)},
    {"A tiny green ring moves from the left to the right over a purple floor",
     ASK(RING, GREEN, RIGHTWARDS, ON_PURPLE, .size = SMALL)},
    {"a cyan disc rolls towards the left along the top on a white table",
     ASK(BALL, CYAN, LEFTWARDS, ON_WHITE, .row = AT_TOP)},
    {"On a brown floor, a big blue square rises up",
     ASK(SQUARE, BLUE, UPWARDS, ON_BROWN, .size = LARGE)},
    {"A small purple triangle moves down on the left across a grey floor",
     ASK(TRIANGLE, PURPLE, DOWNWARDS, ON_GREY, .size = SMALL, .column = AT_LEFT)},
    {"A pink star glides from the upper left corner to the lower right corner across a green "
     "floor, smooth motion",
     ASK(STAR, PINK, DOWN_RIGHT, ON_GREEN)},
    {"A large red hoop travels diagonally down to the left over a plain black floor",
     ASK(RING, RED, DOWN_LEFT, ON_BLACK, .size = LARGE)},
    {"on a blue table, a tiny orange circle rolls from the bottom left to the top right",
     ASK(BALL, ORANGE, UP_RIGHT, ON_BLUE, .size = SMALL)},
    {"a yellow square glides from the lower right corner to the upper left corner on a white table",
     ASK(SQUARE, YELLOW, UP_LEFT, ON_WHITE)},
    {"a tiny green triangle rests in the top left corner on a blue floor",
     ASK(TRIANGLE, GREEN, STILL, ON_BLUE, .size = SMALL, .column = AT_LEFT, .row = AT_TOP)},
    {"a cyan star moves from left to right over a yellow floor",
     ASK(STAR, CYAN, RIGHTWARDS, ON_YELLOW)},
    {"a big blue ring slides towards the left through the middle in front of a black wall, smooth "
     "motion",
     ASK(RING, BLUE, LEFTWARDS, ON_BLACK, .size = LARGE, .row = AT_MIDDLE)},
    {"A small purple disc rises upwards against a grey background",
     ASK(BALL, PURPLE, UPWARDS, ON_GREY, .size = SMALL)},
    {"a pink square sinks down along the right side on a white floor",
     ASK(SQUARE, PINK, DOWNWARDS, ON_WHITE, .column = AT_RIGHT)},
    {"a big red triangle moves down and to the right on a brown table",
     ASK(TRIANGLE, RED, DOWN_RIGHT, ON_BROWN, .size = LARGE)},
    {"a little orange star drifts from the upper right corner to the lower left corner over a grey "
     "floor",
     ASK(STAR, ORANGE, DOWN_LEFT, ON_GREY, .size = SMALL)},
    {"over a plain green floor, a yellow hoop slides diagonally up to the right",
     ASK(RING, YELLOW, UP_RIGHT, ON_GREEN)},
    {"A big green ball glides up and to the left on a red table, the camera is still",
     ASK(BALL, GREEN, UP_LEFT, ON_RED, .size = LARGE)},
};

/* For a film three times as long as any in the training. */
static const struct question long_prompts[] = {
    {"a huge red disc moves towards the bottom over a black floor",
     ASK(BALL, RED, DOWNWARDS, ON_BLACK, .size = LARGE)},
    {"a small orange cube drifts from the top left to the bottom right on a purple table, smooth "
     "motion",
     ASK(SQUARE, ORANGE, DOWN_RIGHT, ON_PURPLE, .size = SMALL)},
    {"a yellow triangle slides from the top right to the bottom left on a white table.",
     ASK(TRIANGLE, YELLOW, DOWN_LEFT, ON_WHITE)},
    {"A big green star travels from the bottom left to the top right on a brown table",
     ASK(STAR, GREEN, UP_RIGHT, ON_BROWN, .size = LARGE)},
    {"a little cyan ring glides from the lower right corner to the upper left corner over a grey "
     "floor",
     ASK(RING, CYAN, UP_LEFT, ON_GREY, .size = SMALL)},
    {"a huge blue sphere stays still in the top left corner over a brown floor",
     ASK(BALL, BLUE, STILL, ON_BROWN, .size = LARGE, .column = AT_LEFT, .row = AT_TOP)},
    {"a tiny purple box drifts rightwards at the bottom over a grey floor",
     ASK(SQUARE, PURPLE, RIGHTWARDS, ON_GREY, .size = SMALL, .row = AT_BOTTOM)},
    {"a pink triangle drifts from right to left in front of a green wall, soft shadows",
     ASK(TRIANGLE, PINK, LEFTWARDS, ON_GREEN)},
    {"a huge red star floats towards the top along the left side over a black floor",
     ASK(STAR, RED, UPWARDS, ON_BLACK, .size = LARGE, .column = AT_LEFT)},
};

/* For a picture twice as large as any in the training. */
static const struct question large_prompts[] = {
    {"a blue ball moves from the top to the bottom over a plain yellow floor",
     ASK(BALL, BLUE, DOWNWARDS, ON_YELLOW)},
    {"on a black floor, a huge purple square slides from the top left to the bottom right",
     ASK(SQUARE, PURPLE, DOWN_RIGHT, ON_BLACK, .size = LARGE)},
    {"across a purple floor, a little pink triangle glides from the upper right corner to the "
     "lower left corner",
     ASK(TRIANGLE, PINK, DOWN_LEFT, ON_PURPLE, .size = SMALL)},
    {"a red star moves up and to the right over a plain white floor",
     ASK(STAR, RED, UP_RIGHT, ON_WHITE)},
    {"a large orange ring glides diagonally up to the left over a red floor, a simple scene",
     ASK(RING, ORANGE, UP_LEFT, ON_RED, .size = LARGE)},
    {"a yellow ball is at rest near the bottom over a white floor",
     ASK(BALL, YELLOW, STILL, ON_WHITE, .column = AT_CENTRE, .row = AT_BOTTOM)},
    {"A huge green square glides to the right through the middle over a brown floor.",
     ASK(SQUARE, GREEN, RIGHTWARDS, ON_BROWN, .size = LARGE, .row = AT_MIDDLE)},
    {"a little cyan triangle moves to the left on a grey table",
     ASK(TRIANGLE, CYAN, LEFTWARDS, ON_GREY, .size = SMALL)},
    {"a blue star floats from bottom to top along the right side on a green table",
     ASK(STAR, BLUE, UPWARDS, ON_GREEN, .column = AT_RIGHT)},
};

/* Films that begin with an image: what is seen in it stays, and moves as told. The first three
 * begin with the same image, the next three as well: the prompt decides. */
static const struct question image_prompts[] = {
    {"a red ball rolls from left to right over a grey floor", ASK(BALL, RED, RIGHTWARDS, ON_GREY),
     .from = {0.22, 0.25}},
    {"a red ball moves downwards over a grey floor", ASK(BALL, RED, DOWNWARDS, ON_GREY),
     .from = {0.22, 0.25}},
    {"a red ball rolls from the top left to the bottom right over a grey floor",
     ASK(BALL, RED, DOWN_RIGHT, ON_GREY), .from = {0.22, 0.25}},
    {"a blue star slides from right to left over a yellow floor",
     ASK(STAR, BLUE, LEFTWARDS, ON_YELLOW), .from = {0.78, 0.75}},
    {"a blue star floats upwards over a yellow floor", ASK(STAR, BLUE, UPWARDS, ON_YELLOW),
     .from = {0.78, 0.75}},
    {"a blue star moves from the bottom right to the top left over a yellow floor",
     ASK(STAR, BLUE, UP_LEFT, ON_YELLOW), .from = {0.78, 0.75}},
    {"a large green triangle slides to the right in front of a purple wall",
     ASK(TRIANGLE, GREEN, RIGHTWARDS, ON_PURPLE, .size = LARGE), .from = {0.28, 0.5}},
    {"a pink square slides from the top right to the bottom left on a white table",
     ASK(SQUARE, PINK, DOWN_LEFT, ON_WHITE), .from = {0.8, 0.22}},
    {"a yellow ring stays still in the middle over a brown floor",
     ASK(RING, YELLOW, STILL, ON_BROWN, .column = AT_CENTRE, .row = AT_MIDDLE), .from = {0.5, 0.5}},
};

#endif
