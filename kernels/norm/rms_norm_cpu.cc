// RmsNorm on the CPU: one pass for the sum of squares, one to scale and convert. It stands on
// Highway, since no compiler vectorises the conversion to 16 bits by itself.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm/rms_norm_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/convert-inl.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/norm/sum_of_squares-inl.h"
#include "kernels/parallel_rows.h"

HWY_BEFORE_NAMESPACE();
namespace structattn {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
void NormaliseRow(const float* x, const RmsNormParams& params, T* y) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float scale = InverseRms(x, params.columns, params.epsilon);
  const auto scales = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + lanes <= params.columns; i += lanes) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), scales);
    StoreAs(hn::Mul(scaled, hn::LoadU(d, params.weight + i)), d, y + i);
  }
  for (; i < params.columns; ++i) y[i] = FromFloat<T>(x[i] * scale * params.weight[i]);
}

template <typename T>
void NormaliseRows(const RmsNormParams& params, int64_t begin, int64_t end) {
  T* output = static_cast<T*>(params.output);
  for (int64_t row = begin; row < end; ++row) {
    NormaliseRow(params.input + row * params.columns, params, output + row * params.columns);
  }
}

void RmsNormRows(const RmsNormParams& params, int64_t begin, int64_t end) {
  switch (params.output_dtype) {
    case DType::kFloat32:
      return NormaliseRows<float>(params, begin, end);
    case DType::kBfloat16:
      return NormaliseRows<Bfloat16>(params, begin, end);
    case DType::kFloat16:
      return NormaliseRows<Float16>(params, begin, end);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace structattn
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace structattn {

HWY_EXPORT(RmsNormRows);

void RmsNormCpu(ThreadPool& pool, const RmsNormParams& params) {
  const auto rows_item = HWY_DYNAMIC_DISPATCH(RmsNormRows);
  ParallelForRows(pool, params.rows, params.columns,
                  [&](int64_t begin, int64_t end) { rows_item(params, begin, end); });
}

}  // namespace structattn
#endif  // HWY_ONCE
