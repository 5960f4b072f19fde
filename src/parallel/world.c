#include "parallel/world.h"

#include "base/log.h"
#include "base/trace.h"
#include "parallel/comm_mpi.h"
#include "parallel/comm_nccl.h"
#include "parallel/heartbeat.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TAG_TRACE_HEAD = 11, TAG_TRACE_SPANS = 12 };
enum { ABORT_PATIENCE_S = 15 };
enum { TRACE_SPANS = 1 << 20 }; /* a rank; memory is touched as they are recorded */

static bool mpi_is_up;
static void (*signal_hook)(void);
static char signal_identity[96] = "a rank";

/* ---- signals --------------------------------------------------------------------------------- */

/* Async-signal-safe: one line in one write, so that ranks' lines do not mix. */
static void on_signal(int number)
{
    const char *name = number == SIGTERM  ? "SIGTERM (the launcher ends all ranks when one is lost)"
                       : number == SIGINT ? "SIGINT"
                       : number == SIGHUP
                           ? "SIGHUP"
                           : "SIGALRM (MPI or NCCL took too long to start, to split or to end)";
    const char *const parts[] = {"ringreel: ", signal_identity, " ended by ", name,
                                 ", during ",  phase_get(),     "\n"};
    char line[512];
    size_t length = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (const char *c = parts[i]; *c && length < sizeof line; c++) line[length++] = *c;
    ssize_t ignored = write(STDERR_FILENO, line, length);
    (void)ignored;
    if (signal_hook) signal_hook();
    _exit(128 + number);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe and a file size limit are write errors, reported like
                                 any other */
    signal(SIGXFSZ, SIG_IGN);
}

/* ---- start ----------------------------------------------------------------------------------- */

/* Starting MPI alone would start a daemon for nothing, and would need MPI's run-time environment to
 * be whole. */
static bool started_by_launcher(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK",
                                        "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return true;
    return false;
}

static void abort_all(int status)
{
    if (signal_hook) signal_hook();
    alarm(ABORT_PATIENCE_S);
    comm_nccl_abort();
    if (mpi_is_up) MPI_Abort(MPI_COMM_WORLD, status);
}

/* Those this process may run on: a batch system's cpuset counts, not the machine. */
static cpu_set_t usable_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        CPU_ZERO(&set);
        for (long i = 0; i < sysconf(_SC_NPROCESSORS_ONLN) && i < CPU_SETSIZE; i++)
            CPU_SET((size_t)i, &set);
    }
    return set;
}

/* Ranks bound to processors of their own use all of these; ranks that share some divide them. */
static int share_of_processors(MPI_Comm host)
{
    cpu_set_t mine = usable_processors(), all;
    int own = CPU_COUNT(&mine), sum;
    CHECK_MPI(MPI_Allreduce(&mine, &all, sizeof mine, MPI_BYTE, MPI_BOR, host));
    CHECK_MPI(MPI_Allreduce(&own, &sum, 1, MPI_INT, MPI_SUM, host));
    int share = (int)((long)own * CPU_COUNT(&all) / sum);
    return share < 1 ? 1 : share;
}

static MPI_Comm host_group; /* this host's ranks, while MPI is up */

static void find_host_ranks(struct world *w)
{
    CHECK_MPI(
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host_group));
    CHECK_MPI(MPI_Comm_rank(host_group, &w->host_rank));
    CHECK_MPI(MPI_Comm_size(host_group, &w->host_size));
    w->processors = share_of_processors(host_group);
}

static void start_mpi(struct world *w, int *argc, char ***argv)
{
    int provided;
    /* A block of keys and values moves while attention polls; Open MPI's shared-memory transport
     * would move 96 KB a poll. */
    setenv("OMPI_MCA_btl_vader_max_send_size", "1048576", 0);
    alarm(MPI_PATIENCE_S);
    CHECK_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
    mpi_is_up = true;
    CHECK_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    CHECK(provided >= MPI_THREAD_FUNNELED,
          "this MPI library does not support threads (MPI_THREAD_FUNNELED)");
    CHECK_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &w->rank));
    CHECK_MPI(MPI_Comm_size(MPI_COMM_WORLD, &w->size));
    find_host_ranks(w);
    w->comm = comm_open_mpi(MPI_COMM_WORLD, "world", w->timeout_s);
    heartbeat_start();
    CHECK_MPI(
        MPI_Barrier(MPI_COMM_WORLD)); /* the ranks' clocks start together: one zero for the trace */
    alarm(0);
}

