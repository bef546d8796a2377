// NFC by regions: only the characters around an unsafe one are decomposed, put in canonical order
// and composed again (Unicode Standard Annex 15). Keeps no state.
#include "server/model/tokenizer/nfc.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/model/tokenizer/unicode.h"
#include "server/model/tokenizer/utf8.h"

namespace structattn {
namespace {

// No character below U+0300 is unsafe, and their first bytes are all below this one.
constexpr uint8_t kFirstUnsafeLead = 0xCC;

struct OwnedChar {
  char32_t code_point;
  int32_t segment;
  uint8_t combining_class;
};

void AppendDecomposed(char32_t c, int32_t segment, std::vector<OwnedChar>* out) {
  const NormalizationData& data = NormalizationData::Get();
  const auto [first, second] = data.Decompose(c);
  if (first == 0) {
    out->push_back({c, segment, data.CombiningClass(c)});
    return;
  }
  AppendDecomposed(first, segment, out);
  if (second != 0) AppendDecomposed(second, segment, out);
}

void OrderCanonically(std::vector<OwnedChar>* chars) {
  const auto is_starter = [](const OwnedChar& c) { return c.combining_class == 0; };
  for (auto begin = chars->begin(); begin != chars->end();) {
    const auto end = std::find_if(begin, chars->end(), is_starter);
    std::stable_sort(begin, end, [](const OwnedChar& a, const OwnedChar& b) {
      return a.combining_class < b.combining_class;
    });
    begin = end == chars->end() ? end : end + 1;
  }
}

int32_t EarlierSegment(int32_t a, int32_t b) {
  if (a == kNoSegment || b == kNoSegment) return std::max(a, b);
  return std::min(a, b);
}

// In place; chars must be in canonical order.
void Compose(std::vector<OwnedChar>* chars) {
  const NormalizationData& data = NormalizationData::Get();
  constexpr size_t kNone = SIZE_MAX;
  size_t starter = kNone;
  size_t size = 0;
  for (const OwnedChar c : *chars) {
    const bool adjacent = starter != kNone && size == starter + 1;
    const uint8_t last_class = size == 0 ? 0 : (*chars)[size - 1].combining_class;
    if (adjacent || (starter != kNone && last_class != 0 && last_class < c.combining_class)) {
      OwnedChar& base = (*chars)[starter];
      if (const char32_t composed = data.Compose(base.code_point, c.code_point)) {
        base = {composed, EarlierSegment(base.segment, c.segment), 0};
        continue;
      }
    }
    if (c.combining_class == 0) starter = size;
    (*chars)[size++] = c;
  }
  chars->resize(size);
}

// The end of the next region that NFC may change, beginning with the character before it.
struct Region {
  size_t begin;
  size_t end;
};

Region NextRegion(std::string_view text, size_t from) {
  const NormalizationData& data = NormalizationData::Get();
  size_t previous = from;
  for (size_t i = from; i < text.size();) {
    if (static_cast<uint8_t>(text[i]) < kFirstUnsafeLead) {
      previous = i;
      i += static_cast<uint8_t>(text[i]) < 0x80 ? 1 : std::min<size_t>(2, text.size() - i);
      continue;
    }
    Utf8Char c = CharAt(text, i);
    if (!data.IsUnsafe(c.code_point)) {
      previous = i;
      i += c.size;
      continue;
    }
    while (data.IsUnsafe(c.code_point)) {
      i += c.size;
      if (i >= text.size()) break;
      c = CharAt(text, i);
    }
    return {previous, i};
  }
  return {text.size(), text.size()};
}

}  // namespace

bool IsSurelyNfc(std::string_view text) { return NextRegion(text, 0).begin == text.size(); }

OwnedText ToNfc(const OwnedText& in) {
  OwnedText out;
  out.text.reserve(in.text.size());
  OwnerCursor cursor(in.runs);
  std::vector<OwnedChar> chars;
  std::string utf8;
  for (size_t done = 0; done < in.text.size();) {
    const Region region = NextRegion(in.text, done);
    AppendRange(in, done, region.begin, &cursor, &out);
    chars.clear();
    for (size_t i = region.begin; i < region.end;) {
      const Utf8Char c = CharAt(in.text, i);
      AppendDecomposed(c.code_point, cursor.FirstOwner(i, i + c.size), &chars);
      i += c.size;
    }
    OrderCanonically(&chars);
    Compose(&chars);
    for (const OwnedChar& c : chars) {
      utf8.clear();
      AppendUtf8(c.code_point, &utf8);
      out.Append(utf8, c.segment);
    }
    done = region.end;
  }
  return out;
}

}  // namespace structattn
