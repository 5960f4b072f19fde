#include "parallel/world.h"

#include "base/log.h"
#include "base/trace.h"
#include "parallel/comm_mpi.h"
#include "parallel/heartbeat.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TAG_TRACE_HEAD = 11, TAG_TRACE_SPANS = 12 };

static void (*signal_hook)(void);
static char signal_identity[96];

/* ---- signals ---------------------------------------------------------------------------------------------------- */

static void say(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

static void on_signal(int number)
{
    const char *name = number == SIGTERM ? "SIGTERM (the launcher ends all ranks when one is lost)"
                       : number == SIGINT ? "SIGINT" : "SIGHUP";
    say("ringreel: ");
    say(signal_identity);
    say(" ended by ");
    say(name);
    say(", during ");
    say(phase_get());
    say("\n");
    if (signal_hook)
        signal_hook();
    _exit(128 + number);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe and a file size limit are write errors, reported like any other */
    signal(SIGXFSZ, SIG_IGN);
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

/* Starting MPI alone would start a daemon for nothing, and would need MPI's run-time environment to be whole. */
static bool started_by_launcher(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i]))
            return true;
    return false;
}

static bool mpi_is_up;

static void abort_all(int status)
{
    if (signal_hook)
        signal_hook();
    if (mpi_is_up)
        MPI_Abort(MPI_COMM_WORLD, status);
}

static void find_host_ranks(struct world *w)
{
    MPI_Comm host;
    CHECK_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host));
    CHECK_MPI(MPI_Comm_rank(host, &w->host_rank));
    CHECK_MPI(MPI_Comm_size(host, &w->host_size));
    CHECK_MPI(MPI_Comm_free(&host));
}

int world_start(struct world *w, int *argc, char ***argv, void (*hook)(void))
{
    signal_hook = hook;
    error_set_abort(abort_all);
    *w = (struct world){.size = 1, .host_size = 1, .timeout_s = 600, .mpi = started_by_launcher()};
    gethostname(w->host, sizeof w->host - 1);
    if (w->mpi) {
        int provided;
        CHECK_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
        mpi_is_up = true;
        CHECK_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
        CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI library does not support threads (MPI_THREAD_FUNNELED)");
        CHECK_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &w->rank));
        CHECK_MPI(MPI_Comm_size(MPI_COMM_WORLD, &w->size));
        find_host_ranks(w);
        w->comm = comm_open_mpi(MPI_COMM_WORLD, "world", w->timeout_s);
        heartbeat_start();
        CHECK_MPI(MPI_Barrier(MPI_COMM_WORLD)); /* the ranks' clocks start together: one zero for the trace */
    } else {
        w->comm = comm_open_self();
    }
    clock_set_zero();
    snprintf(signal_identity, sizeof signal_identity, "rank %d on %s", w->rank, w->host);
    error_set_identity(signal_identity);
    catch_signals();
    return STATUS_OK;
}

void world_set_timeout(struct world *w, double timeout_s)
{
    w->timeout_s = timeout_s;
    heartbeat_set_interval(timeout_s / 10 < 5 ? timeout_s / 10 : 5);
    comm_set_timeout(w->comm, timeout_s);
}

/* ---- agreeing --------------------------------------------------------------------------------------------------- */

int world_min(struct world *w, int value)
{
    if (!w->mpi)
        return value;
    int least = value;
    MPI_Request request;
    CHECK_MPI(MPI_Iallreduce(&value, &least, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD, &request));
    comm_mpi_wait(&request, "world", "agreement", -1, w->timeout_s, true);
    return least;
}

/* A rank that only left because of another (STATUS_STOPPED) is never the one that speaks. */
int world_agree(struct world *w, int status)
{
    int key = status == STATUS_OK ? INT_MAX : w->rank + (status == STATUS_STOPPED ? w->size : 0);
    int first = world_min(w, key);
    if (first == INT_MAX)
        return STATUS_OK;
    first %= w->size;
    if (first == w->rank && error_message()[0])
        log_error("%s", error_message());
    comm_broadcast_bytes(w->comm, &status, sizeof status, first);
    error_clear();
    return status;
}

void world_share_bytes(struct world *w, char **data, size_t *bytes)
{
    int64_t size = (int64_t)*bytes;
    comm_broadcast_bytes(w->comm, &size, sizeof size, 0);
    CHECK(size >= 0 && size < INT_MAX, "%lld bytes to share", (long long)size);
    if (w->rank != 0)
        *data = xmalloc((size_t)size + 1);
    comm_broadcast_bytes(w->comm, *data, (int)size, 0);
    (*data)[size] = '\0';
    *bytes = (size_t)size;
}

