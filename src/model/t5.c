#include "model/t5.h"

#include "base/arena.h"
#include "base/error.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUCKETS = 32, /* of relative positions; op_attention_t5 knows their boundaries */
    MAX_DISTANCE = 128,
    TILE = 64, /* rows of one linear tile */
};
static const float norm_eps = 1e-6f;

struct t5_layer {
    const struct tensor *norm_attention, *norm_feed_forward; /* [D] */
    struct linear q, k, v;                                   /* [N*d, D] */
    struct linear o;                                         /* [D, N*d] */
    struct linear wi_0, wi_1;                                /* [F, D] */
    struct linear wo;                                        /* [D, F] */
};

struct t5 {
    struct device *dev;
    const char *path; /* for messages; the checkpoint's own */
    int64_t vocabulary, width, inner, heads, hidden, max_tokens;
    int layers;
    const struct tensor *embedding;   /* [vocabulary, D] */
    const struct tensor *bias_tensor; /* [BUCKETS, N]; block 0's, used by all */
    const struct tensor *final_norm;  /* [D] */
    struct t5_layer *layer;           /* [layers] */
    struct arena arena;               /* device: all of the following but row */
    struct arena staging;             /* of the host: row */
    float *bias;                      /* [BUCKETS, N] */
    float *norms;     /* [2 * layers + 1, D]: of attention and feed-forward by turns, the last */
    float *row;       /* [D] */
    float *x, *y;     /* residual stream, what is added to it [L, D] */
    float *q, *k, *v; /* [L, N*d] */
    float *gate, *up; /* [L, F] */
    void *n, *o, *h;  /* what linears read, in device_activations: normed [L, D], attended [L, N*d],
                         gated [L, F] */
};

/* ---- opening --------------------------------------------------------------------------------- */

static int need_linear(const struct checkpoint *c, struct linear *l, int64_t out, int64_t in,
                       int layer, const char *name)
{
    const struct tensor *weight = NULL;
    TRY(checkpoint_need(c, &weight, 2, (const int64_t[]){out, in},
                        "encoder.block.%d.layer.%s.weight", layer, name));
    *l = linear_make(weight, NULL);
    return STATUS_OK;
}

static int need_norm(const struct checkpoint *c, const struct tensor **norm, int64_t width,
                     const char *name)
{
    return checkpoint_need(c, norm, 1, &width, "%s.weight", name);
}

/* The embedding is stored under either of its two names, or under both with equal content. */
static int find_embedding(struct t5 *t, const struct checkpoint *c)
{
    const int64_t any[] = {-1, -1};
    bool second =
        !checkpoint_find(c, "shared.weight") && checkpoint_find(c, "encoder.embed_tokens.weight");
    TRY(checkpoint_need(c, &t->embedding, 2, any, "%s",
                        second ? "encoder.embed_tokens.weight" : "shared.weight"));
    t->vocabulary = t->embedding->shape[0];
    t->width = t->embedding->shape[1];
    return STATUS_OK;
}

