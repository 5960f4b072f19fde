#include "render/budget.h"

#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "model/rope.h"
#include "render/conditioning.h"
#include "render/decode.h"
#include "render/engine.h"
#include "render/film.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory: planned ------------------------------------------------------------------------- */

/* Room for this stream, too. */
static bool plan_stream(struct engine *e, const struct shot *shot, const struct vae_task *task)
{
    struct arena *largest = &e->codec.streams, memory = {.name = largest->name};
    struct vae_stream *s;
    if (vae_stream_open(&s, e->codec.vae, task) != STATUS_OK) {
        error_clear();
        return false;
    }
    vae_stream_lay_out(s, &memory);
    int64_t frames = task->encodes ? 0 : vae_stream_most_frames(s);
    int64_t bytes = film_bytes(e, shot, frames), pictures = film_writer_bytes(e, shot, frames);
    vae_stream_close(s);
    if (bytes > e->codec.bytes_size) e->codec.bytes_size = bytes;
    if (pictures > e->codec.pictures_size) e->codec.pictures_size = pictures;
    if (memory.used_bytes > largest->size_bytes) largest->size_bytes = memory.used_bytes;
    return true;
}

/* Where what a device computes in is taken from. */
static enum memory_place device_place(const struct engine *e)
{
    return device_has_memory(e->dev) ? MEMORY_DEVICE : MEMORY_HOST;
}

static enum memory_place arena_place(const struct engine *e, int arena)
{
    return arena == ARENA_LATENTS || arena == ARENA_VAE ? device_place(e) : MEMORY_HOST;
}

static int plan_engine_arenas(struct engine *e, struct memory_plan p[MEMORY_PLACES])
{
    static const char *const names[ENGINE_ARENAS] = {"latents", "hand-over", "VAE", "images",
                                                     "frames"};
    for (int i = 0; i < ENGINE_ARENAS; i++)
        arena_init_on(&e->arenas[i], names[i],
                      i == ARENA_LATENTS || i == ARENA_VAE ? device_memory(e->dev)
                                                           : device_staging(e->dev));
    arena_init(&e->codec.streams, names[ARENA_VAE]); /* a part of that one */
    e->codec.bytes_size = e->codec.pictures_size = 0;
    for (int i = 0; i < e->job->shot_count; i++) {
        const struct shot *s = &e->shots[i];
        if (!engine_decodes(e, i)) continue;
        struct vae_task decode = decode_task(e, s), encode = conditioning_task(e, s);
        bool encodes = !e->codec_only && engine_owns(e, i) && conditioning_tokens(s);
        if (!plan_stream(e, s, &decode) || (encodes && !plan_stream(e, s, &encode)))
            return error_set(STATUS_INPUT,
                             "shot %d: %dx%d is too large for the memory of any machine", i + 1,
                             s->options->width, s->options->height);
    }
    engine_lay_out(e);
    for (int i = 0; i < (e->mesh.codes ? ENGINE_ARENAS : ARENA_VAE); i++)
        memory_plan_add(&p[arena_place(e, i)], names[i], (int64_t)e->arenas[i].used_bytes);
    return STATUS_OK;
}

/* Of the largest of the shots that this rank writes. */
static void plan_writing(struct engine *e, struct memory_plan *p)
{
    int64_t most = 0;
    for (int i = 0; i < e->job->shot_count; i++) {
        struct video_settings v;
        int64_t bytes = film_writer_settings(e, i, &v) ? video_memory(&v) : 0;
        most = bytes > most ? bytes : most;
    }
    memory_plan_add(p, "encoding video", most);
}

static int plan_transformer(struct engine *e, struct memory_plan p[MEMORY_PLACES])
{
    struct transformer_settings s = engine_transformer_settings(e, false);
    struct memory_plan *device = &p[device_place(e)];
    TRY(transformer_plan_memory(device, &p[MEMORY_HOST], e->dev, e->checkpoint,
                                e->mesh.denoise_group, &s));

    size_t tables = 0;
    int64_t tokens = shard_most_tokens(e->max_tokens, e->mesh.denoise_ranks);
    for (int i = 0; i < e->job->shot_count; i++) {
        struct arena a;
        struct rope r;
        struct rope_grid grid = {.f = e->shots[i].f, .h = e->shots[i].h, .w = e->shots[i].w};
        arena_init(&a, "RoPE tables");
        rope_lay_out(&r, &a, e->width, &grid, tokens);
        tables = a.used_bytes > tables ? a.used_bytes : tables;
    }
    memory_plan_add(device, "RoPE tables", (int64_t)tables);
    return STATUS_OK;
}

