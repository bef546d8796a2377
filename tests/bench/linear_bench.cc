// Linear over the matrices of whole models, prompt- and decode-sized, beside what the machine
// can do: its peak of multiply-adds and its read bandwidth, measured in the same run, with weights
// of the kernel's type and quantized. Run by hand: linear_bench [threads [words]] takes the runs
// whose "kernel dtype model format" has the words. Checks sampled outputs before it times; never a
// test.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/linear/linear.h"
#include "kernels/linear/linear_kernel.h"
#include "tests/bench/memory_read.h"
#include "tests/kernels/typed_buffer.h"

namespace structattn {
namespace {

struct MatrixShape {
  int64_t outputs;
  int64_t inputs;
};

struct ModelShape {
  const char* name;
  int layers;
  std::vector<MatrixShape> layer;
};

// Fused QKV, attention output, fused gate and up, down.
const ModelShape kModels[] = {
    {"SmolLM2-135M", 30, {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}},
    {"Qwen2.5-0.5B", 24, {{1152, 896}, {896, 896}, {9728, 896}, {896, 4864}}},
    {"Llama-2-7B", 1, {{12288, 4096}, {4096, 4096}, {22016, 4096}, {4096, 11008}}},
};

// One thread: its CPU time, since a busy machine's wall time would measure the neighbours.
double Now(const ThreadPool& pool) {
  timespec time;
  clock_gettime(pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The best of `repeats` runs.
double Seconds(const ThreadPool& pool, const std::function<void()>& body, int repeats) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const double begin = Now(pool);
    body();
    best = std::min(best, Now(pool) - begin);
  }
  return best;
}

#if defined(__x86_64__)
constexpr int kPeakChains = 16;
constexpr int64_t kPeakRounds = 4 << 20;

__attribute__((target("avx512f"))) void Avx512Chains() {
  __m512 sums[kPeakChains];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  __m512 factor = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kPeakChains; ++c) sums[c] = _mm512_fmadd_ps(sums[c], factor, factor);
    asm volatile("" : "+v"(factor));
  }
  for (auto& sum : sums) asm volatile("" : : "v"(sum));
}

__attribute__((target("avx512f,avx512bf16"))) void Bfloat16Chains() {
  __m512 sums[kPeakChains];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  __m512i ones = _mm512_set1_epi32(0x3f803f80);
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kPeakChains; ++c) {
      sums[c] = _mm512_dpbf16_ps(sums[c], (__m512bh)ones, (__m512bh)ones);
    }
    asm volatile("" : "+v"(ones));
  }
  for (auto& sum : sums) asm volatile("" : : "v"(sum));
}
#endif

// Operations per second of all threads with nothing but multiply-adds; 0 where not measured.
double PeakFlops(ThreadPool& pool, const linear::LinearKernel& kernel) {
#if defined(__x86_64__)
  const bool pairs = kernel.inputs_per_unit == 2;
  if (kernel.name.substr(0, 6) != "avx512" || kernel.run == nullptr) return 0.0;
  const double seconds = Seconds(
      pool,
      [&] {
        pool.ParallelFor(pool.threads(),
                         [&](int64_t) { pairs ? Bfloat16Chains() : Avx512Chains(); });
      },
      3);
  return 2.0 * 16 * kernel.inputs_per_unit * kPeakChains * kPeakRounds * pool.threads() / seconds;
#else
  (void)pool, (void)kernel;
  return 0.0;
#endif
}

struct Matrix {
  MatrixShape shape;
  PackedWeight weight;
  TypedBuffer source;
};

