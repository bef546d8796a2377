// Products of bfloat16 inputs and quantized weights, in integers, as templates over an Engine that
// multiplies them. Included once by each file with such an engine, after quantized_chunks-inl.h and
// under its conditions.
//
// Definition. The 32 inputs x of a row that meet a chunk are integers n times a power of two:
//   unit = 2^(e - 14), where 2^e is the least power of two above all |x|, and at least 2^-86;
//   n = x / unit to the nearest integer, ties to even: at most 2^14 in magnitude, and, where that
//   least is not needed, exact for inputs within a factor of 2^6 of the largest. Where an x is not
//   finite, unit is NaN.
// A sum begins at 0 and meets chunk after chunk; in a chunk, strip after strip of values with a
// scale,
//   sum = sum + float(sum over the strip of n * (code - offset)) * (scale * unit)
// and then, where values have a shift,
//   sum = sum + float(sum over the chunk of n) * (shift * unit)
// each as one fused multiply-add; bias and residual come last. Integers are exact, whatever their
// order: all engines give the same bits.
//
// No weight is expanded to a number, which would be most of the work of a generated token: four
// codes of an output lie in one word, and are multiplied as they are.

namespace structattn {
namespace {

// An Engine has: Lanes, of quantized_chunks-inl.h; Inputs, the n of a chunk as it multiplies them,
// and Split(n, inputs), which makes them; Load(words), the four codes of each lane as it multiplies
// them; Sums, an integer a lane: Begin(of all lanes), MultiplyAdd(inputs, dot, codes, sums), and
// Total(sums); FusedMultiplyAdd(a, b, sum) of Floats; and kMaxRows, of a tile: 2
// or 4.

inline constexpr int kDotInputs = 4;
inline constexpr int kDots = kChunkInputs / kDotInputs;
inline constexpr int64_t kStagedChunks = 32;  // Of a row at a time.

template <class Engine>
struct FixedChunk {
  typename Engine::Inputs inputs;
  int32_t sums[2];  // Of n, in each half of the chunk.
  float unit;
};

template <class Engine>
void StageChunk(const Bfloat16* inputs, int64_t count, FixedChunk<Engine>& to) {
  uint16_t bits[kChunkInputs] = {};
  std::memcpy(bits, inputs, sizeof(*bits) * (count < kChunkInputs ? count : kChunkInputs));
  uint32_t largest = 0;
  for (const uint16_t x : bits) {
    const uint32_t magnitude = x & 0x7fffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  constexpr uint32_t kNotFinite = 0x7f80;
  constexpr uint32_t kLeastExponent = 40;
  const bool finite = largest < kNotFinite;
  const uint32_t exponent = (largest >> 7) > kLeastExponent ? largest >> 7 : kLeastExponent;
  to.unit = finite ? BitCastLanes<float>((exponent - 13) << 23) : __builtin_nanf("");
  const float inverse = BitCastLanes<float>((267 - exponent) << 23);
  const uint32_t kept = finite ? 0xffff0000u : 0u;
  int32_t n[kChunkInputs];
  for (int i = 0; i < kChunkInputs; ++i) {
    constexpr float kMagic = 0x1.8p23f;  // The last place of its sum with a small number is 1.
    const float x = BitCastLanes<float>((static_cast<uint32_t>(bits[i]) << 16) & kept);
    n[i] = BitCastLanes<int32_t>(x * inverse + kMagic) - BitCastLanes<int32_t>(kMagic);
  }
  for (int half = 0; half < 2; ++half) {
    int32_t sum = 0;
    for (int i = 0; i < kChunkInputs / 2; ++i) sum += n[half * (kChunkInputs / 2) + i];
    to.sums[half] = sum;
  }
  Engine::Split(n, to.inputs);
}

// Rows of one panel of a format.
template <QuantFormat kFormat, class Engine, int kRows>
class QuantizedDotRows : QuantizedChunks<kFormat, typename Engine::Lanes> {
  using Base = QuantizedChunks<kFormat, typename Engine::Lanes>;
  using Floats = typename Base::Floats;
  using Words = typename Base::Words;
  using Base::kAt;
  using Base::kLanes;
  using Base::kOutputs;
  using Base::kQuantBlock;
  static constexpr int kStrips = kQuantBlock.strips_per_chunk;
  // What a code is too large by.
  static constexpr int32_t kZero = kQuantBlock.code_bits == 8 ? 128 : kQuantBlock.offset;

 public:
  // The MultiplyChunks of linear_kernel.h: `staged` are FixedChunks.
  static void Multiply(const void* panel, int64_t first, int64_t count, const FewRows& rows) {
    const auto* const staged = static_cast<const FixedChunk<Engine>*>(rows.staged);
    Floats sums[kRows][2];
    std::memcpy(sums, rows.sums, sizeof(sums));
    for (int64_t i = 0; i < count; ++i) {
      MultiplyChunk(Base::Find(panel, first + i), staged + i, rows.staged_stride, sums);
    }
    std::memcpy(rows.sums, sums, sizeof(sums));
  }

 private:
  static void MultiplyChunk(const typename Base::Place& at, const FixedChunk<Engine>* staged,
                            int64_t stride, Floats (&sums)[kRows][2]) {
    const uint8_t* const chunk = at.chunk;
    const typename Base::Planes planes[2] = {Base::ReadPlanes(chunk, 0),
                                             Base::ReadPlanes(chunk, 1)};
#pragma GCC unroll 2
    for (int strip = 0; strip < kStrips; ++strip) {
      typename Engine::Sums integers[kRows][2];
#pragma GCC unroll 4
      for (int row = 0; row < kRows; ++row) {
        const int32_t* const n = staged[row * stride].sums;
        const int32_t inputs = kStrips == 1 ? n[0] + n[1] : n[strip];
        integers[row][0] = integers[row][1] = Engine::Begin(-kZero * inputs);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kDots / kStrips; ++i) {
        const int dot = strip * (kDots / kStrips) + i;
        Base::Prefetch(chunk, dot, kDots);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const auto codes = Engine::Load(ReadCodes(chunk, dot, half, planes[half]));
#pragma GCC unroll 4
          for (int row = 0; row < kRows; ++row) {
            Engine::MultiplyAdd(staged[row * stride].inputs, dot, codes, integers[row][half]);
          }
        }
      }
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const Floats scale = Base::ReadScale(at, strip, half * kLanes);
#pragma GCC unroll 4
        for (int row = 0; row < kRows; ++row) {
          const Floats total = __builtin_convertvector(Engine::Total(integers[row][half]), Floats);
          sums[row][half] =
              Engine::FusedMultiplyAdd(total, scale * staged[row * stride].unit, sums[row][half]);
        }
      }
    }
    if constexpr (kQuantBlock.has_shift) AddShifts(at, staged, stride, sums);
  }

