#include "tests/support/held.h"

#include "base/error.h"

void *held_take(struct held *h, size_t bytes)
{
    void *p = device_memory(h->dev)->take(bytes, "test");
    CHECK(p && h->count < MOST_HELD, "no device memory for %zu bytes", bytes);
    h->pieces[h->count].p = p;
    h->pieces[h->count++].bytes = bytes;
    return p;
}

void held_give(struct held *h)
{
    device_finish(h->dev);
    while (h->count > 0) {
        h->count--;
        device_memory(h->dev)->give(h->pieces[h->count].p, h->pieces[h->count].bytes);
    }
}
