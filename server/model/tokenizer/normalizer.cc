// Runs the normalizer's steps with owners: on each piece between added tokens, and on each added
// token at load. Never sees a regular expression: patterns are literal.
#include "server/model/tokenizer/normalizer.h"

#include <cstddef>

#include "server/model/tokenizer/nfc.h"

namespace structattn {

bool Normalizer::LeavesUnchanged(std::string_view text) const {
  for (const NormalizerStep& step : steps_) {
    const bool changes = step.kind == NormalizerStep::kNfc ? !IsSurelyNfc(text)
                         : step.kind == NormalizerStep::kPrepend
                             ? !text.empty()
                             : text.find(step.pattern) != std::string_view::npos;
    if (changes) return false;
  }
  return true;
}

OwnedText Normalizer::Normalize(OwnedText text) const {
  for (const NormalizerStep& step : steps_) {
    switch (step.kind) {
      case NormalizerStep::kNfc:
        if (!IsSurelyNfc(text.text)) text = ToNfc(text);
        break;
      case NormalizerStep::kPrepend:
        if (!text.text.empty()) text = PrependText(text, step.content);
        break;
      case NormalizerStep::kReplace:
        text = ReplaceAll(text, step.pattern, step.content);
        break;
    }
  }
  return text;
}

std::string Normalizer::NormalizeString(std::string_view text) const {
  OwnedText owned;
  owned.Append(text, 0);
  return Normalize(std::move(owned)).text;
}

OwnedText PrependText(const OwnedText& in, std::string_view content) {
  OwnedText out;
  out.text.reserve(content.size() + in.text.size());
  out.Append(content, kNoSegment);
  OwnerCursor cursor(in.runs);
  AppendRange(in, 0, in.text.size(), &cursor, &out);
  return out;
}

OwnedText ReplaceAll(const OwnedText& in, std::string_view pattern, std::string_view content) {
  OwnedText out;
  out.text.reserve(in.text.size() + in.text.size() / 2);
  OwnerCursor cursor(in.runs);
  size_t done = 0;
  while (true) {
    const size_t found = in.text.find(pattern, done);
    if (found == std::string::npos) break;
    AppendRange(in, done, found, &cursor, &out);
    out.Append(content, cursor.FirstOwner(found, found + pattern.size()));
    done = found + pattern.size();
  }
  AppendRange(in, done, in.text.size(), &cursor, &out);
  return out;
}

}  // namespace structattn
