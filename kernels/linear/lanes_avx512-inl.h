// The Lanes of quantized_chunks-inl.h on AVX-512 (F, BW). Included after <immintrin.h> and under
// the conditions of quantized_chunks-inl.h by the files for AVX-512 and AVX512_VNNI.

namespace structattn {
namespace {

struct Avx512Lanes {
  static constexpr int kLanes = 16;
  typedef int32_t Ints __attribute__((vector_size(64)));
  typedef float Floats __attribute__((vector_size(64)));
  // GCC 12 takes unmasked conversions for a use of uninitialised data.
  static constexpr __mmask16 kAll = 0xffff;

  static Ints Bytes(const uint8_t* from) {
    return (Ints)_mm512_maskz_cvtepu8_epi32(
        kAll, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Ints SignedBytes(const uint8_t* from) {
    return (Ints)_mm512_maskz_cvtepi8_epi32(
        kAll, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Floats Halves(const uint8_t* from) {
    return (Floats)_mm512_maskz_cvtph_ps(
        kAll, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
};

}  // namespace
}  // namespace structattn
