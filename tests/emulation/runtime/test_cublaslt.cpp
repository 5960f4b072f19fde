/* Matrix products against plain loops in double; algorithms; what is refused. */
#include "tests/emulation/runtime/harness.h"

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <ctime>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

#define LT(call) EXPECT((call) == CUBLAS_STATUS_SUCCESS)

struct Matrix { /* on the host as double, on the device in its type */
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
    int order, batch;
    std::vector<double> values; /* [batch][rows][cols] */
    char *device;
    cublasLtMatrixLayout_t layout;
};

static size_t bytes_of(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : type == CUDA_R_16BF ? 2 : 1;
}

static double pattern(uint64_t i)
{
    uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 29)) * 0xBF58476D1CE4E5B9u;
    return (double)(z >> 40) / (1 << 23) - 1;
}

/* A value to the type's bytes, and what the bytes mean. */
static double put(char *to, cudaDataType_t type, double value)
{
    if (type == CUDA_R_32F) {
        float x = (float)value;
        memcpy(to, &x, 4);
        return x;
    }
    if (type == CUDA_R_16BF) {
        __nv_bfloat16 x = __float2bfloat16((float)value);
        memcpy(to, &x, 2);
        return __bfloat162float(x);
    }
    __nv_fp8_e4m3 x((float)value);
    memcpy(to, &x, 1);
    return (float)x;
}

static double get(const char *from, cudaDataType_t type)
{
    if (type == CUDA_R_32F) {
        float x;
        memcpy(&x, from, 4);
        return x;
    }
    if (type == CUDA_R_16BF) {
        __nv_bfloat16 x;
        memcpy(&x, from, 2);
        return __bfloat162float(x);
    }
    __nv_fp8_e4m3 x;
    memcpy(&x, from, 1);
    return (float)x;
}

static size_t place(const Matrix &m, int batch, uint64_t r, uint64_t c)
{
    uint64_t lines = m.order == CUBLASLT_ORDER_COL ? m.cols : m.rows, ld = (uint64_t)m.ld;
    uint64_t in = m.order == CUBLASLT_ORDER_COL ? c * ld + r : r * ld + c;
    return ((uint64_t)batch * ld * lines + in) * bytes_of(m.type);
}

static size_t device_bytes(const Matrix &m)
{
    uint64_t lines = m.order == CUBLASLT_ORDER_COL ? m.cols : m.rows;
    return (uint64_t)m.batch * lines * (uint64_t)m.ld * bytes_of(m.type);
}