/* Ranks that help take the decoder's memory when the transformer's is free again. */
static void plan_help(const struct engine *e, struct memory_plan p[MEMORY_PLACES], bool resident)
{
    int64_t bytes[MEMORY_PLACES] = {0}, left[MEMORY_PLACES] = {0};
    for (int place = 0; place < MEMORY_PLACES; place++) left[place] = memory_plan_bytes(&p[place]);
    for (int i = 0; i < ENGINE_ARENAS; i++) {
        int64_t size = (int64_t)e->arenas[i].used_bytes;
        if (i < ARENA_VAE)
            left[arena_place(e, i)] -= size;
        else
            bytes[arena_place(e, i)] += size;
    }
    bytes[device_place(e)] += vae_packed_bytes(e->codec.vae, resident);
    for (int place = 0; place < MEMORY_PLACES; place++)
        memory_plan_add(&p[place], "decoding, beyond the transformer's",
                        bytes[place] > left[place] ? bytes[place] - left[place] : 0);
}

/* ---- memory: of ops -------------------------------------------------------------------------- */

/* The widest of their files, whose weights are expanded one at a time. */
static const char widest_linear[] = "adaln_single.linear.weight",
                  widest_text_linear[] = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight";

/* Of a linear layer's weights as products take them; t may be NULL. */
static int64_t expanded_bytes(const struct engine *e, const struct tensor *t)
{
    size_t each = device_precision(e->dev) == PRECISION_BF16 ? sizeof(uint16_t) : sizeof(float);
    return t ? tensor_count(t) * (int64_t)each : 0;
}

static const struct tensor *larger_tensor(const struct tensor *a, const struct tensor *b)
{
    return !a || (b && b->bytes > a->bytes) ? b : a;
}

/* Of linear layers, those of T5 are never resident. A convolution that is rounded on the device
 * comes there in fp32; else it is packed in place. */
static struct op_sizes largest_ops(const struct engine *e, bool resident)
{
    bool rounds = device_has_memory(e->dev) && device_precision(e->dev) == PRECISION_BF16;
    const struct checkpoint *texts = e->codec.text_encoder;
    const struct tensor *text = texts ? checkpoint_find(texts, widest_text_linear) : NULL,
                        *linear = NULL, *conv = NULL;
    if (e->mesh.denoises) linear = checkpoint_find(e->checkpoint, widest_linear);
    if (e->mesh.codes || e->helping) conv = vae_largest_weight(e->codec.vae);
    struct op_sizes s = {
        .expanded = larger(expanded_bytes(e, text), resident ? 0 : expanded_bytes(e, linear))};
    if (rounds && conv)
        s.expanded = larger(s.expanded, tensor_count(conv) * (int64_t)sizeof(float));
    if (rounds && text)
        s.input = e->job->text_encoder_max_tokens * text->shape[0] * (int64_t)sizeof(uint16_t);
    const struct tensor *stored = larger_tensor(larger_tensor(linear, text), conv);
    s.stored = stored ? (int64_t)stored->bytes : 0;
    for (int i = 0; i < e->job->shot_count; i++)
        if (engine_decodes(e, i))
            s.picture = larger(s.picture, film_writer_frame_bytes(&e->shots[i]));
    return s;
}

/* ---- memory: all of it ----------------------------------------------------------------------- */

/* The text encoder's weights are always expanded at use, one layer at a time. */
static void plan_weights(const struct engine *e, struct memory_plan p[MEMORY_PLACES], bool resident)
{
    struct memory_plan *device = &p[device_place(e)];
    if (e->mesh.denoises && resident)
        memory_plan_add(device, "transformer weights",
                        (int64_t)transformer_packed_bytes(e->dev, e->checkpoint));
    if (e->helping && !e->mesh.codes) plan_help(e, p, resident);
    if (engine_encodes(e))
        memory_plan_add(device, "VAE encoder weights",
                        vae_encoder_packed_bytes(e->codec.vae, resident));
    if (e->mesh.codes)
        memory_plan_add(device, "VAE weights", vae_packed_bytes(e->codec.vae, resident));
    struct op_sizes largest = largest_ops(e, resident);
    memory_plan_add(device, device_has_memory(e->dev) ? "scratch of ops" : "one layer's weights",
                    device_scratch_bytes(e->dev, &largest));
}

