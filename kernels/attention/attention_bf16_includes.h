// What attention_bf16-inl.h stands on. Included by those who include that one, before the pragmas
// that select an instruction set: no function of these headers may be compiled for it.
#ifndef STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_INCLUDES_H_
#define STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_INCLUDES_H_

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "kernels/attention/attention_kernel.h"
#include "kernels/attention/key_tiles.h"
#include "kernels/check.h"
#include "kernels/dtype.h"

#endif  // STRUCTATTN_KERNELS_ATTENTION_ATTENTION_BF16_INCLUDES_H_
