// Random damage to sound model files: 10,000 mutations of each kind with a fixed seed. Whatever
// still opens is read to the end; nothing may crash (meant for the address sanitizer too) or take
// long.
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "server/model/checkpoint.h"
#include "server/model/gguf.h"
#include "server/model/gguf_config.h"
#include "server/model/safetensors.h"
#include "server/model/tensor_table.h"
#include "tests/server/model/model_files.h"
#include "tests/server/model/quantized_files.h"

namespace structattn {
namespace {

constexpr int kMutations = 10000;
constexpr uint64_t kSeed = 20260917;

// Flips bytes, cuts, doubles a part or plants an extreme number, within the first `span` bytes.
std::string Damage(std::string bytes, size_t span, std::mt19937_64& random) {
  const auto place = [&](size_t room) { return random() % (span > room ? span - room : 1); };
  const int changes = 1 + static_cast<int>(random() % 3);
  for (int i = 0; i < changes && bytes.size() > 16; ++i) {
    span = std::min(span, bytes.size());
    switch (random() % 6) {
      case 0:
        bytes.resize(random() % bytes.size());
        break;
      case 1: {
        constexpr uint64_t kExtremes[] = {
            0, 1, 0x7fffffff, 0xffffffff, ~uint64_t{0}, ~uint64_t{0} / 2};
        const uint64_t extreme = kExtremes[random() % 6];
        const size_t width = random() % 2 == 0 ? 4 : 8;
        bytes.replace(place(8), width, BytesOf(extreme).substr(0, width));
        break;
      }
      case 2:
        bytes.insert(place(0), bytes.substr(place(0), random() % 64));
        break;
      default:
        bytes[place(0)] = static_cast<char>(random());
    }
  }
  return bytes;
}

// Touches every byte that Read hands out.
void ReadAll(const Checkpoint& checkpoint) {
  for (const TensorSpec& spec : ExpectedTensors(checkpoint.config())) {
    const LoadedMatrix matrix = checkpoint.Read(spec.name);
    const auto* bytes = static_cast<const unsigned char*>(matrix.view.data);
    unsigned sum = 0;
    const int64_t size =
        spec.rows * spec.columns * static_cast<int64_t>(ByteSize(matrix.view.dtype));
    for (int64_t i = 0; i < size; ++i) sum += bytes[i];
    ASSERT_LE(sum, 255u * static_cast<uint64_t>(size));
  }
}

// The matrices as the server takes them: expanded, and in quant blocks.
void ReadAllForms(const Checkpoint& checkpoint) {
  ReadAll(checkpoint);
  ThreadPool pool(1);
  for (const TensorSpec& spec : ExpectedTensors(checkpoint.config())) {
    (void)checkpoint.ReadQuantized(spec.name, pool);
  }
}

TEST(CheckpointFuzzTest, DamagedGgufHeadersNeverCrash) {
  const std::string file = TinyGguf().Bytes();
  const size_t header = Gguf::Parse(file)->data_begin();
  std::mt19937_64 random(kSeed);
  int accepted = 0;
  for (int i = 0; i < kMutations; ++i) {
    const std::string damaged = Damage(file, header, random);
    const auto gguf = Gguf::Parse(damaged);
    if (!gguf.ok()) continue;
    ++accepted;
    (void)ReadGgufConfig(*gguf);
    (void)ReadGgufVocabulary(*gguf);
  }
  std::printf("seed %llu: %d of %d still parse\n", static_cast<unsigned long long>(kSeed), accepted,
              kMutations);
}

TEST(CheckpointFuzzTest, DamagedSafetensorsHeadersNeverCrash) {
  const std::string header =
      SafetensorsHeader(TinyTensors(*ParseModelConfig(TinyConfig().dump(), ""), "F32")).dump();
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < kMutations; ++i) {
    (void)ParseSafetensorsHeader(Damage(header, header.size(), random), 150000);
  }
}

TEST(CheckpointFuzzTest, DamagedConfigsNeverCrash) {
  const std::string config = TinyConfig().dump();
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < kMutations; ++i) {
    const auto parsed = ParseModelConfig(Damage(config, config.size(), random), "");
    if (parsed.ok()) (void)InverseFrequencies(parsed->rope, parsed->head_dim);
  }
}

// The whole way, through the file system.
TEST(CheckpointFuzzTest, DamagedFilesNeverCrash) {
  const TempDirectory directory;
  WriteTinyModel(directory);
  const std::string gguf = TinyGguf().Bytes();
  const std::string safetensors =
      SafetensorsBytes(TinyTensors(*ParseModelConfig(TinyConfig().dump(), ""), "F32"));
  std::mt19937_64 random(kSeed);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kMutations / 20; ++i) {
    const auto from_gguf =
        Checkpoint::Open(directory.Write("m.gguf", Damage(gguf, gguf.size(), random)));
    if (from_gguf.ok()) ReadAll(**from_gguf);
    directory.Write("model.safetensors", Damage(safetensors, safetensors.size(), random));
    const auto from_directory = Checkpoint::Open(directory.path());
    if (from_directory.ok()) ReadAll(**from_directory);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count() / (kMutations / 20), 0.1) << "seconds per pair of files";
}

TEST(CheckpointFuzzTest, DamagedQuantizedFoldersNeverCrash) {
  std::mt19937_64 random(kSeed);
  for (const TinyForm& form : TinyForms()) {
    const TempDirectory directory;
    WriteTinyQuantizedModel(directory, form);
    const std::string config = TinyQuantizedConfig(form).dump();
    const std::string file = SafetensorsBytes(TinyQuantizedTensors(form));
    for (int i = 0; i < kMutations / 40; ++i) {
      const bool both = i % 4 == 0;
      directory.Write("config.json", both ? Damage(config, config.size(), random) : config);
      directory.Write("model.safetensors", Damage(file, file.size(), random));
      const auto checkpoint = Checkpoint::Open(directory.path());
      if (checkpoint.ok()) ReadAllForms(**checkpoint);
    }
  }
}

}  // namespace
}  // namespace structattn