static Matrix matrix(cudaDataType_t type, uint64_t rows, uint64_t cols, int order, int batch,
                     int seed)
{
    uint64_t line = order == CUBLASLT_ORDER_COL ? rows : cols;
    Matrix m = {type, rows, cols, (int64_t)(line + 16), order, batch, {}, nullptr, nullptr};
    m.values.resize((size_t)batch * rows * cols);
    std::vector<char> bytes(device_bytes(m), (char)0xFF);
    for (size_t i = 0; i < m.values.size(); i++) {
        int b = (int)(i / (rows * cols));
        char *to = &bytes[place(m, b, i / cols % rows, i % cols)];
        m.values[i] = put(to, type, pattern(i + (size_t)seed * 1000003));
    }
    m.device = device_array<char>(bytes.size());
    OK(cudaMemcpy(m.device, bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
    int64_t stride = (int64_t)(device_bytes(m) / bytes_of(type)) / batch;
    LT(cublasLtMatrixLayoutCreate(&m.layout, type, rows, cols, m.ld));
    LT(cublasLtMatrixLayoutSetAttribute(m.layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, 4));
    LT(cublasLtMatrixLayoutSetAttribute(m.layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, 4));
    LT(cublasLtMatrixLayoutSetAttribute(m.layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                        &stride, 8));
    return m;
}

struct Product {
    cudaDataType_t in = CUDA_R_16BF, out = CUDA_R_16BF;
    uint64_t m = 48, n = 33, k = 80;
    bool ta = true, tb = false;
    int order = CUBLASLT_ORDER_COL, batch = 1;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    float alpha = 1, beta = 0;
    bool scales = false;
};

static cublasLtMatmulDesc_t describe(const Product &p)
{
    cublasLtMatmulDesc_t d;
    cublasOperation_t a = p.ta ? CUBLAS_OP_T : CUBLAS_OP_N, b = p.tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT(cublasLtMatmulDescCreate(&d, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
    LT(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
    LT(cublasLtMatmulDescSetAttribute(d, CUBLASLT_MATMUL_DESC_EPILOGUE, &p.epilogue,
                                      sizeof p.epilogue));
    return d;
}

static float *device_float(float value)
{
    float *p = device_array<float>(1);
    OK(cudaMemcpy(p, &value, 4, cudaMemcpyHostToDevice));
    return p;
}

static double reference(const Product &p, const Matrix &a, const Matrix &b, const Matrix &c,
                        const std::vector<double> &bias, int batch, uint64_t i, uint64_t j)
{
    double sum = 0;
    for (uint64_t k = 0; k < p.k; k++) {
        uint64_t ia = p.ta ? k * a.cols + i : i * a.cols + k;
        uint64_t ib = p.tb ? j * b.cols + k : k * b.cols + j;
        sum += a.values[(size_t)batch * a.rows * a.cols + ia] *
               b.values[(size_t)batch * b.rows * b.cols + ib];
    }
    sum *= p.alpha * (p.scales ? 0.5 * 3 : 1);
    if (p.beta != 0) sum += p.beta * c.values[((size_t)batch * c.rows + i) * c.cols + j];
    if (p.epilogue & CUBLASLT_EPILOGUE_BIAS) sum += bias[i];
    if (p.epilogue & CUBLASLT_EPILOGUE_GELU)
        sum = 0.5 * sum * (1 + tanh(0.7978845608028654 * (sum + 0.044715 * sum * sum * sum)));
    return p.scales && p.out == CUDA_R_8F_E4M3 ? 2 * sum : sum;
}

/* Largest difference relative to 1 + |value|, over all elements. */
static double largest_error(const Product &p, const Matrix &a, const Matrix &b, const Matrix &c,
                            const std::vector<double> &bias)
{
    std::vector<char> bytes(device_bytes(c));
    OK(cudaMemcpy(bytes.data(), c.device, bytes.size(), cudaMemcpyDeviceToHost));
    double worst = 0;
    for (int batch = 0; batch < p.batch; batch++)
        for (uint64_t i = 0; i < p.m; i++)
            for (uint64_t j = 0; j < p.n; j++) {
                double want = reference(p, a, b, c, bias, batch, i, j);
                double error = fabs(get(&bytes[place(c, batch, i, j)], p.out) - want);
                worst = fmax(worst, error / (1 + fabs(want)));
            }
    return worst;
}

static void check(const Product &p, double tolerance)
{
    cublasLtHandle_t handle;
    LT(cublasLtCreate(&handle));
    Matrix a = matrix(p.in, p.ta ? p.k : p.m, p.ta ? p.m : p.k, p.order, p.batch, 1);
    Matrix b = matrix(p.in, p.tb ? p.n : p.k, p.tb ? p.k : p.n, p.order, p.batch, 2);
    cudaDataType_t c_type = p.out == CUDA_R_8F_E4M3 ? CUDA_R_16BF : p.out;
    Matrix d = matrix(p.out, p.m, p.n, p.order, p.batch, 3);
    Matrix c = c_type == p.out ? d : matrix(c_type, p.m, p.n, p.order, p.batch, 3);
    cublasLtMatmulDesc_t desc = describe(p);

    cudaDataType_t bias_type = p.in == CUDA_R_8F_E4M3 ? CUDA_R_16BF : p.out;
    std::vector<char> bytes(p.m * bytes_of(bias_type));
    std::vector<double> bias(p.m);
    for (uint64_t i = 0; i < p.m; i++)
        bias[i] = put(&bytes[i * bytes_of(bias_type)], bias_type, pattern(i + 77));
    char *device_bias = device_array<char>(bytes.size());
    OK(cudaMemcpy(device_bias, bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
    LT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &device_bias, 8));
    if (p.scales) {
        float *sa = device_float(0.5f), *sb = device_float(3), *sd = device_float(2);
        LT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &sa, 8));
        LT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &sb, 8));
        LT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, &sd, 8));
    }
    LT(cublasLtMatmul(handle, desc, &p.alpha, a.device, a.layout, b.device, b.layout, &p.beta,
                      c.device, c.layout, d.device, d.layout, nullptr, nullptr, 0, nullptr));
    OK(cudaDeviceSynchronize());
    double error = largest_error(p, a, b, d, bias);
    if (!(error < tolerance)) {
        fprintf(stderr, "error %g, allowed %g\n", error, tolerance);
        _exit(1);
    }
    LT(cublasLtMatmulDescDestroy(desc));
    for (const Matrix *m : {&a, &b, &d}) LT(cublasLtMatrixLayoutDestroy(m->layout));
    LT(cublasLtDestroy(handle));
}

