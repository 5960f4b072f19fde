/* What holds for a device as a whole, and the recordings of its ops. */
#include "checks.h"

#include "base/error.h"

#include <string.h>

static const char *const isa_names[] = {"generic", "avx2", "avx512", "avx512_bf16"};
enum { ISA_COUNT = sizeof isa_names / sizeof *isa_names };

const char *device_best_isa(void)
{
    __builtin_cpu_init();
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool bf16 = __builtin_cpu_supports("avx512bf16");
    return isa_names[avx2 ? (avx512 ? (bf16 ? 3 : 2) : 1) : 0];
}

int device_isa_level(const char *isa)
{
    for (int i = 0; i < ISA_COUNT; i++)
        if (strcmp(isa, isa_names[i]) == 0) return i;
    return -1;
}

const char *device_isa_name(int level)
{
    CHECK(level >= 0 && level < ISA_COUNT, "instruction set %d", level);
    return isa_names[level];
}

const char *device_name(const struct device *dev) { return dev->ops->name; }
const char *device_isa(const struct device *dev) { return dev->isa; }
int device_threads(const struct device *dev) { return dev->threads; }
enum precision device_precision(const struct device *dev) { return dev->precision; }
enum dtype device_activations(const struct device *dev) { return dev->activations; }
void device_close(struct device *dev)
{
    if (dev) dev->ops->close(dev);
}

void device_set_poll(struct device *dev, void (*poll)(void *), void *argument)
{
    dev->poll = poll;
    dev->poll_argument = argument;
}

void device_set_reading(struct device *dev, const struct reading *reading)
{
    dev->reading = reading;
}

const struct arena_memory *device_memory(const struct device *dev) { return dev->ops->memory; }
const struct arena_memory *device_staging(const struct device *dev) { return dev->ops->staging; }
bool device_memory_is_host(const struct device *dev) { return dev->ops->memory_is_host; }
const struct link_ops *device_links(const struct device *dev) { return dev->ops->links; }
void device_set_held_up(struct device *dev, bool held_up) { dev->held_up = held_up; }
bool device_has_memory(const struct device *dev) { return dev->ops->memory_left; }

void device_memory_left(const struct device *dev, int64_t *left, int64_t *all)
{
    CHECK(device_has_memory(dev), "the memory of device %s is the host's", device_name(dev));
    dev->ops->memory_left(dev, left, all);
}

int64_t device_scratch_bytes(const struct device *dev, const struct op_sizes *largest)
{
    return dev->ops->scratch_bytes ? dev->ops->scratch_bytes(largest) : largest->expanded;
}

struct device_facts device_describe(const struct device *dev)
{
    struct device_facts facts = {0};
    if (dev->ops->describe) dev->ops->describe(dev, &facts);
    return facts;
}

void device_set_timeout(struct device *dev, double timeout_s) { dev->timeout_s = timeout_s; }

void device_finish(struct device *dev)
{
    if (dev->ops->finish) dev->ops->finish(dev);
}

uint64_t device_mark(struct device *dev) { return dev->ops->mark ? dev->ops->mark(dev) : 0; }

void device_wait(struct device *dev, uint64_t mark)
{
    if (mark) dev->ops->wait(dev, mark);
}

bool device_records(const struct device *dev) { return dev->ops->record_begin; }

bool op_record_begin(struct device *dev)
{
    dev->told = 0;
    dev->recording = device_records(dev) && dev->ops->record_begin(dev);
    return dev->recording;
}

struct recording *op_record_end(struct device *dev)
{
    struct recording *r = dev->ops->record_end(dev);
    dev->recording = dev->muted = false;
    dev->told = 0;
    return r;
}

bool op_replay_begin(struct device *dev, struct recording *r)
{
    dev->told = 0;
    dev->asked = "replay";
    dev->muted = dev->ops->replay_begin(dev, r);
    return dev->muted;
}

void op_replay_end(struct device *dev)
{
    bool last = dev->ops->replay_next(dev);
    CHECK(last, "a replay asks for less than was recorded");
    dev->muted = false;
    dev->told = 0;
}

/* Where nothing has been asked for there is nothing to cut. */
bool op_cut(struct device *dev)
{
    if (dev->told && dev->recording)
        dev->muted = dev->muted || !dev->ops->record_cut(dev);
    else if (dev->told)
        dev->ops->replay_next(dev);
    dev->told = 0;
    return !dev->recording;
}

void op_recording_free(struct device *dev, struct recording *r)
{
    if (r) dev->ops->recording_free(dev, r);
}

bool passed_over(struct device *dev, const char *op)
{
    if (dev->recording || dev->muted)
        dev->told = (dev->told ^ (uint64_t)(uintptr_t)op) * 1099511628211u; /* FNV-1a */
    return dev->muted;
}
