/* The front door of all arithmetic. Model code calls these and knows no backend; ops.c checks
 * shapes once and forwards to the device's table (kernels/cpu is built in).
 *
 * Every op here computes each output row by the same instructions in the same order however the
 * rows are spread over ranks or threads: that is what makes a render's bytes independent of the
 * number of ranks. So: no split-K, no reduction across threads, tile sizes that depend only on the
 * shape of the whole problem (`tile` arguments).
 *
 * Two memories. A device computes in its own, which the host may not touch; on the CPU it is the
 * host's, on a GPU it is not. Everything an op reads or writes lies in device memory (matrices,
 * clips, vectors of weights, scale and shift, row_index, tables and coordinates of RoPE) except
 * what stays with the host: tensors of the checkpoint (struct tensor, so weights and biases of
 * struct linear and struct conv), the host's side of op_upload and op_download, and the results
 * `dots`, `bytes` and `words`. Ops are done one after the other as they were asked for, though
 * maybe not yet when they return: what they give to the host is there after device_finish.
 *
 * Dimension letters (docs/MAP.md): S tokens on this rank, D model width, N heads, d head width, L
 * text tokens, T distinct timesteps, C channels, t/h/w frames/rows/columns.
 *
 * All functions are Local. They CHECK-fail on wrong shapes: by then the user's input has been
 * validated. */
#ifndef RINGREEL_OPS_H
#define RINGREEL_OPS_H

#include "base/arena.h"
#include "base/tensor.h"

#include <stdbool.h>
#include <stdint.h>

struct device; /* one per rank */

/* Of the products of linear layers; everything else is fp32 on the CPU. BF16: inputs and weights
 * are rounded to bf16 and summed in fp32, and weights kept in memory take half the room. */
enum precision { PRECISION_F32, PRECISION_BF16 };

/* threads >= 1: worker threads of this rank. isa: NULL for the best this CPU has, else a name that
 * device_isa_level knows (ranks agree on the lowest, so that hosts of different age still give the
 * same bytes).
 * With RINGREEL_GUARD=1 in the environment, which is for tests, device memory is as far away as a
 * GPU's: outside of ops the host's first touch of it ends the job, naming the arena, and so does an
 * op that is given host memory where it needs the device's (kernels/cpu/guard.c). */
struct device *device_open_cpu(int threads, const char *isa, enum precision precision);
/* CUDA devices that this process may use. For 0, *why says what is missing: one of NVIDIA's
 * libraries, the driver, or a device; -1: the program was built without CUDA. */
int device_cuda_count(const char **why);
/* index below device_cuda_count. CHECK-fails where the device cannot be used. Rows of a product
 * need one kind of GPU in all ranks to have the same bytes. */
struct device *device_open_cuda(int index, int threads, enum precision precision);
/* In its place where there is no GPU, to count what one would have to hold: models can be opened
 * on it and sizes asked, nothing else. NULL without the library, *why says which. */
struct device *device_open_cuda_plan(int threads, enum precision precision, const char **why);
int device_backend_version(void); /* of the table between the program and that library */
void device_close(struct device *dev);
const char *device_name(const struct device *dev); /* "cpu" or "cuda" */
const char *device_isa(const struct device *dev);  /* "avx2", "sm_90" ... */
const char *device_best_isa(void);                 /* what this CPU could do */
/* generic 0 < avx2 1 < avx512 2 < avx512_bf16 3; -1 unknown. Only bf16 products differ at 3. */
int device_isa_level(const char *isa);
const char *device_isa_name(int level); /* the inverse; CHECK-fails for a level there is not */
int device_threads(const struct device *dev);
enum precision device_precision(const struct device *dev);
/* What model code lays its activations out in, where nothing says fp32: F32, or BF16 on a device
 * that is fast with it at PRECISION_BF16 and rounds the inputs of products to it anyway. Every
 * struct mat or clip of an op may be of this type or F32, whichever the others are, where nothing
 * else is said; modulations are F32. */
enum dtype device_activations(const struct device *dev);

