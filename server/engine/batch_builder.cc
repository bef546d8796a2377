// Implements batch_builder.h.
#include "server/engine/batch_builder.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/work_list.h"
#include "kernels/check.h"

namespace structattn::engine {
namespace {

// Unused entries of a block table; no interval leads to them.
constexpr int32_t kNoBlock = -1;

void AppendBlockTables(std::span<const SequenceChunk> chunks, StepBatch* batch) {
  size_t stride = 0;
  for (const SequenceChunk& chunk : chunks) {
    stride = std::max(stride, chunk.sequence->blocks().table().size());
  }
  batch->block_table_stride = static_cast<int32_t>(stride);
  batch->block_tables.assign(chunks.size() * stride, kNoBlock);
  for (size_t i = 0; i < chunks.size(); ++i) {
    std::ranges::copy(chunks[i].sequence->blocks().table(),
                      batch->block_tables.begin() + i * stride);
  }
}

// `rope_lengths` is filled in for all tokens or for none.
void AppendRopeLengths(std::span<const SequenceChunk> chunks, StepBatch* batch) {
  batch->rope_lengths.clear();
  const bool any = std::ranges::any_of(
      chunks, [](const SequenceChunk& chunk) { return chunk.sequence->rope_length() > 0; });
  if (!any) return;
  for (const SequenceChunk& chunk : chunks) {
    for (const TokenRange& range : chunk.ranges) {
      batch->rope_lengths.insert(batch->rope_lengths.end(), range.end - range.begin,
                                 chunk.sequence->rope_length());
    }
  }
}

void AppendTokens(const Sequence& sequence, const TokenRange& range, StepBatch* batch) {
  const Placement& placement = sequence.intervals().placement();
  const int32_t block_size = placement.alignment();
  for (int32_t i = range.begin; i < range.end; ++i) {
    batch->token_ids.push_back(sequence.token_ids()[i]);
    batch->positions.push_back(sequence.structure().positions()[i]);
    const int32_t slot = placement.SlotOf(i);
    const int64_t block = sequence.blocks().table()[slot / block_size];
    batch->slots.push_back(block * block_size + slot % block_size);
  }
}

// Which list a token goes to depends on its role alone, computed now or again, so that its bits do
// not depend on how its sequence was cut into chunks.
void AppendWork(const SequenceQueries& queries, int32_t prompt_tokens, const Tiling& tiling,
                WorkList* work) {
  SequenceQueries prompt = queries;
  if (tiling.split_kv_branches > 0) {
    prompt.query_end = std::clamp(prompt_tokens, queries.query_begin, queries.query_end);
  }
  AppendTiles(prompt, tiling.tile_tokens, work);
  for (int32_t index = prompt.query_end; index < queries.query_end; ++index) {
    SequenceQueries generated = queries;
    generated.row_begin += index - queries.query_begin;
    generated.query_begin = index;
    generated.query_end = index + 1;
    AppendDecodeTiles({.branches = {&generated, 1}}, tiling.split_kv_branches, work);
  }
}

// A device of many cores starts tiles in this order: long ones last would leave it idle.
void StartLongTilesFirst(std::vector<QueryTile>* tiles) {
  std::ranges::stable_sort(*tiles, std::ranges::greater(), &QueryTile::keys);
}

}  // namespace

std::span<const int32_t> LogitTokens(const SequenceChunk& chunk) {
  const std::span<const int32_t> logit_tokens = chunk.sequence->blocks().logit_tokens();
  const auto end = std::ranges::lower_bound(logit_tokens, chunk.ranges.back().end);
  return logit_tokens.first(end - logit_tokens.begin());
}

void BuildBatch(std::span<const SequenceChunk> chunks, const Tiling& tiling, StepBatch* batch) {
  batch->token_ids.clear();
  batch->positions.clear();
  batch->slots.clear();
  batch->work.Clear();
  batch->windowed_work.Clear();
  batch->logit_rows.clear();
  AppendBlockTables(chunks, batch);
  AppendRopeLengths(chunks, batch);
  for (size_t i = 0; i < chunks.size(); ++i) {
    const Sequence& sequence = *chunks[i].sequence;
    std::span<const int32_t> logit_tokens = LogitTokens(chunks[i]);
    for (const TokenRange& range : chunks[i].ranges) {
      const int32_t row_begin = static_cast<int32_t>(batch->tokens());
      AppendTokens(sequence, range, batch);
      SequenceQueries queries{.structure = &sequence.structure(),
                              .intervals = &sequence.intervals(),
                              .sequence = static_cast<int32_t>(i),
                              .row_begin = row_begin,
                              .query_begin = range.begin,
                              .query_end = range.end};
      AppendWork(queries, sequence.prompt_tokens(), tiling, &batch->work);
      if (tiling.window != kNoWindow) {
        queries.window = tiling.window;
        AppendWork(queries, sequence.prompt_tokens(), tiling, &batch->windowed_work);
      }
      for (; !logit_tokens.empty() && logit_tokens.front() < range.end;
           logit_tokens = logit_tokens.subspan(1)) {
        STRUCTATTN_CHECK(logit_tokens.front() >= range.begin);
        batch->logit_rows.push_back(row_begin + (logit_tokens.front() - range.begin));
      }
    }
  }
  if (tiling.split_kv_branches == 0) return;
  StartLongTilesFirst(&batch->work.tiles);
  StartLongTilesFirst(&batch->windowed_work.tiles);
}

}  // namespace structattn::engine
