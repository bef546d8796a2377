// Split GGUF models: the same as in one file, and refused by the name of the part that is wrong.
#include "server/model/gguf_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "server/model/checkpoint.h"
#include "server/model/tensor_table.h"
#include "tests/server/model/model_files.h"

namespace structattn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::string_view kFirst = "m-00001-of-00003.gguf";

void AddUint16(GgufWriter& writer, std::string_view key, uint16_t value) {
  writer.Value(key, 2, BytesOf(value));
}

// The tiny model's tensors dealt out to three parts, as llama.cpp's gguf-split writes them.
std::vector<GgufWriter> TinyParts() {
  std::vector<GgufWriter> parts(3);
  parts[0] = TinyGguf();
  const std::vector<GgufWriter::Tensor> tensors = std::move(parts[0].tensors);
  parts[0].tensors.clear();
  for (size_t i = 0; i < tensors.size(); ++i) parts[i % 3].tensors.push_back(tensors[i]);
  for (size_t i = 0; i < parts.size(); ++i) {
    AddUint16(parts[i], "split.no", static_cast<uint16_t>(i));
    AddUint16(parts[i], "split.count", 3);
    parts[i].Value("split.tensors.count", 5, BytesOf(static_cast<int32_t>(tensors.size())));
  }
  return parts;
}

void WriteParts(const TempDirectory& directory, const std::vector<GgufWriter>& parts) {
  const GgufPart names{.stem = "m", .number = 1, .count = 3};
  for (size_t i = 0; i < parts.size(); ++i) {
    directory.Write(names.PathOf(static_cast<int64_t>(i) + 1), parts[i].Bytes());
  }
}

std::string ErrorOf(const std::string& path) {
  return std::string(Checkpoint::Open(path).status().message());
}

TEST(GgufFilesTest, KnowsTheNamesOfParts) {
  const auto part = ParseGgufPart("/models/a-00002-of-00011.gguf");
  ASSERT_TRUE(part.has_value());
  EXPECT_EQ(part->stem, "/models/a");
  EXPECT_EQ(part->number, 2);
  EXPECT_EQ(part->count, 11);
  EXPECT_EQ(part->PathOf(1), "/models/a-00001-of-00011.gguf");
  for (const std::string_view other :
       {"a.gguf", "a-00003-of-00002.gguf", "a-00000-of-00002.gguf", "a-0001-of-0002.gguf",
        "a-0000x-of-00002.gguf", "a-00001-of-00002.bin", "-of-.gguf"}) {
    EXPECT_FALSE(ParseGgufPart(other).has_value()) << other;
  }
}

TEST(GgufFilesTest, ASplitModelIsTheSameAsOneFile) {
  const TempDirectory directory;
  WriteParts(directory, TinyParts());
  const TempDirectory whole;
  const auto one = Checkpoint::Open(whole.Write("m.gguf", TinyGguf().Bytes()));
  ASSERT_TRUE(one.ok()) << one.status();
  for (const std::string& path : {directory.Path(kFirst), directory.path()}) {
    const auto split = Checkpoint::Open(path);
    ASSERT_TRUE(split.ok()) << split.status();
    EXPECT_EQ((*split)->parameters(), (*one)->parameters());
    for (const TensorSpec& spec : ExpectedTensors((*split)->config())) {
      const LoadedMatrix mine = (*split)->Read(spec.name);
      const LoadedMatrix other = (*one)->Read(spec.name);
      const auto bytes = static_cast<size_t>(spec.rows * spec.columns) * ByteSize(mine.view.dtype);
      ASSERT_EQ(std::memcmp(mine.view.data, other.view.data, bytes), 0) << spec.name;
      EXPECT_EQ((*split)->StoredBytes(spec.name), (*one)->StoredBytes(spec.name));
    }
  }
}

TEST(GgufFilesTest, NamesTheWrongPart) {
  const TempDirectory directory;
  WriteParts(directory, TinyParts());
  const std::string second = directory.Path("m-00002-of-00003.gguf");
  EXPECT_THAT(ErrorOf(second),
              HasSubstr(second + ": part 2 of 3: name the first one, " + directory.Path(kFirst)));
  std::filesystem::rename(second, directory.Path("elsewhere"));
  EXPECT_THAT(ErrorOf(directory.Path(kFirst)), HasSubstr(second + ": part 2 of 3 is missing"));
  directory.Write("m-00002-of-00003.gguf", TinyParts()[2].Bytes());
  EXPECT_THAT(ErrorOf(directory.Path(kFirst)),
              AllOf(HasSubstr(second + ": part 3 of 3 by its metadata"),
                    HasSubstr("its name must end in -00003-of-00003.gguf")));
  EXPECT_THAT(ErrorOf(directory.Write("alone.gguf", TinyParts()[0].Bytes())),
              HasSubstr("/alone.gguf: part 1 of 3 by its metadata"));
  std::vector<GgufWriter> parts = TinyParts();
  parts[1].tensors.push_back(parts[0].tensors[0]);
  WriteParts(directory, parts);
  EXPECT_THAT(ErrorOf(directory.Path(kFirst)),
              HasSubstr(second + ": 'token_embd.weight': tensor is in an earlier part too"));
  parts = TinyParts();
  parts[2].tensors.pop_back();
  WriteParts(directory, parts);
  EXPECT_THAT(ErrorOf(directory.Path(kFirst)), HasSubstr("split.tensors.count 21: the parts hold"));
}

}  // namespace
}  // namespace structattn