/* For arenas: what ops compute in, and memory of the host that copies from and to it are fast with.
 */
const struct arena_memory *device_memory(const struct device *dev);
const struct arena_memory *device_staging(const struct device *dev);
/* May others than ops (MPI) read and write device memory? */
bool device_memory_is_host(const struct device *dev);
/* Has it memory of its own, beside the host's? */
bool device_has_memory(const struct device *dev);
/* What of that is free now, for everybody, and all of it: INT64_MAX where there is only a plan. */
void device_memory_left(const struct device *dev, int64_t *left, int64_t *all);
/* What ops take beside arenas and resident weights, for the largest that they are given, in
 * bytes. */
struct op_sizes {
    int64_t input;    /* of a product, as it is multiplied */
    int64_t stored;   /* a weight as it stands in the file, */
    int64_t expanded; /* and as it is computed with, where it is not resident */
    int64_t picture;  /* that goes to the host in integers */
};
int64_t device_scratch_bytes(const struct device *dev, const struct op_sizes *largest);
/* What tells one GPU from another; nothing of a CPU. */
struct device_facts {
    char model[96];     /* "NVIDIA H100 80GB HBM3"; "" of a plan, as is the rest */
    char place[32];     /* bus id, "0000:1B:00.0" */
    char identity[40];  /* of one device: ranks of a host that have the same share it */
    char libraries[96]; /* "CUDA 13.0, cuBLASLt 13.1.0" */
};
struct device_facts device_describe(const struct device *dev);
/* All that was asked of the device is done. Before the host reads what an op gave to it, and
 * before a message is sent from device memory. CHECK-fails where the device finishes nothing for
 * the time that device_set_timeout gave (600 s), naming the op that was asked for last. */
void device_finish(struct device *dev);
/* The same for what was asked of it until the mark was made, while it goes on with what was asked
 * since. Marks may be waited for in any order, or not at all; 0 is one that has been passed. */
uint64_t device_mark(struct device *dev);
void device_wait(struct device *dev, uint64_t mark);
void device_set_timeout(struct device *dev, double timeout_s);

/* Messages between devices past the host (kernels/link.h); NULL where the device has no such
 * thing. */
const struct link_ops *device_links(const struct device *dev);
/* Whoever looks after these says so while the device waits for another rank: that it does not go
 * on is then no failure of its own, and it is not the device's deadline that counts. */
void device_set_held_up(struct device *dev, bool held_up);

/* Called by the long ops (linear and its packing, attention, convolution) from the thread that
 * entered them, up to some hundreds of times per op, so that MPI can progress: it limits its own
 * rate. The other ops are too short to poll. May be NULL. */
void device_set_poll(struct device *dev, void (*poll)(void *), void *argument);

/* Where several ranks bring the same tensors of the checkpoint to their devices, in the same order,
 * one can read for all. Of a device with links: while this is set, `reads` is asked before each
 * tensor that op_upload_tensor or a packing wants, and where it says no the tensor is not touched.
 * Then `pass_on` is given the device memory where it is by now, or is to be, in the form in which
 * the device keeps it: so many floats, of whose last half may mean nothing. NULL: each reads for
 * itself. */
struct reading {
    bool (*reads)(void *argument, const struct tensor *t);
    void (*pass_on)(void *argument, float *memory, int64_t floats);
    void *argument;
};
void device_set_reading(struct device *dev, const struct reading *reading);

/* ---- recordings ------------------------------------------------------------------------------ */

/* Ops that are asked for again and again with the same arguments can be recorded, and then be asked
 * for as a whole:
 *
 *     struct recording *r = NULL;
 *     if (op_record_begin(dev)) {
 *         ask(dev);                // noted, not done
 *         r = op_record_end(dev);
 *     }
 *     bool again = r && op_replay_begin(dev, r);
 *     ask(dev);                    // in a replay what was noted is done in place of these ops
 *     if (again) op_replay_end(dev);
 *
 * Ops are done in parts: what has its place among them and is none, a message between devices, says
 * op_cut first. So a message is part of no recording. It is begun and waited for anew in every
 * replay, behind the same ops and before the same ops. A replay must ask for the ops that were
 * recorded, in their order; that is checked by their names.
 *
 * Arguments are kept as they are, so what they point to must stay in its place and what is to
 * change must be written there before the replay. Copies from and to the host, ops with results in
 * host memory, linears that are not packed, and waiting cannot be recorded; nor can what has not
 * been asked for before, since the backend may have to get memory ready for it. */
