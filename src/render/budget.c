#include "render/budget.h"

#include "base/error.h"
#include "base/log.h"
#include "model/rope.h"
#include "render/conditioning.h"
#include "render/decode.h"
#include "render/engine.h"
#include "render/film.h"

#include <limits.h>
#include <stdio.h>

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

static int plan_engine_arenas(struct engine *e, struct memory_plan *p)
{
    static const char *const names[ENGINE_ARENAS] = {"latents and hand-over", "VAE", "images",
                                                     "frames"};
    for (int i = 0; i < ENGINE_ARENAS; i++) arena_init(&e->arenas[i], names[i]);
    arena_init(&e->codec.streams, names[ARENA_VAE]);
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
        memory_plan_add(p, names[i], (int64_t)e->arenas[i].used_bytes);
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

static int plan_transformer(struct engine *e, struct memory_plan *p)
{
    struct transformer_settings s = engine_transformer_settings(e, false);
    TRY(transformer_plan_memory(p, e->dev, e->checkpoint, e->mesh.denoise_group, &s));

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
    memory_plan_add(p, "RoPE tables", (int64_t)tables);
    return STATUS_OK;
}

static int64_t expanded_bytes(const struct engine *e, const struct checkpoint *c,
                              const char *weight)
{
    const struct tensor *t = checkpoint_find(c, weight);
    size_t each = device_precision(e->dev) == PRECISION_BF16 ? sizeof(uint16_t) : sizeof(float);
    return t ? tensor_count(t) * (int64_t)each : 0;
}

/* Ranks that help take the decoder's memory when the transformer's is free again. */
static void plan_help(const struct engine *e, struct memory_plan *p, bool resident)
{
    int64_t free = memory_plan_bytes(p) - (int64_t)e->arenas[ARENA_EXCHANGE].used_bytes;
    int64_t bytes = vae_packed_bytes(e->codec.vae, resident);
    for (int i = ARENA_VAE; i < ENGINE_ARENAS; i++) bytes += (int64_t)e->arenas[i].used_bytes;
    memory_plan_add(p, "decoding, beyond the transformer's", bytes > free ? bytes - free : 0);
}

/* The text encoder's weights are always expanded at use, one layer at a time. */
static void plan_weights(const struct engine *e, struct memory_plan *p, bool resident)
{
    int64_t layer = 0, text_layer = 0;
    if (e->mesh.denoises && resident)
        memory_plan_add(p, "transformer weights",
                        (int64_t)transformer_packed_bytes(e->dev, e->checkpoint));
    if (e->helping && !e->mesh.codes) plan_help(e, p, resident);
    if (e->mesh.denoises && !resident)
        layer = expanded_bytes(e, e->checkpoint, "adaln_single.linear.weight"); /* the widest */
    if (engine_encodes(e))
        memory_plan_add(p, "VAE encoder weights", vae_encoder_packed_bytes(e->codec.vae, resident));
    if (e->mesh.codes) {
        memory_plan_add(p, "VAE weights", vae_packed_bytes(e->codec.vae, resident));
        if (e->codec.text_encoder)
            text_layer = expanded_bytes(e, e->codec.text_encoder,
                                        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight");
    }
    memory_plan_add(p, "one layer's weights", text_layer > layer ? text_layer : layer);
}

int budget_plan(struct budget *n, struct engine *e)
{
    struct memory_plan plan = {0};
    *n = (struct budget){0};
    if (e->codec.t5) memory_plan_add(&plan, "text encoder", t5_memory_bytes(e->codec.t5));
    TRY(plan_engine_arenas(e, &plan));
    plan_writing(e, &plan);
    if (e->mesh.denoises) TRY(plan_transformer(e, &plan));
    for (int resident = 0; resident < 2; resident++) {
        n->plan[resident] = plan;
        plan_weights(e, &n->plan[resident], resident);
        n->bytes[resident] = memory_plan_bytes(&n->plan[resident]);
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

static int refuse(const struct engine *e, const struct budget *n)
{
    const struct shot *s = largest_shot(e);
    int ranks = e->world->host_size;
    char head[256], parts[512], advice[96] = "", needed[32], there[32], streamed[32];
    if (n->cramped[e->resident])
        snprintf(head, sizeof head, "the limit of addresses (ulimit -v) leaves rank %d %s",
                 e->world->rank, memory_text(n->mappable, there));
    else
        snprintf(head, sizeof head, "%d rank%s on %s need%s %s, available are %s", ranks,
                 plural(ranks), e->world->host, ranks == 1 ? "s" : "",
                 memory_text(n->host_bytes[e->resident], needed), memory_text(n->available, there));
    if (e->resident && n->host_bytes[false] <= n->available && !n->host_cramped[false])
        snprintf(advice, sizeof advice, ", or --weights stream (%s)",
                 memory_text(n->host_bytes[false], streamed));
    else
        snprintf(advice, sizeof advice, ", or ranks on more hosts");
    return error_set(STATUS_INPUT,
                     "not enough memory: %s; %s rank %d, for shot %d (%dx%d, %d frames): %s; fewer "
                     "frames or a smaller "
                     "picture help%s",
                     head, mesh_role_name(&e->mesh), e->world->rank, s->number + 1,
                     s->options->width, s->options->height, s->options->num_frames,
                     memory_plan_text(&n->plan[e->resident], parts, sizeof parts), advice);
}

/* Stacks of threads and what the video encoder takes: small beside the rest, but a limit of
 * addresses is a hard one. */
enum { UNPLANNED_ADDRESSES = 128 << 20 };

/* All ranks of a host see the same sums and so decide alike; hosts may differ. Are the weights to be
 * resident? */
static bool survey(struct budget *n, const struct engine *e)
{
    struct world *w = e->world;
    int64_t addresses = memory_addresses();
    n->mappable = addresses > UNPLANNED_ADDRESSES ? addresses - UNPLANNED_ADDRESSES : 0;
    n->available = world_host_sum(w, w->host_rank == 0 ? memory_available() : 0);
    for (int resident = 0; resident < 2; resident++) {
        n->cramped[resident] = n->bytes[resident] > n->mappable;
        n->host_cramped[resident] = world_host_sum(w, n->cramped[resident]) > 0;
        n->host_bytes[resident] = world_host_sum(w, n->bytes[resident]);
    }
    bool resident_is_easy =
        !n->host_cramped[true] && n->host_bytes[true] <= n->available / 100 * 85;
    return e->job->weights == WEIGHTS_RESIDENT ||
           (e->job->weights == WEIGHTS_AUTO && resident_is_easy);
}

bool budget_has_room(struct budget *more, struct budget *less, const struct engine *e)
{
    bool resident = survey(less, e), fits = survey(more, e) == resident &&
                                            !more->host_cramped[resident] &&
                                            more->host_bytes[resident] <= more->available;
    return world_min(e->world, fits);
}

/* Where a plan does not fit, the rank that needs most is the one that says so. */
int budget_decide(struct budget *n, struct engine *e)
{
    struct world *w = e->world;
    e->resident = survey(n, e);
    bool refused = n->cramped[e->resident] || n->host_bytes[e->resident] > n->available;
    int64_t mib = n->bytes[e->resident] >> 20;
    int need = refused ? mib < INT_MAX ? (int)mib + 1 : INT_MAX : 0;
    int largest = -world_min(w, -need);
    return refused && need == largest ? refuse(e, n) : STATUS_OK;
}

enum { TAG_PLAN = 61, LINE = 640 };

void budget_print_ranks(const struct budget *n, const struct engine *e)
{
    struct world *w = e->world;
    bool resident = e->job->weights != WEIGHTS_STREAM;
    char parts[512], line[LINE];
    snprintf(line, sizeof line, "rank %d, %s, on %s: %s%s", w->rank, mesh_role_name(&e->mesh),
             w->host, memory_plan_text(&n->plan[resident], parts, sizeof parts),
             resident ? "" : " (weights expanded at every use)");
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
    char parts[512], host[32], available[32];
    if (e->world->rank != 0 && e->world->rank != mesh_codec_world_rank(&e->mesh, 0)) return;
    log_info("memory of a %s rank: %s; %d rank%s on %s: %s of %s available",
             mesh_role_name(&e->mesh), memory_plan_text(&n->plan[e->resident], parts, sizeof parts),
             e->world->host_size, plural(e->world->host_size), e->world->host,
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