int world_start(struct world *w, int *argc, char ***argv, void (*hook)(void))
{
    signal_hook = hook;
    error_set_abort(abort_all);
    *w = (struct world){.size = 1, .host_size = 1, .timeout_s = 600, .mpi = started_by_launcher()};
    gethostname(w->host, sizeof w->host - 1);
    catch_signals();
    if (w->mpi) {
        start_mpi(w, argc, argv);
    } else {
        cpu_set_t mine = usable_processors();
        w->processors = CPU_COUNT(&mine);
        w->comm = comm_open_self();
    }
    clock_set_zero();
    snprintf(signal_identity, sizeof signal_identity, "rank %d on %s", w->rank, w->host);
    error_set_identity(signal_identity);
    return STATUS_OK;
}

void world_set_timeout(struct world *w, double timeout_s)
{
    w->timeout_s = timeout_s;
    heartbeat_set_interval(timeout_s / 10 < 5 ? timeout_s / 10 : 5);
    comm_set_timeout(w->comm, timeout_s);
}

/* ---- agreeing -------------------------------------------------------------------------------- */

int world_min(struct world *w, int value)
{
    if (!w->mpi) return value;
    int least = value;
    MPI_Request request;
    CHECK_MPI(MPI_Iallreduce(&value, &least, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD, &request));
    comm_mpi_wait(&request, "world", "agreement", -1, w->timeout_s);
    return least;
}

int64_t world_host_sum(struct world *w, int64_t value)
{
    if (!w->mpi) return value;
    int64_t sum = value;
    MPI_Request request;
    CHECK_MPI(MPI_Iallreduce(&value, &sum, 1, MPI_INT64_T, MPI_SUM, host_group, &request));
    comm_mpi_wait(&request, "host", "sum", -1, w->timeout_s);
    return sum;
}

static void gather(struct world *w, MPI_Comm group, const char *name, const void *mine, void *all,
                   size_t bytes)
{
    MPI_Request request;
    if (!w->mpi) {
        memcpy(all, mine, bytes);
        return;
    }
    CHECK(bytes <= INT_MAX, "%zu bytes to gather", bytes);
    CHECK_MPI(
        MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, group, &request));
    comm_mpi_wait(&request, name, "gathering", -1, w->timeout_s);
}

void world_host_gather(struct world *w, const void *mine, void *all, size_t bytes)
{
    gather(w, host_group, "host", mine, all, bytes);
}

struct comm *world_host_split(struct world *w, int color, const char *name)
{
    MPI_Comm group;
    if (!w->mpi) return NULL;
    alarm(MPI_PATIENCE_S);
    CHECK_MPI(MPI_Comm_split(host_group, color < 0 ? MPI_UNDEFINED : color, w->rank, &group));
    alarm(0);
    return color < 0 ? NULL : comm_open_mpi(group, name, w->timeout_s);
}

int world_same(struct world *w, const char *what, const char *text)
{
    struct said {
        char host[sizeof w->host], text[192];
    } mine = {0}, *all = xcalloc((size_t)w->size, sizeof *all);
    int other = 1;
    memcpy(mine.host, w->host, sizeof mine.host);
    snprintf(mine.text, sizeof mine.text, "%s", text);
    gather(w, MPI_COMM_WORLD, "world", &mine, all, sizeof mine);
    while (other < w->size && strcmp(all[other].text, all[0].text) == 0) other++;
    int status =
        other == w->size
            ? STATUS_OK
            : error_set(STATUS_INPUT, "%s: rank 0 on %s has %s, rank %d on %s has %s", what,
                        all[0].host, all[0].text, other, all[other].host, all[other].text);
    free(all);
    return status;
}

/* A rank that only left because of another (STATUS_STOPPED) is never the one that speaks. */
int world_agree(struct world *w, int status)
{
    int key = status == STATUS_OK ? INT_MAX : w->rank + (status == STATUS_STOPPED ? w->size : 0);
    int first = world_min(w, key);
    if (first == INT_MAX) return STATUS_OK;
    first %= w->size;
    if (first == w->rank && error_message()[0]) log_error("%s", error_message());
    comm_broadcast_bytes(w->comm, &status, sizeof status, first);
    error_clear();
    return status;
}

void world_share_bytes(struct world *w, char **data, size_t *bytes)
{
    int64_t size = (int64_t)*bytes;
    comm_broadcast_bytes(w->comm, &size, sizeof size, 0);
    CHECK(size >= 0 && size < INT_MAX, "%lld bytes to share", (long long)size);
    if (w->rank != 0) *data = xmalloc((size_t)size + 1);
    comm_broadcast_bytes(w->comm, *data, (int)size, 0);
    if (*data) (*data)[size] = '\0';
    *bytes = (size_t)size;
}

