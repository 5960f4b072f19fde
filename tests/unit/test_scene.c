/* The judge of the semantic tests (tests/support/scene.h) before the bar: films that are painted as
 * told must be found right, also blurred and noisy ones, everything else wrong. */
#include "tests/support/scene.h"
#include "tests/support/synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 160, HEIGHT = 128, FRAMES = 5, RATE = 4 }; /* one second */
static const double seconds = 1.5;                        /* from end to end, as most things take */
static const double at_least = 0.98;                      /* of what is painted is seen */

/* ---- films ----------------------------------------------------------------------------------- */

/* The n-th of every shape, colour and motion; floors, sizes and places take turns. */
enum { GRID = (SHAPES - 1) * (COLOURS - 1) * (MOTIONS - 1) };
static struct scene grid_scene(int n)
{
    struct scene s = {.shape = 1 + n % (SHAPES - 1)};
    s.colour = 1 + n / (SHAPES - 1) % (COLOURS - 1);
    s.motion = 1 + n / (SHAPES - 1) / (COLOURS - 1);
    s.floor = 1 + (n + n / (FLOORS - 1)) % (FLOORS - 1);
    s.size = 1 + n % (SIZES - 1);
    if (!scene_steps[s.motion][0]) s.column = 1 + n % (COLUMNS - 1);
    if (!scene_steps[s.motion][1]) s.row = 1 + n / 2 % (ROWS - 1);
    while (!scene_possible(&s)) s.floor = 1 + s.floor % (FLOORS - 1);
    return s;
}

static struct film paint(const struct scene *s, int scale)
{
    return scene_film(s, FRAMES, scale * HEIGHT, scale * WIDTH, RATE, seconds);
}

/* What an autoencoder does to a picture, only worse: every pixel becomes the mean of 5x5, then
 * noise is added. */
