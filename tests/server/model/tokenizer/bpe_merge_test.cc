// The two merge loops against the definition of BPE, on random merges and words.
#include "server/model/tokenizer/bpe_merge.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace structattn {
namespace {

// Lowest rank first, of equal ones the leftmost: as BPE is defined.
std::vector<int32_t> MergeNaively(const MergeTable& table, std::vector<int32_t> ids) {
  while (true) {
    size_t best = 0;
    Merge best_merge;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const Merge merge = table.Find(ids[i], ids[i + 1]);
      if (merge.rank < best_merge.rank) {
        best = i;
        best_merge = merge;
      }
    }
    if (best_merge.rank == Merge::kNoRank) return ids;
    ids[best] = best_merge.id;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(BpeMerge, BothLoopsFollowTheDefinition) {
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    const auto letters = static_cast<int32_t>(2 + random() % 4);
    const auto merge_count = static_cast<int32_t>(random() % 60);
    MergeTable table;
    table.Reserve(static_cast<size_t>(merge_count));
    for (int32_t rank = 0; rank < merge_count; ++rank) {
      const auto known = static_cast<uint32_t>(letters + rank);
      table.Set(static_cast<int32_t>(random() % known), static_cast<int32_t>(random() % known),
                {static_cast<uint32_t>(rank), letters + rank});
    }
    for (const size_t size : {0u, 1u, 2u, 17u, 48u, 49u, 300u}) {
      BpeScratch scratch;
      std::vector<int32_t> ids;
      for (uint32_t i = 0; i < size; ++i) {
        ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(letters)));
        scratch.symbols.push_back({ids.back(), i, i + 1});
      }
      MergeSymbols(table, &scratch);
      std::vector<int32_t> merged;
      uint32_t position = 0;
      for (const BpeSymbol& symbol : scratch.symbols) {
        merged.push_back(symbol.id);
        ASSERT_EQ(symbol.begin, position);
        position = symbol.end;
      }
      ASSERT_EQ(position, size);
      ASSERT_EQ(merged, MergeNaively(table, ids)) << "round " << round << ", size " << size;
    }
  }
}

TEST(MergeTable, TheLatestMergeOfAPairCounts) {
  MergeTable table;
  EXPECT_EQ(table.Find(1, 2).rank, Merge::kNoRank);
  table.Reserve(2);
  table.Set(1, 2, {0, 10});
  table.Set(1, 2, {5, 10});
  EXPECT_EQ(table.Find(1, 2).rank, 5u);
  EXPECT_EQ(table.Find(2, 1).rank, Merge::kNoRank);
}

}  // namespace
}  // namespace structattn
