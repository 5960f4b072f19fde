/* Ops that are several in one, on the CPU: the bits of those in turn, which are what they replace
 * in the transformer. */
#include "kernel_helpers.h"

enum { ROWS = 9, D = 52, TIMES = 3 };
static const int32_t row_index[ROWS] = {1, 0, 2, 1, 0, 0, 1, 2, 1};

/* x after the residual, then z, for a plain copy and for either norm. */
static float *run_residual_norm(struct device *dev, const void *argument, int64_t *n)
{
    enum { N = ROWS * D };
    const struct next_norm *wanted = argument;
    struct next_norm norm = *wanted;
    norm.eps = 1e-5f;
    norm.shift = mat_f32(floats(TIMES * D), TIMES, D);
    norm.scale = mat_f32(floats(TIMES * D), TIMES, D);
    struct mat gate = mat_f32(floats(TIMES * D), TIMES, D), none = {.p = NULL};
    float *x = floats(N), *y = floats(N), *both = floats(2 * N), *turns = copy_of(both, 2 * N);
    struct mat add = mat_f32(y, ROWS, D);
    for (int gated = 0; gated < 2; gated++) {
        struct mat now = mat_f32(memcpy(both, x, N * sizeof *x), ROWS, D);
        struct mat then = mat_f32(memcpy(turns, x, N * sizeof *x), ROWS, D);
        op_gate_residual_norm(dev, mat_f32(both + N, ROWS, D), now, add, gated ? gate : none, &norm,
                              row_index);
        op_gate_residual(dev, then, add, gated ? gate : none, row_index);
        if (norm.none)
            memcpy(turns + N, turns, N * sizeof *x);
        else
            op_norm_modulate(dev, mat_f32(turns + N, ROWS, D), then, norm.kind, norm.eps,
                             norm.shift, norm.scale, row_index);
        expect_same("gate_residual_norm", both, turns, 2 * N);
    }
    *n = 2 * N;
    return both;
}

static void test_residual_norm(void **state)
{
    (void)state;
    static const struct next_norm norms[] = {
        {.none = true}, {.kind = NORM_RMS}, {.kind = NORM_LAYER}};
    for (int i = 0; i < 3; i++) on_all_devices("gate_residual_norm", run_residual_norm, norms + i);
}

static float *run_modulation(struct device *dev, const void *argument, int64_t *n)
{
    enum { KINDS = 6 };
    bool one_for_all = *(const bool *)argument;
    int64_t cols = one_for_all ? D : KINDS * D;
    float *table = floats(KINDS * D), *e = floats(TIMES * cols), *y = floats(KINDS * TIMES * D);
    float *want = copy_of(y, KINDS * TIMES * D);
    op_modulation(dev, mat_f32(y, KINDS * TIMES, D), table, mat_f32(e, TIMES, cols));
    for (int k = 0; k < KINDS; k++)
        for (int t = 0; t < TIMES; t++)
            op_lincomb(dev, want + (k * TIMES + t) * D, 1.0f, table + k * D, 1.0f,
                       e + t * cols + (one_for_all ? 0 : k * D), D);
    *n = KINDS * TIMES * D;
    expect_same("modulation", y, want, *n);
    return y;
}

static void test_modulation(void **state)
{
    (void)state;
    static const bool one_for_all[] = {false, true};
    for (int i = 0; i < 2; i++) on_all_devices("modulation", run_modulation, one_for_all + i);
}

/* Queries and keys at once, and each alone. */
static float *run_queries_keys(struct device *dev, const void *argument, int64_t *n)
{
    (void)argument;
    enum { N = ROWS * D, POSITIONS = 5 };
    struct rope rope = {.n = D / 6, .pad = D % 6, .positions = {POSITIONS, POSITIONS, POSITIONS}};
    int32_t coord[ROWS * 3];
    for (int i = 0; i < ROWS * 3; i++) coord[i] = (i * 7 + 3) % POSITIONS;
    rope.coord = coord;
    for (int a = 0; a < 3; a++) rope.table[a] = floats(POSITIONS * rope.n * 2);
    float *q_weight = floats(D), *k_weight = floats(D), *both = floats(2 * N);
    float *alone = copy_of(both, 2 * N);
    struct mat none = {.p = NULL};
    op_qk_norm_rope(dev, mat_f32(both, ROWS, D), mat_f32(both + N, ROWS, D), 1e-5f, q_weight,
                    k_weight, &rope);
    op_qk_norm_rope(dev, mat_f32(alone, ROWS, D), none, 1e-5f, q_weight, NULL, &rope);
    op_qk_norm_rope(dev, mat_f32(alone + N, ROWS, D), none, 1e-5f, k_weight, NULL, &rope);
    expect_same("queries and keys", both, alone, 2 * N);
    *n = 2 * N;
    return both;
}

static void test_queries_keys(void **state)
{
    (void)state;
    on_all_devices("queries and keys", run_queries_keys, NULL);
}

/* One, two and three blocks of keys, one of them empty. */
static float *run_parts(struct device *dev, const void *argument, int64_t *n)
{
    enum { QUERIES = 21, KEYS = 40, GRANULE = 16, HEADS = 2, COLS = HEADS * 16 };
    (void)argument;
    int64_t size = op_kv_granule_floats(dev, GRANULE, HEADS, COLS / HEADS);
    float *q = floats(QUERIES * COLS), *k = floats(KEYS * COLS), *v = floats(KEYS * COLS);
    float *packed = floats(3 * size), *o = floats(QUERIES * COLS), *want = floats(QUERIES * COLS);
    float *state = floats(op_attention_state_floats(QUERIES, HEADS, COLS / HEADS));
    struct mat mq = mat_f32(q, QUERIES, COLS), mo = mat_f32(o, QUERIES, COLS);
    op_kv_pack(dev, packed, mat_f32(k, KEYS, COLS), mat_f32(v, KEYS, COLS), HEADS, GRANULE);
    op_attention_begin(dev, state, QUERIES, HEADS, COLS / HEADS);
    op_attention_block(dev, state, mq, packed, KEYS, GRANULE, HEADS, 0.25f);
    op_attention_finish(dev, mat_f32(want, QUERIES, COLS), state, HEADS);

    static const int64_t ends[][3] = {{KEYS, 0, 0}, {GRANULE, KEYS, 0}, {0, 2 * GRANULE, KEYS}};
    *n = QUERIES * COLS;
    for (int way = 0; way < 3; way++) {
        for (int64_t part = 0, from = 0; part <= way; from = ends[way][part++])
            op_attention_part(dev, mo, state, mq, packed + from / GRANULE * size,
                              ends[way][part] - from, GRANULE, HEADS, 0.25f, part == 0,
                              part == way);
        expect_same("attention in parts", o, want, *n);
        memset(o, 0, (size_t)*n * sizeof *o);
    }
    op_attention_part(dev, mq, state, mq, packed, KEYS, GRANULE, HEADS, 0.25f, true, true);
    expect_same("attention in place of its queries", q, want, *n);
    return q;
}

static void test_parts(void **state)
{
    (void)state;
    on_all_devices("attention in parts", run_parts, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_residual_norm, teardown),
        cmocka_unit_test_teardown(test_modulation, teardown),
        cmocka_unit_test_teardown(test_queries_keys, teardown),
        cmocka_unit_test_teardown(test_parts, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
