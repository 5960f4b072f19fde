#include "model/replay.h"

#include <string.h>

static bool same(const struct replay_key *a, const struct replay_key *b)
{
    return a->to == b->to && a->from == b->from && a->row_index == b->row_index &&
           a->times == b->times && a->text_slot == b->text_slot &&
           a->text_tokens == b->text_tokens && a->skip.mode == b->skip.mode &&
           a->skip.count == b->skip.count &&
           (a->skip.count == 0 || memcmp(a->skip.blocks, b->skip.blocks,
                                         (size_t)a->skip.count * sizeof *a->skip.blocks) == 0);
}

static int find(const struct replays *r, const struct replay_key *key)
{
    for (int i = 0; i < r->count; i++)
        if (same(&r->replay[i].key, key)) return i;
    return -1;
}

/* Has run once. Where there is no room, it goes on as it is. */
static void remember(struct replays *r, const struct replay_key *key)
{
    if (r->count == REPLAYS_MOST || key->skip.count > REPLAY_BLOCKS_MOST) return;
    int i = r->count++, *blocks = r->replay[i].blocks;
    r->replay[i].key = *key;
    r->replay[i].key.skip.blocks = blocks;
    r->replay[i].recording = NULL;
    for (int k = 0; k < key->skip.count; k++) blocks[k] = key->skip.blocks[k];
}

static struct recording *record(struct device *dev, void (*pass)(void *), void *argument)
{
    if (!op_record_begin(dev)) return NULL;
    pass(argument);
    return op_record_end(dev);
}

void replays_run(struct replays *r, const struct replay_key *key, void (*pass)(void *argument),
                 void *argument)
{
    int i = r->on ? find(r, key) : -1;
    struct recording **known = i >= 0 ? &r->replay[i].recording : NULL;
    if (known && !*known) *known = record(r->dev, pass, argument);
    bool again = known && *known && op_replay_begin(r->dev, *known);
    if (known && !again) {
        op_recording_free(r->dev, *known);
        *known = NULL;
    }
    pass(argument);
    if (again) op_replay_end(r->dev);
    if (r->on && !known) remember(r, key);
}

void replays_forget(struct replays *r)
{
    for (int i = 0; i < r->count; i++) op_recording_free(r->dev, r->replay[i].recording);
    r->count = 0;
}
