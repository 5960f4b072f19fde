/* The Video-VAE of all three generations (spec vae-and-scheduler 1-4), channels last. The
 * block lists are read from the tensors, so small test models and every release go the
 * same way. The decoder is always there; the encoder is opened by whoever needs it. */
#ifndef RINGREEL_VAE_H
#define RINGREEL_VAE_H

#include "base/arena.h"
#include "base/rng.h"
#include "base/tensor.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "parallel/comm.h"

#include <stdbool.h>

struct vae;

int vae_open(struct vae **out, struct device *dev, const struct checkpoint *c);
/* Also the encoder, before anything below that encodes. STATUS_INPUT if the checkpoint has none; it
 * can still decode then. Again: nothing happens. */
int vae_open_encoder(struct vae *v, const struct checkpoint *c);
/* Reorders all weights of the decoder now and keeps them; without it each is reordered at every
 * use. */
void vae_make_resident(struct vae *v);
void vae_close(struct vae *v);
int64_t vae_latent_channels(const struct vae *v);
int vae_time_factor(const struct vae *v);  /* 8 */
int vae_space_factor(const struct vae *v); /* 32 */
bool vae_wants_timestep(const struct vae *v);
bool vae_wants_noise(const struct vae *v); /* the decoder injects some (0.9.1) */

struct vae_span { /* frames [first, end) of a clip */
    int64_t first, end;
};
/* Multiply-adds of decoding these frames of what f x h x w latents show. */
double vae_decode_work(const struct vae *v, int64_t f, int64_t h, int64_t w,
                       struct vae_span frames);

/* What reordered weights take: all of them if resident, else the largest, one at a time. */
int64_t vae_packed_bytes(const struct vae *v, bool resident);
/* The largest that is reordered, of the decoder and, where it is open, the encoder. */
const struct tensor *vae_largest_weight(const struct vae *v);
/* The same of the encoder. */
void vae_encoder_make_resident(struct vae *v);
int64_t vae_encoder_packed_bytes(const struct vae *v, bool resident);

/* The following two and the posterior below are the host's: what they read and write is in its
 * memory. Normalised latents -> un-normalised: z = z * std + mean, per channel; z [tokens, C]
 * token-major, in place. */
void vae_unnormalize(const struct vae *v, float *z, int64_t tokens);
/* The inverse: z = (z - mean) / std. */
void vae_normalize(const struct vae *v, float *z, int64_t tokens);

/* ---- streams --------------------------------------------------------------------------------- */

/* A decode or an encode takes frames as they come and gives others as soon as all that they depend
 * on is known, so its memory does not grow with the clip (spec vae 4.7). Several ranks may share
 * the picture: each computes whole latents of one axis and exchanges single lines with its
 * neighbours (4.5). The values are the same bits for every chunk, axis and number of ranks. */

enum vae_axis { VAE_ROWS, VAE_COLUMNS };

struct vae_part {
    int64_t first, count;
};
/* A rank's share of `extent` latents: shares differ by one at most. Local. */
struct vae_part vae_part_of(int64_t extent, int ranks, int rank);

struct vae_task {
    bool encodes;
    int64_t h, w;       /* of the whole picture, in latents */
    int64_t chunk;      /* latent frames that are pushed at a time, at most */
    struct comm *group; /* who shares the picture; ranks beyond the latents of the axis idle */
    enum vae_axis axis;
};

/* Called with what is new, in order: n frames of this rank's part of the picture, decoded
 * [n][H][W][3], nominally [-1,1], or encoded [n][h][w][conv_out.out]; in device memory, until it
 * returns. */
struct vae_sink {
    void (*take)(void *argument, const float *frames, int64_t n);
    void *argument;
};

struct vae_progress { /* in multiply-adds of this rank; total 0 when the length is not known */
    void (*report)(void *arg, int64_t done, int64_t total);
    void *arg;
};

struct vae_stream;

/* STATUS_INPUT for sizes no machine could hold. Local. */
int vae_stream_open(struct vae_stream **out, struct vae *v, const struct vae_task *task);
void vae_stream_close(struct vae_stream *s);
/* Most frames that the sink is given at a time. Local. */
int64_t vae_stream_most_frames(const struct vae_stream *s);
/* Its memory, of the device; called twice, see arena.h. Local. */
void vae_stream_lay_out(struct vae_stream *s, struct arena *a);
/* A new clip. frames: latents of it; encoders may be given 0 if not known. Decoders: timestep is
 * decode_timestep, ignored by 0.9.0; noise is the source of the injected noise maps (0.9.1), drawn
 * in the reference's order, and may be NULL for others. Local. */
void vae_stream_begin(struct vae_stream *s, int64_t frames, float timestep, struct rng *noise,
                      struct vae_sink sink, const struct vae_progress *progress);
/* Decoders, after vae_stream_begin: only these frames of the clip, which has them, are wanted, and
 * no layer makes more than they come from. Returns the latents that are to be pushed, these alone;
 * `last` comes with the last of them. The frames are the same bits as of a whole decode. Local. */
struct vae_span vae_stream_narrow(struct vae_stream *s, struct vae_span frames);
/* n frames of the whole picture, in host memory: latents [n][h][w][C], un-normalised, at most
 * `chunk`; or pixels [n][H][W][3], first 1 (or a whole clip of 8(chunk-1)+1), then at most 8 *
 * chunk and a multiple of 8. `last`: the clip ends. Nothing is allocated but what a weight that is
 * not resident takes while it is used. Collective over the group. */
void vae_stream_push(struct vae_stream *s, const float *frames, int64_t n, bool last);

/* ---- a whole clip in memory ------------------------------------------------------------------ */

/* What the encoder believes of latents, a normal distribution: mean and log_variance [n,C] from
 * what its stream gave, [n][conv_out.out]; log_variance is within [-30,20] (spec vae 1.11) and may
 * be NULL. */
int64_t vae_encoder_outputs(const struct vae *v); /* conv_out.out */
void vae_posterior(const struct vae *v, float *mean, float *log_variance, const float *encoded,
                   int64_t n);

/* z = mean + exp(log_variance / 2) * normal numbers, all [tokens, C]; z may be mean or
 * log_variance. Draws torch.randn of [C, tokens] from r, which is the reference's order, into
 * `room` [tokens * C]. Who wants no chance takes the mean. */
void vae_sample(const struct vae *v, float *z, const float *mean, const float *log_variance,
                int64_t tokens, struct rng *r, float *room);

#endif