/* Everything but the depth follows from shapes. */
static int find_sizes(struct t5 *t, const struct checkpoint *c)
{
    const struct tensor *w = NULL;
    TRY(find_embedding(t, c));
    TRY(checkpoint_need(c, &t->bias_tensor, 2, (const int64_t[]){BUCKETS, -1},
                        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
    t->heads = t->bias_tensor->shape[1];
    TRY(checkpoint_need(c, &w, 2, (const int64_t[]){-1, t->width},
                        "encoder.block.0.layer.0.SelfAttention.q.weight"));
    t->inner = w->shape[0];
    TRY(checkpoint_need(c, &w, 2, (const int64_t[]){-1, t->width},
                        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"));
    t->hidden = w->shape[0];
    if (t->vocabulary < 1 || t->width < 1 || t->hidden < 1 || t->heads < 1 || t->inner < 1 ||
        t->inner % t->heads || t->inner / t->heads % 2)
        return error_set(STATUS_INPUT,
                         "%s: %lld attention channels for %lld heads; each head must "
                         "have the same even number",
                         checkpoint_path(c), (long long)t->inner, (long long)t->heads);
    int64_t distance = checkpoint_config_int(c, "relative_attention_max_distance", MAX_DISTANCE);
    if (distance != MAX_DISTANCE)
        return error_set(STATUS_INPUT,
                         "%s: config.json: relative_attention_max_distance %lld; allowed is %d",
                         checkpoint_path(c), (long long)distance, MAX_DISTANCE);
    return STATUS_OK;
}

/* config.json says how many; a file that ends early must not pass for a shallower model. */
static int find_depth(struct t5 *t, const struct checkpoint *c)
{
    char name[80];
    const struct tensor *first = NULL;
    int present = 0;
    for (;; present++) {
        snprintf(name, sizeof name, "encoder.block.%d.layer.0.SelfAttention.q.weight", present);
        if (!checkpoint_find(c, name)) break;
    }
    int64_t layers = checkpoint_config_int(c, "num_layers", present);
    if (layers < 1 || layers > INT_MAX)
        return error_set(STATUS_INPUT, "%s: config.json: num_layers %lld; at least 1 is allowed",
                         checkpoint_path(c), (long long)layers);
    if (layers > present)
        return checkpoint_need(c, &first, 2, (const int64_t[]){t->inner, t->width}, "%s", name);
    t->layers = (int)layers;
    return STATUS_OK;
}

static int find_layer(struct t5 *t, const struct checkpoint *c, int i)
{
    struct t5_layer *l = &t->layer[i];
    char name[80];
    snprintf(name, sizeof name, "encoder.block.%d.layer.0.layer_norm", i);
    TRY(need_norm(c, &l->norm_attention, t->width, name));
    TRY(need_linear(c, &l->q, t->inner, t->width, i, "0.SelfAttention.q"));
    TRY(need_linear(c, &l->k, t->inner, t->width, i, "0.SelfAttention.k"));
    TRY(need_linear(c, &l->v, t->inner, t->width, i, "0.SelfAttention.v"));
    TRY(need_linear(c, &l->o, t->width, t->inner, i, "0.SelfAttention.o"));
    snprintf(name, sizeof name, "encoder.block.%d.layer.1.layer_norm", i);
    TRY(need_norm(c, &l->norm_feed_forward, t->width, name));
    TRY(need_linear(c, &l->wi_0, t->hidden, t->width, i, "1.DenseReluDense.wi_0"));
    TRY(need_linear(c, &l->wi_1, t->hidden, t->width, i, "1.DenseReluDense.wi_1"));
    return need_linear(c, &l->wo, t->width, t->hidden, i, "1.DenseReluDense.wo");
}

static int find_tensors(struct t5 *t, const struct checkpoint *c)
{
    TRY(find_sizes(t, c));
    TRY(find_depth(t, c));
    t->layer = xcalloc((size_t)t->layers, sizeof *t->layer);
    for (int i = 0; i < t->layers; i++) TRY(find_layer(t, c, i));
    return need_norm(c, &t->final_norm, t->width, "encoder.final_layer_norm");
}

static void lay_out(struct t5 *t)
{
    struct arena *a = &t->arena;
    int64_t tokens = t->max_tokens;
    enum dtype type = device_activations(t->dev);
    t->bias = arena_floats(a, BUCKETS * t->heads);
    t->norms = arena_floats(a, (2 * (int64_t)t->layers + 1) * t->width);
    t->x = arena_floats(a, tokens * t->width);
    t->y = arena_floats(a, tokens * t->width);
    t->q = arena_floats(a, tokens * t->inner);
    t->k = arena_floats(a, tokens * t->inner);
    t->v = arena_floats(a, tokens * t->inner);
    t->gate = arena_floats(a, tokens * t->hidden);
    t->up = arena_floats(a, tokens * t->hidden);
    t->o = arena_values(a, tokens * t->inner, type);
    bool own = type != DTYPE_F32; /* else they are done with when the others are written */
    t->n = own ? arena_values(a, tokens * t->width, type) : t->y;
    t->h = own ? arena_values(a, tokens * t->hidden, type) : t->gate;
    t->row = arena_floats(&t->staging, t->width);
}

int t5_open(struct t5 **out, struct device *dev, const struct checkpoint *text_encoder,
            int max_tokens)
{
    CHECK(max_tokens >= 1, "max_tokens %d", max_tokens);
    struct t5 *t = xmalloc(sizeof *t);
    *t = (struct t5){.dev = dev, .path = checkpoint_path(text_encoder), .max_tokens = max_tokens};
    arena_init_on(&t->arena, "text encoder activations", device_memory(dev));
    arena_init_on(&t->staging, "text embedding", device_staging(dev));
    int status = find_tensors(t, text_encoder);
    if (status != STATUS_OK) {
        t5_close(t);
        return status;
    }
    lay_out(t);
    *out = t;
    return STATUS_OK;
}

void t5_take_memory(struct t5 *t)
{
    arena_commit(&t->arena);
    arena_commit(&t->staging);
    lay_out(t);
    op_upload_tensor(t->dev, t->bias, t->bias_tensor);
    for (int i = 0; i < t->layers; i++) {
        float *norms = t->norms + 2 * i * t->width;
        op_upload_tensor(t->dev, norms, t->layer[i].norm_attention);
        op_upload_tensor(t->dev, norms + t->width, t->layer[i].norm_feed_forward);
    }
    op_upload_tensor(t->dev, t->norms + 2 * t->layers * t->width, t->final_norm);
}

void t5_close(struct t5 *t)
{
    if (!t) return;
    arena_free(&t->arena);
    arena_free(&t->staging);
    free(t->layer);
    free(t);
}

int64_t t5_width(const struct t5 *t) { return t->width; }
int64_t t5_memory_bytes(const struct t5 *t)
{
    return (int64_t)(t->arena.used_bytes + t->staging.used_bytes);
}

/* ---- forward (spec transformer 5.1) ---------------------------------------------------------- */

/* x [count, D] = rows of the embedding table. NaN codes of a plain fp8 table become 0. */
static int embed(struct t5 *t, const int32_t *ids, int count)
{
    size_t row_bytes = (size_t)t->width * dtype_size(t->embedding->dtype);
    for (int i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocabulary)
            return error_set(STATUS_INPUT,
                             "%s: token id %d is outside the embedding table of %lld "
                             "rows; is the tokenizer another model's?",
                             t->path, ids[i], (long long)t->vocabulary);
        float *row = t->row;
        dtype_to_f32(row, (const char *)t->embedding->data + (size_t)ids[i] * row_bytes,
                     t->embedding->dtype, (size_t)t->width);
        if (t->embedding->dtype == DTYPE_F8_E4M3)
            for (int64_t j = 0; j < t->width; j++)
                if (isnan(row[j])) row[j] = 0.0f;
        op_upload(t->dev, t->x + i * t->width, row, (size_t)t->width * sizeof *row);
    }
    return STATUS_OK;
}

/* What a linear reads. It would round it to the same type on its way in, so nothing is lost here;
 * what it gives is fp32: T5's stream grows large, its scores are not scaled down. */
static struct mat input(const struct t5 *t, void *p, int64_t rows, int64_t cols)
{
    return mat_of(p, rows, cols, device_activations(t->dev));
}

/* Norm `number` in the order of execution. */
static void norm(struct t5 *t, struct mat y, struct mat x, int number)
{
    op_rms_norm(t->dev, y, x, norm_eps, t->norms + number * t->width);
}

/* x += attention(norm(x)); no scale, position bias instead */
static void self_attention(struct t5 *t, int layer, struct mat x)
{
    const struct t5_layer *l = &t->layer[layer];
    struct mat n = input(t, t->n, x.rows, t->width); /* [L, D] */
    struct mat o = input(t, t->o, x.rows, t->inner); /* [L, N*d] */
    struct mat q = mat_f32(t->q, x.rows, t->inner);
    struct mat k = mat_f32(t->k, x.rows, t->inner);
    struct mat v = mat_f32(t->v, x.rows, t->inner);
    struct mat y = mat_f32(t->y, x.rows, t->width);
    norm(t, n, x, 2 * layer);
    op_linear(t->dev, q, n, &l->q, EPILOGUE_NONE, TILE);
    op_linear(t->dev, k, n, &l->k, EPILOGUE_NONE, TILE);
    op_linear(t->dev, v, n, &l->v, EPILOGUE_NONE, TILE);
    op_attention_t5(t->dev, o, q, k, v, t->heads, t->bias);
    op_linear(t->dev, y, o, &l->o, EPILOGUE_NONE, TILE);
    op_gate_residual(t->dev, x, y, (struct mat){0}, NULL);
}

/* x += wo(gelu(wi_0(norm(x))) * wi_1(norm(x))) */
static void feed_forward(struct t5 *t, int layer, struct mat x)
{
    const struct t5_layer *l = &t->layer[layer];
    struct mat n = input(t, t->n, x.rows, t->width);  /* [L, D] */
    struct mat h = input(t, t->h, x.rows, t->hidden); /* [L, F] */
    struct mat gate = mat_f32(t->gate, x.rows, t->hidden);
    struct mat up = mat_f32(t->up, x.rows, t->hidden);
    struct mat y = mat_f32(t->y, x.rows, t->width);
    norm(t, n, x, 2 * layer + 1);
    op_linear(t->dev, gate, n, &l->wi_0, EPILOGUE_NONE, TILE);
    op_linear(t->dev, up, n, &l->wi_1, EPILOGUE_NONE, TILE);
    op_gelu_gate(t->dev, h, gate, up);
    op_linear(t->dev, y, h, &l->wo, EPILOGUE_NONE, TILE);
    op_gate_residual(t->dev, x, y, (struct mat){0}, NULL);
}

int t5_encode(struct t5 *t, const int32_t *ids, int count, float *embeds)
{
    CHECK(count >= 1 && count <= t->max_tokens, "%d tokens, room for %lld", count,
          (long long)t->max_tokens);
    TRY(embed(t, ids, count));
    struct mat x = mat_f32(t->x, count, t->width);
    for (int i = 0; i < t->layers; i++) {
        self_attention(t, i, x);
        feed_forward(t, i, x);
    }
    norm(t, x, x, 2 * t->layers);
    op_download(t->dev, embeds, x.p, (size_t)(x.rows * x.cols) * sizeof *embeds);
    device_finish(t->dev);
    return STATUS_OK;
}

/* Expanding a weight takes about as long as so many multiply-adds: a core makes 40 G of these a
 * second or expands 1.5 G weights (docs/SPEED.md). A prompt is short, so it counts. */
enum { EXPANSION = 25 };

double t5_work(const struct checkpoint *text_encoder, int64_t tokens)
{
    struct t5 t = {0};
    if (find_sizes(&t, text_encoder) != STATUS_OK || find_depth(&t, text_encoder) != STATUS_OK) {
        error_clear(); /* t5_open will say it again, as an error */
        return 0;
    }
    double weights = (double)t.width * (4 * (double)t.inner + 3 * (double)t.hidden);
    return t.layers * weights * (double)(tokens + EXPANSION);
}
