/* Between host and device without either waiting for the other.
 *
 * Two streams: what is small goes with the ops, in their order; weights on their way in and frames
 * on their way out have a stream of their own, so that they move while ops compute. Where the two
 * meet lies a relay: memory that one stream fills and the other empties, with an event each way.
 * What comes from the host passes through pinned memory first, so that the host goes on at once. */
#include "kernels/cuda/cuda.h"

#include "base/error.h"

#include <string.h>

enum { STAGING_ALIGNMENT = 256 };

/* ---- waiting --------------------------------------------------------------------------------- */

static void await(struct device *dev, cudaEvent_t event)
{
    struct cuda_patience patience = {0};
    cudaError_t state;
    while ((state = cudaEventQuery(event)) == cudaErrorNotReady) cuda_keep_waiting(dev, &patience);
    CHECK_CUDA(state);
}

uint64_t cuda_mark(struct device *dev)
{
    struct cuda *cuda = cuda_of(dev);
    if (cuda_cannot_record("something waits for the device")) return 0;
    struct mark *m = &cuda->marks[++cuda->last_mark % MARKS];
    CHECK_CUDA(cudaEventRecord(m->computed, cuda->stream));
    CHECK_CUDA(cudaEventRecord(m->copied, cuda->copies));
    return cuda->last_mark;
}

/* Where the mark's events have been used again they stand for a later one. */
void cuda_wait(struct device *dev, uint64_t mark)
{
    struct cuda *cuda = cuda_of(dev);
    if (mark == 0) return;
    await(dev, cuda->marks[mark % MARKS].computed);
    await(dev, cuda->marks[mark % MARKS].copied);
}

/* ---- from the host --------------------------------------------------------------------------- */

/* Room for as many bytes, at most a slot's. A slot is filled again when its copies are done. */
static char *staging_take(struct device *dev, struct staging *s, size_t bytes)
{
    if (s->filled + bytes > STAGING_BYTES) {
        CHECK_CUDA(cudaEventRecord(s->done[s->slot], s->stream));
        s->slot = (s->slot + 1) % STAGING_SLOTS;
        await(dev, s->done[s->slot]);
        s->filled = 0;
    }
    char *room = s->memory + (size_t)s->slot * STAGING_BYTES + s->filled;
    s->filled += (bytes + STAGING_ALIGNMENT - 1) / STAGING_ALIGNMENT * STAGING_ALIGNMENT;
    return room;
}

/* Rows of a rectangle that fits a slot. */
static void stage_piece(struct device *dev, struct staging *s, char *to, size_t to_stride,
                        const char *from, size_t from_stride, size_t bytes, int64_t rows)
{
    char *room = staging_take(dev, s, bytes * (size_t)rows);
    copy_host_rows(room, bytes, from, from_stride, bytes, rows);
    if (rows == 1) to_stride = bytes; /* pitches have a limit */
    CHECK_CUDA(cudaMemcpy2DAsync(to, to_stride, room, bytes, bytes, (size_t)rows,
                                 cudaMemcpyHostToDevice, s->stream));
}

static void stage(struct device *dev, struct staging *s, void *to, size_t to_stride,
                  const void *from, size_t from_stride, size_t bytes, int64_t rows)
{
    size_t wide = bytes < STAGING_BYTES ? bytes : STAGING_BYTES;
    int64_t high = (int64_t)(STAGING_BYTES / wide);
    for (int64_t y = 0; y < rows; y += high)
        for (size_t x = 0; x < bytes; x += wide)
            stage_piece(dev, s, (char *)to + (size_t)y * to_stride + x, to_stride,
                        (const char *)from + (size_t)y * from_stride + x, from_stride,
                        bytes - x < wide ? bytes - x : wide, rows - y < high ? rows - y : high);
}

void cuda_upload(struct device *dev, void *to, size_t to_stride, const void *from,
                 size_t from_stride, size_t bytes, int64_t rows)
{
    if (cuda_cannot_record("an upload")) return;
    stage(dev, &cuda_of(dev)->uploads, to, to_stride, from, from_stride, bytes, rows);
}

/* ---- relays ---------------------------------------------------------------------------------- */

/* The next of them, for `filler` to write `bytes` to. */
static struct relay *relay_take(struct relays *r, size_t bytes, const char *what,
                                cudaStream_t filler)
{
    struct relay *next = &r->relay[r->turn++ % r->count];
    cuda_scratch(&next->memory, bytes, what);
    CHECK_CUDA(cudaStreamWaitEvent(filler, next->emptied, 0));
    return next;
}