static void degrade(struct film *film, uint64_t seed)
{
    enum { BLUR = 2, NOISE = 13 };
    int row = film->width * 3;
    uint8_t *source = malloc((size_t)film->height * row);
    for (int f = 0; f < film->frames; f++) {
        uint8_t *frame = film_frame(film, f);
        memcpy(source, frame, (size_t)film->height * row);
        for (int y = BLUR; y < film->height - BLUR; y++) {
            for (int i = BLUR * 3; i < row - BLUR * 3; i++) {
                int sum = 0;
                for (int dy = -BLUR; dy <= BLUR; dy++)
                    for (int dx = -BLUR; dx <= BLUR; dx++)
                        sum += source[(y + dy) * row + i + 3 * dx];
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                int value = sum / 25 + (int)((seed >> 33) % NOISE) - NOISE / 2;
                frame[y * row + i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
            }
        }
    }
    free(source);
}

/* ---- reporting ------------------------------------------------------------------------------- */

static void show_score(const char *title, const struct scene_score *score)
{
    print_message("  %-24s %.4f:", title, scene_score_share(score));
    for (int a = 0; a < SCENE_ATTRIBUTES; a++)
        print_message(" %s %d/%d", scene_attribute_name(a), score->right[a], score->asked[a]);
    print_message("\n");
}

static void add(struct scene_score *score, const struct scene *asked, const struct scene *seen)
{
    struct scene_score one = {0};
    char want[96], have[96];
    scene_score_add(score, asked, seen);
    scene_score_add(&one, asked, seen);
    if (scene_score_share(&one) == 1) return;
    scene_words(want, sizeof want, asked);
    scene_words(have, sizeof have, seen);
    print_message("    painted: %-48s seen: %s\n", want, have);
}

/* ---- what is painted is seen ----------------------------------------------------------------- */

static void sees_grid(const char *title, bool degraded, int scale, int stride, double limit)
{
    struct scene_score score = {0};
    for (int n = 0; n < GRID; n += stride) {
        struct scene asked = grid_scene(n);
        struct film film = paint(&asked, scale);
        if (degraded) degrade(&film, (uint64_t)n);
        struct scene seen = scene_measure(&film);
        add(&score, &asked, &seen);
        film_free(&film);
    }
    show_score(title, &score);
    assert_true(scene_score_share(&score) >= limit);
}

static void sees_the_grid(void **state)
{
    (void)state;
    sees_grid("painted", false, 1, 1, at_least);
}

static void sees_through_blur_and_noise(void **state)
{
    (void)state;
    sees_grid("blurred, noisy", true, 1, 2, at_least);
}

static void sees_in_a_larger_picture(void **state)
{
    (void)state;
    sees_grid("twice as large", false, 2, 7, at_least);
}

static void sees_every_colour_on_every_floor(void **state)
{
    (void)state;
    struct scene_score score = {0};
    for (int n = 0; n < (COLOURS - 1) * (FLOORS - 1); n++) {
        struct scene asked = {.colour = 1 + n % (COLOURS - 1), .floor = 1 + n / (COLOURS - 1)};
        asked.shape = 1 + n % (SHAPES - 1);
        asked.motion = STILL;
        if (!scene_possible(&asked)) continue;
        struct film film = paint(&asked, 1);
        struct scene seen = scene_measure(&film);
        add(&score, &asked, &seen);
        film_free(&film);
    }
    show_score("colours on floors", &score);
    assert_true(scene_score_share(&score) >= at_least);
}

/* ---- what is not painted is not seen --------------------------------------------------------- */

/* A label that says one thing wrong is wrong in that and in nothing else. */
static void wrong_labels_are_wrong(void **state)
{
    (void)state;
    int checked = 0;
    for (int n = 0; n < GRID; n += 11) {
        struct scene painted = grid_scene(n);
        struct film film = paint(&painted, 1);
        struct scene seen = scene_measure(&film), labels[6];
        film_free(&film);
        for (int a = 0; a < SCENE_ATTRIBUTES; a++) labels[a] = painted;
        labels[SCENE_FLOOR].floor = 1 + painted.floor % (FLOORS - 1);
        labels[SCENE_COLOUR].colour = 1 + painted.colour % (COLOURS - 1);
        labels[SCENE_SHAPE].shape = 1 + painted.shape % (SHAPES - 1);
        labels[SCENE_SIZE].size = 1 + painted.size % (SIZES - 1);
        labels[SCENE_MOTION].motion = 1 + painted.motion % (MOTIONS - 1);
        if (painted.column) labels[SCENE_PLACE].column = 1 + painted.column % (COLUMNS - 1);
        if (painted.row) labels[SCENE_PLACE].row = 1 + painted.row % (ROWS - 1);
        for (int a = 0; a < SCENE_ATTRIBUTES; a++) {
            for (int b = 0; b < SCENE_ATTRIBUTES; b++) {
                bool told = b != SCENE_PLACE || painted.column || painted.row;
                enum scene_verdict wanted = !told ? NOT_ASKED : a == b ? WRONG : RIGHT;
                assert_int_equal(scene_verdict(&labels[a], &seen, b), wanted);
                checked++;
            }
        }
    }
    print_message("  %d verdicts\n", checked);
}

/* Nothing but the floor may be found right, whatever is asked. */
static void assert_shows_nothing(const struct film *film, int floor)
{
    struct scene seen = scene_measure(film);
    struct scene nothing = {.floor = floor};
    assert_memory_equal(&seen, &nothing, sizeof seen);
}

static void empty_floors_show_nothing(void **state)
{
    (void)state;
    struct film film = film_make(FRAMES, HEIGHT, WIDTH);
    for (int floor = 1; floor < FLOORS; floor++) {
        struct scene scene = {.floor = floor};
        scene = scene_complete(&scene);
        for (int f = 0; f < FRAMES; f++) /* the thing stands far outside */
            scene_paint(film_frame(&film, f), HEIGHT, WIDTH, &scene, -1000, -1000);
        assert_shows_nothing(&film, floor);
    }
    film_free(&film);
}

static void noise_shows_nothing(void **state)
{
    (void)state;
    struct film film = film_make(FRAMES, HEIGHT, WIDTH);
    size_t bytes = (size_t)FRAMES * HEIGHT * WIDTH * 3;
    for (int block = 1; block <= 16; block *= 2) { /* pixels on a side of one colour */
        uint64_t seed = 1;
        for (size_t i = 0; i < bytes; i++) {
            size_t x = i / 3 % WIDTH / block, y = i / 3 / WIDTH % HEIGHT / block,
                   f = i / 3 / WIDTH / HEIGHT;
            seed = (((f * HEIGHT + y) * WIDTH + x) * 3 + i % 3 + 1) * 6364136223846793005u;
            seed = (seed ^ seed >> 29) * 0xbf58476d1ce4e5b9u;
            film.pixels[i] = (uint8_t)(seed >> 56);
        }
        assert_shows_nothing(&film, UNSAID);
    }
    film_free(&film);
}

/* A thing that is there for a while only is no thing. */
static void vanishing_shows_nothing(void **state)
{
    (void)state;
    struct scene painted = {.shape = STAR, .colour = RED, .motion = RIGHTWARDS, .floor = ON_GREY};
    struct film film = paint(&painted, 1);
    struct scene complete = scene_complete(&painted);
    scene_paint(film_frame(&film, FRAMES - 1), HEIGHT, WIDTH, &complete, -1000, -1000);
    assert_shows_nothing(&film, ON_GREY);
    film_free(&film);
}

/* Red and at rest, but none of the shapes. */
static void a_bar_has_no_shape(void **state)
{
    (void)state;
    struct scene floor = {.floor = ON_GREY};
    struct film film = film_make(FRAMES, HEIGHT, WIDTH);
    floor = scene_complete(&floor);
    for (int f = 0; f < FRAMES; f++) {
        uint8_t *frame = film_frame(&film, f);
        scene_paint(frame, HEIGHT, WIDTH, &floor, -1000, -1000);
        for (int y = 60; y < 70; y++)
            for (int x = 50; x < 110; x++)
                memcpy(frame + 3 * (y * WIDTH + x), (uint8_t[]){226, 38, 36}, 3);
    }
    struct scene seen = scene_measure(&film);
    film_free(&film);
    assert_int_equal(seen.shape, UNSAID);
    assert_int_equal(seen.colour, RED);
    assert_int_equal(seen.motion, STILL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sees_the_grid),
        cmocka_unit_test(sees_through_blur_and_noise),
        cmocka_unit_test(sees_in_a_larger_picture),
        cmocka_unit_test(sees_every_colour_on_every_floor),
        cmocka_unit_test(wrong_labels_are_wrong),
        cmocka_unit_test(empty_floors_show_nothing),
        cmocka_unit_test(noise_shows_nothing),
        cmocka_unit_test(vanishing_shows_nothing),
        cmocka_unit_test(a_bar_has_no_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
