#include "grid.h"
#include "device.h"
#include "sanitizers.h"

#include <cstdio>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace emulation
{

namespace
{

cudaError_t refuse(const Launch &l, cudaError_t error, const char *what)
{
    fprintf(
        stderr,
        "emulation: %s: launch of grid (%u,%u,%u), block (%u,%u,%u), %zu bytes of dynamic shared "
        "memory: %s\n",
        l.name, l.grid.x, l.grid.y, l.grid.z, l.block.x, l.block.y, l.block.z, l.shared_bytes,
        what);
    return error;
}

/* The hardware's limits (CUDA programming guide, "Compute Capabilities"). */
cudaError_t check(const Launch &l)
{
    constexpr uint64_t most_x = (UINT64_C(1) << 31) - 1, most_yz = 65535;
    uint64_t threads = uint64_t{l.block.x} * l.block.y * l.block.z;
    if (threads < 1 || l.block.x > MAX_THREADS || l.block.y > MAX_THREADS || threads > MAX_THREADS)
        return refuse(l, cudaErrorInvalidConfiguration, "allowed are 1 to 1024 threads");
    if (l.block.z > 64)
        return refuse(l, cudaErrorInvalidConfiguration, "allowed are 1 to 64 threads in z");
    if (!l.grid.x || !l.grid.y || !l.grid.z || l.grid.x > most_x || l.grid.y > most_yz ||
        l.grid.z > most_yz)
        return refuse(l, cudaErrorInvalidConfiguration,
                      "allowed are 1 to 2^31-1 blocks in x, 1 to 65535 in y and z");
    if (l.shared_bytes > SHARED_LIMIT_BYTES)
        return refuse(l, cudaErrorInvalidValue, "a block can have 232448");
    return cudaSuccess;
}

uint3 index_of(uint64_t number, dim3 grid)
{
    return {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
            static_cast<unsigned>(number / grid.x / grid.y)};
}

/* Blocks in random order: a Fisher-Yates shuffle of their numbers. */
std::vector<uint32_t> shuffled(uint64_t blocks, Random *random)
{
    std::vector<uint32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    for (uint32_t i = static_cast<uint32_t>(blocks); i > 1; i--)
        std::swap(order[i - 1], order[random->below(i)]);
    return order;
}

/* One per OS thread; its fibers live as long as that. */
Block *block_of_this_thread()
{
    static thread_local std::unique_ptr<Block> block;
    if (!block) {
        block.reset(new Block());
        fiber_home(&block->home);
    }
    return block.get();
}

} // namespace

const char *kernel_name(const char *words)
{
    static std::mutex one_at_a_time;
    static std::set<std::string> names;
    int depth = 0;
    const char *end = words;
    for (; *end && (*end != ',' || depth); end++) depth += (*end == '<') - (*end == '>');
    std::lock_guard<std::mutex> held(one_at_a_time);
    return names.emplace(words, end).first->c_str();
}

cudaError_t run(const Launch &launch)
{
    cudaError_t error = check(launch);
    if (error != cudaSuccess) return error;
    Block *b = block_of_this_thread();
    Modes modes = modes_of_launch();
    uint64_t blocks = uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
    std::vector<uint32_t> order;
    if (modes.order == RANDOM_ORDER) order = shuffled(blocks, &modes.order_random);
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t number = modes.order == FORWARD   ? i
                          : modes.order == REVERSE ? blocks - 1 - i
                                                   : order[i];
        Modes own = modes; /* each block draws its own numbers */
        own.order_random.state ^= number * 0xD1B54A32D192ED03;
        own.timing_random.state ^= number * 0xABC98388FB8FAC03;
        block_run(b, launch, index_of(number, launch.grid), own);
    }
    acquire(&b->home);
    return cudaSuccess;
}

__attribute__((weak)) cudaError_t enqueue(cudaStream_t, Launch launch) { return run(launch); }

__attribute__((weak)) bool device_memory(const void *) { return true; }

} // namespace emulation