  static void AddShifts(const typename Base::Place& at, const FixedChunk<Engine>* staged,
                        int64_t stride, Floats (&sums)[kRows][2]) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Floats shift = Base::ReadShift(at, half * kLanes);
#pragma GCC unroll 4
      for (int row = 0; row < kRows; ++row) {
        const FixedChunk<Engine>& inputs = staged[row * stride];
        const Floats total = Floats{} + static_cast<float>(inputs.sums[0] + inputs.sums[1]);
        sums[row][half] = Engine::FusedMultiplyAdd(total, shift * inputs.unit, sums[row][half]);
      }
    }
  }

  // The four codes of each output, in bytes.
  static Words ReadCodes(const uint8_t* chunk, int dot, int half,
                         const typename Base::Planes& planes) {
    constexpr uint32_t kNibbles = 0x0f0f0f0f;
    constexpr uint32_t kBits = 0x01010101;
    constexpr bool kWhole = kQuantBlock.code_bits == 8;
    const int row = kWhole ? dot : dot / 2;
    Words codes;
    std::memcpy(&codes, chunk + kAt.codes + kDotInputs * (row * kOutputs + half * kLanes),
                sizeof(codes));
    if constexpr (!kWhole) codes = (dot % 2 == 0 ? codes : codes >> 4) & kNibbles;
    if constexpr (kQuantBlock.code_bits == 5 || kQuantBlock.code_bits == 6) {
      codes |= ((planes.fifth >> dot) & kBits) << 4;
    }
    if constexpr (kQuantBlock.code_bits == 6) codes |= ((planes.sixth >> dot) & kBits) << 5;
    return codes;
  }
};

template <class Engine>
class QuantizedDotItem {
 public:
  explicit QuantizedDotItem(const LinearItem& item)
      : item_(item), rows_(static_cast<int>(item.row_end - item.row_begin)) {}

  void Run() {
    const int64_t chunks = (item_.inputs + kChunkInputs - 1) / kChunkInputs;
    const int64_t panels = (item_.outputs + kOutputs - 1) / kOutputs;
    for (int64_t first = 0; first < panels; first += kMacroPanels) {
      const int64_t count = panels - first < kMacroPanels ? panels - first : kMacroPanels;
      std::memset(sums_, 0, sizeof(float) * count * rows_ * kOutputs);
      for (int64_t begin = 0; begin < chunks; begin += kStagedChunks) {
        const int64_t left = chunks - begin;
        const int64_t block = left < kStagedChunks ? left : kStagedChunks;
        Stage(begin, block);
        for (int64_t i = 0; i < count; ++i) MultiplyPanel(first + i, begin, block, SumsOf(i));
      }
      for (int64_t i = 0; i < count; ++i) Finish(first + i, SumsOf(i));
    }
  }

