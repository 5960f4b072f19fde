/* What moves between denoise and codec ranks: what a shot begins from one way, latents the other,
 * and how either side ends.
 *
 * Neither side waits for the other to take a message: sends are started from buffers that stay put
 * (two slots a direction) and progress while the sender works on the next shot. A slot that is
 * still under way when it is needed again is waited for: that is the back-pressure.
 *
 * Latents stay with the denoise ranks until they are decoded. They go in windows, some frames at a
 * time: the codec rank that owns the shot asks for the next window when it begins with one, and a
 * denoise rank starts sending a piece when the one before last has gone, in the background of all
 * its work and waiting (comm.h). So the memory of a codec rank does not depend on the length of a
 * clip.
 *
 * Ending, well or badly, is the same for both sides: each says once that it ends, then takes what
 * the other has under way until the other has said so too. All is well when that happens before the
 * last decode, so that denoise ranks are free to help. A codec rank that fails ends at once;
 * the denoise ranks see it at the next step, end, and thereby end the other codec ranks. No message
 * is ever left that nobody receives.
 *
 * All rows are in host memory: denoise ranks bring the latents there at the end of a shot.
 *
 * Used by worlds of two or more; a world of one passes pointers. Each function names the ranks that
 * must call it. */
#ifndef RINGREEL_HANDOVER_H
#define RINGREEL_HANDOVER_H

#include "base/arena.h"
#include "parallel/mesh.h"
#include "parallel/shard.h"

#include <stdbool.h>
#include <stdint.h>

enum { HANDOVER_SLOTS = 2, HANDOVER_TEXTS = 2 }; /* texts: 0 negative, 1 positive */

/* The header in front of either payload. */
struct handover_head {
    int64_t shot;                   /* HANDOVER_END: the sender ends, no payload follows */
    int64_t status;                 /* of an end: enum status */
    int64_t tokens[HANDOVER_TEXTS]; /* text: real tokens, 0 for a text that is not used */
    int64_t conditioned;            /* text: latents of an image, 0 without one */
    int64_t texts_sent;             /* of a codec rank's end */
};
enum { HANDOVER_END = -1 };

/* What a shot begins from. */
struct shot_input {
    struct handover_head head;
    float *embeds;    /* [tokens[0] + tokens[1], text_width]: the negative's rows first */
    float *condition; /* [conditioned, C] normalised latents of an image */
};

struct handover_slot {
    struct handover_head head;
    float *embeds, *condition;
    struct transfer transfers[3]; /* head, embeds, condition */
};

/* How the latents of a shot travel: who has which, and how many tokens go at a time. */
struct handover_cut {
    struct shard_plan plan;
    int64_t window;
};

enum { HANDOVER_AHEAD = 2 }; /* windows, or pieces of them, under way at a time */

/* A denoise rank's part of a shot, on its way in pieces. */
struct handover_shard {
    float *rows; /* [S_loc, C] */
    struct handover_head head;
    struct transfer head_transfer; /* of the leader */
    int to;
    int64_t first, end, next; /* tokens of the shot: this rank's are [first, end), those below next
                                 have been started */
    int64_t window;
    int pieces; /* started */
    struct transfer transfers[HANDOVER_AHEAD];
};

/* The shot that a codec rank takes. */
struct handover_windows {
    float *rows[HANDOVER_AHEAD];                /* [window, C] each */
    struct transfer *transfers[HANDOVER_AHEAD]; /* [denoise ranks] each */
    struct handover_head head;
    struct handover_cut cut;
    int64_t asked, taken; /* tokens; cut.plan.tokens when there are no more */
};

/* What the leader keeps of each codec rank. */
struct handover_codec {
    struct handover_head our_end, its_end; /* its_end.shot is HANDOVER_END once it has been heard */
    struct transfer transfer;              /* of our_end */
    int64_t texts_taken;
};

struct handover {
    struct mesh *mesh;
    int64_t text_width, channels;
    int64_t most_rows; /* of a shard (denoise) or of a window (codec) */
    struct handover_cut (*cut_of)(void *argument, int shot);
    void *argument;
    struct handover_slot
        text[HANDOVER_SLOTS]; /* codec: going out; denoise: slot 0 takes what arrives */
    struct handover_shard shards[HANDOVER_SLOTS]; /* denoise */
    int64_t shards_sent;
    struct handover_windows incoming; /* codec */
    struct handover_codec *codecs;    /* leader: [codec_ranks] */
    struct handover_head end;         /* codec: what it says when it ends */
    struct transfer end_transfer;
    int64_t texts_sent; /* codec */
    bool denoise_ended; /* codec: the leader has said so */
};

/* The longest of any shot. */
struct handover_sizes {
    int64_t text_tokens, text_width, tokens, window, channels, conditioned;
};
/* Local. Lays out the buffers (called twice, arena.h). */
void handover_lay_out(struct handover *h, struct arena *a, struct mesh *mesh,
                      const struct handover_sizes *sizes);
/* Local. From here on messages move in the background, until handover_finish. cut_of is the same on
 * all ranks. */
void handover_start(struct handover *h, struct handover_cut (*cut_of)(void *argument, int shot),
                    void *argument);

/* ---- codec ranks ----------------------------------------------------------------------------- */
/* Room for the next shot's, to be filled and sent; waits for the send before last. */
struct shot_input handover_input_buffer(struct handover *h);
void handover_send_input(struct handover *h, const struct shot_input *input);
/* Waits until the latents of `shot` are ready to come. STATUS_STOPPED when the denoise ranks ended
 * instead. */
int handover_receive_latents(struct handover *h, int shot);
/* The shot's next window [up to cut.window, C], token-major, until the next call. */
float *handover_next_window(struct handover *h);
/* Says that this rank ends with `status`, then takes what is under way until the denoise ranks end
 * too. With STATUS_OK the windows of the last shot still come. */
void handover_end_codec(struct handover *h, int status);

/* ---- denoise ranks: Collective over the denoise group ---------------------------------------- */
/* *input points into the slot. STATUS_STOPPED when that codec rank ended instead. */
int handover_receive_input(struct handover *h, int shot, struct shot_input *input);
float *handover_latents_buffer(struct handover *h); /* [S_loc, C]; waits for the send before last */
void handover_send_latents(struct handover *h, int shot);
/* STATUS_STOPPED on every denoise rank when a codec rank has ended with an error. */
int handover_should_stop(struct handover *h);
/* Says to every codec rank that the denoise ranks end, then takes what is under way until they have
 * ended too. The last latents may not have gone yet. */
void handover_end_denoise(struct handover *h, int status);

/* ---- either, after its end: nothing is under way any more -------------------------------------
 */
void handover_finish(struct handover *h);

#endif
