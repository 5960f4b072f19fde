/* Which device this rank computes on. */
#include "render/device_choice.h"

#include "base/error.h"
#include "base/log.h"
#include "parallel/heartbeat.h"

#include <string.h>

/* The official configurations name the dtype of the weights; their products are in bf16. */
static enum precision precision_of(const struct job_options *job, enum precision automatic)
{
    if (strcmp(job->precision, "auto") == 0) return automatic;
    return strcmp(job->precision, "float32") == 0 ? PRECISION_F32 : PRECISION_BF16;
}

/* Collective: does every rank have a CUDA device? Ranks of one host may share one, in turn. */
static bool all_have_cuda(struct world *w, int devices, const char *why)
{
    bool here = devices > 0, everywhere = world_min(w, here) > 0;
    if (here && !everywhere && w->host_rank == 0)
        log_info("host %s has %d CUDA devices, another host has none", w->host, devices);
    if (devices == 0 && w->host_rank == 0) log_info("host %s: no CUDA: %s", w->host, why);
    return everywhere;
}

static int open_cuda(struct device **dev, struct world *w, const struct job_options *job,
                     int devices)
{
    if (w->host_size > devices && w->host_rank == 0)
        log_info("host %s: %d ranks share %d CUDA device%s", w->host, w->host_size, devices,
                 devices == 1 ? "" : "s");
    *dev =
        device_open_cuda(w->host_rank % devices, w->processors, precision_of(job, PRECISION_BF16));
    return STATUS_OK;
}

/* All ranks compute with the lowest instruction set of any host, so that mixed machines still give
 * the same bytes. */
static int open_cpu(struct device **dev, struct world *w, const struct job_options *job)
{
    int best = device_isa_level(device_best_isa()), status = STATUS_OK;
    int level = strcmp(job->isa, "auto") == 0 ? best : device_isa_level(job->isa);
    if (level > best)
        status =
            error_set(STATUS_INPUT, "isa %s: this CPU has %s at best", job->isa, device_best_isa());
    level = world_min(w, level); /* also where the check failed: it is collective */
    TRY(status);
    *dev = device_open_cpu(job->threads ? job->threads : w->processors, device_isa_name(level),
                           precision_of(job, PRECISION_F32));
    return STATUS_OK;
}

static int choose(struct device **dev, struct world *w, const struct job_options *job)
{
    const char *why = "";
    if (strcmp(job->backend, "cpu") == 0) return open_cpu(dev, w, job);
    int devices = device_cuda_count(&why);
    if (all_have_cuda(w, devices, why)) return open_cuda(dev, w, job, devices);
    if (strcmp(job->backend, "auto") == 0) return open_cpu(dev, w, job);
    return error_set(STATUS_INPUT, "backend cuda: %s",
                     devices > 0 ? "another rank has no device" : why);
}

int device_choice_open(struct device **dev, struct world *w, const struct job_options *job)
{
    TRY(choose(dev, w, job));
    device_set_poll(*dev, heartbeat_poll, NULL);
    return STATUS_OK;
}
