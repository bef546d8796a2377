// SiluMul on the CPU, x / (1 + exp(-x)) * up. It stands on Highway for its vector exponential,
// which is within 1 ulp; an element's bits never depend on its place in a row.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation/silu_mul_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/activation/silu_mul.h"
#include "kernels/convert-inl.h"
#include "kernels/parallel_rows.h"

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// exp(-x) may overflow to infinity, which makes the quotient the right -0. NaN stays NaN.
template <class D>
HWY_INLINE hn::Vec<D> Gated(D d, hn::Vec<D> gate, hn::Vec<D> up) {
  const auto exponent = hn::Min(hn::Neg(gate), hn::Set(d, 104.0f));  // hn::Exp takes no more.
  const auto denominator = hn::Add(hn::Set(d, 1.0f), hn::Exp(d, exponent));
  return hn::Mul(hn::Div(gate, denominator), up);
}

template <typename T>
void GateRow(const float* gate, const float* up, int64_t columns, T* y) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= columns; i += lanes) {
    StoreAs(Gated(d, hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d, y + i);
  }
  if (i == columns) return;
  // The remaining elements go through whole vectors, so that their bits do not depend on their
  // place.
  HWY_ALIGN float gates[hn::MaxLanes(d)] = {};
  HWY_ALIGN float ups[hn::MaxLanes(d)] = {};
  T results[hn::MaxLanes(d)];
  std::copy(gate + i, gate + columns, gates);
  std::copy(up + i, up + columns, ups);
  StoreAs(Gated(d, hn::Load(d, gates), hn::Load(d, ups)), d, results);
  std::copy(results, results + (columns - i), y + i);
}

template <typename T>
void GateRows(const SiluMulParams& params, int64_t begin, int64_t end) {
  T* output = static_cast<T*>(params.output);
  for (int64_t row = begin; row < end; ++row) {
    const float* gate = params.gate_up + row * 2 * params.columns;
    GateRow(gate, gate + params.columns, params.columns, output + row * params.columns);
  }
}

void SiluMulRows(const SiluMulParams& params, int64_t begin, int64_t end) {
  switch (params.output_dtype) {
    case DType::kFloat32:
      return GateRows<float>(params, begin, end);
    case DType::kBfloat16:
      return GateRows<Bfloat16>(params, begin, end);
    case DType::kFloat16:
      return GateRows<Float16>(params, begin, end);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace structattn {

HWY_EXPORT(SiluMulRows);

void SiluMulCpu(ThreadPool& pool, const SiluMulParams& params) {
  const auto rows_item = HWY_DYNAMIC_DISPATCH(SiluMulRows);
  ParallelForRows(pool, params.rows, 2 * params.columns,
                  [&](int64_t begin, int64_t end) { rows_item(params, begin, end); });
}

}  // namespace structattn
#endif  // HWY_ONCE
