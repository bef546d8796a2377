// Arrays of float32, bfloat16 or float16 that tests fill from floats and read back as floats. A
// buffer holds exactly its elements, so a sanitizer sees every access past them.
#ifndef STRUCTATTN_TESTS_KERNELS_TYPED_BUFFER_H_
#define STRUCTATTN_TESTS_KERNELS_TYPED_BUFFER_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/dtype.h"

namespace structattn {

// Standard normal values from a seed.
inline std::vector<float> RandomNormal(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// The most that one rounding to `dtype` moves a computed value near `value`, which is half a unit
// in the last place (of 8 and 11 bits of precision, and of 2^-24 for float16 below 2^-14). The
// factor allows for the computed value lying above the exact one.
inline double RoundingError(DType dtype, double value) {
  switch (dtype) {
    case DType::kFloat32:
      return 0.0;
    case DType::kBfloat16:
      return 1.01 * 0x1p-8 * std::abs(value);
    case DType::kFloat16:
      return 1.01 * 0x1p-11 * std::abs(value) + 0x1p-25;
  }
  return 0.0;
}

class TypedBuffer {
 public:
  TypedBuffer(DType dtype, const std::vector<float>& values)
      : dtype_(dtype), bytes_(values.size() * ByteSize(dtype)) {
    for (size_t i = 0; i < values.size(); ++i) Set(i, values[i]);
  }

  DType dtype() const { return dtype_; }
  int64_t size() const { return static_cast<int64_t>(bytes_.size() / ByteSize(dtype_)); }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  void* At(int64_t i) { return bytes_.data() + i * ByteSize(dtype_); }
  const void* At(int64_t i) const { return bytes_.data() + i * ByteSize(dtype_); }

  float Get(int64_t i) const {
    switch (dtype_) {
      case DType::kFloat32:
        return Read<float>(i);
      case DType::kBfloat16:
        return ToFloat(Read<Bfloat16>(i));
      case DType::kFloat16:
        return ToFloat(Read<Float16>(i));
    }
    return 0.0f;
  }

  // Rounds to the buffer's type.
  void Set(int64_t i, float value) {
    switch (dtype_) {
      case DType::kFloat32:
        return Write(i, value);
      case DType::kBfloat16:
        return Write(i, FromFloat<Bfloat16>(value));
      case DType::kFloat16:
        return Write(i, FromFloat<Float16>(value));
    }
  }

  std::vector<float> ToFloats() const {
    std::vector<float> values(size());
    for (int64_t i = 0; i < size(); ++i) values[i] = Get(i);
    return values;
  }

  TypedBuffer Slice(int64_t first, int64_t count) const {
    TypedBuffer slice(dtype_, {});
    const auto begin = bytes_.begin() + first * static_cast<int64_t>(ByteSize(dtype_));
    slice.bytes_.assign(begin, begin + count * static_cast<int64_t>(ByteSize(dtype_)));
    return slice;
  }

  TypedBuffer ReversedRows(int64_t columns) const {
    TypedBuffer reversed = *this;
    const size_t row_bytes = columns * ByteSize(dtype_);
    for (size_t from = 0; from < bytes_.size(); from += row_bytes) {
      std::memcpy(&reversed.bytes_[bytes_.size() - row_bytes - from], &bytes_[from], row_bytes);
    }
    return reversed;
  }

 private:
  template <typename T>
  T Read(int64_t i) const {
    T value;
    std::memcpy(&value, At(i), sizeof(T));
    return value;
  }
  template <typename T>
  void Write(int64_t i, T value) {
    std::memcpy(At(i), &value, sizeof(T));
  }

  DType dtype_;
  std::vector<char> bytes_;
};

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_KERNELS_TYPED_BUFFER_H_