void CheckSamples(ThreadPool& pool, const Matrix& matrix, const TypedBuffer& input) {
  const auto [outputs, inputs] = matrix.shape;
  std::vector<float> output(outputs);
  Linear({.pool = &pool},
         {.input = input.data(), .weight = matrix.weight.view, .output = output.data(), .rows = 1});
  for (int64_t n = 0; n < outputs; n += 97) {
    double sum = 0.0;
    double magnitude = 0.0;
    for (int64_t k = 0; k < inputs; ++k) {
      const double term = static_cast<double>(input.Get(k)) * matrix.source.Get(n * inputs + k);
      sum += term;
      magnitude += std::abs(term);
    }
    // Inputs of quantized weights may lose 2^-14 of the largest of 32 (quantized_dot.cc): here,
    // where they are normal, some 2^-11 of a usual one.
    const double unit = matrix.weight.view.kind == WeightKind::kQuantized ? 0x1p-11 : 0.0;
    if (!(std::abs(output[n] - sum) <= (2.0 * inputs * 0x1p-24 + unit) * magnitude)) {
      std::fprintf(stderr, "output %ld is %g instead of %g\n", static_cast<long>(n), output[n],
                   sum);
      std::exit(1);
    }
  }
}

// One pass over all layers, which share one set of outputs and inputs, aligned as a decoder's are.
void RunLayers(ThreadPool& pool, const std::vector<Matrix>& matrices, const void* input,
               int64_t rows, float* output) {
  for (const Matrix& matrix : matrices) {
    Linear({.pool = &pool},
           {.input = input, .weight = matrix.weight.view, .output = output, .rows = rows});
  }
}

struct PackedModel {
  std::vector<Matrix> matrices;
  double weights = 0.0;
  double bytes = 0.0;
};

// Weights of few distinct values, quickly made.
std::vector<float> Values(int64_t count, uint32_t state) {
  std::vector<float> values(count);
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int>(state >> 24) - 128) / 64.0f;
  }
  return values;
}

// Quant blocks of random codes with scales of 2^-6.
std::vector<char> Blocks(QuantFormat format, int64_t count, uint32_t state) {
  const int64_t bytes = QuantLayoutOf(format).bytes;
  std::vector<char> blocks(count * bytes);
  for (char& byte : blocks) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  const Float16 half = FromFloat<Float16>(0x1p-6f);
  for (int64_t i = 0; i < count; ++i) {
    char* const at = blocks.data() + i * bytes;
    std::memcpy(format == QuantFormat::kQ6_K ? at + 208 : at, &half, sizeof(half));
    if (QuantLayoutOf(format).has_shift) std::memcpy(at + 2, &half, sizeof(half));
  }
  return blocks;
}

std::vector<float> Expand(const QuantMatrixView& view) {
  std::vector<float> values(view.rows * view.columns);
  Dequantize(view.format, view.data, view.rows * view.columns / QuantLayoutOf(view.format).inputs(),
             values.data());
  return values;
}

using Format = std::optional<QuantFormat>;

// Of quant blocks, inputs are rounded down to whole ones. `source` of the first layer only.
Matrix PackMatrix(MatrixShape shape, Format format, int layer, const PackTarget& target) {
  if (!format.has_value()) {
    const std::vector<float> values = Values(shape.outputs * shape.inputs, 12345u + layer);
    const MatrixView view = {values.data(), DType::kFloat32, shape.outputs, shape.inputs};
    return {shape, PackWeight({&view, 1}, target),
            TypedBuffer(target.dtype, layer == 0 ? values : std::vector<float>())};
  }
  const int inputs = QuantLayoutOf(*format).inputs();
  shape.inputs = shape.inputs / inputs * inputs;
  const std::vector<char> blocks =
      Blocks(*format, shape.outputs * shape.inputs / inputs, 12345u + layer);
  const QuantMatrixView view = {blocks.data(), *format, shape.outputs, shape.inputs};
  return {shape, PackWeight({&view, 1}, target),
          TypedBuffer(DType::kFloat32, layer == 0 ? Expand(view) : std::vector<float>())};
}

PackedModel PackModel(ThreadPool& pool, const ModelShape& model, const linear::LinearKernel& kernel,
                      Format format) {
  PackedModel packed;
  WeightArena arena;
  for (int layer = 0; layer < model.layers; ++layer) {
    for (const MatrixShape& shape : model.layer) {
      packed.matrices.push_back(
          PackMatrix(shape, format, layer, {kernel.dtype, pool, arena, &kernel}));
      const Matrix& matrix = packed.matrices.back();
      packed.weights +=
          static_cast<double>(matrix.shape.outputs) * static_cast<double>(matrix.shape.inputs);
      packed.bytes += static_cast<double>(matrix.weight.bytes);
    }
  }
  return packed;
}

