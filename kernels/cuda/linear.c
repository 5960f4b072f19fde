/* Linear layers: y = epilogue(x W^T + b) by cuBLASLt.
 *
 * cuBLASLt thinks in columns, so a row-major matrix is its transpose there: the call computes y^T
 * [out,S] = W [out,in] x^T [in,S] with W transposed in, which is how it stands in memory.
 *
 * The same bits for every number of rows: one algorithm per layer, chosen for a nominal number of
 * rows that depends on the granule alone, with no split of the inner dimension and no reduction
 * afterwards, so that each output element is one thread block's sum in one order.
 *
 * Epilogues are cuBLASLt's: bias, and GELU, which there is the tanh form; it has no SiLU. Its bias
 * is of the output's type, so a layer's lies behind its weights in both. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/kernels.h"

#include "base/error.h"

#include <stdlib.h>

enum { NOMINAL_TILES = 32, ALIGNMENT = 16 };

#define CHECK_BLAS(call)                                                                           \
    do {                                                                                           \
        cublasStatus_t status_ = (call);                                                           \
        if (status_ != CUBLAS_STATUS_SUCCESS) CHECK_CUDA(cudaPeekAtLastError());                   \
        CHECK(status_ == CUBLAS_STATUS_SUCCESS, "cuBLASLt: %s", cublasLtGetStatusString(status_)); \
    } while (0)

static enum dtype weight_type(const struct device *dev)
{
    return dev->precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

static cudaDataType_t cuda_type(enum dtype type)
{
    return type == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* ---- weights --------------------------------------------------------------------------------- */

static size_t weight_bytes(const struct device *dev, const struct linear *l)
{
    return (size_t)l->in * (size_t)l->out * dtype_size(weight_type(dev));
}

/* Where the bias of a type lies behind the weights: at F32, then in the type of the products. */
static size_t bias_at(const struct device *dev, const struct linear *l, enum dtype type)
{
    const size_t line = 256;
    size_t at = (weight_bytes(dev, l) + line - 1) / line * line;
    if (type == DTYPE_F32) return at;
    return at + ((size_t)l->out * sizeof(float) + line - 1) / line * line;
}

/* Whole floats: so it may come from another rank. */
static size_t packed_bytes(const struct device *dev, const struct linear *l)
{
    enum dtype type = weight_type(dev);
    size_t bytes =
        l->bias ? bias_at(dev, l, type) + (size_t)l->out * dtype_size(type) : weight_bytes(dev, l);
    return (bytes + sizeof(float) - 1) / sizeof(float) * sizeof(float);
}

/* [out,in] as in the checkpoint, in the type of the products; then the biases. */
static void load(struct device *dev, char *to, const struct linear *l)
{
    enum dtype type = weight_type(dev);
    cuda_load_tensor(dev, to, type, l->weight);
    if (!l->bias) return;
    cuda_load_tensor(dev, to + bias_at(dev, l, DTYPE_F32), DTYPE_F32, l->bias);
    if (type != DTYPE_F32) cuda_load_tensor(dev, to + bias_at(dev, l, type), type, l->bias);
}

void cuda_linear_pack(struct device *dev, struct linear *l)
{
    l->packed = cuda_take(packed_bytes(dev, l), l->weight->name);
    load(dev, l->packed, l);
}

void cuda_linear_unpack(struct device *dev, struct linear *l)
{
    (void)dev;
    CHECK_CUDA(cudaFree(l->packed));
    l->packed = NULL;
}

/* ---- the product ----------------------------------------------------------------------------- */

struct matmul {
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t weight, input, output;
};

