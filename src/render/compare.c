#include "render/compare.h"

#include "base/error.h"
#include "base/log.h"
#include "render/compare_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SAME = 0, DIFFERENT = 1 }; /* exit codes beside those of enum status */

static const char help_text[] =
    "usage: ringreel compare A B [flags]\n\n"
    "A and B are images or videos, PNG patterns such as frames/%06d.png, or safetensors files "
    "such\n"
    "as those of --dump. What a file is follows from its contents.\n\n"
    "Pictures are compared as 8-bit RGB, frame by frame: the largest difference, PSNR over the\n"
    "three colours, SSIM (luma, 11x11 Gaussian windows inside the picture). Frames count from 0.\n"
    "Of safetensors files the tensors with the same name are compared; NaN equals NaN, -0 equals "
    "0.\n"
    "A safetensors file against pictures: its tensor 'frames', U8 [F,H,W,3].\n\n"
    "  --frames          a line for every frame, in front of the summary (pictures only)\n"
    "  --tolerance X     accept differences of values up to X (of 255 in pictures), and between\n"
    "                    tensors also another dtype\n"
    "  --quiet           print nothing but errors\n\n"
    "Exit codes:\n"
    "  0  identical, or within the tolerance\n"
    "  1  different, also in size, in the number of frames or in the names of tensors; or the\n"
    "     machine failed, which is said\n"
    "  2  the input is wrong; one line says what\n";

struct request {
    struct comparison comparison;
    int files;
    bool help, quiet;
};

/* ---- the command line ------------------------------------------------------------------------ */

static int read_tolerance(struct comparison *c, const char *text)
{
    char *end = NULL;
    double value = text ? strtod(text, &end) : NAN;
    if (!text || end == text || *end || !isfinite(value) || value < 0)
        return error_set(STATUS_INPUT,
                         "command line: --tolerance: must be a number from 0 on, not '%s'",
                         text ? text : "");
    c->tolerance = value;
    c->tolerant = true;
    return STATUS_OK;
}

static int read_flag(struct request *r, char **argv, int *at)
{
    static const char tolerance[] = "--tolerance=";
    const char *word = argv[*at];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        r->help = true;
    else if (strcmp(word, "--frames") == 0)
        r->comparison.frame_rows = true;
    else if (strcmp(word, "--quiet") == 0)
        r->quiet = true;
    else if (strncmp(word, tolerance, sizeof tolerance - 1) == 0)
        return read_tolerance(&r->comparison, word + sizeof tolerance - 1);
    else if (strcmp(word, "--tolerance") == 0) /* argv ends with NULL */
        return read_tolerance(&r->comparison, argv[++*at]);
    else
        return error_set(STATUS_INPUT,
                         "command line: %.80s: unknown; 'ringreel compare --help' lists all flags",
                         word);
    return STATUS_OK;
}

static int read_words(struct request *r, int argc, char **argv)
{
    bool only_files = false;
    for (int i = 0; i < argc && !r->help; i++) {
        if (!only_files && strcmp(argv[i], "--") == 0)
            only_files = true;
        else if (!only_files && argv[i][0] == '-')
            TRY(read_flag(r, argv, &i));
        else if (r->files++ < 2)
            r->comparison.path[r->files - 1] = argv[i];
    }
    if (r->help) return STATUS_OK;
    if (r->files != 2)
        return error_set(STATUS_INPUT, "command line: compare takes two files, not %d", r->files);
    if (r->quiet && r->comparison.frame_rows)
        return error_set(STATUS_INPUT, "command line: --quiet and --frames exclude each other");
    return STATUS_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Eight bytes of a length below 4 GiB, then JSON. No image or video begins like that; what cannot
 * be read at all is left to the reader to complain about. */
static bool is_safetensors(const char *path)
{
    uint8_t head[9];
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool is_one = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                  read(fd, head, sizeof head) == (ssize_t)sizeof head && head[8] == '{' &&
                  memcmp(head + 4, "\0\0\0\0", 4) == 0;
    if (fd >= 0) close(fd);
    return is_one;
}

static int compare_files(struct comparison *c, bool *same)
{
    int status = STATUS_OK;
    for (int i = 0; i < 2 && status == STATUS_OK; i++)
        if (is_safetensors(c->path[i])) status = safetensors_open(&c->tensors[i], c->path[i]);
    if (status == STATUS_OK)
        status =
            c->tensors[0] && c->tensors[1] ? compare_tensors(c, same) : compare_pictures(c, same);
    for (int i = 0; i < 2; i++) safetensors_close(c->tensors[i]);
    return status;
}

/* What nobody could read was not compared. */
static int flush(FILE *out)
{
    return fflush(out) == 0 && !ferror(out)
               ? STATUS_OK
               : error_set(STATUS_INPUT, "the output cannot be written: %s", strerror(errno));
}

static int run(struct request *r, bool *same)
{
    if (r->help) {
        fputs(help_text, stdout);
        return flush(stdout);
    }
    r->comparison.out = r->quiet ? fopen("/dev/null", "w") : stdout;
    CHECK(r->comparison.out, "/dev/null: %s", strerror(errno));
    int status = compare_files(&r->comparison, same);
    if (status == STATUS_OK) status = flush(r->comparison.out);
    if (r->quiet) fclose(r->comparison.out);
    return status;
}

int compare_command(int argc, char **argv)
{
    struct request request = {0};
    bool same = true;
    log_init(0, LOG_INFO);
    int status = read_words(&request, argc, argv);
    if (status == STATUS_OK) status = run(&request, &same);
    if (status == STATUS_OK) return same ? SAME : DIFFERENT;
    log_error("%s", error_message());
    return status;
}
