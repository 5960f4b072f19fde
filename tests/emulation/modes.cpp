#include "modes.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulation
{

namespace
{

constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15;

/* 0, 1, 2: which of the three forms a setting has. */
int read_setting(const char *variable, const char *first, const char *second, uint64_t *seed)
{
    const char *text = getenv(variable);
    if (!text || !*text || strcmp(text, first) == 0) return 0;
    if (strcmp(text, second) == 0) return 1;
    if (strncmp(text, "random:", 7) == 0) {
        char *end;
        *seed = strtoull(text + 7, &end, 10);
        if (end != text + 7 && !*end) return 2;
    }
    fprintf(stderr, "emulation: %s=%s: allowed are %s, %s and random:SEED\n", variable, text, first,
            second);
    abort();
}

} // namespace

/* splitmix64 (Steele, Lea, Flood 2014) */
uint32_t Random::below(uint32_t n)
{
    uint64_t z = state += GOLDEN;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return static_cast<uint32_t>((z ^ z >> 31) >> 32) % n;
}

Modes modes_of_launch()
{
    static thread_local uint64_t launches;
    uint64_t order_seed = 0, timing_seed = 0;
    int order = read_setting("RINGREEL_EMULATION_ORDER", "forward", "reverse", &order_seed);
    int timing = read_setting("RINGREEL_EMULATION_ASYNC", "eager", "late", &timing_seed);
    launches++;
    return {static_cast<Order>(order), static_cast<Timing>(timing),
            Random{(order_seed << 32) ^ launches * GOLDEN},
            Random{(timing_seed << 32) ^ launches * GOLDEN * 3}};
}

} // namespace emulation
