// STRUCTATTN_CHECK aborts with place and condition when one of our own invariants is broken. It is
// never reachable from a request or a model file; those get an absl::Status.
#ifndef STRUCTATTN_KERNELS_CHECK_H_
#define STRUCTATTN_KERNELS_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define STRUCTATTN_CHECK(condition)                                                          \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: broken invariant: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

#endif  // STRUCTATTN_KERNELS_CHECK_H_
