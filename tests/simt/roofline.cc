// What binds attention and int8_linear on each GPU, as a MODEL: exact counts of the emulator
// (tensor-core instructions, shared-memory wavefronts, exponentials, bytes) divided by what a
// multiprocessor can do a clock. No figure here was measured on a device. Usage: roofline
// [SLOTS_PER_HMMA], with the issue slots per HMMA of the full-tile loop from
// tests/static/kernel_report.py.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/linear/linear.h"
#include "tests/simt/attention_batch.h"
#include "tests/simt/attention_cases.h"

namespace structattn {
namespace {

// Vendors' figures: dense bfloat16 with float sums and its clock give multiply-adds a clock and
// multiprocessor; that is the rate of the newest tensor instructions (wgmma, tcgen05), which
// mma.sync does not reach on H100 and B200: so for these the tensor column is a lower bound of the
// time.
struct Gpu {
  const char* name;
  int multiprocessors;
  double ghz;
  double tensor_tflops;
  double memory_gb_per_s;

  double MultiplyAddsPerClock() const {
    return tensor_tflops * 1e3 / (2.0 * ghz * multiprocessors);
  }
};
constexpr Gpu kGpus[] = {{"A100 SXM", 108, 1.41, 312, 2039},
                         {"H100 SXM", 132, 1.83, 989, 3350},
                         {"RTX 5090", 170, 2.41, 209.5, 1792},
                         {"B200", 148, 1.85, 2250, 8000}};
constexpr double kSharedBytesPerClock = 128;  // This is one wavefront.
constexpr double kIssuesPerClock = 4;

struct RooflineCase {
  const char* name;
  RulePreset rule;
  std::vector<int> groups;
  int head_dim;
  int ratio;
  bool generated;  // Whether only the last token is queried.
};

std::vector<int> Groups(int context, int questions, int question_tokens, int cue) {
  std::vector<int> groups(context, 0);
  for (int q = 1; q <= questions; ++q) groups.insert(groups.end(), question_tokens, q);
  groups.insert(groups.end(), cue, 0);
  return groups;
}

Structure MakeStructure(const RooflineCase& roofline_case) {
  Structure structure(RuleTable::Preset(roofline_case.rule), PositionPolicy::kSequential);
  for (const int group : roofline_case.groups) structure.Append(group);
  return structure;
}

// The clocks for which one resource of all multiprocessors together is busy, if nothing else were
// in the way.
struct Busy {
  const char* resource;
  double clocks;
};

void PrintModel(const Gpu& gpu, const simt::LaunchCounts& counts, double slots_per_hmma,
                double unique_bytes) {
  const double hmma = static_cast<double>(counts.multiply_accumulates);
  const double wavefronts = static_cast<double>(
      counts.matrix_load_wavefronts.actual + counts.shared_load_wavefronts.actual +
      counts.shared_store_wavefronts.actual + counts.copy_wavefronts.actual);
  const double memory_clocks = unique_bytes / gpu.memory_gb_per_s * gpu.ghz * gpu.multiprocessors;
  const Busy busy[] = {{"tensor", hmma * 2048 / gpu.MultiplyAddsPerClock()},
                       {"issue", hmma * slots_per_hmma / kIssuesPerClock},
                       {"shared", wavefronts},
                       {"memory", memory_clocks}};
  const Busy most =
      *std::max_element(std::begin(busy), std::end(busy),
                        [](const Busy& a, const Busy& b) { return a.clocks < b.clocks; });
  std::printf("    %-9s", gpu.name);
  for (const Busy& one : busy)
    std::printf("  %s %5.1f %%", one.resource, 100 * one.clocks / most.clocks);
  std::printf("  bound by %s; tensor peak at most %.0f %%\n", most.resource,
              100 * busy[0].clocks / most.clocks);
}

void Report(const RooflineCase& roofline_case, double slots_per_hmma) {
  Random random(1);
  AttentionShape shape;
  shape.kv_dtype = shape.output_dtype = DType::kBfloat16;
  shape.block_size = 32;
  shape.kv_heads = 1;
  shape.ratio = roofline_case.ratio;
  shape.head_dim = roofline_case.head_dim;
  const SequenceTensors sequence = RandomSequence(random, shape, MakeStructure(roofline_case));
  const int length = sequence.structure.size();
  const EmulatedPart part = {.sequence = &sequence,
                             .begin = roofline_case.generated ? length - 1 : 0,
                             .end = length,
                             .generated = roofline_case.generated};
  const EmulatedResult result = RunEmulated(shape, {&part, 1}, {});
  if (!result.reports.empty() || CountWrong(shape, {&part, 1}, result.output) != 0) {
    std::fprintf(stderr, "%s: wrong answer\n%s", roofline_case.name, result.reports.c_str());
    std::exit(1);
  }
  const auto launch =
      std::max_element(result.launches.begin(), result.launches.end(),
                       [](const simt::LaunchCounts& a, const simt::LaunchCounts& b) {
                         return a.multiply_accumulates < b.multiply_accumulates;
                       });
  const double pairs =
      static_cast<double>(roofline_case.generated ? length : CountVisiblePairs(sequence.structure));
  const double useful = pairs * shape.ratio * shape.head_dim * 2 / 2048;
  std::printf("%s, head_dim %d, %d query heads a KV head, %d tokens\n", roofline_case.name,
              shape.head_dim, shape.ratio, length);
  std::printf(
      "    %lld HMMA (%.0f %% of them visible pairs), %lld LoadMatrices wavefronts (x%.2f "
      "of ideal), %lld copied bytes, %lld barriers\n",
      static_cast<long long>(launch->multiply_accumulates),
      100 * useful / static_cast<double>(launch->multiply_accumulates),
      static_cast<long long>(launch->matrix_load_wavefronts.actual),
      static_cast<double>(launch->matrix_load_wavefronts.actual) /
          static_cast<double>(launch->matrix_load_wavefronts.ideal),
      static_cast<long long>(launch->copies * 16), static_cast<long long>(launch->barriers));
  const double queries = roofline_case.generated ? 1 : length;
  const double unique_bytes =
      2.0 * length * shape.head_dim * 2 + queries * shape.heads() * shape.head_dim * (4 + 2);
  for (const Gpu& gpu : kGpus) PrintModel(gpu, *launch, slots_per_hmma, unique_bytes);
}

// bfloat16 rows times a slice of an int8 weight [14336, 4096], which has its share of the bytes of
// input and output. The slots of budgets.txt and, for 96 rows, of the copies around its inner loop.
void ReportInt8Linear(int64_t rows, double slots_per_hmma) {
  constexpr int64_t kOutputs = 512;
  constexpr int64_t kInputs = 1024;
  constexpr double kShare = double{kOutputs * kInputs} / (14336.0 * 4096.0);
  const std::vector<Bfloat16> input(rows * kInputs, Bfloat16{0x3f80});
  const std::vector<int8_t> codes(kOutputs * kInputs, 1);
  const std::vector<Float16> scales(kOutputs * kInputs / kInt8ScaleInputs, Float16{0x3c00});
  std::vector<float> output(rows * kOutputs);
  const simt::Memory memory[] = {simt::ReadOnly(input), simt::ReadOnly(codes),
                                 simt::ReadOnly(scales), simt::Writable(output)};
  simt::TakeLaunches();
  Linear({.device = DeviceKind::kEmulated}, {.input = input.data(),
                                             .weight = {.kind = WeightKind::kInt8,
                                                        .input_dtype = DType::kBfloat16,
                                                        .outputs = kOutputs,
                                                        .inputs = kInputs,
                                                        .codes = codes.data(),
                                                        .scales = scales.data()},
                                             .output = output.data(),
                                             .rows = rows});
  const std::string reports = simt::Describe(simt::TakeReports());
  if (!reports.empty() || output != std::vector<float>(output.size(), float{kInputs})) {
    std::fprintf(stderr, "int8_linear: wrong answer\n%s", reports.c_str());
    std::exit(1);
  }
  const simt::LaunchCounts counts = simt::TakeLaunches().at(0);
  const double hmma = static_cast<double>(counts.multiply_accumulates);
  std::printf("int8_linear, %lld rows\n    %.0f HMMA (%.0f %% of them rows), %lld copied bytes\n",
              static_cast<long long>(rows), hmma,
              100.0 * static_cast<double>(rows * kOutputs * kInputs) / 2048 / hmma,
              static_cast<long long>(counts.copies * 16));
  const double unique_bytes = double{kOutputs * kInputs} * (1.0 + 2.0 / kInt8ScaleInputs) +
                              kShare * static_cast<double>(rows) * (2.0 * 4096 + 4.0 * 14336);
  for (const Gpu& gpu : kGpus) PrintModel(gpu, counts, slots_per_hmma, unique_bytes);
}

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) {
  using namespace structattn;
  const double given = argc > 1 ? std::atof(argv[1]) : 0.0;
  const RooflineCase cases[] = {
      {"causal prompt", RulePreset::kCausal, Groups(1024, 0, 0, 0), 64, 1, false},
      {"causal prompt", RulePreset::kCausal, Groups(1024, 0, 0, 0), 128, 4, false},
      {"six questions, anchored", RulePreset::kAnchored, Groups(300, 6, 14, 4), 64, 3, false},
      {"16 groups, isolated", RulePreset::kIsolated, Groups(0, 16, 64, 0), 128, 4, false},
      {"generated token", RulePreset::kCausal, Groups(4096, 0, 0, 0), 128, 4, true}};
  for (const RooflineCase& one : cases) {
    Report(one, given > 0 ? given : one.head_dim == 64 && !one.generated ? 6.6 : 5.7);
  }
  ReportInt8Linear(1, 23.0);
  ReportInt8Linear(16, 23.0);
  ReportInt8Linear(64, 8.6);
  ReportInt8Linear(768, 6.4);
  return 0;
}
