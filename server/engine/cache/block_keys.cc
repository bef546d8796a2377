// Implements block_keys.h as hash chains: one per row of the rule table in use, over the keys of
// the blocks that the row sees.
#include "server/engine/cache/block_keys.h"

#include <algorithm>
#include <type_traits>

#include "server/model/sha256.h"

namespace structattn::engine {
namespace {

// What a hash is of, so that no two kinds of input are the same bytes.
enum class Kind : uint8_t { kSalt, kBlock, kView };

class Hasher {
 public:
  explicit Hasher(Kind kind) { AddSpan(std::span<const Kind>(&kind, 1)); }

  template <typename T>
  Hasher& AddSpan(std::span<const T> values) {
    static_assert(std::has_unique_object_representations_v<T>);
    hash_.Update({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
    return *this;
  }
  Hasher& Add(const BlockKey& key) { return AddSpan(std::span<const uint8_t>(key)); }
  BlockKey Key() { return hash_.Bytes(); }

 private:
  Sha256 hash_;
};

}  // namespace

BlockKeys::BlockKeys(int32_t block_size, std::string_view salt)
    : block_size_(block_size),
      salt_(Hasher(Kind::kSalt).AddSpan(std::span<const char>(salt)).Key()) {}

void BlockKeys::Extend(const SequenceTokens& tokens) {
  index_gaps_matter_ = tokens.index_gaps_matter;
  const std::span<const Run> runs = tokens.structure->runs();
  const int32_t known = tokens_.empty() ? 0 : tokens_.back().end;
  auto run = std::partition_point(runs.begin(), runs.end(),
                                  [known](const Run& r) { return r.end <= known; });
  for (; run != runs.end(); ++run) {
    for (int32_t begin = std::max(run->begin, known); begin < run->end;) {
      const bool joins = begin > run->begin && (begin - run->begin) % block_size_ != 0;
      if (!joins) tokens_.push_back({.begin = begin, .end = begin, .group = run->group});
      BlockTokens& last = tokens_.back();
      last.end = std::min(last.begin + block_size_, run->end);
      begin = last.end;
    }
  }
  for (int32_t block = closed(); block < blocks(); ++block) {
    const bool full = tokens_[block].end - tokens_[block].begin == block_size_;
    const bool may_grow = block + 1 == blocks() && !tokens.structure->run_ended();
    if (!full && may_grow) break;
    Close(tokens, block);
  }
}

void BlockKeys::Close(const SequenceTokens& tokens, int32_t block) {
  const auto [begin, end, group] = tokens_[block];
  const size_t count = end - begin;
  const RuleTable& rule = tokens.structure->rule();
  const Viewer& before = ViewerBefore(block, rule.visible[group]);
  const int32_t header[] = {static_cast<int32_t>(count), rule.Sees(group, group),
                            std::clamp(tokens.generated_begin - begin, 0, end - begin),
                            tokens.rope_length, index_gaps_matter_ ? before.GapTo(begin) : 0};
  keys_.push_back(Hasher(Kind::kBlock)
                      .Add(before.state)
                      .AddSpan(std::span<const int32_t>(header))
                      .AddSpan(tokens.token_ids.subspan(begin, count))
                      .AddSpan(tokens.structure->positions().subspan(begin, count))
                      .Key());
}

// The chain over the blocks before `block` that `row` sees.
const BlockKeys::Viewer& BlockKeys::ViewerBefore(int32_t block, uint64_t row) {
  auto viewer = std::ranges::find(viewers_, row, &Viewer::row);
  if (viewer == viewers_.end()) {
    viewers_.push_back({.row = row, .next_block = 0, .state = salt_});
    viewer = viewers_.end() - 1;
  }
  for (int32_t& next = viewer->next_block; next < block; ++next) {
    const auto [begin, end, group] = tokens_[next];
    if ((row >> group & 1) == 0) continue;
    const int32_t gap = index_gaps_matter_ ? viewer->GapTo(begin) : 0;
    viewer->state = Hasher(Kind::kView)
                        .Add(viewer->state)
                        .AddSpan(std::span<const int32_t>(&gap, 1))
                        .Add(keys_[next])
                        .Key();
    viewer->last_begin = begin;
  }
  return *viewer;
}

}  // namespace structattn::engine
