/* ringreel: long, high-resolution video with LTX-Video on many ranks. What a rank does from start
 * to end. */

#include "base/error.h"
#include "base/log.h"
#include "media/video.h"
#include "render/budget.h"
#include "render/codec.h"
#include "render/compare.h"
#include "render/denoise.h"
#include "render/recode.h"
#include "render/render.h"
#include "render/version.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before MPI is up only the launcher's environment says which rank this is. */
static bool speaks(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    rank = rank ? rank : getenv("PMIX_RANK");
    return !rank || strcmp(rank, "0") == 0;
}

static int usage(FILE *out, int status)
{
    if (!speaks()) return status;
    fputs(
        "usage: ringreel render JOB.yaml [--prompt TEXT] [--seed N] [-o FILE] ...   (ringreel "
        "render --help)\n"
        "       ringreel decode LATENTS.safetensors --config JOB.yaml -o FILE ...   (ringreel "
        "decode --help)\n"
        "       ringreel encode MEDIA --config JOB.yaml -o LATENTS.safetensors   (ringreel encode "
        "--help)\n"
        "       mpirun -n N ringreel render|decode|encode ...\n"
        "       ringreel compare A B   (videos, images or tensors; ringreel compare --help)\n"
        "       ringreel info | --version | --help\n",
        out);
    return status;
}

static int info(void)
{
    if (!speaks()) return STATUS_OK;
    printf("ringreel %s\nbackends: cpu (%s on this CPU)\n%s\n", RINGREEL_VERSION, device_best_isa(),
           media_versions());
    media_list_encoders(stdout);
    return STATUS_OK;
}

/* One rank's part: text and pixels on codec ranks, everything between on denoise ranks. All may
 * decode the last shot. */
static int play_role(struct engine *e)
{
    if (e->job->dry_run) return STATUS_OK;
    if (e->mesh.denoises && e->mesh.codes) return render_alone(e);
    if (e->mesh.denoises) return denoise_loop(e);
    if (e->mesh.codes) return codec_loop(e);
    phase_set("idle");
    if (!e->helping) return STATUS_OK;
    engine_begin_helping(e);
    return codec_decode_last(e, STATUS_OK);
}

static int render(struct world *world, int argc, char **argv)
{
    struct job_options job = {0}; /* one table: YAML keys = flags = printed header */
    struct engine engine = {0};   /* mesh, device, models, memory */
    bool help;
    int status = render_configure(&job, world, argc, argv, &help);
    if (help && world->rank == 0) options_print_help(stdout);
    if (status == STATUS_OK && !help) {
        log_init(world->rank, job.quiet ? LOG_WARN : job.verbose ? LOG_DEBUG : LOG_INFO);
        status = engine_open(&engine, world, &job);
        if (status == STATUS_OK) status = render_announce(&engine);
        if (status == STATUS_OK) status = world_agree(world, play_role(&engine));
        if (status == STATUS_OK && !job.dry_run) tally_report(&engine);
        if (status == STATUS_OK && !job.dry_run) budget_print_peaks(&engine);
        int traced = world_write_trace(world, mesh_role_name(&engine.mesh));
        status = status != STATUS_OK ? status : traced;
        engine_close(&engine);
    }
    options_free(&job);
    return status;
}

/* Ranks of different builds would misread each other. */
static int same_program(struct world *world)
{
    char version[64];
    snprintf(version, sizeof version, RINGREEL_VERSION " (backends: %d)", device_backend_version());
    return world_same(world, "versions of ringreel differ", version);
}

int main(int argc, char **argv)
{
    struct world world; /* all ranks; MPI is up if a launcher started us */
    if (argc < 2) return usage(stderr, STATUS_INPUT);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
        return usage(stdout, STATUS_OK);
    if (strcmp(argv[1], "--version") == 0)
        return !speaks() || printf("ringreel %s\n", RINGREEL_VERSION) > 0 ? STATUS_OK
                                                                          : STATUS_MACHINE;
    if (strcmp(argv[1], "info") == 0) return info();
    if (strcmp(argv[1], "compare") == 0)
        return speaks() ? compare_command(argc - 2, argv + 2) : STATUS_OK;
    int (*run)(struct world *, int, char **) = strcmp(argv[1], "render") == 0   ? render
                                               : strcmp(argv[1], "decode") == 0 ? recode_decode
                                               : strcmp(argv[1], "encode") == 0 ? recode_encode
                                                                                : NULL;
    if (!run) return usage(stderr, STATUS_INPUT);
    int status = world_start(&world, &argc, &argv, video_remove_partial_files);
    log_init(world.rank, LOG_INFO);
    if (status == STATUS_OK) status = same_program(&world);
    if (status == STATUS_OK) status = run(&world, argc - 2, argv + 2);
    return world_stop(&world, status); /* all ranks leave together, with one exit code */
}
