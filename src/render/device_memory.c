#include "render/device_memory.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

static bool same_device(const struct device_claim *a, const struct device_claim *b)
{
    return *a->facts.identity && strcmp(a->facts.identity, b->facts.identity) == 0;
}

struct device_sum device_memory_sum(const struct device_claim *claims, int count, int mine)
{
    struct device_sum sum = {.left = claims[mine].left, .all = claims[mine].all};
    for (int r = 0; r < count; r++) {
        const struct device_claim *c = &claims[r];
        if (r != mine && !same_device(c, &claims[mine])) continue;
        sum.ranks++;
        for (int resident = 0; resident < 2; resident++) sum.bytes[resident] += c->bytes[resident];
        if (c->left < sum.left) sum.left = c->left;
    }
    return sum;
}

bool device_memory_is_easy(const struct device_sum *sum, bool resident)
{
    return sum->bytes[resident] <= sum->left / 100 * 95;
}

bool device_memory_suffices(const struct device_sum *sum, bool resident)
{
    return sum->bytes[resident] <= sum->left;
}

char *device_memory_text(const struct device_claim *claim, const struct device_sum *sum,
                         const char *host, bool resident, char *out, size_t size)
{
    char needed[32], left[32], all[32];
    bool one = sum->ranks == 1;
    memory_text(sum->bytes[resident], needed);
    if (!*claim->facts.identity)
        snprintf(out, size, "a rank needs %s of its device, which is not here", needed);
    else
        snprintf(out, size, "%d rank%s on device %s (%s) of %s need%s %s, %s of %s are free",
                 sum->ranks, one ? "" : "s", claim->facts.place, claim->facts.model, host,
                 one ? "s" : "", needed, memory_text(sum->left, left), memory_text(sum->all, all));
    return out;
}
