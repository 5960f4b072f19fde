/* What can be multiplied, and how. */
#include "tests/emulation/runtime/cublaslt_internal.h"

#include <cstring>
#include <vector>

namespace emulation::runtime
{

constexpr int algorithm_ids[] = {0, 1, 2}; /* the last one can split k */
constexpr int splitting = 2;

size_t element_bytes(uint32_t type)
{
    switch (type) {
    case CUDA_R_32F:
        return 4;
    case CUDA_R_16BF:
        return 2;
    case CUDA_R_8F_E4M3:
        return 1;
    default:
        return 0;
    }
}

/* The only one that there is: D's, or beside 8-bit operands bf16. */
static uint32_t possible_bias_type(const Problem &p)
{
    return p.a.type == CUDA_R_8F_E4M3 ? (uint32_t)CUDA_R_16BF : p.d.type;
}

uint32_t bias_type(const Problem &p)
{
    return p.product.bias_type >= 0 ? (uint32_t)p.product.bias_type : possible_bias_type(p);
}

/* ---- what can be multiplied ---- */

static bool types_fit(int compute, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    if (compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC &&
        compute != CUBLAS_COMPUTE_32F_FAST_TF32)
        return false;
    bool wide = d == CUDA_R_32F || d == CUDA_R_16BF;
    if (a != b) return false;
    if (a == CUDA_R_32F) return c == d && d == CUDA_R_32F;
    if (a == CUDA_R_16BF) return c == d && wide;
    if (a != CUDA_R_8F_E4M3 || compute_capability() < 89) return false;
    return wide ? c == d : d == CUDA_R_8F_E4M3 && c == CUDA_R_16BF;
}

static bool layout_fits(const Layout &l)
{
    if (l.order != CUBLASLT_ORDER_COL && l.order != CUBLASLT_ORDER_ROW) return false;
    uint64_t line = l.order == CUBLASLT_ORDER_COL ? l.rows : l.cols;
    return l.rows && l.cols && l.batch >= 1 && l.ld > 0 && (uint64_t)l.ld >= line;
}

/* The tensor cores take 8-bit operands of which k is the fast dimension, in multiples of 16. */
static bool fp8_fits(const Problem &p)
{
    const Product &x = p.product;
    bool columns = p.a.order == CUBLASLT_ORDER_COL && p.b.order == CUBLASLT_ORDER_COL &&
                   p.c.order == CUBLASLT_ORDER_COL && p.d.order == CUBLASLT_ORDER_COL;
    return columns && x.transpose_a == CUBLAS_OP_T && x.transpose_b == CUBLAS_OP_N &&
           p.k % 16 == 0 && p.m % 16 == 0 && p.a.ld % 16 == 0 && p.b.ld % 16 == 0;
}

static bool epilogue_fits(uint32_t epilogue)
{
    return epilogue == CUBLASLT_EPILOGUE_DEFAULT || epilogue == CUBLASLT_EPILOGUE_BIAS ||
           epilogue == CUBLASLT_EPILOGUE_GELU || epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
}

static bool bias_fits(const Problem &p)
{
    return !(p.product.epilogue & CUBLASLT_EPILOGUE_BIAS) || bias_type(p) == possible_bias_type(p);
}

cublasStatus_t make_problem(const Product *product, const Layout *a, const Layout *b,
                            const Layout *c, const Layout *d, Problem *problem)
{
    if (!product || !a || !b || !c || !d || product->magic != product_magic)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (const Layout *l : {a, b, c, d})
        if (l->magic != layout_magic || !layout_fits(*l)) return CUBLAS_STATUS_INVALID_VALUE;
    bool ta = product->transpose_a != CUBLAS_OP_N, tb = product->transpose_b != CUBLAS_OP_N;
    Problem p = {*product,
                 *a,
                 *b,
                 *c,
                 *d,
                 ta ? a->cols : a->rows,
                 tb ? b->rows : b->cols,
                 ta ? a->rows : a->cols};
    bool extents = p.m == d->rows && p.n == d->cols && p.k == (tb ? b->cols : b->rows) &&
                   c->rows == d->rows && c->cols == d->cols;
    bool batches = a->batch == d->batch && b->batch == d->batch && c->batch == d->batch;
    if (!extents || !batches) return CUBLAS_STATUS_INVALID_VALUE;
    if (!types_fit(product->compute, a->type, b->type, c->type, d->type) ||
        product->scale != CUDA_R_32F || !epilogue_fits(product->epilogue) || !bias_fits(p) ||
        product->a_scale_mode || product->b_scale_mode || product->c_scale_mode ||
        product->d_scale_mode || product->pointer_mode > CUBLASLT_POINTER_MODE_DEVICE)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a->type == CUDA_R_8F_E4M3 && !fp8_fits(p)) return CUBLAS_STATUS_NOT_SUPPORTED;
    *problem = p;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- algorithms ---- */

uint64_t chunk_of(const Algorithm &algorithm)
{
    return algorithm.stages == CUBLASLT_MATMUL_STAGES_64x3 ? 64 : 32;
}

static Algorithm make_algorithm(int id, int compute, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    Algorithm x = {};
    x.magic = algorithm_magic;
    x.id = id;
    x.tile = id == 0 ? CUBLASLT_MATMUL_TILE_64x64 : CUBLASLT_MATMUL_TILE_128x128;
    x.stages = id == 1 ? CUBLASLT_MATMUL_STAGES_64x3 : CUBLASLT_MATMUL_STAGES_32x3;
    x.split_k = 1;
    int32_t types[] = {compute, (int32_t)a, (int32_t)b, (int32_t)c, (int32_t)d};
    memcpy(x.types, types, sizeof types);
    return x;
}

cublasStatus_t check_algorithm(const Problem &p, const Algorithm &x, size_t *workspace_bytes)
{
    *workspace_bytes = 0;
    int32_t types[] = {p.product.compute, (int32_t)p.a.type, (int32_t)p.b.type, (int32_t)p.c.type,
                       (int32_t)p.d.type};
    if (x.magic != algorithm_magic || memcmp(x.types, types, sizeof types))
        return CUBLAS_STATUS_INVALID_VALUE;
    bool stages =
        x.stages == CUBLASLT_MATMUL_STAGES_32x3 || x.stages == CUBLASLT_MATMUL_STAGES_64x3;
    bool tile = x.tile == CUBLASLT_MATMUL_TILE_64x64 || x.tile == CUBLASLT_MATMUL_TILE_128x128;
    if (!stages || !tile || x.split_k < 0 || x.custom || x.swizzle > 1)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (x.split_k <= 1) {
        bool none = x.reduction == CUBLASLT_REDUCTION_SCHEME_NONE;
        return none ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
    }
    bool narrow = x.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    if (x.id != splitting || (uint64_t)x.split_k > p.k || p.d.type == CUDA_R_8F_E4M3 ||
        (!narrow && x.reduction != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *workspace_bytes =
        (size_t)x.split_k * p.m * p.n * (narrow ? element_bytes(p.d.type) : sizeof(float));
    return CUBLAS_STATUS_SUCCESS;
}

int choose_algorithms(const Problem &p, const Preference &preference, int wanted,
                      cublasLtMatmulHeuristicResult_t *results)
{
    auto make = [&](int id) {
        return make_algorithm(id, p.product.compute, p.a.type, p.b.type, p.c.type, p.d.type);
    };
    std::vector<Algorithm> list;
    bool large = p.m >= 128 && p.n >= 128;
    if (p.k >= 1024 && p.m * p.n < 512 * 512) { /* too few tiles to fill a device */
        Algorithm x = make(splitting);
        x.split_k = p.n < 64 ? 8 : 4;
        for (uint32_t reduction :
             {CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE}) {
            x.reduction = reduction;
            list.push_back(x);
        }
    }
    for (int id : {large ? 1 : 0, large ? 0 : 1, splitting}) list.push_back(make(id));

    int count = 0;
    for (const Algorithm &x : list) {
        size_t bytes;
        bool allowed = !(x.reduction & ~preference.reductions);
        if (count == wanted || !allowed || check_algorithm(p, x, &bytes) ||
            bytes > preference.workspace_bytes)
            continue;
        cublasLtMatmulHeuristicResult_t *r = &results[count++];
        *r = {};
        memcpy(&r->algo, &x, sizeof x);
        r->workspaceSize = bytes;
        r->state = CUBLAS_STATUS_SUCCESS;
        r->wavesCount = (float)((p.m + 127) / 128 * ((p.n + 127) / 128)) / 132;
    }
    return count;
}

} // namespace emulation::runtime

using namespace emulation::runtime;

static const Field algorithm_fields[] = {
    FIELD(CUBLASLT_ALGO_CONFIG_ID, Algorithm, id),
    FIELD(CUBLASLT_ALGO_CONFIG_TILE_ID, Algorithm, tile),
    FIELD(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, Algorithm, split_k),
    FIELD(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, Algorithm, reduction),
    FIELD(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, Algorithm, swizzle),
    FIELD(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, Algorithm, custom),
    FIELD(CUBLASLT_ALGO_CONFIG_STAGES_ID, Algorithm, stages),
    FIELD(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, Algorithm, inner_shape),
    FIELD(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, Algorithm, cluster_shape),
};
constexpr size_t algorithm_field_count = sizeof algorithm_fields / sizeof *algorithm_fields;

static bool valid(const cublasLtMatmulAlgo_t *algo)
{
    return algo && ((const Algorithm *)algo)->magic == algorithm_magic;
}

extern "C" {

cublasStatus_t cublasLtMatmulAlgoGetIds(cublasLtHandle_t handle, cublasComputeType_t compute,
                                        cudaDataType_t scale, cudaDataType_t a, cudaDataType_t b,
                                        cudaDataType_t c, cudaDataType_t d, int wanted, int ids[],
                                        int *count)
{
    Api api;
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (wanted <= 0 || !ids || !count) return CUBLAS_STATUS_INVALID_VALUE;
    *count = 0;
    if (scale != CUDA_R_32F || !types_fit(compute, a, b, c, d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int id : algorithm_ids)
        if (*count < wanted) ids[(*count)++] = id;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t handle, cublasComputeType_t compute,
                                      cudaDataType_t scale, cudaDataType_t a, cudaDataType_t b,
                                      cudaDataType_t c, cudaDataType_t d, int id,
                                      cublasLtMatmulAlgo_t *algo)
{
    Api api;
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!algo || id < 0 || id > splitting) return CUBLAS_STATUS_INVALID_VALUE;
    if (scale != CUDA_R_32F || !types_fit(compute, a, b, c, d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    *algo = {};
    Algorithm x = make_algorithm(id, compute, a, b, c, d);
    memcpy(algo, &x, sizeof x);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    if (!valid(algo) || attribute == CUBLASLT_ALGO_CONFIG_ID) return CUBLAS_STATUS_INVALID_VALUE;
    return set_field(algo, algorithm_fields, algorithm_field_count, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written)
{
    if (!valid(algo)) return CUBLAS_STATUS_INVALID_VALUE;
    return get_field(algo, algorithm_fields, algorithm_field_count, attribute, value, bytes,
                     written);
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    Api api;
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!valid(algo) || !result) return CUBLAS_STATUS_INVALID_VALUE;
    Problem p;
    cublasStatus_t status =
        make_problem((const Product *)product, (const Layout *)a, (const Layout *)b,
                     (const Layout *)c, (const Layout *)d, &p);
    if (!status) status = check_algorithm(p, *(const Algorithm *)algo, &result->workspaceSize);
    result->state = status;
    result->wavesCount = 1;
    return status;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *count)
{
    Api api;
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (wanted <= 0 || !results || !count || !preference ||
        ((const Preference *)preference)->magic != preference_magic)
        return CUBLAS_STATUS_INVALID_VALUE;
    *count = 0;
    Problem p;
    cublasStatus_t status =
        make_problem((const Product *)product, (const Layout *)a, (const Layout *)b,
                     (const Layout *)c, (const Layout *)d, &p);
    if (status) return status;
    *count = choose_algorithms(p, *(const Preference *)preference, wanted, results);
    return *count ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

} // extern "C"
