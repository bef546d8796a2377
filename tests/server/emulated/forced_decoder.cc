// See forced_decoder.h.
#include "tests/server/emulated/forced_decoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace structattn {
namespace {

std::vector<float> LogSoftmax(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  std::vector<float> logprobs;
  for (const float logit : logits) {
    logprobs.push_back(static_cast<float>(logit - largest - std::log(sum)));
  }
  return logprobs;
}

std::vector<QueryTile> AllTiles(const WorkList& work) {
  std::vector<QueryTile> tiles = work.tiles;
  tiles.insert(tiles.end(), work.generated.begin(), work.generated.end());
  return tiles;
}

int32_t FirstBlock(const StepBatch& batch, const QueryTile& tile) {
  return batch.block_tables[int64_t{tile.sequence} * batch.block_table_stride];
}

}  // namespace

ForcedDecoder::ForcedDecoder(std::unique_ptr<Decoder> decoder, std::vector<int32_t> prompt_sizes,
                             std::vector<std::vector<int32_t>> script)
    : decoder_(std::move(decoder)),
      prompt_sizes_(std::move(prompt_sizes)),
      script_(std::move(script)),
      traces_(prompt_sizes_.size()) {}

void ForcedDecoder::Forward(const StepBatch& batch, std::span<float> logits) {
  if (!reached_.HasBeenNotified()) reached_.Notify();
  begun_.WaitForNotification();
  decoder_->Forward(batch, logits);
  NoteSequences(batch);
  for (const QueryTile& tile : AllTiles(batch.work)) Handle(tile, batch, logits);
}

void ForcedDecoder::Logits(std::span<const int32_t> rows, std::span<float>) {
  STRUCTATTN_CHECK(rows.empty());
}

void ForcedDecoder::NoteSequences(const StepBatch& batch) {
  bool has_prompt = false;
  bool has_generated = false;
  int32_t last_sequence = 0;
  const std::vector<QueryTile> tiles = AllTiles(batch.work);
  for (const QueryTile& tile : tiles) {
    if (tile.query_begin > 0) continue;
    request_of_block_[FirstBlock(batch, tile)] = batch.token_ids[tile.row_begin];
  }
  for (const QueryTile& tile : tiles) {
    const int32_t request = request_of_block_.at(FirstBlock(batch, tile));
    (tile.query_begin < prompt_sizes_[request] ? has_prompt : has_generated) = true;
    last_sequence = std::max(last_sequence, tile.sequence);
  }
  mixed_steps_ += has_prompt && has_generated;
  shared_steps_ += last_sequence > 0;
}

// The tile's last row, when its logits are read.
void ForcedDecoder::Handle(const QueryTile& tile, const StepBatch& batch, std::span<float> logits) {
  const int32_t row = tile.row_begin + tile.query_count - 1;
  const auto found = std::ranges::find(batch.logit_rows, row);
  if (found == batch.logit_rows.end()) return;
  const size_t vocabulary = vocabulary_size();
  const std::span<float> own =
      logits.subspan((found - batch.logit_rows.begin()) * vocabulary, vocabulary);
  const int32_t request = request_of_block_.at(FirstBlock(batch, tile));
  const size_t step = tile.query_begin + tile.query_count - prompt_sizes_[request];
  Trace& trace = traces_[request];
  STRUCTATTN_CHECK(step == trace.best.size());
  trace.logprobs.push_back(LogSoftmax(own));
  trace.best.push_back(static_cast<int32_t>(std::ranges::max_element(own) - own.begin()));
  if (script_.empty()) return;
  std::ranges::fill(own, 0.0f);
  own[script_[request].at(step)] = 1.0f;
}

}  // namespace structattn
