// Unpacks the generated Unicode tables, once per process. Knows no text, only code points.
#include "server/model/tokenizer/unicode.h"

#include <algorithm>
#include <cstddef>

#include "kernels/check.h"

namespace structattn {
namespace {

constexpr char32_t kClassRanges[] = {
#include "server/model/tokenizer/unicode_classes.inc"
};
constexpr char32_t kCombiningRanges[] = {
#include "server/model/tokenizer/combining_classes.inc"
};
constexpr char32_t kDecompositions[] = {
#include "server/model/tokenizer/decompositions.inc"
};

uint64_t PairKey(char32_t first, char32_t second) { return uint64_t{first} << 32 | second; }

}  // namespace

const CharClasses& CharClasses::Get() {
  static const CharClasses classes;
  return classes;
}

CharClasses::CharClasses() {
  std::vector<uint8_t> flat(0x110000, 0);
  for (size_t i = 0; i < std::size(kClassRanges); i += 3) {
    std::fill(flat.begin() + kClassRanges[i], flat.begin() + kClassRanges[i + 1],
              static_cast<uint8_t>(kClassRanges[i + 2]));
  }
  for (size_t b = 0; b < index_.size(); ++b) {
    Block block;
    std::copy_n(flat.begin() + static_cast<ptrdiff_t>(b * 256), 256, block.begin());
    const auto found = std::find(blocks_.begin(), blocks_.end(), block);
    index_[b] = static_cast<uint16_t>(found - blocks_.begin());
    if (found == blocks_.end()) blocks_.push_back(block);
  }
}

const NormalizationData& NormalizationData::Get() {
  static const NormalizationData data;
  return data;
}

NormalizationData::NormalizationData() {
  for (size_t i = 0; i < std::size(kCombiningRanges); i += 3) {
    for (char32_t c = kCombiningRanges[i]; c < kCombiningRanges[i + 1]; ++c) {
      combining_classes_[c] = static_cast<uint8_t>(kCombiningRanges[i + 2]);
      MarkUnsafe(c);
    }
  }
  for (size_t i = 0; i < std::size(kDecompositions); i += 4) {
    const char32_t c = kDecompositions[i];
    const char32_t first = kDecompositions[i + 1];
    const char32_t second = kDecompositions[i + 2];
    decompositions_[c] = {first, second};
    if (kDecompositions[i + 3] != 0) {
      compositions_[PairKey(first, second)] = c;
      MarkUnsafe(second);
    } else {
      MarkUnsafe(c);
    }
  }
  for (char32_t c = hangul::kVowels; c < hangul::kVowels + hangul::kVowelCount; ++c) MarkUnsafe(c);
  for (char32_t c = hangul::kTails + 1; c < hangul::kTails + hangul::kTailCount; ++c) MarkUnsafe(c);
  for (char32_t c = 0; c < kFirstUnsafe; ++c) {
    STRUCTATTN_CHECK((unsafe_[c >> 6] >> (c & 63) & 1) == 0);
  }
}

uint8_t NormalizationData::CombiningClass(char32_t c) const {
  const auto found = combining_classes_.find(c);
  return found == combining_classes_.end() ? 0 : found->second;
}

std::pair<char32_t, char32_t> NormalizationData::Decompose(char32_t c) const {
  const char32_t index = c - hangul::kSyllables;
  if (c >= hangul::kSyllables && index < hangul::kSyllableCount) {
    const char32_t tail = index % hangul::kTailCount;
    if (tail != 0) return {c - tail, hangul::kTails + tail};
    const char32_t lead_vowel = index / hangul::kTailCount;
    return {hangul::kLeads + lead_vowel / hangul::kVowelCount,
            hangul::kVowels + lead_vowel % hangul::kVowelCount};
  }
  const auto found = decompositions_.find(c);
  if (found == decompositions_.end()) return {0, 0};
  return found->second;
}

char32_t NormalizationData::Compose(char32_t first, char32_t second) const {
  const char32_t lead = first - hangul::kLeads;
  const char32_t vowel = second - hangul::kVowels;
  if (first >= hangul::kLeads && lead < hangul::kLeadCount && second >= hangul::kVowels &&
      vowel < hangul::kVowelCount) {
    return hangul::kSyllables + (lead * hangul::kVowelCount + vowel) * hangul::kTailCount;
  }
  const char32_t syllable = first - hangul::kSyllables;
  if (first >= hangul::kSyllables && syllable < hangul::kSyllableCount &&
      syllable % hangul::kTailCount == 0 && second > hangul::kTails &&
      second < hangul::kTails + hangul::kTailCount) {
    return first + (second - hangul::kTails);
  }
  const auto found = compositions_.find(PairKey(first, second));
  return found == compositions_.end() ? 0 : found->second;
}

}  // namespace structattn
