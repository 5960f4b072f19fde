/* The CUDA language: indices, barriers, warp functions, shared memory, atomics. */
#include "tests/emulation/test_support.h"

/* ---- indices and arguments ------------------------------------------------------------------- */

struct Weights {
    float a, b;
};

__global__ void index_kernel(int *out, Weights w)
{
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    out[block * threads + thread] = static_cast<int>(w.a) * 1000000 + block * 1000 + thread;
}

static void test_indices()
{
    OnDevice<int> out(3 * 2 * 2 * 60);
    EXPECT(launch_kernel(dim3(3, 2, 2), dim3(5, 4, 3), 0, nullptr, index_kernel, out,
                         Weights{2, 0}) == cudaSuccess,
           "launch");
    std::vector<int> want(3 * 2 * 2 * 60);
    for (int i = 0; i < 720; i++) want[i] = 2000000 + i / 60 * 1000 + i % 60;
    EXPECT_SAME(out.back(), want);
}

/* ---- shuffles and votes ---------------------------------------------------------------------- */

__global__ void shuffle_kernel(int *out, int width)
{
    int lane = threadIdx.x, v = 100 + lane;
    out[lane] = __shfl_sync(~0u, v, 3, width);
    out[32 + lane] = __shfl_xor_sync(~0u, v, 5, width);
    out[64 + lane] = __shfl_down_sync(~0u, v, 3, width);
    out[96 + lane] = __shfl_up_sync(~0u, v, 3, width);
    out[128 + lane] = static_cast<int>(__shfl_xor_sync(~0u, 0.5 * v, 1) * 2);
}

static void test_shuffles()
{
    for (int width = 8; width <= 32; width *= 2) {
        OnDevice<int> out(160);
        launch_kernel(dim3(1), dim3(32), 0, nullptr, shuffle_kernel, out, width);
        std::vector<int> want(160);
        for (int i = 0; i < 32; i++) {
            int first = i / width * width;
            want[i] = 100 + first + 3;
            want[32 + i] = 100 + (i ^ 5);
            want[64 + i] = 100 + (i + 3 < first + width ? i + 3 : i);
            want[96 + i] = 100 + (i - 3 >= first ? i - 3 : i);
            want[128 + i] = 100 + (i ^ 1);
        }
        EXPECT_SAME(out.back(), want);
    }
}

/* Lanes of a block bring their values where those of the block before have read. */
__global__ void turning_kernel(int *out)
{
    int v = threadIdx.x;
    for (int turns = 0; turns < 3; turns++) v = __shfl_sync(~0u, v, (threadIdx.x + 1) % 32);
    out[blockIdx.x * 32 + threadIdx.x] = v;
}

static void test_blocks_that_shuffle()
{
    OnDevice<int> out(4 * 32);
    launch_kernel(dim3(4), dim3(32), 0, nullptr, turning_kernel, out);
    std::vector<int> want(4 * 32);
    for (int i = 0; i < 4 * 32; i++) want[i] = (i + 3) % 32;
    EXPECT_SAME(out.back(), want);
}

__global__ void vote_kernel(unsigned *out)
{
    unsigned lane = threadIdx.x % 32, even = 0x55555555u, mask = lane % 2 ? ~even : even;
    out[threadIdx.x] = __ballot_sync(mask, lane % 3 == 0);
    unsigned some = __any_sync(mask, lane == 7), all = __all_sync(mask, lane % 2 == 1);
    __syncwarp();
    out[threadIdx.x] ^= some << 1 ^ all;
}

static void test_votes()
{
    OnDevice<unsigned> out(64);
    launch_kernel(dim3(1), dim3(64), 0, nullptr, vote_kernel, out);
    std::vector<unsigned> want(64);
    for (unsigned i = 0; i < 64; i++) {
        unsigned ballot = 0;
        for (unsigned k = i % 2; k < 32; k += 2) ballot |= static_cast<unsigned>(k % 3 == 0) << k;
        want[i] = ballot ^ (i % 2 ? 3u : 0u);
    }
    EXPECT_SAME(out.back(), want);
}

/* The last warp has 8 lanes. */
__global__ void short_warp_kernel(int *out)
{
    int v = threadIdx.x;
    for (int distance = 4; distance; distance /= 2) v += __shfl_xor_sync(0xFFu, v, distance);
    out[threadIdx.x] = v;
}

