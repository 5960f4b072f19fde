/* peak_memory FOLDER PROGRAM [WORDS]: runs the program and writes what it took to FOLDER/RANK, the
 * rank as mpirun or srun says it (0 without them): "MiB SECONDS", its largest resident set and the
 * time it ran. Exit code: the program's. For shell tests and tools/; not a test by itself. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *rank_name(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (int i = 0; i < 3; i++)
        if (getenv(names[i])) return getenv(names[i]);
    return "0";
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(const char *what)
{
    fprintf(stderr, "peak_memory: %s: %s\n", what, strerror(errno));
    return 125;
}

int main(int argc, char **argv)
{
    struct rusage usage;
    int status;
    char path[4096];
    double start_s = now_s();
    if (argc < 3) return fail("usage: peak_memory FOLDER PROGRAM [WORDS]");
    pid_t child = fork();
    if (child < 0) return fail("fork");
    if (child == 0) {
        execv(argv[2], argv + 2);
        _exit(fail(argv[2]));
    }
    while (wait4(child, &status, 0, &usage) < 0)
        if (errno != EINTR) return fail("wait4");
    snprintf(path, sizeof path, "%s/%s", argv[1], rank_name());
    FILE *out = fopen(path, "w");
    if (!out) return fail(path);
    fprintf(out, "%ld %.1f\n", usage.ru_maxrss / 1024, now_s() - start_s);
    if (fclose(out) != 0) return fail(path);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