static void relay_hand_over(const struct relay *r, cudaStream_t filler, cudaStream_t emptier)
{
    CHECK_CUDA(cudaEventRecord(r->filled, filler));
    CHECK_CUDA(cudaStreamWaitEvent(emptier, r->filled, 0));
}

/* The next layer's weights are on their way while this one's are multiplied with. */
static void read_tensor(struct device *dev, void *to, enum dtype type, const struct tensor *t)
{
    struct cuda *cuda = cuda_of(dev);
    struct relay *raw = relay_take(&cuda->raw, t->bytes, t->name, cuda->copies);
    stage(dev, &cuda->loads, raw->memory.p, t->bytes, t->data, t->bytes, t->bytes, 1);
    relay_hand_over(raw, cuda->copies, cuda->stream);
    CHECK_CUDA(launch_convert(cuda->stream, to, type, raw->memory.p, t->dtype, tensor_count(t)));
    CHECK_CUDA(cudaEventRecord(raw->emptied, cuda->stream));
}

void cuda_load_tensor(struct device *dev, void *to, enum dtype type, const struct tensor *t)
{
    if (cuda_cannot_record("weights that are not in the device's memory")) return;
    if (device_reads(dev, t)) read_tensor(dev, to, type, t);
    device_pass_on(dev, to, (size_t)tensor_count(t) * dtype_size(type));
}

struct relay *cuda_frame_take(struct device *dev, size_t bytes, const char *what)
{
    struct cuda *cuda = cuda_of(dev);
    if (cuda_cannot_record("frames for the host")) return NULL;
    return relay_take(&cuda->frames, bytes, what, cuda->stream);
}

void cuda_frame_send(struct device *dev, struct relay *frame, void *to, size_t bytes)
{
    struct cuda *cuda = cuda_of(dev);
    relay_hand_over(frame, cuda->stream, cuda->copies);
    CHECK_CUDA(cudaMemcpyAsync(to, frame->memory.p, bytes, cudaMemcpyDeviceToHost, cuda->copies));
    CHECK_CUDA(cudaEventRecord(frame->emptied, cuda->copies));
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Waits do not spin: the host polls. Times are never asked for. */
static void make_event(cudaEvent_t *event)
{
    CHECK_CUDA(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
}

static void open_staging(struct staging *s, cudaStream_t stream)
{
    size_t bytes = (size_t)STAGING_SLOTS * STAGING_BYTES;
    s->stream = stream;
    CHECK_CUDA(cudaHostAlloc((void **)&s->memory, bytes, cudaHostAllocDefault));
    for (int i = 0; i < STAGING_SLOTS; i++) make_event(&s->done[i]);
}

static void close_staging(struct staging *s)
{
    CHECK_CUDA(cudaFreeHost(s->memory));
    for (int i = 0; i < STAGING_SLOTS; i++) CHECK_CUDA(cudaEventDestroy(s->done[i]));
}

static void open_relays(struct relays *r, unsigned count)
{
    r->count = count;
    for (unsigned i = 0; i < count; i++) {
        make_event(&r->relay[i].filled);
        make_event(&r->relay[i].emptied);
    }
}

static void close_relays(struct relays *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        CHECK_CUDA(cudaFree(r->relay[i].memory.p));
        CHECK_CUDA(cudaEventDestroy(r->relay[i].filled));
        CHECK_CUDA(cudaEventDestroy(r->relay[i].emptied));
    }
}

void cuda_copies_open(struct cuda *cuda)
{
    CHECK_CUDA(cudaStreamCreateWithFlags(&cuda->copies, cudaStreamNonBlocking));
    open_staging(&cuda->uploads, cuda->stream);
    open_staging(&cuda->loads, cuda->copies);
    open_relays(&cuda->raw, RAW_RELAYS);
    open_relays(&cuda->frames, FRAME_RELAYS);
    for (int i = 0; i < MARKS; i++) {
        make_event(&cuda->marks[i].computed);
        make_event(&cuda->marks[i].copied);
    }
}

void cuda_copies_close(struct cuda *cuda)
{
    close_staging(&cuda->uploads);
    close_staging(&cuda->loads);
    close_relays(&cuda->raw);
    close_relays(&cuda->frames);
    for (int i = 0; i < MARKS; i++) {
        CHECK_CUDA(cudaEventDestroy(cuda->marks[i].computed));
        CHECK_CUDA(cudaEventDestroy(cuda->marks[i].copied));
    }
    CHECK_CUDA(cudaStreamDestroy(cuda->copies));
}
