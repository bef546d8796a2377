// RopeKvWrite against the direct formula in double precision: positions up to 130,000, both norms,
// every cache type; and everything in the cache that is not a written slot stays untouched.
#include "kernels/rope/rope_kv_write.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/kernels/test_device.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kEpsilon = 1e-6f;
constexpr int32_t kBlockSize = 16;
constexpr int32_t kBlocks = 12;

struct Geometry {
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  int64_t tokens;
  bool norms;
};

// One call's tensors: random q, k, v and norms, random slots, angles of random positions.
struct Call {
  Call(const Geometry& geometry, DType dtype, uint32_t seed)
      : shape(geometry),
        half(geometry.head_dim / 2),
        row((geometry.heads + 2 * geometry.kv_heads) * geometry.head_dim),
        qkv(RandomNormal(geometry.tokens * row, seed)),
        query_norm(RandomNormal(geometry.head_dim, seed + 1)),
        key_norm(RandomNormal(geometry.head_dim, seed + 2)),
        query(geometry.tokens * geometry.heads * geometry.head_dim, kNan),
        key(dtype, Poison(geometry)),
        value(dtype, Poison(geometry)) {
    std::mt19937 generator(seed + 3);
    std::uniform_int_distribution<int32_t> position(0, 130000);
    slots.resize(kBlocks * kBlockSize);
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), generator);
    slots.resize(shape.tokens);
    for (int64_t token = 0; token < shape.tokens; ++token) {
      positions.push_back(token == 0 ? 130000 : position(generator));
      for (int32_t i = 0; i < half; ++i) {
        cosine.push_back(static_cast<float>(std::cos(Angle(token, i))));
        sine.push_back(static_cast<float>(std::sin(Angle(token, i))));
      }
    }
  }

  static std::vector<float> Poison(const Geometry& geometry) {
    return std::vector<float>(kBlocks * kBlockSize * geometry.kv_heads * geometry.head_dim, kNan);
  }

  double Angle(int64_t token, int32_t i) const {
    return positions[token] * std::pow(10000.0, -2.0 * i / shape.head_dim);
  }

  void Run(ThreadPool& pool) {
    const std::vector<TestBuffer> buffers = {Read(qkv),      Read(cosine),     Read(sine),
                                             Read(slots),    Read(query_norm), Read(key_norm),
                                             Written(query), Written(key),     Written(value)};
    RunOnTestDevice(pool, buffers, [&](const KernelContext& context) {
      RopeKvWrite(context, {.qkv = qkv.data(),
                            .query = query.data(),
                            .cosine = cosine.data(),
                            .sine = sine.data(),
                            .query_norm = shape.norms ? query_norm.data() : nullptr,
                            .key_norm = shape.norms ? key_norm.data() : nullptr,
                            .epsilon = kEpsilon,
                            .slots = slots.data(),
                            .kv = {.key = key.data(),
                                   .value = value.data(),
                                   .dtype = key.dtype(),
                                   .block_size = kBlockSize,
                                   .kv_heads = shape.kv_heads,
                                   .head_dim = shape.head_dim},
                            .heads = shape.heads,
                            .tokens = shape.tokens});
    });
  }

  // Where element i of KV head h of `token` lies: on the CPU keys are transposed in their block,
  // bfloat16 in pairs of elements.
  int64_t KeyIndex(int64_t token, int32_t h, int32_t i) const {
    if (TestDevice() != DeviceKind::kCpu) return ValueIndex(token, h, i);
    const int64_t block = slots[token] / kBlockSize;
    if (key.dtype() == DType::kBfloat16) {
      const int64_t pair =
          ((block * shape.kv_heads + h) * half + i / 2) * kBlockSize + slots[token] % kBlockSize;
      return pair * 2 + i % 2;
    }
    return ((block * shape.kv_heads + h) * shape.head_dim + i) * kBlockSize +
           slots[token] % kBlockSize;
  }
  int64_t ValueIndex(int64_t token, int32_t h, int32_t i) const {
    const int64_t block = slots[token] / kBlockSize;
    return ((block * shape.kv_heads + h) * kBlockSize + slots[token] % kBlockSize) *
               shape.head_dim +
           i;
  }

  Geometry shape;
  int32_t half;
  int64_t row;
  std::vector<float> qkv, query_norm, key_norm, query, cosine, sine;
  std::vector<int64_t> slots;
  std::vector<int32_t> positions;
  TypedBuffer key, value;
};

// The rotated head in double precision. `magnitude` gets |a cos| + |b sin|, which scales the error.
struct Rotated {
  std::vector<double> value, magnitude;
};
Rotated Rotate(const Call& call, int64_t token, const float* head, const float* norm) {
  const int32_t head_dim = call.shape.head_dim;
  std::vector<double> x(head, head + head_dim);
  if (norm != nullptr) {
    double sum = 0.0;
    for (const double element : x) sum += element * element;
    for (int32_t i = 0; i < head_dim; ++i) x[i] *= norm[i] / std::sqrt(sum / head_dim + kEpsilon);
  }
  Rotated rotated{std::vector<double>(head_dim), std::vector<double>(head_dim)};
  for (int32_t i = 0; i < head_dim; ++i) {
    const double angle = call.Angle(token, i % call.half);
    const double partner = i < call.half ? -x[i + call.half] : x[i - call.half];
    rotated.value[i] = x[i] * std::cos(angle) + partner * std::sin(angle);
    rotated.magnitude[i] = std::abs(x[i] * std::cos(angle)) + std::abs(partner * std::sin(angle));
  }
  return rotated;
}

