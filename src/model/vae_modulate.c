/* What the timestep does to the decoder (spec vae 1.8). */
#include "model/sinusoid.h"
#include "model/vae_net.h"

static void embed(struct vae *v, struct vae_embedder *e, float wave[VAE_SINUSOID])
{
    struct mat in = mat_f32(wave, 1, VAE_SINUSOID);
    struct mat hidden = mat_f32(v->time_hidden, 1, e->first.out);
    struct mat rows = mat_f32(e->rows, 1, e->second.out);
    op_linear(v->dev, hidden, in, &e->first, EPILOGUE_SILU, 1);
    op_linear(v->dev, rows, hidden, &e->second, EPILOGUE_NONE, 1);
}

static void add_rows(float *out, const float *table, const float *embedding, int64_t n)
{
    for (int64_t i = 0; i < n; i++) out[i] = table[i] + embedding[i];
}

void vae_modulate(struct vae *v, float timestep)
{
    float wave[VAE_SINUSOID];
    sinusoid_fill(wave, VAE_SINUSOID, timestep * v->timestep_multiplier);
    for (int k = 0; k < v->decoder.block_count; k++) {
        struct vae_block *b = &v->decoder.blocks[k];
        if (!b->time.rows) continue;
        embed(v, &b->time, wave);
        for (int j = 0; j < b->count; j++)
            add_rows(b->res[j].modulation, b->res[j].table, b->time.rows, 4 * b->in);
    }
    embed(v, &v->last_time, wave);
    add_rows(v->last_modulation, v->last_table, v->last_time.rows, 2 * v->decoder.conv_out.in);
}