static void test_short_warp()
{
    OnDevice<int> out(8);
    launch_kernel(dim3(1), dim3(8), 0, nullptr, short_warp_kernel, out);
    EXPECT_SAME(out.back(), std::vector<int>(8, 28));
}

/* ---- barriers and shared memory -------------------------------------------------------------- */

template <int N> __global__ void reverse_kernel(float *x)
{
    SMEM_STATIC(float, tile, [2][N]);
    SMEM_STATIC(int, half);
    SMEM_DYN(float, moved);
    int i = threadIdx.x;
    x += blockIdx.x * N;
    if (i == 0) half = N / 2;
    tile[1][i] = x[i];
    __syncthreads();
    moved[i] = tile[1][N - 1 - i];
    __syncthreads();
    x[i] = moved[(i + half) % N];
}

static void test_shared_memory()
{
    constexpr int N = 96, BLOCKS = 3;
    std::vector<float> values(N * BLOCKS), want(N * BLOCKS);
    for (int i = 0; i < N * BLOCKS; i++) values[i] = static_cast<float>(i);
    for (int i = 0; i < N * BLOCKS; i++)
        want[i] = static_cast<float>(i / N * N + N - 1 - (i % N + N / 2) % N);
    OnDevice<float> x(values);
    launch_kernel(dim3(BLOCKS), dim3(N), N * sizeof(float), nullptr, reverse_kernel<N>, x);
    EXPECT_SAME(x.back(), want);
}

__global__ void vote_block_kernel(int *out)
{
    int i = threadIdx.x;
    for (int round = 0; round < 3; round++) {
        int count = __syncthreads_count(i % 3 == round % 3);
        int some = __syncthreads_or(i == 50 + round), all = __syncthreads_and(i < 70 - round);
        out[round * 70 + i] = count * 4 + some * 2 + all;
    }
}

static void test_block_votes()
{
    OnDevice<int> out(3 * 70);
    launch_kernel(dim3(1), dim3(70), 0, nullptr, vote_block_kernel, out);
    std::vector<int> want(3 * 70);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 70; i++)
            want[round * 70 + i] = (round == 0 ? 24 : 23) * 4 + 2 + (round == 0);
    EXPECT_SAME(out.back(), want);
}

/* Half of the threads leave; the barriers are then for the others. */
__global__ void leave_kernel(int *x)
{
    SMEM_STATIC(int, tile, [32]);
    if (threadIdx.x >= 32) return;
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[31 - threadIdx.x];
}

static void test_leaving()
{
    std::vector<int> values(32), want(32);
    for (int i = 0; i < 32; i++) {
        values[i] = i;
        want[i] = 31 - i;
    }
    OnDevice<int> x(values);
    launch_kernel(dim3(1), dim3(128), 0, nullptr, leave_kernel, x);
    EXPECT_SAME(x.back(), want);
}

/* One warp fills a buffer that another empties, by named barriers: 1 = full, 2 = empty. */
__global__ void hand_over_kernel(int *out, int rounds)
{
    SMEM_STATIC(int, buffer, [32]);
    int lane = threadIdx.x % 32;
    bool producer = threadIdx.x < 32;
    for (int r = 0; r < rounds; r++) {
        if (producer) {
            if (r > 0) barrier_sync(2, 64);
            buffer[lane] = r * 100 + lane;
            __threadfence_block();
            barrier_arrive(1, 64);
        } else {
            barrier_sync(1, 64);
            out[r * 32 + lane] = buffer[31 - lane];
            if (r + 1 < rounds) barrier_arrive(2, 64);
        }
    }
}

static void test_named_barriers()
{
    constexpr int ROUNDS = 5;
    OnDevice<int> out(ROUNDS * 32);
    launch_kernel(dim3(1), dim3(64), 0, nullptr, hand_over_kernel, out, ROUNDS);
    std::vector<int> want(ROUNDS * 32);
    for (int i = 0; i < ROUNDS * 32; i++) want[i] = i / 32 * 100 + 31 - i % 32;
    EXPECT_SAME(out.back(), want);
}

/* ---- atomics --------------------------------------------------------------------------------- */