struct recording;
bool device_records(const struct device *dev);       /* Can anything be recorded here? */
bool op_record_begin(struct device *dev);            /* false: not now, and not later */
struct recording *op_record_end(struct device *dev); /* NULL: these cannot be */
/* false: no longer valid; ops are done as ever */
bool op_replay_begin(struct device *dev, struct recording *r);
void op_replay_end(struct device *dev);
/* What was asked for so far goes to the device now. false: it is being recorded; what would come
 * here is to be left out. */
bool op_cut(struct device *dev);
void op_recording_free(struct device *dev, struct recording *r); /* NULL is none */

/* ---- copies ---------------------------------------------------------------------------------- */

/* From host to device; `from` may be written again when it returns. */
void op_upload(struct device *dev, void *to, const void *from, size_t bytes);
/* From device to host; `to` is there after device_finish. */
void op_download(struct device *dev, void *to, const void *from, size_t bytes);
/* Within the device's memory; the two must not overlap. */
void op_copy(struct device *dev, void *to, const void *from, size_t bytes);

/* The same of `rows` rows of `bytes`, which begin so many bytes apart on either side. */
void op_upload_rows(struct device *dev, void *to, size_t to_stride, const void *from,
                    size_t from_stride, size_t bytes, int64_t rows);
void op_copy_rows(struct device *dev, void *to, size_t to_stride, const void *from,
                  size_t from_stride, size_t bytes, int64_t rows);
void op_zero_rows(struct device *dev, void *to, size_t stride, size_t bytes, int64_t rows);

/* A tensor of the checkpoint as fp32: to [tensor_count]. Any float dtype. */
void op_upload_tensor(struct device *dev, float *to, const struct tensor *t);

/* ---- linear ---------------------------------------------------------------------------------- */

enum epilogue { EPILOGUE_NONE, EPILOGUE_GELU_TANH, EPILOGUE_SILU };

/* y = epilogue(x W^T + b). `weight` [out,in] and `bias` [out] or NULL look into the checkpoint; any
 * float dtype. A resident linear keeps its weights reordered for the backend; a streamed one
 * reorders into the device's scratch at every call (more time, no memory). */
struct linear {
    const struct tensor *weight, *bias;
    int64_t in, out;
    void *packed;    /* backend's own; NULL until packed */
    float *bias_f32; /* [out] or NULL; a backend may have it in `packed` instead */
};
struct linear linear_make(const struct tensor *weight, const struct tensor *bias);
/* Resident: reorders weights now (frees nothing of the checkpoint). */
void op_linear_pack(struct device *dev, struct linear *l);
void op_linear_unpack(struct device *dev, struct linear *l); /* frees what pack took */
size_t op_linear_packed_bytes(const struct device *dev, const struct linear *l);

/* y [S,out] = epilogue(x [S,in] W^T + b); where y is BF16, b may be rounded to it too. `tile` (the
 * granule) is the unit of rows within which a backend may choose its algorithm; the last may be
 * short. The CPU's rows do not depend on it. Polls. */
void op_linear(struct device *dev, struct mat y, struct mat x, const struct linear *l,
               enum epilogue e, int64_t tile);

/* ---- norms and elementwise, per token -------------------------------------------------------- */

enum norm { NORM_RMS, NORM_LAYER };

/* y = norm(x) * (1 + scale[idx]) + shift[idx]; shift, scale: [T,D] rows; row_index[S] picks the
 * row, NULL = row 0. y may be x, here and below where they have one type. scale/shift .p NULL:
 * plain norm. */
