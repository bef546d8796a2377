// Stores vectors of float as float32, bfloat16 or float16, rounded to nearest, ties to even, once
// per Highway target. The scalar twin, which gives the same bits, is FromFloat in kernels/dtype.h.
// Nothing here reads memory.

// Include guard that opens anew for each Highway target.
#if defined(STRUCTATTN_KERNELS_CONVERT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef STRUCTATTN_KERNELS_CONVERT_INL_H_
#undef STRUCTATTN_KERNELS_CONVERT_INL_H_
#else
#define STRUCTATTN_KERNELS_CONVERT_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE void StoreAs(hn::Vec<D> value, D d, float* to) {
  hn::StoreU(value, d, to);
}

template <class D>
HWY_INLINE void StoreAs(hn::Vec<D> value, D, Bfloat16* to) {
  const hn::RebindToUnsigned<D> d32;
  const hn::RebindToSigned<D> d32s;
  const hn::Rebind<uint16_t, D> d16;
  const auto bits = hn::BitCast(d32, value);
  const auto high = hn::ShiftRight<16>(bits);
  const auto bias = hn::Add(hn::Set(d32, 0x7fffu), hn::And(high, hn::Set(d32, 1u)));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, bias));
  const auto quiet = hn::Or(high, hn::Set(d32, 0x40u));
  const auto is_nan = hn::RebindMask(d32, hn::IsNaN(value));
  const auto words = hn::BitCast(d32s, hn::IfThenElse(is_nan, quiet, rounded));
  hn::StoreU(hn::DemoteTo(d16, words), d16, &to->bits);
}

template <class D>
HWY_INLINE void StoreAs(hn::Vec<D> value, [[maybe_unused]] D d, Float16* to) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  const hn::Rebind<hwy::float16_t, D> d16;  // This is one instruction (F16C).
  const hn::Rebind<uint16_t, D> d16_bits;
  hn::StoreU(hn::BitCast(d16_bits, hn::DemoteTo(d16, value)), d16_bits, &to->bits);
#else
  HWY_ALIGN float lanes[hn::MaxLanes(d)];
  hn::Store(value, d, lanes);
  for (size_t i = 0; i < hn::Lanes(d); ++i) to[i] = FromFloat<Float16>(lanes[i]);
#endif
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#endif  // STRUCTATTN_KERNELS_CONVERT_INL_H_
