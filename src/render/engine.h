/* Everything a rank opens once and uses for all shots: mesh, device, models, memory. */
#ifndef RINGREEL_ENGINE_H
#define RINGREEL_ENGINE_H

#include "base/arena.h"
#include "config/options.h"
#include "kernels/ops.h"
#include "media/video.h"
#include "model/checkpoint.h"
#include "model/t5.h"
#include "model/tokenizer.h"
#include "model/transformer.h"
#include "model/vae.h"
#include "parallel/handover.h"
#include "parallel/mesh.h"
#include "parallel/reading.h"
#include "render/balance.h"
#include "render/guidance.h"
#include "render/shot.h"
#include "render/tally.h"

struct denoiser { /* on denoise ranks; in device memory but for `mixed` */
    struct transformer *transformer;
    float *x, *velocity[3],
        *scratch;       /* [S_loc, C] each; velocities: negative, positive, perturbed */
    float *start;       /* [conditioned, C] and */
    int32_t *row_index; /* [S_loc], when some shot begins from an image */
    float *mixed;       /* [conditioned, C] on the host, then too */
    struct sequence_sums sums;
};

struct codec { /* on codec ranks; of others that help, what decoding needs */
    struct tokenizer *tokenizer;
    struct t5 *t5;
    struct vae *vae; /* opened everywhere, for its sizes and costs */
    struct checkpoint *text_encoder;
    struct comm *self; /* images are encoded alone */
    struct arena
        streams;    /* device memory of one stream of the VAE, large enough for each shot, as all
                               below, which are the host's */
    float *window;  /* [2][tokens of a chunk, C] of a shot, as they come, */
    float *latents; /* and un-normalised */
    float *image, *encoded; /* [height, width, 3] and what the encoder makes of it, [h w, ...] */
    float *log_variance;    /* [h w, C] of an image */
    uint8_t *bytes;         /* parts of some frames of the asked size, as they come */
    uint8_t *pictures;      /* whole ones of them */
    uint8_t *frames;        /* all frames of a shot, under --dump */
    int64_t bytes_size, pictures_size;
};

/* Latents and VAE are of the device. Those from the VAE's on are what decoding takes. */
enum engine_arena {
    ARENA_LATENTS,
    ARENA_EXCHANGE,
    ARENA_VAE,
    ARENA_IMAGES,
    ARENA_FRAMES,
    ENGINE_ARENAS
};

struct engine {
    struct world *world;
    const struct job_options *job;
    struct mesh mesh;
    struct device *dev;
    struct checkpoint *checkpoint;
    struct shot *shots;                              /* [job->shot_count] */
    int64_t max_tokens, channels, width, text_width; /* width: of the transformer */
    bool codec_only; /* no transformer, no text encoder; images are not encoded */
    bool helping;    /* all ranks decode the last shot; the same on all */
    bool resident;   /* reordered fp32 weights are kept; else expanded at every use. May differ from
                      host to host. */
    struct arena arenas[ENGINE_ARENAS];
    struct handover handover;
    struct denoiser denoiser;
    struct codec codec;
    struct balance balance; /* the job's costs, on rank 0 */
    int chosen_codec_ranks; /* by these; what was asked for comes first */
    struct tally tally;
    char transport[320];           /* announced; "" where nothing is exchanged */
    struct shared_reading reading; /* of weights, while the engine is opened */
};

/* Collective over the world: opens and checks everything that can be checked before the first step,
 * on all ranks or on none. */
int engine_open(struct engine *e, struct world *world, const struct job_options *job);
void engine_close(struct engine *e);

/* For the codec alone: device and VAE; then, when e->shots are known, their memory. Collective over
 * the world. */
int engine_open_codec(struct engine *e, struct world *world, const struct job_options *job);
int engine_plan_codec(struct engine *e);

/* ---- what the parts of the engine ask each other; all Local ---------------------------------- */

struct video_settings engine_output(const struct engine *e,
                                    int shot);      /* how shot `shot` is written */
bool engine_owns(const struct engine *e, int shot); /* its text, its image, its file */
/* Who decodes it, codec ranks first: NULL where this rank does not. */
struct comm *engine_decode_group(const struct engine *e, int shot);
bool engine_decodes(const struct engine *e, int shot);
struct handover_cut engine_cut(void *engine, int shot); /* how its latents travel */
bool engine_encodes(const struct engine *e);            /* and begin one of these from an image? */
struct transformer_settings engine_transformer_settings(const struct engine *e, bool resident);
/* A stream of the VAE in the memory that was planned for it; one at a time. */
struct vae_stream *engine_open_stream(struct engine *e, const struct vae_task *task);
void engine_lay_out(struct engine *e); /* e->arenas; called twice, see arena.h */
/* For the last decode, on ranks that help: the transformer goes, the decoder's memory is taken. */
void engine_begin_helping(struct engine *e);

#endif