void op_norm_modulate(struct device *dev, struct mat y, struct mat x, enum norm kind, float eps,
                      struct mat shift, struct mat scale, const int32_t *row_index);

/* y = x / sqrt(mean(x^2) + eps) * weight[cols]. y may be x. (T5 norm; q/k norm without rotation.)
 */
void op_rms_norm(struct device *dev, struct mat y, struct mat x, float eps, const float *weight);

/* In place, of queries and keys, which have one shape and type (k.p NULL: of q alone): RMS norm
 * over all D channels with a weight [D] each, then rotation of adjacent pairs over the whole width:
 * cosine/sine [S, D] would be large, so three separable tables: token s has coordinates coord[s][3]
 * into tables table[a] = [n_positions_a][n] (cos, sin) pairs, n = D/6; pad = D%6 leading channels
 * stay. rope NULL: norm only. */
struct rope {
    int64_t n;             /* D / 6 frequencies per axis */
    int pad;               /* D % 6 leading channels that are not rotated */
    const float *table[3]; /* [positions][n][2] = cos, sin; axes time, y, x */
    int64_t positions[3];
    const int32_t *coord; /* [S][3] row numbers into the tables */
};
void op_qk_norm_rope(struct device *dev, struct mat q, struct mat k, float eps,
                     const float *q_weight, const float *k_weight, const struct rope *rope);

/* x (F32) += gate[idx] * y ; gate [T,D] rows, .p NULL: x += y. */
void op_gate_residual(struct device *dev, struct mat x, struct mat y, struct mat gate,
                      const int32_t *row_index);

/* What follows a residual: op_norm_modulate's arguments, or nothing but the value itself. */
struct next_norm {
    bool none; /* the rest is not looked at */
    enum norm kind;
    float eps;
    struct mat shift, scale;
};
/* The same bits as op_gate_residual and then op_norm_modulate of x into z, in one pass over x. z is
 * neither x nor y. */
void op_gate_residual_norm(struct device *dev, struct mat z, struct mat x, struct mat y,
                           struct mat gate, const struct next_norm *norm, const int32_t *row_index);

/* y [K,T,D]: y[k][t] = table[k] + e[t][k], all F32; table [K,D]; e [T,K*D], or [T,D]: one for all
 * k. */
void op_modulation(struct device *dev, struct mat y, const float *table, struct mat e);

/* y = gelu_tanh(a) * b (T5's gated feed-forward); a and b have one type. y may be a. */
void op_gelu_gate(struct device *dev, struct mat y, struct mat a, struct mat b);
/* y = x * sigmoid(x), in place allowed. */
void op_silu(struct device *dev, struct mat y, struct mat x);
/* out[i] = a*x[i] + b*y[i]; out may be x or y; y NULL with b 0. */
void op_lincomb(struct device *dev, float *out, float a, const float *x, float b, const float *y,
                int64_t n);

/* dots[i] (host) = sum of x*y over tile i of `tile` values (the last may be short), in double, each
 * by one thread in order. y NULL: sum of x. */
void op_dot_tiles(struct device *dev, double *dots, const float *x, const float *y, int64_t n,
                  int64_t tile);

/* ---- attention ------------------------------------------------------------------------------- */

/* Keys and values travel between ranks in the form the kernel reads: granule after granule,
 * `kv_granule_floats` each, whatever the bytes mean. granule = G (multiple of 16), keys of a short
 * last granule are masked by `keys`. */
/* Linear in granule. */
int64_t op_kv_granule_floats(const struct device *dev, int64_t granule, int64_t heads,
                             int64_t head_dim);
/* Packs k, v [S, N*d] (keys already normed and rotated) into ceil(S/G) granules. */
void op_kv_pack(struct device *dev, float *packed, struct mat k, struct mat v, int64_t heads,
                int64_t granule);

/* Running state of flash attention (Dao et al. 2022): unnormalised output, row maximum (of base-2
 * scaled scores) and row sum, per query row and head. Layout is the backend's own. */
int64_t op_attention_state_floats(int64_t queries, int64_t heads, int64_t head_dim);
void op_attention_begin(struct device *dev, float *state, int64_t queries, int64_t heads,
                        int64_t head_dim);
