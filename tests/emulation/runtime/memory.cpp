/* Device and pinned memory.
 *
 * Every allocation has pages of its own in one reserved range of addresses, ends where its last
 * page ends (rounded up to 256 bytes), and has a page without access on both sides; addresses are
 * not used twice. What is read before it is written is NaN in every floating-point format.
 */
#include "tests/emulation/grid.h"
#include "tests/emulation/runtime/state.h"
#include "tests/emulation/sanitizers.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace emulation::runtime
{

const char *running_operation(); /* streams.cpp */

constexpr size_t page_bytes = 4096, alignment = 256;
constexpr size_t arena_bytes = size_t{1} << 38;
constexpr int poison = 0xFF;

struct Allocation { /* pages [pages, pages + length); the caller has [pointer, pointer + bytes) */
    char *pages;
    size_t length, bytes;
    int device;
};

struct Pinned {
    size_t bytes;
    unsigned flags;
    bool registered; /* the caller's own memory */
};

static char *arena;
static size_t arena_used;
static std::map<char *, Allocation> allocations; /* by the caller's pointer */
static std::map<char *, Pinned> pinned;
static size_t bytes_of_device[64];
static int open_depth; /* DeviceAccess objects */

/* ---- access ---- */

static void protect(int access)
{
    for (auto &[pointer, a] : allocations)
        if (mprotect(a.pages, a.length, access)) die("mprotect: %s", strerror(errno));
}

DeviceAccess::DeviceAccess()
{
    if (open_depth++ == 0 && settings().guard) protect(PROT_READ | PROT_WRITE);
}

DeviceAccess::~DeviceAccess()
{
    if (--open_depth == 0 && settings().guard) protect(PROT_NONE);
}

/* ---- what a bad access tells ---- */

static struct sigaction before; /* who handled SIGSEGV */

static void describe(const char *address, char *text, size_t bytes)
{
    const Allocation *below = nullptr;
    const char *pointer = nullptr;
    for (auto &[p, a] : allocations)
        if (a.pages - page_bytes <= address && (!below || p > pointer)) below = &a, pointer = p;
    if (!below)
        snprintf(text, bytes, "not allocated");
    else if (address >= pointer && address < pointer + below->bytes)
        snprintf(text, bytes, "byte %zu of an allocation of %zu", (size_t)(address - pointer),
                 below->bytes);
    else if (address < pointer)
        snprintf(text, bytes, "%zu bytes before an allocation of %zu", (size_t)(pointer - address),
                 below->bytes);
    else
        snprintf(text, bytes, "%zu bytes behind the end of an allocation of %zu",
                 (size_t)(address - pointer - (ptrdiff_t)below->bytes), below->bytes);
}

static void on_segv(int, siginfo_t *info, void *)
{
    const char *address = (const char *)info->si_addr;
    if (address >= arena && address < arena + arena_bytes) {
        char place[160], text[320];
        describe(address, place, sizeof place);
        const char *operation = running_operation();
        int n = snprintf(text, sizeof text, "emulation: %s%s touched device memory at %p: %s\n",
                         operation ? "operation " : "the host", operation ? operation : "", address,
                         place);
        if (write(STDERR_FILENO, text, (size_t)n) < 0) abort();
    }
    sigaction(SIGSEGV, &before, nullptr); /* the access is repeated and meets who was there */
}

static void open_arena()
{
    if (arena) return;
    void *p =
        mmap(nullptr, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) die("cannot reserve addresses: %s", strerror(errno));
    arena = (char *)p;
    arena_used = page_bytes;

    static char stack[1 << 16]; /* kernels run on stacks too small for the message */
    stack_t current;
    if (!sigaltstack(nullptr, &current) && (current.ss_flags & SS_DISABLE)) {
        stack_t ours = {};
        ours.ss_sp = stack;
        ours.ss_size = sizeof stack;
        sigaltstack(&ours, nullptr);
    }
    struct sigaction action = {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before);
}

/* ---- device memory ---- */

static char *place(size_t bytes, int device)
{
    open_arena();
    size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    size_t length = (rounded + page_bytes - 1) / page_bytes * page_bytes;
    if (length > arena_bytes - arena_used - page_bytes) return nullptr;
    Allocation a = {arena + arena_used, length, bytes, device};
    arena_used += length + page_bytes;
    if (mprotect(a.pages, length, PROT_READ | PROT_WRITE)) return nullptr;
    memset(a.pages, poison, length);
    char *pointer = a.pages + length - rounded;
    forbid(a.pages, length - rounded);
    forbid(pointer + bytes, rounded - bytes);
    if (settings().guard && !open_depth) mprotect(a.pages, length, PROT_NONE);
    allocations[pointer] = a;
    bytes_of_device[device] += rounded;
    count_memory(bytes_of_device[device]);
    return pointer;
}

static size_t rounded_bytes(const Allocation &a)
{
    return (a.bytes + alignment - 1) / alignment * alignment;
}

/* Bytes that something wrote in the allocation's pages but beside it. */
static void check_beside(char *pointer, const Allocation &a)
{
    size_t front = (size_t)(pointer - a.pages), back = rounded_bytes(a) - a.bytes;
    allow(a.pages, a.length);
    for (size_t i = 0; i < back; i++)
        if ((unsigned char)pointer[a.bytes + i] != poison)
            return fault(cudaErrorIllegalAddress,
                         "%zu bytes behind an allocation of %zu bytes were "
                         "written",
                         i, a.bytes);
    for (size_t i = 0; i < front; i++)
        if ((unsigned char)pointer[-1 - (ptrdiff_t)i] != poison)
            return fault(cudaErrorIllegalAddress,
                         "%zu bytes before an allocation of %zu bytes were "
                         "written",
                         i + 1, a.bytes);
    forbid(a.pages, front);
    forbid(pointer + a.bytes, back);
}

void check_surroundings()
{
    DeviceAccess access;
    for (auto &[pointer, a] : allocations) check_beside(pointer, a);
}

static const std::pair<char *const, Allocation> *find(const void *address)
{
    auto next = allocations.upper_bound((char *)address);
    if (next == allocations.begin()) return nullptr;
    auto found = std::prev(next);
    return (char *)address < found->first + found->second.bytes ? &*found : nullptr;
}

bool device_range(const void *address, size_t bytes)
{
    auto found = find(address);
    return found && bytes <= found->second.bytes - (size_t)((const char *)address - found->first);
}

static const std::pair<char *const, Pinned> *find_pinned(const void *address)
{
    auto next = pinned.upper_bound((char *)address);
    if (next == pinned.begin()) return nullptr;
    auto found = std::prev(next);
    return (char *)address < found->first + found->second.bytes ? &*found : nullptr;
}

bool pinned_range(const void *address, size_t bytes)
{
    auto found = find_pinned(address);
    return found && bytes <= found->second.bytes - (size_t)((const char *)address - found->first);
}

} // namespace emulation::runtime

