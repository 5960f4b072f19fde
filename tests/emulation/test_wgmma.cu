/* wgmma in all its forms, and a product that uses TMA, mbarriers and wgmma together. */
#include "tests/emulation/gemm.h"
#include "tests/emulation/test_support.h"

/* ---- one warpgroup, operands put in place by plain stores ------------------------------------ */

constexpr int M = 64, K = 64;

/* An operand [rows, K] in shared memory, in panels as wide as the swizzle. Not transposed: a panel
 * is W / 2 of k, rows one after the other; transposed: a panel is W / 2 of the rows, k one after
 * the other. Plain (W = 16) is the first with columns of 16 bytes. */
struct Operand {
    int rows, bytes; /* bytes: W */
    bool transposed;
    __host__ __device__ uint32_t offset(int row, int k) const
    {
        int in_panel = bytes / 2, fast = transposed ? row : k, slow = transposed ? k : row;
        int lines = transposed ? K : rows;
        uint32_t at = fast / in_panel * lines * bytes + slow * bytes + fast % in_panel * 2;
        uint32_t mask = bytes == 128 ? 7 : bytes == 64 ? 3 : bytes == 32 ? 1 : 0;
        return at ^ (at >> 7 & mask) << 4;
    }
    __device__ uint64_t descriptor(uint32_t base, int k) const
    {
        WgmmaSwizzle swizzle = bytes == 128  ? WGMMA_128_BYTES
                               : bytes == 64 ? WGMMA_64_BYTES
                               : bytes == 32 ? WGMMA_32_BYTES
                                             : WGMMA_PLAIN;
        int panel = (transposed ? K : rows) * bytes, in_panel = bytes / 2;
        if (transposed) return wgmma_descriptor(base + k * bytes, panel, 8 * bytes, swizzle);
        base += k / in_panel * panel + k % in_panel * 2;
        return wgmma_descriptor(base, bytes == 16 ? panel : 16, 8 * bytes, swizzle);
    }
};

template <int N, int TA, int TB, bool REGISTERS>
__global__ void __launch_bounds__(128)
    product_kernel(const uint16_t *a, const uint16_t *b, float *c, int bytes)
{
    SMEM_DYN(unsigned char, memory);
    const Operand left = {M, bytes, TA != 0}, right = {N, bytes, TB != 0};
    unsigned char *second = memory + M * K * 2;
    for (int i = threadIdx.x; i < M * K; i += 128)
        *reinterpret_cast<uint16_t *>(memory + left.offset(i / K, i % K)) = a[i];
    for (int i = threadIdx.x; i < N * K; i += 128)
        *reinterpret_cast<uint16_t *>(second + right.offset(i / K, i % K)) = b[i];
    fence_proxy_async();
    __syncthreads();
    int t = threadIdx.x, row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
    uint32_t fa[K / 16][4];
    for (int k = 0; k < K / 16; k++)
        for (int r = 0; r < 4; r++) {
            const uint16_t *p = a + (row + r % 2 * 8) * K + k * 16 + column + r / 2 * 8;
            fa[k][r] = p[0] | static_cast<uint32_t>(p[1]) << 16;
        }
    float d[N / 2];
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < K / 16; k++) {
        uint64_t db = right.descriptor(shared_address(second), k * 16);
        if constexpr (REGISTERS)
            wgmma_rs<N, TB>(d, fa[k], db, k > 0);
        else
            wgmma_ss<N, TA, TB>(d, left.descriptor(shared_address(memory), k * 16), db, k > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(d);
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        c[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + column + i % 2] = d[i];
}

template <int N, int TA, int TB, bool REGISTERS> static void check_product(int bytes)
{
    std::vector<uint16_t> a = small_bf16(M * K), b = small_bf16(N * K);
    std::vector<float> want(M * N);
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++)
            for (int k = 0; k < K; k++)
                want[m * N + n] += bf16_value(a[m * K + k]) * bf16_value(b[n * K + k]);
    OnDevice<uint16_t> da(a), db(b);
    OnDevice<float> c(M * N);
    EXPECT(launch_kernel(dim3(1), dim3(128), (M + N) * K * 2, nullptr,
                         product_kernel<N, TA, TB, REGISTERS>, da, db, c, bytes) == cudaSuccess,
           "launch");
    EXPECT(different(c.back(), want) == 0, "N %d, transposed %d %d, registers %d, %d bytes: %zu", N,
           TA, TB, REGISTERS, bytes, different(c.back(), want));
}

template <int N> static void test_product()
{
    if (capability() != 90) return;
    check_product<N, 0, 0, false>(128);
    check_product<N, 0, 1, false>(128);
    check_product<N, 0, 0, true>(128);
    check_product<N, 0, 1, true>(128);
}

static void test_layouts()
{
    if (capability() != 90) return;
    for (int bytes = 32; bytes <= 128; bytes *= 2) {
        check_product<64, 0, 0, false>(bytes);
        check_product<64, 1, 0, false>(bytes);
        check_product<64, 1, 1, false>(bytes);
    }
    check_product<64, 0, 0, false>(16);
}

/* ---- with TMA and mbarriers ------------------------------------------------------------------ */

static void test_gemm()
{
    if (capability() != 90) return;
    EXPECT(gemm_errors<GEMM_RIGHT>(128, 128, 256) == 0, "wrong");
}

int main()
{
    const Case cases[] = {{"N = 64", test_product<64>},
                          {"N = 128", test_product<128>},
                          {"N = 256", test_product<256>},
                          {"layouts of operands", test_layouts},
                          {"TMA, mbarriers and wgmma", test_gemm}};
    return run_cases(cases);
}