/* Half a unit in the last place of bf16 is up to 2^-8; the sums' own error is far below. */
static const double bf16 = 0.00394, fp32 = 1e-5, fp8 = 0.07;

static void products(void **)
{
    succeeds({"GUARD=1", "STREAMS=fifo"}, [] {
        Product p;
        check(p, bf16);
        for (auto epilogue :
             {CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_BIAS}) {
            p.epilogue = epilogue;
            check(p, bf16);
        }
        p.out = CUDA_R_32F;
        check(p, fp32);
        p.in = CUDA_R_32F;
        p.beta = -0.5f;
        p.alpha = 2;
        check(p, 2 * fp32);
    });
}

static void transposes_orders_batches(void **)
{
    succeeds({}, [] {
        for (int bits = 0; bits < 16; bits++) {
            Product p;
            p.in = p.out = CUDA_R_32F;
            p.ta = bits & 1;
            p.tb = bits & 2;
            p.order = bits & 4 ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL;
            p.batch = bits & 8 ? 3 : 1;
            p.epilogue = CUBLASLT_EPILOGUE_BIAS;
            check(p, fp32);
        }
    });
}

static void eight_bits(void **)
{
    Product p;
    p.in = CUDA_R_8F_E4M3;
    p.scales = true;
    p.epilogue = CUBLASLT_EPILOGUE_BIAS;
    succeeds({}, [=] {
        Product q = p;
        check(q, bf16);
        q.out = CUDA_R_32F;
        check(q, fp32);
        q.out = CUDA_R_8F_E4M3;
        check(q, fp8);
    });
    fails_saying("CUBLAS_STATUS_SUCCESS", {"DEVICE=sm_80"}, [=] { check(p, bf16); });
    fails_saying("CUBLAS_STATUS_SUCCESS", {}, [=] {
        Product q = p;
        q.ta = false; /* only A^T B */
        check(q, bf16);
    });
}

/* ---- algorithms ---- */

struct Asked {
    cublasLtMatmulHeuristicResult_t results[8];
    int count;
};

static Asked ask(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const Matrix &a,
                 const Matrix &b, const Matrix &d, uint64_t workspace, uint32_t reductions)
{
    Asked asked;
    cublasLtMatmulPreference_t pref;
    LT(cublasLtMatmulPreferenceCreate(&pref));
    LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &workspace, sizeof workspace));
    LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                            &reductions, sizeof reductions));
    LT(cublasLtMatmulAlgoGetHeuristic(handle, desc, a.layout, b.layout, d.layout, d.layout, pref, 8,
                                      asked.results, &asked.count));
    LT(cublasLtMatmulPreferenceDestroy(pref));
    return asked;
}

