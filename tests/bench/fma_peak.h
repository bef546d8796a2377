// What one core can do at most with float multiply-adds in registers, measured now. Benches print
// their share of it.
#ifndef STRUCTATTN_TESTS_BENCH_FMA_PEAK_H_
#define STRUCTATTN_TESTS_BENCH_FMA_PEAK_H_

namespace structattn {

double FmaPeakGflops();

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_BENCH_FMA_PEAK_H_