/* What a kernel may dereference: pinned memory has the same address on the device. */
bool emulation::device_memory(const void *address)
{
    return runtime::find(address) || runtime::find_pinned(address);
}

using namespace emulation::runtime;

extern "C" {

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!pointer) return fail(cudaErrorInvalidValue);
    if (cudaError_t error = refuse_in_capture()) return fail(error);
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    int device = current_device();
    size_t free = settings().memory - bytes_of_device[device];
    bool fails = failure_due("malloc");
    if (fails || bytes > free || (bytes + alignment - 1) / alignment * alignment > free)
        return fail(cudaErrorMemoryAllocation);
    count_made(Made::memory);
    *pointer = place(bytes, device);
    return *pointer ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *pointer)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!pointer) return cudaSuccess;
    if (cudaError_t error = refuse_in_capture()) return fail(error);
    auto found = allocations.find((char *)pointer);
    if (found == allocations.end()) {
        say("cudaFree of %p, which is not an allocation (freed twice?)", pointer);
        return fail(cudaErrorInvalidValue);
    }
    if (cudaError_t error = synchronize(nullptr)) return fail(error);
    Allocation a = found->second;
    {
        DeviceAccess access;
        check_beside((char *)pointer, a);
    }
    bytes_of_device[a.device] -= rounded_bytes(a);
    allocations.erase(found);
    emulation::allow(a.pages, a.length);
    void *p = mmap(a.pages, a.length, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (p == MAP_FAILED) die("cannot give memory back: %s", strerror(errno));
    return fail(sticky_error());
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    Api api;
    if (api.error) return fail(api.error);
    if (free) *free = settings().memory - bytes_of_device[current_device()];
    if (total) *total = settings().memory;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
    Api api;
    if (api.error) return fail(api.error);
    const unsigned known = cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
    if (!pointer || (flags & ~known)) return fail(cudaErrorInvalidValue);
    if (cudaError_t error = refuse_in_capture()) return fail(error);
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    count_made(Made::pinned);
    if (posix_memalign(pointer, page_bytes, bytes)) return fail(cudaErrorMemoryAllocation);
    memset(*pointer, poison, bytes);
    pinned[(char *)*pointer] = {bytes, flags, false};
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
    return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *pointer)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!pointer) return cudaSuccess;
    auto found = pinned.find((char *)pointer);
    if (found == pinned.end() || found->second.registered) return fail(cudaErrorInvalidValue);
    if (cudaError_t error = synchronize(nullptr)) return fail(error);
    free(pointer);
    pinned.erase(found);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!pointer || bytes == 0 || find(pointer)) return fail(cudaErrorInvalidValue);
    auto next = pinned.lower_bound((char *)pointer);
    if (find_pinned(pointer) || (next != pinned.end() && next->first < (char *)pointer + bytes))
        return fail(cudaErrorHostMemoryAlreadyRegistered);
    count_made(Made::pinned);
    pinned[(char *)pointer] = {bytes, flags, true};
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *pointer)
{
    Api api;
    if (api.error) return fail(api.error);
    auto found = pinned.find((char *)pointer);
    if (found == pinned.end() || !found->second.registered)
        return fail(cudaErrorHostMemoryNotRegistered);
    if (cudaError_t error = synchronize(nullptr)) return fail(error);
    pinned.erase(found);
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!device || flags || !find_pinned(host)) return fail(cudaErrorInvalidValue);
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!attributes) return fail(cudaErrorInvalidValue);
    *attributes = {};
    attributes->device = -1;
    if (auto found = find(pointer)) {
        attributes->type = cudaMemoryTypeDevice;
        attributes->device = found->second.device;
        attributes->devicePointer = (void *)pointer;
    } else if (find_pinned(pointer)) {
        attributes->type = cudaMemoryTypeHost;
        attributes->device = current_device();
        attributes->devicePointer = attributes->hostPointer = (void *)pointer;
    } else {
        attributes->type = cudaMemoryTypeUnregistered;
        attributes->hostPointer = (void *)pointer;
    }
    return cudaSuccess;
}

} // extern "C"
