/* op_conv3d where ranks share a picture: any part of it, given one line of each neighbour, has the
 * bits that it has in the whole, and lines that a span does not need are not looked at. */
#include "tests/unit/kernel_helpers.h"

enum { T = 3, H = 7, W = 6 };

struct layer {
    int64_t in, out;
};

/* A part of the picture: rows [top, top + h), columns [left, left + w). */
struct part {
    int64_t top, h, left, w;
};

/* What the rank that has the part holds of x: with the neighbours' lines, as far as there are any,
 * or NaN in place of these. */
static struct clip cut(const struct clip *x, const struct part *p, bool poisoned)
{
    struct clip part = {.t = x->t, .h = p->h, .w = p->w, .c = x->c, .pad = 1};
    part.above = p->top > 0;
    part.below = p->top + p->h < x->h;
    float *to = floats(clip_count(&part));
    part.p = to + part.above * clip_row(&part);
    for (int64_t t = 0; t < x->t; t++)
        for (int64_t row = -part.above; row < p->h + part.below; row++)
            for (int64_t column = -1; column <= p->w; column++, to += x->c) {
                int64_t from = p->left + column;
                bool own = row >= 0 && row < p->h && column >= 0 && column < p->w;
                if (from < 0 || from >= x->w)
                    memset(to, 0, (size_t)x->c * sizeof *to);
                else
                    memcpy(to, at(x, t, p->top + row, from), (size_t)x->c * sizeof *to);
                for (int64_t c = 0; c < x->c && poisoned && !own; c++) to[c] = NAN;
            }
    return part;
}

/* y as it should be: the whole's within the span, what it was elsewhere. */
static void expect_span(const struct clip *y, const float *before, const struct clip *whole,
                        const struct conv_span *s)
{
    for (int64_t i = 0; i < y->t * y->h * y->w; i++) {
        int64_t t = i / (y->h * y->w), row = i / y->w % y->h, column = i % y->w;
        bool within = row >= s->row && row < s->row + s->rows && column >= s->column &&
                      column < s->column + s->columns;
        expect_same(within ? "a part of conv3d" : "beside the span", (const float *)y->p + i * y->c,
                    within ? at(whole, t, s->top + row, s->left + column) : before + i * y->c,
                    y->c);
    }
}

static void check_part(struct device *dev, const struct conv *conv, const struct clip *x,
                       const struct clip *whole, const struct part *p)
{
    int kept = block_count;
    struct clip all = cut(x, p, false), alone = cut(x, p, true);
    struct clip y = clip_of(T, p->h, p->w, conv->out, 0);
    float *before = copy_of(y.p, clip_count(&y));
    struct conv_span span = {.rows = p->h, .columns = p->w, .top = p->top, .left = p->left};
    op_conv3d(dev, &y, &all, conv, 1, NULL, &span);
    expect_span(&y, before, whole, &span);
    memcpy(y.p, before, (size_t)clip_count(&y) * sizeof *before);
    if (p->h > 2 && p->w > 2) { /* the neighbours' lines are not there yet */
        span = (struct conv_span){1, p->h - 2, 1, p->w - 2, p->top, p->left};
        op_conv3d(dev, &y, &alone, conv, 1, NULL, &span);
        expect_span(&y, before, whole, &span);
    }
    while (block_count > kept) free(blocks[--block_count]);
}

static float *run_parts(struct device *dev, const void *argument, int64_t *n)
{
    const struct layer *l = argument;
    struct tensor w = {"w", DTYPE_F32, 5, {l->out, l->in, 3, 3, 3}, floats(l->out * l->in * 27), 0};
    struct tensor b = {"b", DTYPE_F32, 1, {l->out}, floats(l->out), 0};
    struct conv conv = conv_make(&w, &b);
    struct clip x = clip_of(T, H, W, l->in, 1), whole = clip_of(T, H, W, l->out, 0);
    clear_border(&x);
    op_conv_pack(dev, &conv);
    op_conv3d(dev, &whole, &x, &conv, 1, NULL, NULL);
    for (int64_t top = 0; top < H; top++)
        for (int64_t h = 1; top + h <= H; h++) {
            int64_t left = (top + 2 * h) % W, right = (5 * top + h) % W;
            if (left > right) left = right;
            check_part(dev, &conv, &x, &whole, &(struct part){top, h, left, right - left + 1});
        }
    op_conv_unpack(dev, &conv);
    *n = clip_count(&whole);
    return whole.p;
}

static void test_parts(void **state)
{
    (void)state;
    static const struct layer layers[] = {{48, 32}, {20, 16}}; /* one for each kind of kernel */
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        on_all_devices("parts of conv3d", run_parts, layers + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_parts, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
