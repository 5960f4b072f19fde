/* The wrappers of kernels/cuda/ptx.h that every architecture from 8.0 on has, and mbarriers. */
#include "tests/emulation/test_support.h"

/* ---- cp.async -------------------------------------------------------------------------------- */

/* Sums of tiles of 128 floats, the next one being fetched meanwhile; beyond n there are zeros. */
__global__ void sum_tiles_kernel(const float *x, float *sum, int n)
{
    SMEM_STATIC(float4, tile, [2][32]);
    int lane = threadIdx.x, tiles = (n + 127) / 128;
    auto fetch = [&](int t) {
        int first = t * 128 + lane * 4;
        bool valid = first < n;
        cp_async16(shared_address(&tile[t % 2][lane]), x + (valid ? first : 0), valid);
    };
    fetch(0);
    cp_async_commit();
    float total = 0;
    for (int t = 0; t < tiles; t++) {
        if (t + 1 < tiles) fetch(t + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        float4 v = tile[t % 2][31 - lane];
        total += v.x + v.y + v.z + v.w;
        __syncthreads();
    }
    sum[lane] = total;
}

static void test_cp_async()
{
    constexpr int N = 128 * 4 + 60;
    std::vector<float> values(N), want(32);
    for (int i = 0; i < N; i++) {
        values[i] = small_number(i);
        want[31 - i % 128 / 4] += values[i];
    }
    OnDevice<float> x(values), sum(32);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, sum_tiles_kernel, x, sum, N);
    EXPECT_SAME(sum.back(), want);
}

/* ---- ldmatrix, stmatrix ---------------------------------------------------------------------- */

template <bool TRANSPOSED> __global__ void load_matrix_kernel(const uint16_t *x, uint32_t *out)
{
    SMEM_STATIC(uint4, rows, [32]);
    int lane = threadIdx.x;
    rows[lane] = reinterpret_cast<const uint4 *>(x)[lane];
    __syncwarp();
    uint32_t r[4];
    if (TRANSPOSED)
        ldmatrix_x4_trans(r, shared_address(&rows[lane]));
    else
        ldmatrix_x4(r, shared_address(&rows[lane]));
    for (int j = 0; j < 4; j++) out[lane * 4 + j] = r[j];
}

template <bool TRANSPOSED> static void test_load_matrix()
{
    std::vector<uint16_t> values(256);
    std::vector<uint32_t> want(128);
    for (int i = 0; i < 256; i++) values[i] = static_cast<uint16_t>(1000 + i);
    for (int lane = 0; lane < 32; lane++)
        for (int j = 0; j < 4; j++) {
            int row = lane / 4, column = lane % 4 * 2, step = 1;
            int first = TRANSPOSED ? column * 8 + row : row * 8 + column;
            if (TRANSPOSED) step = 8;
            want[lane * 4 + j] = values[j * 64 + first] | values[j * 64 + first + step] << 16;
        }
    OnDevice<uint16_t> x(values);
    OnDevice<uint32_t> out(128);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, load_matrix_kernel<TRANSPOSED>, x, out);
    EXPECT_SAME(out.back(), want);
}

/* stmatrix undoes ldmatrix. */
template <bool TRANSPOSED> __global__ void store_matrix_kernel(const uint32_t *x, uint32_t *out)
{
    SMEM_STATIC(uint4, rows, [32]);
    int lane = threadIdx.x;
    uint32_t r[4], s[4];
    for (int j = 0; j < 4; j++) r[j] = x[lane * 4 + j];
    if (TRANSPOSED)
        stmatrix_x4_trans(shared_address(&rows[lane]), r);
    else
        stmatrix_x4(shared_address(&rows[lane]), r);
    __syncwarp();
    if (TRANSPOSED)
        ldmatrix_x4_trans(s, shared_address(&rows[lane]));
    else
        ldmatrix_x4(s, shared_address(&rows[lane]));
    for (int j = 0; j < 4; j++) out[lane * 4 + j] = s[j];
}

template <bool TRANSPOSED> static void test_store_matrix()
{
    if (capability() < 90) return;
    std::vector<uint32_t> values(128);
    for (uint32_t i = 0; i < 128; i++) values[i] = i * 2654435761u;
    OnDevice<uint32_t> x(values), out(128);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, store_matrix_kernel<TRANSPOSED>, x, out);
    EXPECT_SAME(out.back(), values);
}

/* ---- mma.sync -------------------------------------------------------------------------------- */

__device__ static uint32_t two(const uint16_t *p)
{
    return p[0] | static_cast<uint32_t>(p[1]) << 16;
}