/* Continues `state` with `keys` keys in packed granules: softmax(scale q k^T) v, granule by granule
 * in order, each (query row, granule) update by the same instructions whoever owns either. q [S,
 * N*d]. Polls. */
void op_attention_block(struct device *dev, float *state, struct mat q, const float *packed,
                        int64_t keys, int64_t granule, int64_t heads, float scale);
/* o [S, N*d] = state's output / sum. */
void op_attention_finish(struct device *dev, struct mat o, const float *state, int64_t heads);

/* The same bits as these three in turn, without begin unless `first` and without finish unless
 * `last` (else o is not looked at; o may be q): what begins or ends here need not go through
 * memory, so that `state` is undefined after the last block. keys may be 0. */
void op_attention_part(struct device *dev, struct mat o, float *state, struct mat q,
                       const float *packed, int64_t keys, int64_t granule, int64_t heads,
                       float scale, bool first, bool last);

/* T5: o = softmax(q k^T + bias[bucket(j-i)]) v, no scale. bias [buckets 32][heads] fp32; q,k,v,o
 * [L, N*d]. */
void op_attention_t5(struct device *dev, struct mat o, struct mat q, struct mat k, struct mat v,
                     int64_t heads, const float *bias);

/* ---- VAE, channels last ---------------------------------------------------------------------- */

/* Clips are F32 or device_activations, each operand its own, but of one type are y and `add`, y and
 * `residual`. Every value is computed in fp32 and rounded once, when it is stored. */

/* 3x3x3 convolution (or 1x1x1: kernel 1), weight [out,in,k,k,k] fp32/bf16/fp16 in the checkpoint,
 * bias [out]. */
struct conv {
    const struct tensor *weight, *bias;
    int64_t in, out;
    int kernel;             /* 3 or 1 */
    int stride_t, stride_s; /* 1 or 2, in time and in space; conv_make says 1 */
    void *packed;
    float *bias_f32;
};
struct conv conv_make(const struct tensor *weight, const struct tensor *bias);
void op_conv_pack(struct device *dev, struct conv *c);
void op_conv_unpack(struct device *dev, struct conv *c);
size_t op_conv_packed_bytes(const struct device *dev, const struct conv *c);

/* A rectangle of y's picture. Where ranks share a picture, y's begins at row `top` and column
 * `left` of the whole: backends may compute pairs of lines (2i, 2i + 1) together, so parity
 * matters, and a span that cuts a pair may cost as much as one that has both. */
struct conv_span {
    int64_t row, rows, column, columns;
    int64_t top, left;
};

/* y[t,h,w,out] = conv(x) (+ add if not NULL: same shape as y, may be y itself), within `span`
 * (NULL: everywhere). Frame t of y reads the frames stride_t * t - front + {0,1,2} of x, those
 * outside being copies of the nearest (spec vae 1.3): a whole clip has front 1, or 2 where time is
 * causal, and a part of one may begin behind x's first frame (front below 0); a kernel of 1 reads
 * frame stride_t * t. x has pad 1 when kernel is 3; rows beyond x and its above and below are zero.
 * y.pad is 0 (but see op_conv_norms); h and w are those of x, or (extent - 1) / stride + 1. The
 * arithmetic of an output element is fixed by the layer's shape (channels, kernel, strides) and the
 * parity of its row and column in the whole picture, whatever the span and however pictures are
 * cut. Polls. */
void op_conv3d(struct device *dev, const struct clip *y, const struct clip *x, const struct conv *c,
               int front, const struct clip *add, const struct conv_span *span);

/* Whether a device norms what this layer reads in the convolution itself: then x can be what
 * op_pixel_norm_silu would have been given, of device_activations, and need not be written once
 * more. On such a device y may have border columns and halo rows (which are left as they are), so
 * that the next convolution can read it where it is. */
bool op_conv_norms(const struct device *dev, const struct conv *c);
/* op_conv3d of what op_pixel_norm_silu makes of x, rounded to x's type, the same bits. Within x,
 * its halo rows and those border columns that are a neighbour's: others are zeros as ever. */