static struct matmul describe(const struct device *dev, const struct product *p, int64_t rows,
                              const void *bias)
{
    struct matmul m;
    cublasOperation_t transposed = CUBLAS_OP_T;
    cudaDataType_t type = cuda_type(weight_type(dev)), output = cuda_type(p->type);
    CHECK_BLAS(cublasLtMatmulDescCreate(&m.what, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CHECK_BLAS(cublasLtMatmulDescSetAttribute(m.what, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                              sizeof transposed));
    CHECK_BLAS(cublasLtMatmulDescSetAttribute(m.what, CUBLASLT_MATMUL_DESC_EPILOGUE, &p->epilogue,
                                              sizeof p->epilogue));
    if (bias) {
        CHECK_BLAS(cublasLtMatmulDescSetAttribute(m.what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                  sizeof bias));
        CHECK_BLAS(cublasLtMatmulDescSetAttribute(m.what, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                                                  &output, sizeof output));
    }
    CHECK_BLAS(
        cublasLtMatrixLayoutCreate(&m.weight, type, (uint64_t)p->in, (uint64_t)p->out, p->in));
    CHECK_BLAS(cublasLtMatrixLayoutCreate(&m.input, type, (uint64_t)p->in, (uint64_t)rows, p->in));
    CHECK_BLAS(
        cublasLtMatrixLayoutCreate(&m.output, output, (uint64_t)p->out, (uint64_t)rows, p->out));
    return m;
}

static void forget(struct matmul *m)
{
    cublasLtMatrixLayoutDestroy(m->weight);
    cublasLtMatrixLayoutDestroy(m->input);
    cublasLtMatrixLayoutDestroy(m->output);
    cublasLtMatmulDescDestroy(m->what);
}

static void prefer(cublasLtMatmulPreference_t preference,
                   cublasLtMatmulPreferenceAttributes_t attribute, const void *value, size_t bytes)
{
    CHECK_BLAS(cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes));
}

/* Rows of a width that is no multiple of ALIGNMENT bytes lie as they come. */
static uint32_t alignment_of(int64_t width, size_t bytes)
{
    uint32_t alignment = ALIGNMENT;
    while ((size_t)width * bytes % alignment) alignment /= 2;
    return alignment;
}

static void choose(struct device *dev, struct product *p, const void *bias)
{
    struct cuda *cuda = cuda_of(dev);
    struct matmul m = describe(dev, p, NOMINAL_TILES * p->tile, bias);
    cublasLtMatmulPreference_t wish;
    size_t workspace = CUBLASLT_WORKSPACE_BYTES, type = dtype_size(weight_type(dev));
    uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    uint32_t in = alignment_of(p->in, type), out = alignment_of(p->out, dtype_size(p->type));
    CHECK_BLAS(cublasLtMatmulPreferenceCreate(&wish));
    prefer(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    prefer(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_reduction, sizeof no_reduction);
    prefer(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &in, sizeof in);
    prefer(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &in, sizeof in);
    prefer(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &out, sizeof out);
    prefer(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &out, sizeof out);
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    CHECK_BLAS(cublasLtMatmulAlgoGetHeuristic(cuda->blas, m.what, m.weight, m.input, m.output,
                                              m.output, wish, 1, &found, &count));
    CHECK(count == 1, "cuBLASLt knows no algorithm for a product [S,%lld] x [%lld,%lld]",
          (long long)p->in, (long long)p->out, (long long)p->in);
    p->algo = found.algo;
    cublasLtMatmulPreferenceDestroy(wish);
    forget(&m);
}

/* The layer's algorithm, chosen when it is first used. */
static const struct product *product_of(struct device *dev, const struct linear *l, enum dtype type,
                                        cublasLtEpilogue_t epilogue, int64_t tile, const void *bias)
{
    struct cuda *cuda = cuda_of(dev);
    for (int i = 0; i < cuda->product_count; i++) {
        const struct product *p = &cuda->products[i];
        if (p->in == l->in && p->out == l->out && p->type == type && p->epilogue == epilogue &&
            p->tile == tile)
            return p;
    }
    size_t count = (size_t)cuda->product_count + 1;
    cuda->products = xrealloc(cuda->products, count * sizeof *cuda->products);
    struct product *p = &cuda->products[cuda->product_count++];
    *p = (struct product){
        .in = l->in, .out = l->out, .tile = tile, .type = type, .epilogue = epilogue};
    choose(dev, p, bias);
    return p;
}

/* The rows in the type of the products. */
static const void *rounded(struct device *dev, struct mat x)
{
    struct cuda *cuda = cuda_of(dev);
    enum dtype type = weight_type(dev);
    if (x.dtype == type) return x.p;
    size_t count = (size_t)x.rows * (size_t)x.cols;
    void *to = cuda_scratch(&cuda->rounded, count * dtype_size(type), "inputs of a product");
    CHECK_CUDA(launch_convert(cuda->stream, to, type, x.p, x.dtype, (int64_t)count));
    return to;
}

static cublasLtEpilogue_t epilogue_of(enum epilogue e, bool bias)
{
    if (e == EPILOGUE_GELU_TANH) return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

/* packed: what `load` gave */
static void multiply(struct device *dev, struct mat y, struct mat x, const struct linear *l,
                     const char *packed, enum epilogue e, int64_t tile)
{
    struct cuda *cuda = cuda_of(dev);
    const void *bias = l->bias ? packed + bias_at(dev, l, y.dtype) : NULL;
    const struct product *p = product_of(dev, l, y.dtype, epilogue_of(e, bias), tile, bias);
    const void *input = rounded(dev, x);
    if (!input) return; /* not recorded */
    struct matmul m = describe(dev, p, x.rows, bias);
    float one = 1, zero = 0;
    cublasStatus_t status = cublasLtMatmul(cuda->blas, m.what, &one, packed, m.weight, input,
                                           m.input, &zero, y.p, m.output, y.p, m.output, &p->algo,
                                           cuda->workspace, CUBLASLT_WORKSPACE_BYTES, cuda->stream);
    if (status == CUBLAS_STATUS_SUCCESS || !cuda_cannot_record("a product of cuBLASLt"))
        CHECK_BLAS(status);
    forget(&m);
    if (e == EPILOGUE_SILU) CHECK_CUDA(launch_silu(cuda->stream, y, y));
}

void cuda_linear(struct device *dev, struct mat y, struct mat x, const struct linear *l,
                 enum epilogue e, int64_t tile)
{
    cuda_long_op(dev);
    char *packed = l->packed;
    if (!packed) {
        if (cuda_cannot_record("weights that are not in the device's memory")) return;
        packed = cuda_scratch(&cuda_of(dev)->weights, packed_bytes(dev, l), "weights of a layer");
        load(dev, packed, l);
    }
    multiply(dev, y, x, l, packed, e, tile);
}