static int split_of(const cublasLtMatmulAlgo_t &algo)
{
    int split = 0;
    size_t written;
    LT(cublasLtMatmulAlgoConfigGetAttribute(&algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, 4,
                                            &written));
    EXPECT(written == 4);
    return split;
}

static std::vector<char> result_of(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                   const Matrix &a, const Matrix &b, const Matrix &d,
                                   const cublasLtMatmulAlgo_t &algo, char *workspace, size_t bytes)
{
    float one = 1, zero = 0;
    LT(cublasLtMatmul(handle, desc, &one, a.device, a.layout, b.device, b.layout, &zero, d.device,
                      d.layout, d.device, d.layout, &algo, workspace, bytes, nullptr));
    std::vector<char> out(device_bytes(d));
    OK(cudaMemcpy(out.data(), d.device, out.size(), cudaMemcpyDeviceToHost));
    return out;
}

static void algorithms_differ_in_bits(void **)
{
    succeeds({}, [] {
        const size_t room = 1 << 22;
        cublasLtHandle_t handle;
        LT(cublasLtCreate(&handle));
        Product p;
        p.out = CUDA_R_32F;
        cublasLtMatmulDesc_t desc = describe(p);
        Matrix a = matrix(p.in, 1024, 64, p.order, 1, 1), b = matrix(p.in, 1024, 32, p.order, 1, 2);
        Matrix d = matrix(p.out, 64, 32, p.order, 1, 3);
        char *workspace = device_array<char>(room);

        Asked all = ask(handle, desc, a, b, d, room, CUBLASLT_REDUCTION_SCHEME_MASK);
        Asked none = ask(handle, desc, a, b, d, room, CUBLASLT_REDUCTION_SCHEME_NONE);
        Asked small = ask(handle, desc, a, b, d, 0, CUBLASLT_REDUCTION_SCHEME_MASK);
        EXPECT(all.count >= 4 && split_of(all.results[0].algo) > 1);
        EXPECT(all.results[0].workspaceSize > 0);
        for (const Asked *x : {&none, &small})
            for (int i = 0; i < x->count; i++) EXPECT(split_of(x->results[i].algo) == 1);

        auto run = [&](const cublasLtMatmulHeuristicResult_t &r) {
            return result_of(handle, desc, a, b, d, r.algo, workspace, room);
        };
        EXPECT(run(all.results[0]) == run(all.results[0]));
        EXPECT(run(all.results[0]) != run(none.results[0]));
        EXPECT(run(none.results[0]) != run(none.results[1]));

        float one = 1, zero = 0; /* too small a workspace */
        EXPECT(cublasLtMatmul(handle, desc, &one, a.device, a.layout, b.device, b.layout, &zero,
                              d.device, d.layout, d.device, d.layout, &all.results[0].algo,
                              workspace, all.results[0].workspaceSize - 1,
                              nullptr) == CUBLAS_STATUS_INVALID_VALUE);
    });
}

/* With one algorithm a column of D depends on its column of B alone, however many there are; with
 * the heuristics' choice it does not. */
static void columns_do_not_depend_on_each_other(void **)
{
    succeeds({}, [] {
        cublasLtHandle_t handle;
        LT(cublasLtCreate(&handle));
        Product p;
        p.out = CUDA_R_32F;
        cublasLtMatmulDesc_t desc = describe(p);
        Matrix a = matrix(p.in, 512, 256, p.order, 1, 1);
        Matrix wide = matrix(p.in, 512, 160, p.order, 1, 2), narrow = wide;
        LT(cublasLtMatrixLayoutCreate(&narrow.layout, p.in, 512, 3, narrow.ld));
        Matrix d = matrix(p.out, 256, 160, p.order, 1, 3),
               few = matrix(p.out, 256, 3, p.order, 1, 3);
        Asked of_wide = ask(handle, desc, a, wide, d, 0, 0);
        Asked of_few = ask(handle, desc, a, narrow, few, 0, 0);
        auto run = [&](const Matrix &b, const Matrix &to, const Asked &asked) {
            auto bytes = result_of(handle, desc, a, b, to, asked.results[0].algo, nullptr, 0);
            return std::vector<char>(bytes.begin(), bytes.begin() + (ptrdiff_t)few.ld * 3 * 4 - 64);
        };
        EXPECT(run(wide, d, of_wide) == run(narrow, few, of_wide));
        EXPECT(run(wide, d, of_wide) != run(narrow, few, of_few));
    });
}

