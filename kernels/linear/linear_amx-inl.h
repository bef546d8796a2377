// The Engine of linear-inl.h on AMX: 32 rows by a panel of 32 outputs in four tiles of sums, 32
// inputs deep. `Tiles` is AmxTiles, or its software twin in a test. Included after linear-inl.h and
// linear_bf16_pairs-inl.h, under the same conditions.
//
// 16 steps of half a panel are just the tile that tdpbf16ps wants: rows of 16 pairs, one of each
// output. A row of sums depends on no other row, so rows past the last may hold anything.

namespace structattn {
namespace {

template <class Tiles>
struct TileEngine {
  static constexpr int kTileRows = 16;

  struct Format : Bfloat16Pairs {
    static constexpr int kMaxRows = 2 * kTileRows;
  };
  static constexpr int kStepsMultiple = kTileRows;
  static constexpr bool kSumsStepByStep = false;  // A tile's steps meet before they meet the sum.
  static constexpr int WidePanels(int) { return 1; }
  static void Begin() { Tiles::Configure(); }
  static void End() { Tiles::Release(); }

  static void Run(int rows, int /*panels*/, const TileArgs<Format>& args) {
    alignas(64) float sums[kSumRows * kSumStride];
    if (rows > kTileRows) {
      Multiply<2>(rows, args, sums);
    } else {
      Multiply<1>(rows, args, sums);
    }
    for (int row = 0; row < rows; ++row) {
      for (int output = 0; output < kSumStride; output += Format::kLanes) {
        EndSum<Format>(args.sums, row, output, Format::Load(sums + row * kSumStride + output));
      }
    }
  }

 private:
  static constexpr int kSumRows = Format::kMaxRows;
  static constexpr int kSumStride = kPanelOutputs<Format>;
  static constexpr int64_t kSumBytes = kSumStride * sizeof(float);
  static constexpr int64_t kInputBytes = kStagedStride * sizeof(typename Format::Unit);

  // Tiles 0 to 3 are sums, 4 and 5 two bands of rows, 6 and 7 the halves of the panel.
  template <int kBands>
  static void Multiply(int rows, const TileArgs<Format>& args, float* sums) {
    BeginSums<kBands>(rows, args.sums, sums);
    const char* prefetch = args.prefetch;
    const auto* panel = args.panel;
    for (int64_t step = 0; step < args.steps; step += kTileRows) {
      for (const char* end = prefetch + kTileRows * args.prefetch_stride; prefetch < end;) {
        __builtin_prefetch(prefetch, /*rw=*/0, /*locality=*/2);
        prefetch += kLineBytes;
      }
      Tiles::template Load<4>(args.staged + step, kInputBytes);
      Tiles::template Load<6>(panel, kStepBytes<Format>);
      Tiles::template MultiplyAdd<0, 4, 6>();
      Tiles::template Load<7>(panel + Format::kLanes, kStepBytes<Format>);
      Tiles::template MultiplyAdd<1, 4, 7>();
      if constexpr (kBands == 2) {
        Tiles::template Load<5>(args.staged + kTileRows * kStagedStride + step, kInputBytes);
        Tiles::template MultiplyAdd<2, 5, 6>();
        Tiles::template MultiplyAdd<3, 5, 7>();
      }
      panel += kTileRows * kPanelOutputs<Format>;
    }
    Tiles::template Store<0>(sums, kSumBytes);
    Tiles::template Store<1>(sums + kTileRows, kSumBytes);
    if constexpr (kBands == 2) {
      Tiles::template Store<2>(sums + kTileRows * kSumStride, kSumBytes);
      Tiles::template Store<3>(sums + kTileRows * kSumStride + kTileRows, kSumBytes);
    }
  }

  template <int kBands>
  static void BeginSums(int rows, const TileSums& at, float* sums) {
    if (at.from == nullptr) {
      Tiles::template Zero<0>();
      Tiles::template Zero<1>();
      Tiles::template Zero<2>();
      Tiles::template Zero<3>();
      return;
    }
    for (int row = 0; row < rows; ++row) {
      for (int output = 0; output < kSumStride; output += Format::kLanes) {
        Format::Store(BeginSum<Format>(at, row, output), sums + row * kSumStride + output);
      }
    }
    Tiles::template Load<0>(sums, kSumBytes);
    Tiles::template Load<1>(sums + kTileRows, kSumBytes);
    if constexpr (kBands == 2) {
      Tiles::template Load<2>(sums + kTileRows * kSumStride, kSumBytes);
      Tiles::template Load<3>(sums + kTileRows * kSumStride + kTileRows, kSumBytes);
    }
  }
};

}  // namespace
}  // namespace structattn