/* c [16,8] += a [16,16] b [8,16]^T */
__global__ void mma_bf16_kernel(const uint16_t *a, const uint16_t *b, float *c)
{
    int row = threadIdx.x / 4, column = threadIdx.x % 4 * 2;
    uint32_t fa[4];
    for (int i = 0; i < 4; i++) fa[i] = two(a + (row + i % 2 * 8) * 16 + column + i / 2 * 8);
    float fc[4];
    for (int i = 0; i < 4; i++) fc[i] = c[(row + i / 2 * 8) * 8 + column + i % 2];
    mma_bf16(fc, fa, two(b + row * 16 + column), two(b + row * 16 + column + 8));
    for (int i = 0; i < 4; i++) c[(row + i / 2 * 8) * 8 + column + i % 2] = fc[i];
}

/* c [16,8] += a [16,8] b [8,8]^T */
__global__ void mma_tf32_kernel(const float *a, const float *b, float *c)
{
    int row = threadIdx.x / 4, k = threadIdx.x % 4, column = k * 2;
    uint32_t fa[4];
    for (int i = 0; i < 4; i++) fa[i] = tf32_of(a[(row + i % 2 * 8) * 8 + k + i / 2 * 4]);
    float fc[4];
    for (int i = 0; i < 4; i++) fc[i] = c[(row + i / 2 * 8) * 8 + column + i % 2];
    mma_tf32(fc, fa, tf32_of(b[row * 8 + k]), tf32_of(b[row * 8 + k + 4]));
    for (int i = 0; i < 4; i++) c[(row + i / 2 * 8) * 8 + column + i % 2] = fc[i];
}

template <class T, class Value>
static std::vector<float> product(const std::vector<T> &a, const std::vector<T> &b,
                                  std::vector<float> c, int k_extent, Value value)
{
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 8; n++)
            for (int k = 0; k < k_extent; k++)
                c[m * 8 + n] += value(a[m * k_extent + k]) * value(b[n * k_extent + k]);
    return c;
}

static std::vector<float> small_floats(size_t n, size_t first)
{
    std::vector<float> values(n);
    for (size_t i = 0; i < n; i++) values[i] = small_number(first + i);
    return values;
}

static void test_mma_bf16()
{
    std::vector<uint16_t> a = small_bf16(256), b = small_bf16(128);
    std::vector<float> before = small_floats(128, 7);
    OnDevice<uint16_t> da(a), db(b);
    OnDevice<float> c(before);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, mma_bf16_kernel, da, db, c);
    EXPECT_SAME(c.back(), product(a, b, before, 16, bf16_value));
}

static void test_mma_tf32()
{
    std::vector<float> a = small_floats(128, 1), b = small_floats(64, 50);
    std::vector<float> before = small_floats(128, 7);
    OnDevice<float> da(a), db(b), c(before);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, mma_tf32_kernel, da, db, c);
    EXPECT_SAME(c.back(), product(a, b, before, 8, [](float x) { return x; }));
}

/* ---- mbarriers ------------------------------------------------------------------------------- */

/* A ring of three slots from one warp to another: the phases of `full` and `empty` alternate. */
__global__ void ring_kernel(int *out, int rounds)
{
    SMEM_STATIC(uint64_t, barriers, [6]);
    SMEM_STATIC(int, slots, [3][32]);
    int lane = threadIdx.x % 32;
    uint32_t full = shared_address(barriers), empty = full + 24;
    if (threadIdx.x == 0)
        for (int i = 0; i < 6; i++) mbarrier_init(full + 8 * i, 32);
    mbarrier_init_fence();
    __syncthreads();
    for (int r = 0; r < rounds; r++) {
        int slot = r % 3;
        uint32_t parity = r / 3 % 2;
        if (threadIdx.x < 32) {
            mbarrier_wait(empty + 8 * slot, parity ^ 1);
            slots[slot][lane] = r * 100 + lane;
            mbarrier_arrive(full + 8 * slot);
        } else {
            mbarrier_wait(full + 8 * slot, parity);
            out[r * 32 + lane] = slots[slot][31 - lane];
            mbarrier_arrive(empty + 8 * slot);
        }
    }
}

static void test_mbarriers()
{
    if (capability() < 90) return;
    constexpr int ROUNDS = 20;
    OnDevice<int> out(ROUNDS * 32);
    launch_kernel(dim3(1), dim3(64), 0, nullptr, ring_kernel, out, ROUNDS);
    std::vector<int> want(ROUNDS * 32);
    for (int i = 0; i < ROUNDS * 32; i++) want[i] = i / 32 * 100 + 31 - i % 32;
    EXPECT_SAME(out.back(), want);
}

int main()
{
    const Case cases[] = {{"cp.async in two stages", test_cp_async},
                          {"ldmatrix", test_load_matrix<false>},
                          {"ldmatrix.trans", test_load_matrix<true>},
                          {"stmatrix", test_store_matrix<false>},
                          {"stmatrix.trans", test_store_matrix<true>},
                          {"mma.sync bf16", test_mma_bf16},
                          {"mma.sync tf32", test_mma_tf32},
                          {"mbarriers of a ring", test_mbarriers}};
    return run_cases(cases);
}
