#include "model/sinusoid.h"

#include <math.h>

void sinusoid_fill(float *row, int channels, float tau)
{
    int half = channels / 2;
    for (int i = 0; i < half; i++) {
        float argument = tau * (float)exp(-9.21034037f * (float)i / (float)half);
        row[i] = (float)cos(argument);
        row[half + i] = (float)sin(argument);
    }
}