std::string LabelOf(const ModelShape& model, const linear::LinearKernel& kernel, Format format) {
  return std::string(kernel.name) + " " + std::string(Name(kernel.dtype)) + " " + model.name + " " +
         (format.has_value() ? std::string(Name(*format)) : "stored");
}

void BenchModel(ThreadPool& pool, const ModelShape& model, const linear::LinearKernel& kernel,
                Format format) {
  constexpr int64_t kMostRows = 384;
  const PackedModel packed = PackModel(pool, model, kernel, format);
  int64_t most_inputs = 0;
  int64_t most_outputs = 0;
  for (const MatrixShape& shape : model.layer) {
    most_inputs = std::max(most_inputs, shape.inputs);
    most_outputs = std::max(most_outputs, shape.outputs);
  }
  const TypedBuffer input(kernel.dtype, RandomNormal(kMostRows * most_inputs, 1));
  for (size_t i = 0; i < model.layer.size(); ++i) CheckSamples(pool, packed.matrices[i], input);
  WeightArena arena;
  const std::shared_ptr<void> aligned =
      arena.Allocate(input.size() * static_cast<int64_t>(ByteSize(kernel.dtype)));
  std::memcpy(aligned.get(), input.data(), input.size() * ByteSize(kernel.dtype));
  const std::shared_ptr<void> output =
      arena.Allocate(kMostRows * most_outputs * static_cast<int64_t>(sizeof(float)));
  const double bytes = packed.bytes;
  const double bandwidth = MemoryRead(pool, static_cast<int64_t>(bytes)).BytesPerSecond(5);
  const double peak = PeakFlops(pool, kernel);
  std::printf("%s: %.0f M weights in %.0f MB; peak %.0f GFLOP/s, reads %.1f GB/s\n",
              LabelOf(model, kernel, format).c_str(), packed.weights / 1e6, bytes / 1e6, peak / 1e9,
              bandwidth / 1e9);
  for (const int64_t rows : {1, 2, 4, 8, 16, 64, 384}) {
    const auto pass = [&] {
      RunLayers(pool, packed.matrices, aligned.get(), rows, static_cast<float*>(output.get()));
    };
    pass();
    const double seconds = Seconds(pool, pass, rows >= 64 ? 3 : 7);
    const double flops = 2.0 * packed.weights * static_cast<double>(rows) / seconds;
    std::printf("  M=%-4ld %8.1f GFLOP/s (%3.0f%% of peak) %7.1f GB/s (%3.0f%% of reads)\n",
                static_cast<long>(rows), flops / 1e9, peak > 0.0 ? 100.0 * flops / peak : 0.0,
                bytes / seconds / 1e9, 100.0 * bytes / seconds / bandwidth);
  }
}

}  // namespace
}  // namespace structattn

namespace {

std::vector<structattn::linear::LinearKernel> Kernels() {
  std::vector<structattn::linear::LinearKernel> kernels;
  for (const auto set :
       {structattn::linear::Bfloat16Kernels(), structattn::linear::FloatKernels()}) {
    kernels.insert(kernels.end(), set.begin(), set.end());
  }
  return kernels;
}

}  // namespace

int main(int argc, char** argv) {
  structattn::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 2);
  const std::string only = argc > 2 ? argv[2] : "";  // Part of a label.
  for (const structattn::ModelShape& model : structattn::kModels) {
    for (const structattn::linear::LinearKernel& kernel : Kernels()) {
      std::vector<structattn::Format> formats;
      if (kernel.run != nullptr) formats.push_back(std::nullopt);
      if (kernel.run_quantized != nullptr) {
        formats.insert(formats.end(), std::begin(structattn::kQuantFormats),
                       std::end(structattn::kQuantFormats));
      }
      for (const structattn::Format format : formats) {
        if (structattn::LabelOf(model, kernel, format).find(only) == std::string::npos) continue;
        structattn::BenchModel(pool, model, kernel, format);
      }
    }
  }
}