static void algorithms_by_hand(void **)
{
    succeeds({}, [] {
        cublasLtHandle_t handle;
        LT(cublasLtCreate(&handle));
        Product p;
        cublasLtMatmulDesc_t desc = describe(p);
        Matrix a = matrix(p.in, 80, 48, p.order, 1, 1), b = matrix(p.in, 80, 33, p.order, 1, 2);
        Matrix d = matrix(p.out, 48, 33, p.order, 1, 3);
        int ids[16], count, split = 2;
        LT(cublasLtMatmulAlgoGetIds(handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, p.in, p.in, p.out,
                                    p.out, 16, ids, &count));
        EXPECT(count > 1);
        for (int i = 0; i < count; i++) {
            cublasLtMatmulAlgo_t algo;
            cublasLtMatmulHeuristicResult_t result;
            LT(cublasLtMatmulAlgoInit(handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, p.in, p.in, p.out,
                                      p.out, ids[i], &algo));
            LT(cublasLtMatmulAlgoCheck(handle, desc, a.layout, b.layout, d.layout, d.layout, &algo,
                                       &result));
            EXPECT(result.workspaceSize == 0 && split_of(algo) == 1);
            LT(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split,
                                                    sizeof split));
            EXPECT(cublasLtMatmulAlgoCheck(handle, desc, a.layout, b.layout, d.layout, d.layout,
                                           &algo, &result) == CUBLAS_STATUS_NOT_SUPPORTED);
        }
        EXPECT(cublasLtMatmulAlgoInit(handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_64F,
                                      CUDA_R_64F, CUDA_R_64F, CUDA_R_64F, 0,
                                      &(cublasLtMatmulAlgo_t &)*new cublasLtMatmulAlgo_t) ==
               CUBLAS_STATUS_NOT_SUPPORTED);
    });
}

static void what_is_refused(void **)
{
    succeeds({}, [] {
        cublasLtHandle_t handle;
        LT(cublasLtCreate(&handle));
        Product p;
        float one = 1, zero = 0;
        cublasLtMatmulDesc_t desc = describe(p);
        Matrix a = matrix(p.in, 80, 48, p.order, 1, 1), b = matrix(p.in, 80, 33, p.order, 1, 2);
        Matrix d = matrix(p.out, 48, 33, p.order, 1, 3), f = matrix(CUDA_R_32F, 80, 33, 0, 1, 2);
        auto run = [&](const char *from, const Matrix &bb, cublasLtHandle_t h) {
            return cublasLtMatmul(h, desc, &one, from, a.layout, bb.device, bb.layout, &zero,
                                  d.device, d.layout, d.device, d.layout, nullptr, nullptr, 0,
                                  nullptr);
        };
        LT(run(a.device, b, handle));
        EXPECT(run(a.device, b, nullptr) == CUBLAS_STATUS_NOT_INITIALIZED);
        EXPECT(run(a.device, d, handle) == CUBLAS_STATUS_INVALID_VALUE);      /* extents */
        EXPECT(run(a.device, f, handle) == CUBLAS_STATUS_NOT_SUPPORTED);      /* types */
        EXPECT(run(a.device + 64, b, handle) == CUBLAS_STATUS_INVALID_VALUE); /* beyond the end */
        static char host[80 * 64 * 2];
        EXPECT(run(host, b, handle) == CUBLAS_STATUS_INVALID_VALUE);
        int64_t ld = 79;
        LT(cublasLtMatrixLayoutSetAttribute(b.layout, CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof ld));
        EXPECT(run(a.device, b, handle) == CUBLAS_STATUS_INVALID_VALUE);
        LT(cublasLtDestroy(handle));
        EXPECT(run(a.device, b, handle) == CUBLAS_STATUS_NOT_INITIALIZED);
    });
    succeeds({"DEVICES=0"}, [] {
        cublasLtHandle_t handle;
        EXPECT(cublasLtCreate(&handle) == CUBLAS_STATUS_NOT_INITIALIZED);
    });
}

