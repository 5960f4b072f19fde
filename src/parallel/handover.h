/* What moves between denoise and codec ranks: prompt embeddings one way, latents the other, and the word to stop.
 *
 * Neither side ever waits for the other to take a message: sends are started from buffers that stay put (two slots a
 * direction) and progress while the sender works on the next shot. A slot that is still under way when it is needed
 * again is waited for: that is the back-pressure.
 *
 * Used by worlds of two or more; a world of one passes pointers. Each function names the ranks that must call it. */
#ifndef RINGREEL_HANDOVER_H
#define RINGREEL_HANDOVER_H

#include "base/arena.h"
#include "parallel/mesh.h"
#include "parallel/shard.h"

#include <stdint.h>

enum { HANDOVER_SLOTS = 2, HANDOVER_TEXTS = 2 }; /* texts: 0 negative, 1 positive */

/* The header in front of either payload. */
struct handover_head {
    int64_t status; /* enum status; not OK: no payload follows and the shot is not made */
    int64_t shot;
    int64_t tokens[HANDOVER_TEXTS]; /* text: real tokens, 0 for a text that is not used */
};

struct handover_slot {
    struct handover_head head;
    float *payload;
    struct transfer transfers[2]; /* head, payload */
};

struct handover {
    struct mesh *mesh;
    int64_t text_width, max_text_tokens; /* payload of a text message: both texts, one after the other */
    int64_t max_payload_rows, channels;  /* latents: rows of this rank (denoise) or of the whole clip (codec) */
    struct handover_slot text[HANDOVER_SLOTS];    /* codec: going out; denoise: slot 0 takes what arrives */
    struct handover_slot latents[HANDOVER_SLOTS]; /* denoise: going out; codec: slot 0 takes what arrives */
};

/* Local. Lays out the buffers (called twice, arena.h). max_tokens: longest sequence of any shot, extra rows included. */
void handover_lay_out(struct handover *h, struct arena *a, struct mesh *mesh, int64_t text_width, int64_t max_text_tokens,
                      int64_t max_tokens, int64_t channels);

/* ---- codec ranks ---- */
float *handover_text_buffer(struct handover *h, int shot_number); /* free to fill: waits for the send before last */
void handover_send_text(struct handover *h, int shot_number, const struct handover_head *head);
/* Waits for the latents of `shot` [S, C] token-major; *latents points into the slot. Returns the head's status. */
int handover_receive_latents(struct handover *h, int shot, const struct shard_plan *plan, float **latents);
void handover_poll(struct handover *h); /* keeps outgoing messages moving; cheap */
/* Tells the denoise leader to stop. */
void handover_send_stop(struct handover *h, int status);

/* ---- denoise ranks: Collective over the denoise group ---- */
/* *text points into the slot: [tokens[0] + tokens[1], width]. Returns the head's status. */
int handover_receive_text(struct handover *h, int shot, struct handover_head *head, float **text);
float *handover_latents_buffer(struct handover *h, int shot); /* [S_loc, C]; waits for the send before last */
void handover_send_latents(struct handover *h, int shot, int64_t rows);
/* Has a codec rank asked to stop? Its status on every denoise rank. */
int handover_should_stop(struct handover *h);
/* Tells the codec rank of `shot` that its latents will not come. Only the leader sends. */
void handover_cancel_latents(struct handover *h, int shot);

/* Either side: waits until everything that was sent has been taken. */
void handover_finish(struct handover *h);

#endif