/* Of messages from device to device, in all groups of this rank. */
static void message_bytes(const struct engine *e, int64_t *planned, int64_t *taken)
{
    const struct comm *groups[] = {e->mesh.denoise_group, e->mesh.codec_group, e->mesh.everyone};
    *planned = *taken = 0;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        int64_t its_planned, its_taken;
        if (!groups[i]) continue;
        comm_device_bytes(groups[i], &its_planned, &its_taken);
        *planned += its_planned;
        *taken += its_taken;
    }
}

int budget_plan(struct budget *n, struct engine *e)
{
    int64_t messages, taken;
    struct memory_plan plan[MEMORY_PLACES] = {0};
    *n = (struct budget){0};
    if (e->codec.t5)
        memory_plan_add(&plan[device_place(e)], "text encoder", t5_memory_bytes(e->codec.t5));
    message_bytes(e, &messages, &taken);
    TRY(plan_engine_arenas(e, plan));
    plan_writing(e, &plan[MEMORY_HOST]);
    if (e->mesh.denoises) TRY(plan_transformer(e, plan));
    for (int resident = 0; resident < 2; resident++) {
        memcpy(n->plan[resident], plan, sizeof plan);
        plan_weights(e, n->plan[resident], resident);
        memory_plan_add(&n->plan[resident][MEMORY_DEVICE], "messages between devices", messages);
        for (int place = 0; place < MEMORY_PLACES; place++)
            n->bytes[resident][place] = memory_plan_bytes(&n->plan[resident][place]);
    }
    return STATUS_OK;
}

/* ---- memory: decided ------------------------------------------------------------------------- */

/* The largest shot that this rank has a part in. */
static const struct shot *largest_shot(const struct engine *e)
{
    const struct shot *largest = &e->shots[0];
    for (int i = 1; i < e->job->shot_count; i++)
        if (e->shots[i].tokens > largest->tokens) largest = &e->shots[i];
    return largest;
}

static const char *plural(int n) { return n == 1 ? "" : "s"; }

/* "on the device 12.30 GiB: ..., ...; on the host 1.20 GiB: ..."; one of them where there is
 * one. */
enum { PLAN_TEXT = 1100, DEVICE_TEXT = 320 };
static const char *plan_text(const struct engine *e, const struct budget *n, bool resident,
                             char out[PLAN_TEXT])
{
    char host[512], device[512];
    const struct memory_plan *p = n->plan[resident];
    memory_plan_text(&p[MEMORY_HOST], host, sizeof host);
    memory_plan_text(&p[MEMORY_DEVICE], device, sizeof device);
    if (device_has_memory(e->dev))
        snprintf(out, PLAN_TEXT, "on the device %s; on the host %s", device, host);
    else
        snprintf(out, PLAN_TEXT, "%s", host);
    return out;
}

/* What is too small, what is needed there and what there is. */
static void text_of_shortage(const struct engine *e, const struct budget *n, char *out, size_t size)
{
    char needed[32], there[32];
    int ranks = e->world->host_size;
    if (n->cramped[e->resident])
        snprintf(out, size, "the limit of addresses (ulimit -v) leaves rank %d %s", e->world->rank,
                 memory_text(n->mappable, there));
    else if (n->host_bytes[e->resident] > n->available)
        snprintf(out, size, "%d rank%s on %s need%s %s, available are %s", ranks, plural(ranks),
                 e->world->host, ranks == 1 ? "s" : "",
                 memory_text(n->host_bytes[e->resident], needed), memory_text(n->available, there));
    else
        device_memory_text(&n->claim, &n->device, e->world->host, e->resident, out, size);
}

