#include "tests/support/vae_small.h"

#include "base/error.h"
#include "tests/support/synth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

float *net_add(struct net *n, const char *name, int rank, const int64_t *shape)
{
    assert_true(n->count < MAX_TENSORS);
    struct tensor *t = &n->tensors[n->count++];
    *t = (struct tensor){.name = xstrdup(name), .dtype = DTYPE_F32, .rank = rank};
    if (rank) memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
    size_t count = (size_t)tensor_count(t);
    float *values = xmalloc(count * sizeof *values);
    rng_randn(&n->rng, values, count);
    t->data = values;
    t->bytes = count * sizeof *values;
    return values;
}

void net_add_conv(struct net *n, const char *base, int64_t out, int64_t in)
{
    char name[128];
    snprintf(name, sizeof name, "vae.decoder.%s.weight", base);
    net_add(n, name, 5, (int64_t[]){out, in, 3, 3, 3});
    snprintf(name, sizeof name, "vae.decoder.%s.bias", base);
    net_add(n, name, 1, &out);
}

static void net_add_embedder(struct net *n, const char *base, int64_t width)
{
    char name[128];
    for (int i = 1; i <= 2; i++) {
        snprintf(name, sizeof name, "vae.decoder.%s.timestep_embedder.linear_%d.weight", base, i);
        net_add(n, name, 2, (int64_t[]){width, i == 1 ? 256 : width});
        snprintf(name, sizeof name, "vae.decoder.%s.timestep_embedder.linear_%d.bias", base, i);
        net_add(n, name, 1, &width);
    }
}

struct tensor *net_find(struct net *n, const char *name)
{
    for (int i = 0; i < n->count; i++)
        if (strcmp(n->tensors[i].name, name) == 0) return &n->tensors[i];
    fail_msg("no %s", name);
    return NULL;
}

void net_drop(struct net *n, const char *name)
{
    struct tensor *t = net_find(n, name);
    free((void *)t->name);
    free((void *)t->data);
    *t = n->tensors[--n->count];
}

void net_free(struct net *n)
{
    while (n->count) net_drop(n, n->tensors[0].name);
}

void net_write(const struct net *n, const char *path)
{
    char config[128];
    const char *const metadata[] = {"config", config, NULL};
    snprintf(config, sizeof config,
             "{\"transformer\": {}, \"vae\": {\"causal_decoder\": %s}, \"scheduler\": {}}",
             n->causal ? "true" : "false");
    unlink(path);
    assert_int_equal(safetensors_write(path, n->tensors, n->count, metadata), STATUS_OK);
}

void net_small(struct net *n, bool conditioned)
{
    *n = (struct net){0};
    rng_seed(&n->rng, 11);
    net_add_conv(n, "conv_in.conv", 16, 4);
    net_add_conv(n, "up_blocks.0.conv.conv", 64, 16);
    net_add_conv(n, "up_blocks.1.res_blocks.0.conv1.conv", 8, 8);
    net_add_conv(n, "up_blocks.1.res_blocks.0.conv2.conv", 8, 8);
    net_add_conv(n, "conv_out.conv", 12, 8);
    if (!conditioned) return;
    net_add(n, "vae.decoder.timestep_scale_multiplier", 0, NULL);
    net_add(n, "vae.decoder.up_blocks.1.res_blocks.0.scale_shift_table", 2, (int64_t[]){4, 8});
    net_add(n, "vae.decoder.last_scale_shift_table", 2, (int64_t[]){2, 8});
    net_add_embedder(n, "up_blocks.1.time_embedder", 32);
    net_add_embedder(n, "last_time_embedder", 16);
}
