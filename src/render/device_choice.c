/* Which device this rank computes on. */
#include "render/device_choice.h"

#include "base/error.h"
#include "base/log.h"
#include "parallel/heartbeat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The official configurations name the dtype of the weights; their products are in bf16. */
static enum precision precision_of(const struct job_options *job, enum precision automatic)
{
    if (strcmp(job->precision, "auto") == 0) return automatic;
    return strcmp(job->precision, "float32") == 0 ? PRECISION_F32 : PRECISION_BF16;
}

/* ---- GPUs ------------------------------------------------------------------------------------ */

/* Collective: does every rank have a CUDA device? */
static bool all_have_cuda(struct world *w, int devices, const char *why)
{
    bool here = devices > 0, everywhere = world_min(w, here) > 0;
    if (here && !everywhere && w->host_rank == 0)
        log_info("host %s has %d CUDA devices, another rank has none", w->host, devices);
    if (devices == 0 && w->host_rank == 0) log_info("host %s: no CUDA: %s", w->host, why);
    return everywhere;
}

/* Collective. Another model or compute capability is other kernels, other algorithms of
 * cuBLASLt: in canonical order that is refused, for the sake of the bytes. */
static int same_devices(struct world *w, const struct job_options *job,
                        const struct device_facts *facts, const char *isa)
{
    char model[160];
    snprintf(model, sizeof model, "%s (%s)", facts->model, isa);
    TRY(world_same(w, "CUDA libraries differ", facts->libraries));
    if (job->attention_order == ORDER_CANONICAL)
        return world_same(w,
                          "GPUs differ, with which the same bytes cannot be promised "
                          "(attention_order: ring takes them)",
                          model);
    if (world_same(w, "GPUs differ", model) != STATUS_OK && w->rank == 0)
        log_warn("%s: the bytes depend on which of them computed what", error_message());
    error_clear();
    return STATUS_OK;
}

/* Collective. What a launcher shows to a rank may be one device of several: they are told apart
 * by what they are, not by their number. */
static void announce_sharing(struct world *w, const struct device_facts *mine)
{
    struct device_facts *all = xcalloc((size_t)w->host_size, sizeof *all);
    int devices = 0;
    world_host_gather(w, mine, all, sizeof *mine);
    for (int r = 0; r < w->host_size; r++) {
        int first = 0;
        while (strcmp(all[first].identity, all[r].identity) != 0) first++;
        devices += first == r;
    }
    free(all);
    if (devices < w->host_size && w->host_rank == 0)
        log_warn("host %s: %d ranks share %d CUDA device%s", w->host, w->host_size, devices,
                 devices == 1 ? "" : "s");
}

static int open_cuda(struct device **dev, struct world *w, const struct job_options *job,
                     int devices)
{
    *dev =
        device_open_cuda(w->host_rank % devices, w->processors, precision_of(job, PRECISION_BF16));
    struct device_facts facts = device_describe(*dev);
    TRY(same_devices(w, job, &facts, device_isa(*dev)));
    announce_sharing(w, &facts);
    return STATUS_OK;
}

/* For a plan of what GPUs would have to hold. */
static int open_cuda_plan(struct device **dev, struct world *w, const struct job_options *job)
{
    const char *why;
    *dev = device_open_cuda_plan(w->processors, precision_of(job, PRECISION_BF16), &why);
    if (!*dev) return error_set(STATUS_INPUT, "backend cuda: %s", why);
    return STATUS_OK;
}

/* ---- the CPU --------------------------------------------------------------------------------- */

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

/* ---- which ----------------------------------------------------------------------------------- */

static int choose(struct device **dev, struct world *w, const struct job_options *job, bool counts)
{
    const char *why = "";
    bool wanted = strcmp(job->backend, "cuda") == 0;
    if (strcmp(job->backend, "cpu") == 0) return open_cpu(dev, w, job);
    int devices = device_cuda_count(&why);
    if (all_have_cuda(w, devices, why)) return open_cuda(dev, w, job, devices);
    if (!wanted) return open_cpu(dev, w, job);
    if (counts) return open_cuda_plan(dev, w, job);
    if (devices > 0) return STATUS_STOPPED; /* a rank without a device says which it is */
    return error_set(STATUS_INPUT, "backend cuda: %s (rank %d on %s)", why, w->rank, w->host);
}

int device_choice_open(struct device **dev, struct world *w, const struct job_options *job,
                       bool counts)
{
    TRY(choose(dev, w, job, counts));
    device_set_poll(*dev, heartbeat_poll, NULL);
    device_set_timeout(*dev, w->timeout_s);
    return STATUS_OK;
}
