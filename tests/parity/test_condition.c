/* Preparing an image to begin from, against the official command line: which part of it is taken,
 * and what the VAE is shown. */
#include "base/error.h"
#include "media/condition.h"
#include "model/safetensors.h"
#include "tests/support/synth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct safetensors *reference;
static int64_t stride;

static int set_up(void **state)
{
    (void)state;
    if (safetensors_open(&reference, "tests/parity/data/conditioning.safetensors") != STATUS_OK)
        return -1;
    stride = strtoll(safetensors_metadata(reference, "stride"), NULL, 10);
    return stride > 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    safetensors_close(reference);
    return 0;
}

static void test_crops(void **state)
{
    (void)state;
    const struct tensor *t = fixture(reference, "crops");
    assert_int_equal(t->dtype, DTYPE_I32);
    assert_int_equal(t->shape[1], 8);
    assert_true(t->shape[0] > 200);
    for (int64_t i = 0; i < t->shape[0]; i++) {
        int32_t row[8];
        memcpy(row, (const char *)t->data + (size_t)i * sizeof row, sizeof row);
        struct condition_crop c = condition_crop(row[0], row[1], row[2], row[3]);
        if (c.x != row[4] || c.y != row[5] || c.width != row[6] || c.height != row[7])
            fail_msg("%dx%d for %dx%d: %dx%d at (%d, %d), expected %dx%d at (%d, %d)", row[0],
                     row[1], row[2], row[3], c.width, c.height, c.x, c.y, row[6], row[7], row[4],
                     row[5]);
    }
}

static int number(json_t *pair, size_t i)
{
    return (int)json_integer_value(json_array_get(pair, i));
}

/* Our values of a case, all of them; free() them. */
static float *prepare(json_t *one, int crf, size_t *count)
{
    json_t *asked = json_object_get(one, "asked"), *padded = json_object_get(one, "padded");
    struct condition_size size = {.width = number(asked, 0),
                                  .height = number(asked, 1),
                                  .padded_width = number(padded, 0),
                                  .padded_height = number(padded, 1),
                                  .left = (int)json_integer_value(json_object_get(one, "left")),
                                  .top = (int)json_integer_value(json_object_get(one, "top"))};
    char *path = xasprintf("tests/parity/data/conditioning_%s.png",
                           json_string_value(json_object_get(one, "name")));
    *count = (size_t)size.padded_width * (size_t)size.padded_height * 3;
    float *values = xmalloc(*count * sizeof *values);
    if (condition_image(values, path, &size, crf) != STATUS_OK) fail_msg("%s", error_message());
    free(path);
    return values;
}

/* Root mean square and largest difference to the reference's sample. */
struct distance {
    double rms, max;
};
static struct distance compare(json_t *one, const char *what, int crf)
{
    char *name = xasprintf("%s.%s", json_string_value(json_object_get(one, "name")), what);
    float *expected = tensor_floats(fixture(reference, name));
    size_t count, samples = (size_t)tensor_count(fixture(reference, name));
    float *values = prepare(one, crf, &count);
    assert_int_equal(samples, (count + (size_t)stride - 1) / (size_t)stride);
    struct distance d = {0, 0};
    for (size_t i = 0; i < samples; i++) {
        double difference = fabs((double)values[i * (size_t)stride] - (double)expected[i]);
        if (!(difference <= 1e9)) fail_msg("%s: value %zu is no number", name, i);
        d.rms += difference * difference / (double)samples;
        d.max = fmax(d.max, difference);
    }
    d.rms = sqrt(d.rms);
    print_message("%s: differs by at most %.1e, root mean square %.1e\n", name, d.max, d.rms);
    free(values);
    free(expected);
    free(name);
    return d;
}

static json_t *cases(void)
{
    json_t *list = json_loads(safetensors_metadata(reference, "cases"), 0, NULL);
    assert_true(json_array_size(list) >= 6);
    return list;
}

static void test_values(void **state)
{
    (void)state;
    json_t *list = cases(), *one;
    size_t i;
    json_array_foreach (list, i, one) {
        assert_true(compare(one, "sample", 0).max <= 1e-5);
    }
    json_decref(list);
}

/* With the H.264 round trip. One release of libx264 may decide otherwise than another: the bound
 * is a tenth of what the round trip itself changes. */
static void test_crf(void **state)
{
    (void)state;
    json_t *list = cases(), *one = json_array_get(list, 0);
    double changed = compare(one, "sample", 29).rms, off = compare(one, "crf29", 29).rms;
    assert_true(changed > 0.02);
    assert_true(off < changed / 10);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crops),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_crf),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
