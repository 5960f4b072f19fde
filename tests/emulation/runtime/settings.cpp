/* The environment, the lock, the errors: what every call of the emulated libraries begins with. */
#include "tests/emulation/runtime/state.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace emulation::runtime
{

static std::recursive_mutex lock;
static cudaError_t lost = cudaSuccess; /* the sticky error */
static thread_local cudaError_t last_error = cudaSuccess;

static const char *rank_name()
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    return rank ? rank : "0";
}

static void print(const char *format, va_list arguments)
{
    char text[1024];
    vsnprintf(text, sizeof text, format, arguments);
    fprintf(stderr, "emulation: rank %s: %s\n", rank_name(), text);
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print(format, arguments);
    va_end(arguments);
}

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print(format, arguments);
    va_end(arguments);
    abort();
}

void fault(cudaError_t error, const char *format, ...)
{
    if (lost) return; /* the first one is the cause */
    va_list arguments;
    va_start(arguments, format);
    print(format, arguments);
    va_end(arguments);
    lost = error;
}

cudaError_t sticky_error() { return lost; }

cudaError_t fail(cudaError_t error)
{
    if (error) last_error = error;
    return error;
}

/* ---- settings ---- */

static uint64_t number(const char *key, const char *text, const char **end)
{
    char *stop;
    unsigned long long value = strtoull(text, &stop, 0);
    if (stop == text || *text == '-') die("%s: '%s' is not a number", key, text);
    *end = stop;
    return value;
}

static uint64_t whole_number(const char *key, const char *text)
{
    const char *end;
    uint64_t value = number(key, text, &end);
    if (*end) die("%s: '%s' is not a number", key, text);
    return value;
}

static size_t size(const char *key, const char *text)
{
    const char *end;
    uint64_t value = number(key, text, &end);
    int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (end[shift ? 1 : 0] || value > (UINT64_MAX >> shift))
        die("%s: '%s' is not a size such as 512M or 2G", key, text);
    return (size_t)value << shift;
}

/* "launch:3,nccl:1@2" */
static std::vector<Failure> failures(const char *key, const char *text)
{
    std::vector<Failure> list;
    while (*text) {
        const char *colon = strchr(text, ':'), *end;
        if (!colon) die("%s: '%s' lacks ':' and a number", key, text);
        Failure failure;
        failure.kind.assign(text, (size_t)(colon - text));
        static const std::set<std::string> kinds = {"launch",  "hang", "malloc",    "ecc",
                                                    "capture", "nccl", "nccl-hang", "no-wait"};
        if (!kinds.count(failure.kind))
            die("%s: '%s' is none of launch, hang, malloc, ecc, capture, nccl, nccl-hang, no-wait",
                key, failure.kind.c_str());
        failure.at = number(key, colon + 1, &end);
        bool mine = true;
        if (*end == '@') {
            const char *rank = end + 1;
            mine = number(key, rank, &end) == strtoull(rank_name(), nullptr, 10);
        }
        if (*end && *end != ',') die("%s: '%s' has too many letters", key, text);
        if (mine) list.push_back(failure);
        text = *end ? end + 1 : end;
    }
    return list;
}

static void read_schedule(const char *key, const char *text, Settings &s)
{
    if (!strcmp(text, "eager")) {
        s.schedule = Schedule::eager;
    } else if (!strcmp(text, "fifo")) {
        s.schedule = Schedule::fifo;
    } else if (!strncmp(text, "random:", 7)) {
        s.schedule = Schedule::random;
        s.seed = whole_number(key, text + 7);
    } else {
        die("%s: '%s' is none of eager, fifo, random:SEED", key, text);
    }
}

/* A variable with _RANK1 behind its name is for rank 1 alone. */
static const char *value_of(const char *key)
{
    const char *text = getenv((std::string(key) + "_RANK" + rank_name()).c_str());
    if (!text) text = getenv(key);
    return text && *text ? text : nullptr;
}

uint64_t number_setting(const char *name, uint64_t otherwise)
{
    std::string key = std::string("RINGREEL_EMULATION_") + name;
    const char *text = value_of(key.c_str());
    return text ? whole_number(key.c_str(), text) : otherwise;
}

