/* Mistakes that the emulator must find, each in a process of its own: what it says is checked. */
#include "tests/emulation/gemm.h"
#include "tests/emulation/test_support.h"

#include <sys/wait.h>
#include <unistd.h>

/* ---- a process for each mistake -------------------------------------------------------------- */

struct Outcome {
    bool ended_well;
    std::string said; /* on stderr */
};

static Outcome in_child(void (*mistake)())
{
    int ends[2];
    fflush(nullptr);
    if (pipe(ends) != 0) abort();
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        mistake();
        _exit(0);
    }
    close(ends[1]);
    Outcome outcome = {};
    char buffer[4096];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
        outcome.said.append(buffer, static_cast<size_t>(n));
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    outcome.ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return outcome;
}

static bool found(void (*mistake)(), std::initializer_list<const char *> words)
{
    Outcome outcome = in_child(mistake);
    bool all = !outcome.ended_well;
    for (const char *word : words) all = all && outcome.said.find(word) != std::string::npos;
    if (!all) printf("# said: %.600s\n", outcome.said.c_str());
    return all;
}
#define EXPECT_FOUND(mistake, ...) EXPECT(found(mistake, {__VA_ARGS__}), "not found")

/* Mistakes seen only by wrong numbers. */
static void end_if_wrong(size_t differences)
{
    if (differences == 0 && !case_failed) return;
    fprintf(stderr, "wrong numbers\n");
    _exit(3);
}

static bool timing_is(const char *timing)
{
    return strcmp(getenv("RINGREEL_EMULATION_ASYNC"), timing) == 0;
}

/* ---- shared memory and barriers -------------------------------------------------------------- */

__global__ void unsynchronised_kernel(float *x)
{
    SMEM_STATIC(float, tile, [64]);
    tile[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = tile[63 - threadIdx.x];
}

static void unsynchronised()
{
    std::vector<float> values(64), want(64);
    for (int i = 0; i < 64; i++) want[63 - i] = values[i] = static_cast<float>(i);
    OnDevice<float> x(values);
    launch_kernel(dim3(1), dim3(64), 0, nullptr, unsynchronised_kernel, x);
    end_if_wrong(different(x.back(), want));
}

#ifdef RACE_CHECK
#define WRONG "ThreadSanitizer: data race", "test_planted.cu"
#else
#define WRONG "wrong numbers"
#endif

static void test_missing_barrier() { EXPECT_FOUND(unsynchronised, WRONG); }

__global__ void two_barriers_kernel()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
static void two_barriers() { launch_kernel(dim3(2), dim3(64), 0, nullptr, two_barriers_kernel); }
static void test_divergent_barrier()
{
    EXPECT_FOUND(two_barriers, "emulation: two_barriers_kernel: block (", "), thread (",
                 "test_planted.cu:", "__syncthreads: other threads are in the one at ");
}

__global__ void odd_barrier_kernel() { barrier_sync(1, threadIdx.x < 32 ? 64 : 96); }
static void odd_barrier() { launch_kernel(dim3(1), dim3(96), 0, nullptr, odd_barrier_kernel); }
static void test_barrier_counts()
{
    EXPECT_FOUND(odd_barrier, "odd_barrier_kernel", "barrier 1 for ", "others arrived for ");
}

__global__ void fresh_memory_kernel(float *x)
{
    SMEM_STATIC(float, tile, [32]);
    x[threadIdx.x] = tile[threadIdx.x];
}
static void fresh_memory()
{
    OnDevice<float> x(32);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, fresh_memory_kernel, x);
    end_if_wrong(different(x.back(), x.back()));
}
static void test_fresh_memory() { EXPECT_FOUND(fresh_memory, "wrong numbers"); }

/* ---- out of bounds --------------------------------------------------------------------------- */

__global__ void past_end_kernel(int shift)
{
    SMEM_DYN(float, tile);
    tile[threadIdx.x + shift] = 1;
}
static void past_end() { launch_kernel(dim3(1), dim3(32), 128, nullptr, past_end_kernel, 1); }
static void test_past_end()
{
#ifdef __SANITIZE_ADDRESS__
    EXPECT_FOUND(past_end, "emulation: past_end_kernel: block (0,0,0), thread (31,0,0): ",
                 "AddressSanitizer: use-after-poison", "test_planted.cu");
#else
    EXPECT_FOUND(past_end, "emulation: past_end_kernel: block (0,0,0): ",
                 "out of bounds, behind dynamic shared memory");
#endif
}