// Per term: rounding of the angle's cosine or sine, product and sum (3 u); a norm adds the
// head_dim / 32 + 9 roundings that the test of RmsNorm derives. Cancelled to nearly zero, what
// remains of cosine or sine itself is below 2^-24 of the element, covered by one more u.
double Bound(const Call& call, DType dtype, const Rotated& rotated, int32_t i) {
  const double roundings = 4.0 + (call.shape.norms ? call.shape.head_dim / 32.0 + 9.0 : 0.0);
  return roundings * 0x1p-24 * rotated.magnitude[i] + 0x1p-60 +
         RoundingError(dtype, rotated.value[i]);
}

class RopeKvWriteTest : public testing::TestWithParam<DType> {};

TEST_P(RopeKvWriteTest, AgreesWithTheFormula) {
  const Geometry geometries[] = {
      {9, 3, 64, 1, false}, {4, 4, 80, 17, false}, {7, 1, 96, 37, true},  {16, 8, 128, 127, true},
      {1, 1, 16, 5, false}, {2, 1, 256, 33, true}, {3, 1, 48, 192, false}};
  ThreadPool pool(2);
  uint32_t seed = 10;
  for (const Geometry& shape : geometries) {
    SCOPED_TRACE(testing::Message() << "head_dim " << shape.head_dim << " seed " << seed);
    Call call(shape, GetParam(), seed += 10);
    call.Run(pool);
    for (int64_t token = 0; token < shape.tokens; ++token) {
      for (int32_t h = 0; h < shape.heads + shape.kv_heads; ++h) {
        const bool is_query = h < shape.heads;
        const float* norm = is_query ? call.query_norm.data() : call.key_norm.data();
        const float* head = call.qkv.data() + token * call.row + h * shape.head_dim;
        const Rotated expected = Rotate(call, token, head, shape.norms ? norm : nullptr);
        for (int32_t i = 0; i < shape.head_dim; ++i) {
          const float actual = is_query ? call.query[(token * shape.heads + h) * shape.head_dim + i]
                                        : call.key.Get(call.KeyIndex(token, h - shape.heads, i));
          ASSERT_NEAR(actual, expected.value[i],
                      Bound(call, is_query ? DType::kFloat32 : GetParam(), expected, i))
              << "token " << token << " head " << h << " element " << i;
        }
      }
    }
  }
}

TEST_P(RopeKvWriteTest, WritesValuesRoundedAndNothingElse) {
  const Geometry shape = {4, 2, 80, 55, true};
  ThreadPool pool(2);
  Call call(shape, GetParam(), 700);
  if (TestDevice() != DeviceKind::kCpu) call.slots[7] = -1;  // This token goes nowhere.
  call.Run(pool);
  std::vector<bool> key_written(call.key.size());
  std::vector<bool> value_written(call.value.size());
  for (int64_t token = 0; token < shape.tokens; ++token) {
    if (call.slots[token] < 0) continue;
    for (int32_t h = 0; h < shape.kv_heads; ++h) {
      for (int32_t i = 0; i < shape.head_dim; ++i) {
        const int64_t from =
            token * call.row + (shape.heads + shape.kv_heads + h) * shape.head_dim + i;
        const TypedBuffer expected(GetParam(), {call.qkv[from]});
        const int64_t at = call.ValueIndex(token, h, i);
        ASSERT_EQ(call.value.Get(at), expected.Get(0));
        value_written[at] = true;
        key_written[call.KeyIndex(token, h, i)] = true;
      }
    }
  }
  for (int64_t i = 0; i < call.key.size(); ++i) {
    ASSERT_EQ(std::isnan(call.key.Get(i)), !key_written[i]) << i;
    ASSERT_EQ(std::isnan(call.value.Get(i)), !value_written[i]) << i;
  }
}

// A token alone gives the bits that it gives among others, with any number of threads.
TEST_P(RopeKvWriteTest, BitsDependOnTheTokenAlone) {
  const Geometry shape = {14, 2, 64, 150, true};
  ThreadPool three(3);
  ThreadPool one(1);
  Call together(shape, GetParam(), 800);
  together.Run(three);
  for (const int64_t token : {0, 1, 77, 149}) {
    Call alone = together;
    alone.shape.tokens = 1;
    std::fill(alone.query.begin(), alone.query.end(), kNan);
    const auto move_to_front = [token](auto& values, int64_t size) {
      std::copy_n(values.begin() + token * size, size, values.begin());
    };
    move_to_front(alone.qkv, alone.row);
    move_to_front(alone.cosine, alone.half);
    move_to_front(alone.sine, alone.half);
    move_to_front(alone.slots, 1);
    alone.key = TypedBuffer(GetParam(), Call::Poison(shape));
    alone.value = alone.key;
    alone.Run(one);
    const int64_t query_size = shape.heads * shape.head_dim;
    EXPECT_EQ(0, std::memcmp(alone.query.data(), together.query.data() + token * query_size,
                             query_size * sizeof(float)));
    for (int32_t h = 0; h < shape.kv_heads; ++h) {
      for (int32_t i = 0; i < shape.head_dim; ++i) {
        EXPECT_EQ(alone.key.Get(alone.KeyIndex(0, h, i)),
                  together.key.Get(together.KeyIndex(token, h, i)));
        EXPECT_EQ(alone.value.Get(alone.ValueIndex(0, h, i)),
                  together.value.Get(together.ValueIndex(token, h, i)));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, RopeKvWriteTest,
                         testing::Values(DType::kFloat32, DType::kBfloat16, DType::kFloat16),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace structattn