 private:
  using Lanes = typename Engine::Lanes;
  using Floats = typename Lanes::Floats;
  static constexpr int kOutputs = 2 * Lanes::kLanes;

  void Stage(int64_t begin, int64_t count) {
    if (begin == staged_begin_) return;
    staged_begin_ = begin;
    for (int row = 0; row < rows_; ++row) {
      const auto* const inputs =
          static_cast<const Bfloat16*>(item_.input) + (item_.row_begin + row) * item_.inputs;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t input = (begin + i) * kChunkInputs;
        StageChunk<Engine>(inputs + input, item_.inputs - input, staged_[row * kStagedChunks + i]);
      }
    }
  }

  float* SumsOf(int64_t panel) { return sums_ + panel * rows_ * kOutputs; }

  // In tiles of nearly equal height.
  void MultiplyPanel(int64_t panel, int64_t begin, int64_t count, float* sums) const {
    const char* const at = static_cast<const char*>(item_.panels) + panel * item_.panel_bytes;
    const int tiles = (rows_ + Engine::kMaxRows - 1) / Engine::kMaxRows;
    for (int tile = 0; tile < tiles; ++tile) {
      const int row = rows_ * tile / tiles;
      const int rows = rows_ * (tile + 1) / tiles - row;
      item_.quantized->multiply[rows - 1](
          at, begin, count, {staged_ + row * kStagedChunks, kStagedChunks, sums + row * kOutputs});
    }
  }

  void Finish(int64_t panel, const float* sums) const {
    const int64_t first = panel * kOutputs;
    const int64_t left = item_.outputs - first;
    for (int row = 0; row < rows_; ++row, sums += kOutputs) {
      const int64_t place = (item_.row_begin + row) * item_.output_stride + first;
      if (left >= kOutputs) {
        for (int i = 0; i < kOutputs; i += Lanes::kLanes) {
          FinishLanes<Floats>(first + i, place + i, sums + i);
        }
      } else {
        for (int64_t i = 0; i < left; ++i) FinishLanes<float>(first + i, place + i, sums + i);
      }
    }
  }

  template <typename T>
  void FinishLanes(int64_t output, int64_t place, const float* from) const {
    T sum;
    std::memcpy(&sum, from, sizeof(T));
    const auto add = [&sum](const float* at) {
      T value;
      std::memcpy(&value, at, sizeof(T));
      sum = sum + value;
    };
    if (item_.bias != nullptr) add(item_.bias + output);
    if (item_.residual != nullptr) add(item_.residual + place);
    std::memcpy(item_.output + place, &sum, sizeof(T));
  }

  const LinearItem& item_;
  const int rows_;
  int64_t staged_begin_ = -1;
  FixedChunk<Engine> staged_[kItemRows * kStagedChunks];
  alignas(64) float sums_[kMacroPanels * kItemRows * kOutputs];
};

template <class Engine>
void RunQuantizedDotItem(const LinearItem& item) {
  QuantizedDotItem<Engine>(item).Run();
}

// For QuantizedKernelFor.
template <class Engine>
struct QuantizedDotKernels {
  template <QuantFormat kFormat>
  static constexpr QuantizedKernel Of() {
    static_assert(Engine::kMaxRows == 2 || Engine::kMaxRows == 4);
    QuantizedKernel kernel = {};
    kernel.multiply[0] = QuantizedDotRows<kFormat, Engine, 1>::Multiply;
    kernel.multiply[1] = QuantizedDotRows<kFormat, Engine, 2>::Multiply;
    if constexpr (Engine::kMaxRows == 4) {
      kernel.multiply[2] = QuantizedDotRows<kFormat, Engine, 3>::Multiply;
      kernel.multiply[3] = QuantizedDotRows<kFormat, Engine, 4>::Multiply;
    }
    return kernel;
  }
};

template <class Engine>
constexpr LinearKernel DotKernelOf(std::string_view name) {
  return {.name = name,
          .dtype = DType::kBfloat16,
          .panel_outputs = 2 * Engine::Lanes::kLanes,
          .inputs_per_step = kDotInputs,
          .dot_order = true,
          .steps_multiple = 1,
          .item_rows = kItemRows,
          .run = nullptr,
          .run_quantized = RunQuantizedDotItem<Engine>,
          .find_quantized = QuantizedKernelFor<QuantizedDotKernels<Engine>>};
}

}  // namespace
}  // namespace structattn
