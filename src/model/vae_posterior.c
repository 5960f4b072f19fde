/* What the encoder believes of latents, and a draw from it (spec vae 1.11). */
#include "model/vae.h"

#include "model/vae_net.h"

#include <math.h>
#include <string.h>

static const float LEAST_LOG_VARIANCE = -30.0f, MOST_LOG_VARIANCE = 20.0f;

/* Logarithm of the variance of channel c of a position, of which `more` are what conv_out says
 * beyond the means: one for each channel, or one for all. NaN stays. */
static float log_variance_of(const struct vae *v, const float *more, int64_t c)
{
    if (v->constant_variance) return LEAST_LOG_VARIANCE;
    float x = v->encoder.conv_out.out == 2 * v->latent_channels ? more[c] : more[0];
    if (x < LEAST_LOG_VARIANCE) return LEAST_LOG_VARIANCE;
    return x > MOST_LOG_VARIANCE ? MOST_LOG_VARIANCE : x;
}

void vae_sample(const struct vae *v, float *z, const float *mean, const float *log_variance,
                int64_t tokens, struct rng *r, float *room)
{
    int64_t channels = v->latent_channels;
    rng_randn(r, room, (size_t)(tokens * channels)); /* [C, tokens] */
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = i * channels + c;
            z[at] = mean[at] + expf(0.5f * log_variance[at]) * room[c * tokens + i];
        }
}

void vae_posterior(const struct vae *v, float *mean, float *log_variance, const float *encoded,
                   int64_t n)
{
    int64_t channels = v->latent_channels, out = v->encoder.conv_out.out;
    for (int64_t i = 0; i < n; i++, encoded += out) {
        memcpy(mean + i * channels, encoded, (size_t)channels * sizeof *mean);
        for (int64_t c = 0; log_variance && c < channels; c++)
            log_variance[i * channels + c] = log_variance_of(v, encoded + channels, c);
    }
}