/* "" on a device without memory of its own. */
static const char *text_of_device(const struct engine *e, const struct budget *n, bool resident,
                                  char out[DEVICE_TEXT])
{
    bool has = device_has_memory(e->dev),
         enough = has && device_memory_suffices(&n->device, resident);
    char text[DEVICE_TEXT - 16] = "";
    if (has) device_memory_text(&n->claim, &n->device, e->world->host, resident, text, sizeof text);
    snprintf(out, DEVICE_TEXT, "%s%s%s", has ? "; " : "", text,
             enough || !has ? "" : ": too little");
    return out;
}

/* Does it fit this process, the ranks of this host together, and those of this device? */
static bool fits(const struct engine *e, const struct budget *n, bool resident)
{
    return !n->cramped[resident] && n->host_bytes[resident] <= n->available &&
           (!device_has_memory(e->dev) || device_memory_suffices(&n->device, resident));
}

static int refuse(const struct engine *e, const struct budget *n)
{
    const struct shot *s = largest_shot(e);
    char head[DEVICE_TEXT], parts[PLAN_TEXT], advice[96], streamed[32];
    bool device = !n->cramped[e->resident] && n->host_bytes[e->resident] <= n->available;
    text_of_shortage(e, n, head, sizeof head);
    if (e->resident && fits(e, n, false) && !n->host_cramped[false])
        snprintf(advice, sizeof advice, ", or --weights stream (%s)",
                 memory_text(device ? n->device.bytes[false] : n->host_bytes[false], streamed));
    else
        snprintf(advice, sizeof advice, ", or %s",
                 device ? "more ranks, each on a device of its own" : "ranks on more hosts");
    return error_set(STATUS_INPUT,
                     "not enough %smemory: %s; %s rank %d, for shot %d (%dx%d, %d frames): %s; "
                     "fewer frames or a smaller picture help%s",
                     device ? "device " : "", head, mesh_role_name(&e->mesh), e->world->rank,
                     s->number + 1, s->options->width, s->options->height, s->options->num_frames,
                     plan_text(e, n, e->resident, parts), advice);
}

/* Stacks of threads and what the video encoder takes: small beside the rest, but a limit of
 * addresses is a hard one. */
enum { UNPLANNED_ADDRESSES = 128 << 20 };

static void survey_host(struct budget *n, const struct engine *e)
{
    struct world *w = e->world;
    int64_t addresses = memory_addresses();
    n->mappable = addresses > UNPLANNED_ADDRESSES ? addresses - UNPLANNED_ADDRESSES : 0;
    n->available = world_host_sum(w, w->host_rank == 0 ? memory_available() : 0);
    for (int resident = 0; resident < 2; resident++) {
        n->cramped[resident] = n->bytes[resident][MEMORY_HOST] > n->mappable;
        n->host_cramped[resident] = world_host_sum(w, n->cramped[resident]) > 0;
        n->host_bytes[resident] = world_host_sum(w, n->bytes[resident][MEMORY_HOST]);
    }
}

/* What messages have taken already is a part of the plan, and so of what is free. */
static void survey_device(struct budget *n, const struct engine *e)
{
    struct world *w = e->world;
    int64_t messages, taken;
    n->claim = (struct device_claim){
        .facts = device_describe(e->dev),
        .bytes = {n->bytes[false][MEMORY_DEVICE], n->bytes[true][MEMORY_DEVICE]}};
    device_memory_left(e->dev, &n->claim.left, &n->claim.all);
    message_bytes(e, &messages, &taken);
    n->claim.left += taken;
    struct device_claim *claims = xcalloc((size_t)w->host_size, sizeof *claims);
    world_host_gather(w, &n->claim, claims, sizeof *claims);
    n->device = device_memory_sum(claims, w->host_size, w->host_rank);
    free(claims);
}

/* All ranks of a host, and of a device, see the same sums and so decide alike; others may not.
 * Are the weights to be resident? Kept ones are the device's where that has memory. */
static bool survey(struct budget *n, const struct engine *e)
{
    survey_host(n, e);
    if (device_has_memory(e->dev)) survey_device(n, e);
    bool easy = device_has_memory(e->dev)
                    ? device_memory_is_easy(&n->device, true)
                    : !n->host_cramped[true] && n->host_bytes[true] <= n->available / 100 * 85;
    return e->job->weights == WEIGHTS_RESIDENT || (e->job->weights == WEIGHTS_AUTO && easy);
}

