/* Inside libcublasLt.so.13: what its opaque structures hold, and a checked matrix product. */
#ifndef RINGREEL_EMULATION_CUBLASLT_INTERNAL_H
#define RINGREEL_EMULATION_CUBLASLT_INTERNAL_H

#include "tests/emulation/runtime/runtime.h"

#include <cublasLt.h>

namespace emulation::runtime
{

/* They lie in the callers' opaque structures, so that cublasLt...Init works as well as ...Create;
 * the first word tells whether they have been initialized. */

struct Product { /* cublasLtMatmulDesc_t */
    uint32_t magic;
    int32_t compute, scale, pointer_mode, transpose_a, transpose_b;
    uint32_t epilogue;
    int32_t bias_type; /* -1: that of D */
    const void *bias, *a_scale, *b_scale, *c_scale, *d_scale;
    int64_t bias_stride;
    int32_t a_scale_mode, b_scale_mode, c_scale_mode, d_scale_mode;
    int8_t fast_accumulation;
};

struct Layout { /* cublasLtMatrixLayout_t */
    uint32_t magic;
    uint32_t type;
    int32_t order, batch;
    uint64_t rows, cols;
    int64_t ld, stride; /* elements; the stride is from one matrix of a batch to the next */
};

struct Preference { /* cublasLtMatmulPreference_t */
    uint32_t magic, search_mode, reductions;
    float waves;
    uint64_t workspace_bytes, implementations;
    uint32_t alignment[4]; /* of A, B, C, D */
};

struct Algorithm { /* cublasLtMatmulAlgo_t */
    uint32_t magic;
    int32_t id;
    uint32_t tile;
    int32_t split_k;
    uint32_t reduction, swizzle, custom, stages;
    uint16_t inner_shape, cluster_shape;
    int32_t types[5]; /* it was made for: compute, A, B, C, D */
};

static_assert(sizeof(Product) <= sizeof(cublasLtMatmulDescOpaque_t), "too large");
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "too large");
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "too large");
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t), "too large");

/* An attribute is some bytes of a structure. */
struct Field {
    int attribute;
    size_t offset, bytes;
};

#define FIELD(attribute, type, member)                                                             \
    {                                                                                              \
        attribute, offsetof(type, member), sizeof(((type *)nullptr)->member)                       \
    }

cublasStatus_t set_field(void *structure, const Field *fields, size_t count, int attribute,
                         const void *value, size_t bytes);
cublasStatus_t get_field(const void *structure, const Field *fields, size_t count, int attribute,
                         void *value, size_t bytes, size_t *written);

constexpr uint32_t product_magic = 0x4c745072, layout_magic = 0x4c744c61,
                   preference_magic = 0x4c745065, algorithm_magic = 0x4c74416c;

struct Problem { /* D = epilogue(alpha op(A) op(B) + beta C), checked */
    Product product;
    Layout a, b, c, d;
    uint64_t m, n, k;
};

/* cublaslt_algorithms.cpp */

cublasStatus_t make_problem(const Product *product, const Layout *a, const Layout *b,
                            const Layout *c, const Layout *d, Problem *problem);

/* Can this algorithm do it, and with how much workspace? */
cublasStatus_t check_algorithm(const Problem &problem, const Algorithm &algorithm,
                               size_t *workspace_bytes);

/* The algorithms to try, the one expected to be fastest in front: like cuBLASLt's, that depends on
 * the shape, and may split k where a workspace is given. Returns how many. */
int choose_algorithms(const Problem &problem, const Preference &preference, int wanted,
                      cublasLtMatmulHeuristicResult_t *results);

/* How many products are added up before the sum is added to the total. */
uint64_t chunk_of(const Algorithm &algorithm);

size_t element_bytes(uint32_t type); /* 0: not emulated */
uint32_t bias_type(const Problem &problem);

/* cublaslt_matmul.cpp */

struct Operands {
    const char *a, *b, *c, *bias;
    char *d, *workspace;
    float alpha, beta;
    float a_scale, b_scale, c_scale, d_scale;
};

void multiply(const Problem &problem, const Algorithm &algorithm, const Operands &operands);

} // namespace emulation::runtime

#endif
