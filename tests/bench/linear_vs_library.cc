// What the same bits cost: Linear, whose sums never depend on how many rows run together,
// against the library's best product for each exact number of rows (oneDNN through LibTorch, its
// weight reordered for that number), in bfloat16 over the matrices of whole models. Run by hand:
//   linear_vs_library [threads] [rounds]
// Compares the products first; then times them in turns and prints the ratio; never a test.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/linear/linear.h"
#include "kernels/thread_pool.h"

namespace structattn {
namespace {

struct MatrixShape {
  int64_t outputs;
  int64_t inputs;
};

struct ModelShape {
  const char* name;
  int layers;
  std::vector<MatrixShape> layer;  // Fused QKV, attention output, fused gate and up, down.
};

const ModelShape kModels[] = {
    {"SmolLM2-135M", 30, {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}},
    {"Qwen2.5-0.5B", 24, {{1152, 896}, {896, 896}, {9728, 896}, {896, 4864}}},
};

constexpr int64_t kMostRows = 512;
constexpr int64_t kMostOutputs = 9728;

// The library's product, its weight in the layout that it likes best for `rows` rows.
class LibraryLinear {
 public:
  LibraryLinear(const at::Tensor& weight, int64_t rows)
      : weight_(Operator<at::Tensor(const at::Tensor&, std::optional<int64_t>)>(
                    "mkldnn::_reorder_linear_weight")
                    .call(weight, rows)) {}

  at::Tensor operator()(const at::Tensor& input) const {
    static const auto product =
        Operator<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                            std::string_view, c10::List<std::optional<at::Scalar>>,
                            std::optional<std::string_view>)>("mkldnn::_linear_pointwise");
    return product.call(input, weight_, std::nullopt, "none",
                        c10::List<std::optional<at::Scalar>>(), "");
  }

 private:
  template <typename Signature>
  static c10::TypedOperatorHandle<Signature> Operator(const char* name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
  }

  at::Tensor weight_;
};

struct Matrix {
  MatrixShape shape;
  at::Tensor source;  // [outputs, inputs] bfloat16.
  PackedWeight packed;
};

class Bench {
 public:
  Bench(const ModelShape& model, int threads) : model_(model), pool_(threads) {
    for (int layer = 0; layer < model.layers; ++layer) {
      for (const MatrixShape& shape : model.layer) {
        const at::Tensor source = at::randn({shape.outputs, shape.inputs}).to(at::kBFloat16);
        const MatrixView view = {source.const_data_ptr(), DType::kBfloat16, shape.outputs,
                                 shape.inputs};
        matrices_.push_back(
            {shape, source, PackWeight({&view, 1}, {DType::kBfloat16, pool_, arena_})});
      }
    }
  }

  // Medians over the rounds.
  void Run(int64_t rows, int rounds) {
    std::vector<LibraryLinear> library;
    std::vector<at::Tensor> inputs;
    for (const Matrix& matrix : matrices_) {
      library.emplace_back(matrix.source, rows);
      inputs.push_back(at::randn({rows, matrix.shape.inputs}).to(at::kBFloat16));
    }
    Check(library, inputs);
    RunLibrary(library, inputs);
    std::vector<double> ours;
    std::vector<double> theirs;
    std::vector<double> ratios;
    for (int round = 0; round < rounds; ++round) {
      ours.push_back(Seconds([&] { RunOurs(inputs); }));
      theirs.push_back(Seconds([&] { RunLibrary(library, inputs); }));
      ratios.push_back(ours.back() / theirs.back());
    }
    std::printf("%s M=%-4ld ours %8.2f ms, library %8.2f ms, ours / library %.2f\n", model_.name,
                static_cast<long>(rows), 1e3 * Median(ours), 1e3 * Median(theirs), Median(ratios));
  }

 private:
  static double Median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
  }

  // Sleeps first: threads of the other side may wait busily for a while.
  template <typename Body>
  static double Seconds(const Body& body) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const auto begin = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  at::Tensor Ours(size_t i, const at::Tensor& input) {
    const at::Tensor output = output_.narrow(0, 0, input.size(0) * matrices_[i].shape.outputs)
                                  .view({input.size(0), matrices_[i].shape.outputs});
    Linear({.pool = &pool_}, {.input = input.const_data_ptr(),
                              .weight = matrices_[i].packed.view,
                              .output = output.data_ptr<float>(),
                              .rows = input.size(0)});
    return output;
  }

  void RunOurs(const std::vector<at::Tensor>& inputs) {
    for (size_t i = 0; i < matrices_.size(); ++i) Ours(i, inputs[i]);
  }

  static void RunLibrary(const std::vector<LibraryLinear>& library,
                         const std::vector<at::Tensor>& inputs) {
    for (size_t i = 0; i < library.size(); ++i) library[i](inputs[i]);
  }

  // Sums of n products of standard normals have deviation sqrt(n); the library rounds to bfloat16.
  void Check(const std::vector<LibraryLinear>& library, const std::vector<at::Tensor>& inputs) {
    for (size_t i = 0; i < model_.layer.size(); ++i) {
      const at::Tensor difference =
          (Ours(i, inputs[i]) - library[i](inputs[i]).to(at::kFloat)).abs();
      const double worst = difference.max().item<double>();
      const double allowed = 0x1p-8 * 6.5 * std::sqrt(static_cast<double>(inputs[i].size(1)));
      if (!(worst <= allowed)) {
        std::fprintf(stderr, "matrix %zu differs by %g, more than %g\n", i, worst, allowed);
        std::exit(1);
      }
    }
  }

  const ModelShape& model_;
  ThreadPool pool_;
  WeightArena arena_;
  std::vector<Matrix> matrices_;
  at::Tensor output_ =
      at::empty({kMostRows * kMostOutputs});  // As the engine, which keeps its own.
};

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  at::set_num_threads(threads);
  const c10::InferenceMode inference;
  for (const structattn::ModelShape& model : structattn::kModels) {
    structattn::Bench bench(model, threads);
    for (const int64_t rows : {1, 4, 16, 33, 64, 140, 512}) bench.Run(rows, rounds);
  }
}