__global__ void past_end_ptx_kernel()
{
    SMEM_STATIC(uint4, rows, [31]);
    uint32_t r[4];
    ldmatrix_x4(r, shared_address(rows) + 16 * threadIdx.x);
}
static void past_end_ptx() { launch_kernel(dim3(1), dim3(32), 0, nullptr, past_end_ptx_kernel); }
static void test_past_end_ptx()
{
    EXPECT_FOUND(past_end_ptx, "emulation: past_end_ptx_kernel: block (0,0,0), thread (31,0,0): ",
                 "test_planted.cu:", "ldmatrix: out of bounds: bytes 496 to 511 of rows");
}

/* ---- warps ----------------------------------------------------------------------------------- */

__global__ void lost_lane_kernel(int *x)
{
    int v = static_cast<int>(threadIdx.x);
    if (threadIdx.x == 7)
        __syncwarp();
    else
        v = __shfl_xor_sync(~0u, v, 1);
    x[threadIdx.x] = v;
}
static void lost_lane()
{
    OnDevice<int> x(32);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, lost_lane_kernel, x);
}
static void test_warp_divergence()
{
    EXPECT_FOUND(lost_lane, "lost_lane_kernel", "other lanes of mask 0xffffffff are in");
}

__global__ void left_lane_kernel(int *x)
{
    if (threadIdx.x == 9) return;
    x[threadIdx.x] = __shfl_xor_sync(~0u, static_cast<int>(threadIdx.x), 1);
}
static void left_lane()
{
    OnDevice<int> x(32);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, left_lane_kernel, x);
}
static void test_shuffle_from_none()
{
    EXPECT_FOUND(left_lane, "thread (8,0,0)", "reads lane 9, which has left the kernel");
}

/* ---- asynchronous copies --------------------------------------------------------------------- */

template <int GROUPS> __global__ void weak_wait_kernel(const float *x, float *y)
{
    SMEM_STATIC(float4, tile, [32]);
    cp_async16(shared_address(&tile[threadIdx.x]), x + threadIdx.x * 4);
    cp_async_commit();
    cp_async_wait<GROUPS>();
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x ^ 1].w;
    cp_async_wait<0>();
}
template <int GROUPS> static void weak_wait()
{
    OnDevice<float> x(std::vector<float>(128, 1)), y(32);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, weak_wait_kernel<GROUPS>, x, y);
    end_if_wrong(different(y.back(), std::vector<float>(32, 1)));
}
static void test_weak_wait()
{
    if (timing_is("late")) EXPECT_FOUND(weak_wait<1>, "wrong numbers");
}

__global__ void no_wait_kernel(const float *x)
{
    SMEM_STATIC(float4, tile, [32]);
    cp_async16(shared_address(&tile[threadIdx.x]), x);
    cp_async_commit();
}
static void no_wait()
{
    OnDevice<float> x(4);
    launch_kernel(dim3(1), dim3(32), 0, nullptr, no_wait_kernel, x);
}
static void test_no_wait()
{
    EXPECT_FOUND(no_wait, "no_wait_kernel", "test_planted.cu:", "cp_async: never waited for");
}

/* ---- mbarriers ------------------------------------------------------------------------------- */

__global__ void one_too_few_kernel()
{
    SMEM_STATIC(uint64_t, barrier, [1]);
    uint32_t at = shared_address(barrier);
    if (threadIdx.x == 0) mbarrier_init(at, 33);
    __syncthreads();
    mbarrier_arrive(at);
    if (threadIdx.x == 5) __syncthreads();
    mbarrier_wait(at, 0);
}
static void one_too_few() { launch_kernel(dim3(1), dim3(32), 0, nullptr, one_too_few_kernel); }
static void test_deadlock()
{
    EXPECT_FOUND(one_too_few, "emulation: one_too_few_kernel: block (0,0,0): deadlock: ",
                 "31 threads from (0,0,0) in mbarrier_wait at ",
                 "test_planted.cu:", "1 thread from (5,0,0) in __syncthreads at ");
}

__global__ void no_init_kernel()
{
    SMEM_STATIC(uint64_t, barrier, [1]);
    mbarrier_arrive(shared_address(barrier));
}
static void no_init() { launch_kernel(dim3(1), dim3(1), 0, nullptr, no_init_kernel); }
static void test_no_init() { EXPECT_FOUND(no_init, "is not an initialised mbarrier"); }

