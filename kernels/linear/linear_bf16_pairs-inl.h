// The Format of bfloat16 weights and inputs that are multiplied in pairs: for AVX512_BF16, and for
// AMX, which sums in the same registers. Included after linear-inl.h and <immintrin.h>, under the
// same conditions.

namespace structattn {
namespace {

struct Bfloat16Pairs {
  using Vector = __m512;
  using Cells = __m512i;
  using Unit = uint32_t;
  using Stored = uint32_t;
  using Input = Bfloat16;
  static constexpr int kLanes = 16;
  static constexpr int kInputsPerStep = 2;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxSums = 16;

  static Vector Load(const float* from) { return _mm512_loadu_ps(from); }
  static void Store(Vector value, float* to) { _mm512_storeu_ps(to, value); }
  static Cells LoadCells(const Stored* from) { return _mm512_load_si512(from); }
  static Cells Broadcast(const Unit* from) { return _mm512_set1_epi32(static_cast<int>(*from)); }
  static Vector MultiplyAdd(Cells unit, Cells cells, Vector sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)cells, (__m512bh)unit);
  }
  static void Stage(const Input* from, int64_t count, Unit* to) {
    if (count % 2 != 0) to[count / 2] = from[count - 1].bits;  // The absent half is 0.
    std::memcpy(to, from, sizeof(Input) * (count / 2 * 2));
  }
};

}  // namespace
}  // namespace structattn