/* ---- trace ------------------------------------------------------------------------------------------------------ */

static void receive(struct world *w, void *data, int bytes, int from, int tag)
{
    struct transfer t = {0};
    comm_receive_bytes_start(w->comm, &t, data, bytes, from, tag);
    comm_wait_patiently(w->comm, &t);
}

static void send(struct world *w, const void *data, int bytes, int to, int tag)
{
    struct transfer t = {0};
    comm_send_bytes_start(w->comm, &t, data, bytes, to, tag);
    comm_wait_patiently(w->comm, &t);
}

static bool write_rank_spans(FILE *f, int rank, const char *role, const struct trace_span *spans, size_t count, bool first)
{
    fprintf(f, "%s{\"ph\":\"M\",\"pid\":0,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":\"rank %d %s\"}}",
            first ? "" : ",\n", 2 * rank, rank, role);
    fprintf(f, ",\n{\"ph\":\"M\",\"pid\":0,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":\"rank %d transfers\"}}",
            2 * rank + 1, rank);
    for (size_t i = 0; i < count; i++) {
        const struct trace_span *s = &spans[i];
        fprintf(f, ",\n{\"ph\":\"X\",\"pid\":0,\"tid\":%d,\"cat\":\"%s\",\"name\":\"%s\",\"ts\":%.1f,\"dur\":%.1f,"
                "\"args\":{\"shot\":%d,\"index\":%d}}", 2 * rank + s->track, s->category, s->name, s->start_s * 1e6,
                (s->end_s - s->start_s) * 1e6, s->shot, s->index);
    }
    return !ferror(f);
}

struct span_message {
    char role[16];
    int64_t count, dropped;
};

static int write_trace_file(struct world *w, const char *path, const struct span_message *mine)
{
    FILE *f = fopen(path, "w");
    if (!f)
        error_set(STATUS_INPUT, "trace: %s: %s", path, strerror(errno));
    bool good = f != NULL;
    if (f)
        fputs("{\"traceEvents\":[\n", f);
    for (int rank = 0; rank < w->size; rank++) {
        struct span_message head = *mine;
        size_t count, dropped;
        const struct trace_span *spans = trace_spans(&count, &dropped);
        struct trace_span *received = NULL;
        if (rank != 0) {
            receive(w, &head, sizeof head, rank, TAG_TRACE_HEAD);
            received = xcalloc((size_t)head.count, sizeof *received);
            receive(w, received, (int)head.count * (int)sizeof *received, rank, TAG_TRACE_SPANS);
            spans = received;
        }
        if (good)
            good = write_rank_spans(f, rank, head.role, spans, (size_t)head.count, rank == 0);
        if (head.dropped)
            log_warn("trace: rank %d: %lld spans beyond the limit are not in the file", rank, (long long)head.dropped);
        free(received);
    }
    if (f) {
        fputs("\n]}\n", f);
        if (fclose(f) != 0 || !good)
            return error_set(STATUS_INPUT, "trace: %s: %s", path, strerror(errno));
    }
    return good ? STATUS_OK : STATUS_INPUT;
}

int world_write_trace(struct world *w, const char *path, const char *role)
{
    if (!trace_enabled())
        return STATUS_OK;
    size_t count, dropped;
    const struct trace_span *spans = trace_spans(&count, &dropped);
    struct span_message head = {.count = (int64_t)count, .dropped = (int64_t)dropped};
    snprintf(head.role, sizeof head.role, "%s", role);
    if (w->rank == 0)
        return write_trace_file(w, path, &head);
    send(w, &head, sizeof head, 0, TAG_TRACE_HEAD);
    send(w, spans, (int)(count * sizeof *spans), 0, TAG_TRACE_SPANS);
    return STATUS_OK;
}

/* ---- stop ------------------------------------------------------------------------------------------------------- */

int world_stop(struct world *w, int status)
{
    status = world_agree(w, status);
    phase_set("leaving");
    if (status != STATUS_OK)
        signal(SIGTERM, SIG_IGN); /* the launcher's answer to the first rank that leaves with an error; all are leaving */
    log_json_close();
    trace_free();
    comm_close(w->comm);
    if (w->mpi) {
        heartbeat_stop();
        mpi_is_up = false;
        MPI_Finalize();
    }
    return status;
}