bool budget_has_room(struct budget *more, struct budget *less, const struct engine *e)
{
    bool resident = survey(less, e), room = survey(more, e) == resident &&
                                            !more->host_cramped[resident] &&
                                            fits(e, more, resident);
    return world_min(e->world, room);
}

/* Where a plan does not fit, the rank that needs most is the one that says so. */
int budget_decide(struct budget *n, struct engine *e)
{
    struct world *w = e->world;
    char text[PLAN_TEXT];
    e->resident = survey(n, e);
    memory_plan_keep(plan_text(e, n, e->resident, text));
    bool refused = !fits(e, n, e->resident);
    int64_t mib =
        (n->bytes[e->resident][MEMORY_HOST] >> 20) + (n->bytes[e->resident][MEMORY_DEVICE] >> 20);
    int need = refused ? mib < INT_MAX ? (int)mib + 1 : INT_MAX : 0;
    int largest = -world_min(w, -need);
    return refused && need == largest ? refuse(e, n) : STATUS_OK;
}

enum { TAG_PLAN = 61, LINE = PLAN_TEXT + DEVICE_TEXT + 256 };

/* On the CPU resident weights are planned wherever they may be; a device says what it has room
 * for. */
static void text_of_rank(struct budget *n, const struct engine *e, char line[LINE])
{
    struct world *w = e->world;
    char parts[PLAN_TEXT], device[DEVICE_TEXT];
    bool resident = device_has_memory(e->dev) ? survey(n, e) : e->job->weights != WEIGHTS_STREAM;
    snprintf(line, LINE, "rank %d, %s, on %s: %s%s%s", w->rank, mesh_role_name(&e->mesh), w->host,
             plan_text(e, n, resident, parts), resident ? "" : " (weights expanded at every use)",
             text_of_device(e, n, resident, device));
}

void budget_print_ranks(struct budget *n, const struct engine *e)
{
    struct world *w = e->world;
    char line[LINE];
    text_of_rank(n, e, line);
    if (w->rank == 0) puts(line);
    for (int r = 1; r < w->size; r++) { /* in the order of ranks */
        struct transfer t = {0};
        if (w->rank == r) comm_send_bytes_start(w->comm, &t, line, LINE, 0, TAG_PLAN);
        if (w->rank == 0) comm_receive_bytes_start(w->comm, &t, line, LINE, r, TAG_PLAN);
        comm_wait(w->comm, &t);
        if (w->rank == 0) puts(line);
    }
}

void budget_print(const struct budget *n, const struct engine *e)
{
    char parts[PLAN_TEXT], host[32], available[32], device[DEVICE_TEXT];
    if (e->world->rank != 0 && e->world->rank != mesh_codec_world_rank(&e->mesh, 0)) return;
    log_info("memory of a %s rank: %s%s; %d rank%s on %s: %s of %s available",
             mesh_role_name(&e->mesh), plan_text(e, n, e->resident, parts),
             text_of_device(e, n, e->resident, device), e->world->host_size,
             plural(e->world->host_size), e->world->host,
             memory_text(n->host_bytes[e->resident], host), memory_text(n->available, available));
}

/* The most of any rank in [first, first + count). */
static int64_t largest_peak(const double *peaks, int first, int count)
{
    double most = 0;
    for (int r = first; r < first + count; r++) most = peaks[r] > most ? peaks[r] : most;
    return (int64_t)most;
}

void budget_print_peaks(const struct engine *e)
{
    const struct mesh *m = &e->mesh;
    int size = e->world->size;
    double peaks[size];
    char denoise[32], codec[32];
    peaks[e->world->rank] = (double)memory_peak();
    log_json("end", "\"role\":\"%s\",\"peak_resident_bytes\":%lld", mesh_role_name(m),
             (long long)peaks[e->world->rank]);
    comm_all_gather_each(e->world->comm, peaks, 1);
    if (e->world->rank != 0) return;
    memory_text(largest_peak(peaks, 0, m->denoise_ranks), denoise);
    memory_text(largest_peak(peaks, mesh_codec_world_rank(m, 0), m->codec_ranks), codec);
    if (size == 1)
        log_info("memory, at most, model files included: %s", denoise);
    else
        log_info("memory, at most, model files included: a denoise rank %s, a codec rank %s",
                 denoise, codec);
}