struct conv_norm {
    const float *scale, *shift; /* [in], both or neither */
    bool left, right;           /* that border column is a neighbour's */
    float *room;                /* [positions of x, with borders and halo rows], for the op */
};
void op_conv3d_normed(struct device *dev, const struct clip *y, const struct clip *x,
                      const struct conv *c, int front, const struct clip *add,
                      const struct conv_span *span, const struct conv_norm *norm);

/* y = silu( x / sqrt(mean_c(x^2) + 1e-8) * (1 + scale[c]) + shift[c] ); scale/shift NULL: no
 * modulation. y.pad may be 1: its border columns are written as zeros. */
void op_pixel_norm_silu(struct device *dev, const struct clip *y, const struct clip *x,
                        const float *scale, const float *shift);
/* y = LayerNorm_c(x; eps, weight, bias) per position (res_x_y shortcut). y.pad as above. */
void op_channel_layer_norm(struct device *dev, const struct clip *y, const struct clip *x,
                           float eps, const float *weight, const float *bias);
/* y = x with y.pad as wanted (border columns zero). */
void op_copy_pad(struct device *dev, const struct clip *y, const struct clip *x);
/* y[..,c] = x[..,c] + map[h][w] * per_channel[c] (+ add if not NULL) on every frame (0.9.1 noise
 * injection). y may be x or add, of the same pad; its border columns are left as they are. */
void op_add_noise_map(struct device *dev, const struct clip *y, const struct clip *x,
                      const float *map, const float *per_channel, const struct clip *add);

/* Depth-to-space (spec vae 1.7), strides (st,ss,ss) of 1 or 2: y[st*t+i1 - drop, ss*h+i2, ss*w+i3,
 * o] = x[t,h,w, o*p + (i1*ss+i2)*ss+i3] (p = st*ss*ss); drop = st-1 frames at the front when x
 * begins with the clip's `first` frame, else 0; y.t = st*x.t - drop. residual non-NULL: adds its
 * depth-to-space, channels tiled: source channel p*(o mod (residual.c/p)) + ... */
void op_depth_to_space(struct device *dev, const struct clip *y, const struct clip *x,
                       const struct clip *residual, int st, int ss, bool first);

/* Space-to-depth (spec vae 1.6), strides as above, drop too, y.t = (x.t + drop) / st: y[t,h,w,
 * (c*st + i1)*ss*ss + i2*ss+i3] = x[max(st*t+i1 - drop, 0), ss*h+i2, ss*w+i3, c]: where time is
 * halved, the clip's first frame comes twice. residual non-NULL, of x's extents: adds its
 * space-to-depth, with the mean of every residual.c*p / y.c consecutive channels in place of them.
 */
void op_space_to_depth(struct device *dev, const struct clip *y, const struct clip *x,
                       const struct clip *residual, int st, int ss, bool first);

/* The inverse of op_unpatchify: y [t,h,w,48] from pixels x [t][4h][4w][3]. y.pad as above. */
void op_patchify(struct device *dev, const struct clip *y, const float *x, int patch);
/* Pixels: y [t][4h][4w][3] fp32 in [-1,1] nominal from x [t,h,w,48] (spec vae 1.2: width offset is
 * the slower index). */
void op_unpatchify(struct device *dev, float *y, const struct clip *x, int patch);
/* `rows` rows of n values, which begin `stride` values apart in y, become integers in host memory,
 * row after row without gaps: bytes = trunc(255 * clamp(0.5 y + 0.5, 0, 1)) (official CLI). */
void op_to_bytes(struct device *dev, uint8_t *bytes, const float *y, int64_t stride, int64_t n,
                 int64_t rows);
/* words = 65535 * clamp(0.5 y + 0.5, 0, 1) to the nearest: for files of more than 8 bits. */
void op_to_words(struct device *dev, uint16_t *words, const float *y, int64_t stride, int64_t n,
                 int64_t rows);

#endif
