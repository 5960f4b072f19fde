/* Conversions between the dtypes of a checkpoint and fp32, every code of the narrow ones. */
#include "base/tensor.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void expect_bits(unsigned code, float got, float want)
{
    uint32_t a, b;
    memcpy(&a, &got, sizeof a);
    memcpy(&b, &want, sizeof b);
    if (a != b) fail_msg("code 0x%x is 0x%08x, not 0x%08x", code, a, b);
}

/* Sign, 4 bits of exponent, 3 of fraction; no infinity, one NaN for each sign. */
static void every_code_of_f8_e4m3(void **state)
{
    (void)state;
    uint8_t codes[256];
    float got[256];
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)i;
    dtype_to_f32(got, codes, DTYPE_F8_E4M3, 256);
    for (int i = 0; i < 256; i++) {
        int exponent = i >> 3 & 15, fraction = i & 7;
        float value = exponent ? ldexpf(1.0f + (float)fraction / 8, exponent - 7)
                               : ldexpf((float)fraction / 8, -6);
        if (exponent == 15 && fraction == 7) {
            uint32_t quiet = 0x7fc00000u;
            memcpy(&value, &quiet, sizeof value);
        }
        expect_bits((unsigned)i, got[i], i & 0x80 ? -value : value);
    }
    assert_true(got[0x7e] == 448 && got[0x01] == 0x1p-9f && signbit(got[0x80]));
}

static void every_code_of_f16(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1u << 16; i++) {
        int exponent = (int)(i >> 10 & 31), fraction = (int)(i & 1023);
        uint16_t code = (uint16_t)i;
        float got, value = exponent ? ldexpf(1.0f + (float)fraction / 1024, exponent - 15)
                                    : ldexpf((float)fraction / 1024, -14);
        dtype_to_f32(&got, &code, DTYPE_F16, 1);
        if (exponent == 31 && fraction) {
            assert_true(isnan(got));
            continue;
        }
        if (exponent == 31) value = INFINITY;
        expect_bits(i, got, i & 0x8000 ? -value : value);
    }
}

/* Up and down again gives every code back; halves round to even. */
static void bf16_rounds_to_even(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1u << 16; i++) {
        uint16_t code = (uint16_t)i;
        float up;
        dtype_to_f32(&up, &code, DTYPE_BF16, 1);
        if (isnan(up))
            assert_true(isnan(f32_from_bf16(bf16_from_f32(up))));
        else
            assert_int_equal(bf16_from_f32(up), code);
    }
    assert_int_equal(bf16_from_f32(1.0f + 0x1p-8f), 0x3f80); /* a tie: down to the even code */
    assert_int_equal(bf16_from_f32(1.0f + 3 * 0x1p-8f), 0x3f82);
    assert_int_equal(bf16_from_f32(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);
}

/* The same positions in both types, neighbours' rows and border columns included. */
static void places_in_clips(void **state)
{
    (void)state;
    float memory[3 * 4 * 6 * 2];
    for (int type = DTYPE_F32; type <= DTYPE_BF16; type++) {
        size_t size = dtype_size((enum dtype)type);
        struct clip v = {.p = memory,
                         .dtype = (enum dtype)type,
                         .t = 3,
                         .h = 2,
                         .w = 4,
                         .c = 2,
                         .pad = 1,
                         .above = 1,
                         .below = 1};
        char *first = (char *)memory;
        assert_int_equal(clip_bytes(&v), sizeof memory / 4 * size);
        v.p = clip_at(&v, 0, v.above, -1); /* behind the row above */
        assert_ptr_equal(v.p, first + 12 * size);
        assert_ptr_equal(clip_at(&v, 0, -1, -1), first);
        assert_ptr_equal(clip_at(&v, 2, 2, 4), first + (3 * 4 * 6 * 2 - 2) * size);
        struct clip part = clip_frames(&v, 1, 2);
        assert_int_equal(part.t, 2);
        assert_ptr_equal(clip_at(&part, 0, 1, 3), clip_at(&v, 1, 1, 3));
        assert_ptr_equal(clip_frames(&part, -1, 3).p, v.p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_of_f8_e4m3),
        cmocka_unit_test(every_code_of_f16),
        cmocka_unit_test(bf16_rounds_to_even),
        cmocka_unit_test(places_in_clips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
