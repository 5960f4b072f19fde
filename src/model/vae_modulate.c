/* What the timestep does to the decoder (spec vae 1.8). */
#include "model/sinusoid.h"
#include "model/vae_net.h"

static void embed(struct vae *v, struct vae_embedder *e)
{
    struct mat in = mat_f32(v->time_wave, 1, VAE_SINUSOID);
    struct mat hidden = mat_f32(v->time_hidden, 1, e->first.out);
    struct mat rows = mat_f32(e->rows, 1, e->second.out);
    op_linear(v->dev, hidden, in, &e->first, EPILOGUE_SILU, 1);
    op_linear(v->dev, rows, hidden, &e->second, EPILOGUE_NONE, 1);
}

void vae_modulate(struct vae *v, float timestep)
{
    float wave[VAE_SINUSOID];
    sinusoid_fill(wave, VAE_SINUSOID, timestep * v->timestep_multiplier);
    op_upload(v->dev, v->time_wave, wave, sizeof wave);
    for (int k = 0; k < v->decoder.block_count; k++) {
        struct vae_block *b = &v->decoder.blocks[k];
        if (!b->time.rows) continue;
        embed(v, &b->time);
        for (int j = 0; j < b->count; j++)
            op_lincomb(v->dev, b->res[j].modulation, 1, b->res[j].table, 1, b->time.rows,
                       4 * b->in);
    }
    embed(v, &v->last_time);
    op_lincomb(v->dev, v->last_modulation, 1, v->last_table, 1, v->last_time.rows,
               2 * v->decoder.conv_out.in);
}
