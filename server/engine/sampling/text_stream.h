// From the generated token ids of one continuation to text pieces and the decision to stop:
// end-of-sequence ids, stop ids and stop strings. Knows neither KV nor sampling; never counts
// tokens.
#ifndef STRUCTATTN_SERVER_ENGINE_SAMPLING_TEXT_STREAM_H_
#define STRUCTATTN_SERVER_ENGINE_SAMPLING_TEXT_STREAM_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/engine/sampling/sampling_params.h"
#include "server/model/tokenizer/tokenizer.h"

namespace structattn::engine {

// Finds stop strings in a text that arrives in pieces, in time linear in text x patterns
// (Knuth-Morris-Pratt), and holds back the text that may be the beginning of one.
class StopStringFilter {
 public:
  // No pattern is empty.
  explicit StopStringFilter(std::vector<std::string> patterns);

  // Takes in a piece; returns the text that is now certain. Once a pattern is complete, that is the
  // text before the earliest one, and stopped() holds.
  std::string Push(std::string_view piece);
  // The text held back, when nothing more comes.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<int32_t> border;  // border[n]: longest proper prefix of text[0, n) that ends it.
    int32_t matched = 0;          // Bytes of the pattern that end the text so far.
  };

  std::optional<size_t> Advance(Pattern* pattern, std::string_view piece) const;

  std::vector<Pattern> patterns_;
  std::string held_;
  bool stopped_ = false;
};

class TextStream {
 public:
  TextStream(const StoppingParams& stopping, std::span<const int32_t> eos_token_ids,
             std::unique_ptr<Tokenizer::StreamDecoder> decoder);

  struct Piece {
    std::string text;                    // Whole UTF-8 characters.
    std::optional<FinishReason> finish;  // kStop, kStopToken, kStopString or nothing.
  };
  // Takes in the next token. A token that stops by its id adds no text. After a finish nothing more
  // may come but Finish.
  Piece Push(int32_t token_id);

  // The text that was held back, when generation ends for any reason.
  std::string Finish();

 private:
  std::vector<int32_t> eos_token_ids_;  // Empty with ignore_eos.
  std::vector<int32_t> stop_token_ids_;
  std::vector<int32_t> stop_string_ids_;
  std::unique_ptr<Tokenizer::StreamDecoder> decoder_;
  StopStringFilter filter_;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_SAMPLING_TEXT_STREAM_H_
