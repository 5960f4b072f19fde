/* Memory of a device that ranks of a host may share: what they need of it together. All
 * functions are Local. */
#ifndef RINGREEL_DEVICE_MEMORY_H
#define RINGREEL_DEVICE_MEMORY_H

#include "kernels/ops.h"

/* What a rank needs of its device, and what it sees of it: exchanged among the ranks of a host. */
struct device_claim {
    struct device_facts facts; /* all "": a device of its own that is not here */
    int64_t bytes[2];          /* with streamed weights, with resident ones */
    int64_t left, all;         /* INT64_MAX: unknown */
};

/* The same, of all ranks on one device together. */
struct device_sum {
    int ranks;
    int64_t bytes[2], left, all; /* left: the least that any of them sees */
};

/* Of the device of claims[mine]. */
struct device_sum device_memory_sum(const struct device_claim *claims, int count, int mine);

/* Can weights stay there? Some room is left for what the device takes by itself (kernels are loaded
 * when they are first used). */
bool device_memory_is_easy(const struct device_sum *sum, bool resident);
bool device_memory_suffices(const struct device_sum *sum, bool resident);

/* "2 ranks on device 0000:1B:00.0 (NVIDIA H100 80GB HBM3) of gpu7 need 24.60 GiB, 20.10 GiB of
 * 79.65 GiB are free". Returns `out`. */
char *device_memory_text(const struct device_claim *claim, const struct device_sum *sum,
                         const char *host, bool resident, char *out, size_t size);

#endif