/* ---- TMA and wgmma --------------------------------------------------------------------------- */

template <GemmVariant VARIANT> static void wrong_gemm()
{
    end_if_wrong(gemm_errors<VARIANT>(64, 64, 512));
}
static void test_gemm_variants()
{
    EXPECT_FOUND(wrong_gemm<GEMM_WRONG_STRIDE>, "wrong numbers");
    if (!timing_is("late")) return;
    EXPECT_FOUND(wrong_gemm<GEMM_RESULT_EARLY>, "wrong numbers");
    EXPECT_FOUND(wrong_gemm<GEMM_SLOT_NOT_EMPTY>, "");
    EXPECT_FOUND(wrong_gemm<GEMM_RELEASED_EARLY>, "");
}

template <bool FENCE> __global__ void half_wgmma_kernel()
{
    SMEM_DYN(unsigned char, memory);
    float d[32];
    uint64_t tile = wgmma_descriptor(shared_address(memory), 16, 1024, WGMMA_128_BYTES);
    if (FENCE) wgmma_fence();
    wgmma_ss<64, 0, 0>(d, tile, tile, false);
    wgmma_commit();
}
static void no_fence()
{
    launch_kernel(dim3(1), dim3(128), 8192, nullptr, half_wgmma_kernel<false>);
}
static void no_wgmma_wait()
{
    launch_kernel(dim3(1), dim3(128), 8192, nullptr, half_wgmma_kernel<true>);
}
static void test_half_wgmma()
{
    EXPECT_FOUND(no_fence, "half_wgmma_kernel<false>", "wgmma: no wgmma_fence");
    EXPECT_FOUND(no_wgmma_wait, "half_wgmma_kernel<true>", "the kernel ended before");
}

/* ---- launches -------------------------------------------------------------------------------- */

static void end_if_refused(cudaError_t error)
{
    if (error != cudaSuccess) _exit(4);
}
static void too_many_threads()
{
    end_if_refused(launch_kernel(dim3(1), dim3(33, 32), 0, nullptr, two_barriers_kernel));
}
static void too_much_shared()
{
    end_if_refused(launch_kernel(dim3(1), dim3(32), 240000, nullptr, two_barriers_kernel));
}
__global__ void large_static_kernel()
{
    SMEM_STATIC(float, tile, [13000]);
    tile[0] = 0;
}
static void large_static() { launch_kernel(dim3(1), dim3(32), 0, nullptr, large_static_kernel); }
static void test_refused_launches()
{
    EXPECT_FOUND(too_many_threads, "emulation: two_barriers_kernel: launch of grid (1,1,1)",
                 "block (33,32,1)", "allowed are 1 to 1024 threads");
    EXPECT_FOUND(too_much_shared, "240000 bytes of dynamic shared memory", "can have 232448");
    EXPECT_FOUND(large_static, "large_static_kernel", "tile: 52000 bytes of static shared memory");
}

/* ---- between blocks -------------------------------------------------------------------------- */

#ifdef RACE_CHECK
__global__ void same_place_kernel(int *x)
{
    if (threadIdx.x == blockIdx.x) x[0] = static_cast<int>(blockIdx.x);
}
static void same_place()
{
    OnDevice<int> x(1);
    launch_kernel(dim3(2), dim3(32), 0, nullptr, same_place_kernel, x);
    _exit(5);
}
static void test_race_of_blocks() { EXPECT_FOUND(same_place, "ThreadSanitizer: data race"); }
#endif

int main()
{
    const Case cases[] = {
        {"a missing __syncthreads", test_missing_barrier},
        {"two __syncthreads at once", test_divergent_barrier},
        {"a barrier with two counts", test_barrier_counts},
        {"shared memory nobody wrote", test_fresh_memory},
        {"writing out of bounds", test_past_end},
        {"ldmatrix out of bounds", test_past_end_ptx},
        {"a lane that does something else", test_warp_divergence},
        {"a shuffle from a lane that left", test_shuffle_from_none},
        {"a wait for too few groups", test_weak_wait},
        {"copies never waited for", test_no_wait},
        {"deadlock", test_deadlock},
        {"an mbarrier never initialised", test_no_init},
        {"mistakes in a product", test_gemm_variants},
        {"wgmma without fence or wait", test_half_wgmma},
        {"launches that are refused", test_refused_launches},
#ifdef RACE_CHECK
        {"a race of blocks", test_race_of_blocks},
#endif
    };
    return run_cases(cases);
}