static void biases_are_of_the_outputs_type(void **)
{
    succeeds({}, [] {
        const cublasStatus_t good = CUBLAS_STATUS_SUCCESS, refused = CUBLAS_STATUS_NOT_SUPPORTED;
        const struct {
            cudaDataType_t in, out, bias;
            cublasStatus_t want;
        } cases[] = {{CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF, good},
                     {CUDA_R_16BF, CUDA_R_16BF, CUDA_R_32F, refused},
                     {CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F, good},
                     {CUDA_R_16BF, CUDA_R_32F, CUDA_R_16BF, refused},
                     {CUDA_R_32F, CUDA_R_32F, CUDA_R_16BF, refused},
                     {CUDA_R_8F_E4M3, CUDA_R_32F, CUDA_R_16BF, good},
                     {CUDA_R_8F_E4M3, CUDA_R_32F, CUDA_R_32F, refused}};
        cublasLtHandle_t handle;
        cublasLtMatmulPreference_t preference;
        cublasLtMatmulHeuristicResult_t found;
        int count;
        LT(cublasLtCreate(&handle));
        LT(cublasLtMatmulPreferenceCreate(&preference));
        for (const auto &x : cases) {
            Product p;
            p.epilogue = CUBLASLT_EPILOGUE_BIAS;
            cublasLtMatmulDesc_t desc = describe(p);
            LT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &x.bias,
                                              sizeof x.bias));
            Matrix a = matrix(x.in, 80, 48, p.order, 1, 1), b = matrix(x.in, 80, 32, p.order, 1, 2);
            Matrix d = matrix(x.out, 48, 32, p.order, 1, 3);
            EXPECT(cublasLtMatmulAlgoGetHeuristic(handle, desc, a.layout, b.layout, d.layout,
                                                  d.layout, preference, 1, &found,
                                                  &count) == x.want);
        }
    });
}

static void it_is_fast_enough(void **)
{
    succeeds({}, [] {
        cublasLtHandle_t handle;
        LT(cublasLtCreate(&handle));
        Product p;
        cublasLtMatmulDesc_t desc = describe(p);
        Matrix a = matrix(p.in, 2048, 512, p.order, 1, 1),
               b = matrix(p.in, 2048, 512, p.order, 1, 2);
        Matrix d = matrix(p.out, 512, 512, p.order, 1, 3);
        Asked asked = ask(handle, desc, a, b, d, 0, 0);
        clock_t start = clock();
        result_of(handle, desc, a, b, d, asked.results[0].algo, nullptr, 0);
        double s = (double)(clock() - start) / CLOCKS_PER_SEC; /* of this process alone */
        printf("# 512 x 2048 x 512 in bf16: %.2f s\n", s);
        fflush(stdout);
        EXPECT(s < (sanitized ? 30 : 1));
    });
}

int main(void)
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(transposes_orders_batches),
        cmocka_unit_test(eight_bits),
        cmocka_unit_test(algorithms_differ_in_bits),
        cmocka_unit_test(columns_do_not_depend_on_each_other),
        cmocka_unit_test(algorithms_by_hand),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(biases_are_of_the_outputs_type),
        cmocka_unit_test(it_is_fast_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
