/* Seconds per denoise step, for `make bench`. */
#ifndef RINGREEL_BENCH_MODEL_H
#define RINGREEL_BENCH_MODEL_H

void bench_models(int threads);

#endif