struct Totals {
    int sum, most, least, bits, swapped;
    unsigned long long wide;
    float real;
};

__global__ void atomic_kernel(Totals *t)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&t->sum, i);
    atomicMax(&t->most, i);
    atomicMin(&t->least, -i);
    atomicOr(&t->bits, 1 << i % 20);
    atomicAdd(&t->wide, 1ull << 40);
    atomicAdd(&t->real, 0.5f);
    int seen = atomicAdd(&t->swapped, 0), was;
    do {
        was = seen;
        seen = atomicCAS(&t->swapped, was, was + 2);
    } while (seen != was);
}

static void test_atomics()
{
    OnDevice<Totals> t(1);
    launch_kernel(dim3(4), dim3(64), 0, nullptr, atomic_kernel, t);
    Totals got = t.back()[0];
    EXPECT(got.sum == 255 * 128 && got.most == 255 && got.least == -255, "%d %d %d", got.sum,
           got.most, got.least);
    EXPECT(got.bits == (1 << 20) - 1 && got.swapped == 512, "%x %d", got.bits, got.swapped);
    EXPECT(got.wide == 256ull << 40 && got.real == 128, "%llx %g", got.wide, got.real);
}

/* The block that comes last adds up what all have written. */
__global__ void last_block_kernel(float *parts, unsigned *arrived, float *sum)
{
    SMEM_STATIC(bool, last);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = static_cast<float>(blockIdx.x + 1);
        __threadfence();
        last = atomicAdd(arrived, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    float total = 0;
    for (unsigned b = 0; b < gridDim.x; b++) total += parts[b];
    *sum = total;
}

static void test_last_block()
{
    OnDevice<float> parts(20), sum(1);
    OnDevice<unsigned> arrived(1);
    launch_kernel(dim3(20), dim3(32), 0, nullptr, last_block_kernel, parts, arrived, sum);
    EXPECT(sum.back()[0] == 210, "%g", sum.back()[0]);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

__global__ void arithmetic_kernel(float *f, unsigned *u)
{
    f[0] = rsqrtf(16.0f);
    f[1] = __expf(1.0f);
    f[2] = __fdividef(1.0f, 8.0f);
    f[3] = __uint_as_float(0x40490FDBu);
    f[4] = exp2_approx(-3.0f);
    __nv_bfloat162 h = __hfma2(__floats2bfloat162_rn(2, 3), __floats2bfloat162_rn(5, 7),
                               __floats2bfloat162_rn(1, 1));
    f[5] = __low2float(h);
    f[6] = __high2float(h);
    u[0] = __byte_perm(0x33221100u, 0x77665544u, 0x7520u);
    u[1] = __popc(0xF0F0u) * 100 + __clz(1) + __ffs(8);
    u[2] = __float_as_uint(-1.0f);
    u[3] = tf32_of(1.0f + 3 * 0x1p-11f);
}

static void test_arithmetic()
{
    OnDevice<float> f(7);
    OnDevice<unsigned> u(4);
    launch_kernel(dim3(1), dim3(1), 0, nullptr, arithmetic_kernel, f, u);
    const float want[] = {0.25f, 2.7182817f, 0.125f, 3.14159274f, 0.125f, 11, 22};
    for (int i = 0; i < 7; i++) {
        float got = f.back()[i];
        EXPECT(fabsf(got - want[i]) <= 1e-6f * want[i], "%d: %g", i, got);
    }
    EXPECT_SAME(u.back(), (std::vector<unsigned>{0x77552200u, 835, 0xBF800000u, 0x3F804000u}));
}

int main()
{
    const Case cases[] = {{"indices and arguments", test_indices},
                          {"shuffles", test_shuffles},
                          {"blocks that shuffle", test_blocks_that_shuffle},
                          {"votes of part of a warp", test_votes},
                          {"a warp of 8 lanes", test_short_warp},
                          {"static and dynamic shared memory", test_shared_memory},
                          {"votes of a block", test_block_votes},
                          {"threads that leave", test_leaving},
                          {"named barriers", test_named_barriers},
                          {"atomics", test_atomics},
                          {"the last block adds up", test_last_block},
                          {"arithmetic", test_arithmetic}};
    return run_cases(cases);
}
