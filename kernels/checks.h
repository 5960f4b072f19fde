/* How the front door, ops.c and ops_vae.c, hands an op to the backend, and what it checks before. A
 * check that fails names the op and ends the program: the caller is wrong. */
#ifndef RINGREEL_CHECKS_H
#define RINGREEL_CHECKS_H

#include "backend.h"

/* Whether a replay does what the op asks for. A recording and its replays are compared by the names
 * of ops, in their order. */
bool passed_over(struct device *dev, const char *op);

/* Runs an op of the backend. */
#define RUN(dev, op, ...)                                                                          \
    do {                                                                                           \
        if (passed_over(dev, #op)) break;                                                          \
        (dev)->asked = #op;                                                                        \
        if ((dev)->ops->enter) (dev)->ops->enter();                                                \
        (dev)->ops->op(dev, __VA_ARGS__);                                                          \
        if ((dev)->ops->leave) (dev)->ops->leave();                                                \
    } while (0)

/* Where memory lies. */
void check_device(const struct device *dev, const char *op, const char *name, const void *p,
                  int64_t bytes);
void check_host(const struct device *dev, const char *op, const char *name, const void *p);
void check_floats(const struct device *dev, const char *op, const char *name, const float *p,
                  int64_t count);
/* Matrices: of a type this device computes in, F32, of the same shape, of the same type as well. */
void check_mat(const struct device *dev, const char *op, const char *name, struct mat m);
void check_f32(const struct device *dev, const char *op, const char *name, struct mat m);
void check_same(const struct device *dev, const char *op, struct mat a, struct mat b);
void check_same_type(const struct device *dev, const char *op, struct mat a, struct mat b);
/* Modulation rows [T,cols], picked by row_index; without an index row 0 serves all. */
void check_rows(const struct device *dev, const char *op, struct mat rows, int64_t cols);
void check_row_index(const struct device *dev, const char *op, const int32_t *row_index,
                     int64_t rows);
/* Clips: whole, and of the same shape. */
void check_clip(const struct device *dev, const char *op, const char *name, const struct clip *v);
void check_same_clip(const struct device *dev, const char *op, const struct clip *y,
                     const struct clip *x);
/* What is added to y on its way to memory. */
void check_added(const struct device *dev, const char *op, const struct clip *y,
                 const struct clip *add);
void check_bias(const char *op, const struct tensor *bias, int64_t out);

#endif