/* ---- trace ----------------------------------------------------------------------------------- */

static void receive(struct world *w, void *data, int bytes, int from, int tag)
{
    struct transfer t = {0};
    comm_receive_bytes_start(w->comm, &t, data, bytes, from, tag);
    comm_wait(w->comm, &t);
}

static void send(struct world *w, const void *data, int bytes, int to, int tag)
{
    struct transfer t = {0};
    comm_send_bytes_start(w->comm, &t, data, bytes, to, tag);
    comm_wait(w->comm, &t);
}

static void write_rank_spans(FILE *f, int rank, const char *role, const struct trace_span *spans,
                             size_t count)
{
    fprintf(f,
            "%s{\"ph\":\"M\",\"pid\":0,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":"
            "\"rank %d %s\"}}",
            rank == 0 ? "" : ",\n", 2 * rank, rank, role);
    fprintf(f,
            ",\n{\"ph\":\"M\",\"pid\":0,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":"
            "\"rank %d waiting\"}}",
            2 * rank + 1, rank);
    for (size_t i = 0; i < count; i++) {
        const struct trace_span *s = &spans[i];
        fprintf(f,
                ",\n{\"ph\":\"X\",\"pid\":0,\"tid\":%d,\"cat\":\"%s\",\"name\":\"%s\",\"ts\":%.1f,"
                "\"dur\":%.1f,"
                "\"args\":{\"shot\":%d,\"index\":%d}}",
                2 * rank + s->track, s->category, s->name, s->start_s * 1e6,
                (s->end_s - s->start_s) * 1e6, s->shot, s->index);
    }
}

struct span_message {
    char role[16];
    int64_t count, dropped;
};

/* Rank 0's own spans, or those that rank sends. The caller frees *received. */
static const struct trace_span *spans_of(struct world *w, int rank, struct span_message *head,
                                         struct trace_span **received)
{
    size_t count, dropped;
    *received = NULL;
    if (rank == 0) return trace_spans(&count, &dropped);
    receive(w, head, sizeof *head, rank, TAG_TRACE_HEAD);
    *received = xcalloc((size_t)head->count, sizeof **received);
    receive(w, *received, (int)head->count * (int)sizeof **received, rank, TAG_TRACE_SPANS);
    return *received;
}

static int write_trace_file(struct world *w, const struct span_message *mine)
{
    FILE *f = partial_stream(&w->trace);
    CHECK(f, "out of memory for the trace's stream");
    fputs("{\"traceEvents\":[\n", f);
    for (int rank = 0; rank < w->size; rank++) {
        struct span_message head = *mine;
        struct trace_span *received;
        const struct trace_span *spans = spans_of(w, rank, &head, &received);
        write_rank_spans(f, rank, head.role, spans, (size_t)head.count);
        if (head.dropped)
            log_warn("trace: rank %d: %lld spans beyond the limit are not in the file", rank,
                     (long long)head.dropped);
        free(received);
    }
    fputs("\n]}\n", f);
    fclose(f);
    return partial_commit(&w->trace); /* reports what could not be written */
}

int world_open_trace(struct world *w, const char *path)
{
    trace_enable(TRACE_SPANS);
    return w->rank == 0 ? partial_open(&w->trace, path) : STATUS_OK;
}

int world_write_trace(struct world *w, const char *role)
{
    if (!trace_enabled()) return STATUS_OK;
    size_t count, dropped;
    const struct trace_span *spans = trace_spans(&count, &dropped);
    struct span_message head = {.count = (int64_t)count, .dropped = (int64_t)dropped};
    snprintf(head.role, sizeof head.role, "%s", role);
    if (w->rank == 0) return write_trace_file(w, &head);
    send(w, &head, sizeof head, 0, TAG_TRACE_HEAD);
    send(w, spans, (int)(count * sizeof *spans), 0, TAG_TRACE_SPANS);
    return STATUS_OK;
}

/* ---- stop ------------------------------------------------------------------------------------ */

int world_stop(struct world *w, int status)
{
    int log_status = log_json_close();
    status = world_agree(w, status != STATUS_OK ? status : log_status);
    phase_set("leaving");
    if (status != STATUS_OK)
        signal(SIGTERM, SIG_IGN); /* the launcher's answer to the first rank that leaves with an
                                     error; all are leaving */
    trace_free();
    if (w->trace.path) partial_drop(&w->trace);
    comm_close(w->comm);
    if (w->mpi) {
        alarm(MPI_PATIENCE_S);
        heartbeat_stop();
        mpi_is_up = false;
        MPI_Comm_free(&host_group);
        MPI_Finalize();
    }
    return status;
}
