// A text whose bytes know the segment that they came from: put together from the segments,
// rewritten by the normaliser, read when tokens are given to segments.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_OWNED_TEXT_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_OWNED_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace structattn {

// Owner of bytes that the tokenizer made up (SentencePiece's dummy prefix).
inline constexpr int32_t kNoSegment = -1;

// Bytes [end of the previous run, end) belong to `segment`.
struct OwnerRun {
  size_t end;
  int32_t segment;
};

struct OwnedText {
  std::string text;
  std::vector<OwnerRun> runs;  // Ascending; the last ends at text.size().

  void Append(std::string_view bytes, int32_t segment);
};

// Walks the runs of one text forward; a jump costs a binary search.
class OwnerCursor {
 public:
  explicit OwnerCursor(const std::vector<OwnerRun>& runs) : runs_(runs) {}
  // For MajorityOwner each `space_symbol` in the text counts one byte, that of the space for which
  // it stands. The text must outlive the cursor.
  OwnerCursor(const OwnedText& text, std::string_view space_symbol)
      : runs_(text.runs), text_(text.text), space_symbol_(space_symbol) {}

  // Owner of the byte at `position`, kNoSegment past the end.
  int32_t OwnerAt(size_t position);
  // The smallest segment that owns a byte of [begin, end), or kNoSegment.
  int32_t FirstOwner(size_t begin, size_t end);
  // The segment that owns most bytes of the token [begin, end); on a tie the smaller one. A token
  // that no segment owns goes to the owner of the next owned byte, else of the last one before it.
  int32_t MajorityOwner(size_t begin, size_t end);
  // Calls f(end, segment) for each run that overlaps [begin, end), with its end cut to `end`.
  template <typename F>
  void ForEachRun(size_t begin, size_t end, F f) {
    Seek(begin);
    for (size_t i = index_; i < runs_.size() && begin < end; ++i) {
      const size_t run_end = runs_[i].end < end ? runs_[i].end : end;
      f(run_end, runs_[i].segment);
      begin = run_end;
    }
  }

 private:
  void Seek(size_t position);
  // The first of the runs [first, last) that ends after `position`, or `last`.
  size_t FindRun(size_t first, size_t last, size_t position) const;
  int32_t NearestOwner() const;
  // How many bytes [begin, end) counts for.
  size_t CountBytes(size_t begin, size_t end) const;

  const std::vector<OwnerRun>& runs_;
  std::string_view text_;
  std::string_view space_symbol_;
  size_t index_ = 0;  // Run that holds the position of the latest Seek.
  std::vector<std::pair<int32_t, size_t>> counts_;
};

// Appends bytes [begin, end) of `from` with their owners.
void AppendRange(const OwnedText& from, size_t begin, size_t end, OwnerCursor* cursor,
                 OwnedText* out);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_OWNED_TEXT_H_