static Settings read_settings()
{
    Settings s;
    auto read = [](const char *key, auto use) {
        if (const char *text = value_of(key)) use(key, text);
    };
    s.driver = (int)number_setting("DRIVER", CUDART_VERSION);
    s.first_bus = (int)number_setting("BUS", 1);
    read("RINGREEL_EMULATION_NAME", [&](const char *, const char *text) { s.name = text; });
    read("RINGREEL_EMULATION_DEVICES", [&](const char *key, const char *text) {
        s.devices = (int)whole_number(key, text);
        if (s.devices > 64) die("%s: at most 64", key);
    });
    read("RINGREEL_EMULATION_DEVICE", [&](const char *key, const char *text) {
        s.capability = !strcmp(text, "sm_80") ? 80 : !strcmp(text, "sm_90") ? 90 : 0;
        if (!s.capability) die("%s: '%s' is neither sm_80 nor sm_90", key, text);
    });
    read("RINGREEL_EMULATION_MEMORY",
         [&](const char *key, const char *text) { s.memory = size(key, text); });
    read("RINGREEL_EMULATION_STREAMS",
         [&](const char *key, const char *text) { read_schedule(key, text, s); });
    read("RINGREEL_EMULATION_GUARD",
         [&](const char *key, const char *text) { s.guard = whole_number(key, text) != 0; });
    read("RINGREEL_EMULATION_COUNT",
         [&](const char *key, const char *text) { s.count = whole_number(key, text) != 0; });
    read("RINGREEL_EMULATION_STALL",
         [&](const char *key, const char *text) { s.stall_s = (double)whole_number(key, text); });
    read("RINGREEL_EMULATION_FAIL",
         [&](const char *key, const char *text) { s.failures = failures(key, text); });
    return s;
}

Settings &settings()
{
    static Settings s = read_settings();
    return s;
}

int compute_capability() { return settings().capability; }

uint64_t random_below(uint64_t bound)
{
    static uint64_t state = settings().seed;
    uint64_t z = (state += 0x9E3779B97F4A7C15u); /* SplitMix64 */
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (z ^ (z >> 31)) % bound;
}

bool failure_due(const char *kind)
{
    bool due = false;
    for (Failure &failure : settings().failures)
        if (failure.kind == kind) due |= ++failure.seen == failure.at;
    return due;
}

/* ---- what was made ---- */

/* Said when the process ends. */
struct Census {
    uint64_t made[(int)Made::kinds] = {};
    size_t most_bytes = 0;
    ~Census()
    {
        if (!settings().count) return;
        static const char *const names[] = {
            "device allocations", "pinned allocations", "streams", "events", "graphs",
            "launches of graphs"};
        std::string text;
        for (int i = 0; i < (int)Made::kinds; i++)
            text += (i ? ", " : "made ") + std::to_string(made[i]) + " " + names[i];
        say("%s", text.c_str());
        say("had %zu bytes of a device at most", most_bytes);
    }
};

static Census &census()
{
    static Census all;
    return all;
}

void count_made(Made what) { census().made[(int)what]++; }

void count_memory(size_t bytes_in_use)
{
    census().most_bytes = std::max(census().most_bytes, bytes_in_use);
}

/* ---- the lock ---- */

static int depth; /* of Api objects of the thread that holds the lock */

Api::Api()
{
    lock.lock();
    depth++;
    error = settings().driver / 1000 < CUDART_VERSION / 1000 ? cudaErrorInsufficientDriver
            : settings().devices == 0                        ? cudaErrorNoDevice
                                                             : lost;
}

Api::~Api()
{
    depth--;
    lock.unlock();
}

void yield_lock()
{
    int levels = depth;
    depth = 0;
    for (int i = 0; i < levels; i++) lock.unlock();
    std::this_thread::yield();
    for (int i = 0; i < levels; i++) lock.lock();
    depth = levels;
}

} // namespace emulation::runtime

extern "C" cudaError_t cudaGetLastError(void)
{
    using namespace emulation::runtime;
    cudaError_t error = sticky_error() ? sticky_error() : last_error;
    last_error = cudaSuccess;
    return error;
}

extern "C" cudaError_t cudaPeekAtLastError(void)
{
    using namespace emulation::runtime;
    return sticky_error() ? sticky_error() : last_error;
}
