// The merge loop against the definition of BPE, on random merges and words.
#include "server/model/tokenizer/bpe_merge.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>
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

TEST(BpeMerge, FollowsTheDefinition) {
  std::mt19937 random(7);
  BpeMerger merger;
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
    for (const size_t size : {0u, 1u, 2u, 3u, 17u, 64u, 300u}) {
      std::vector<BpeSymbol> symbols;
      std::vector<int32_t> ids;
      for (uint32_t i = 0; i < size; ++i) {
        ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(letters)));
        symbols.push_back({ids.back(), i, i + 1});
      }
      merger.MergeSymbols(table, &symbols);
      std::vector<int32_t> merged;
      uint32_t position = 0;
      for (const BpeSymbol& symbol : symbols) {
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

TEST(MergeTable, FindsWhatWasSetAndNothingElse) {
  std::mt19937 random(9);
  for (const uint32_t ids : {30u, 700u, 100'000u}) {
    MergeTable table;
    std::map<std::pair<int32_t, int32_t>, uint32_t> expected;
    const auto pair = [&] {
      return std::pair(static_cast<int32_t>(random() % ids), static_cast<int32_t>(random() % ids));
    };
    constexpr uint32_t kMerges = 5000;
    table.Reserve(kMerges);
    for (uint32_t rank = 0; rank < kMerges; ++rank) {
      const auto [left, right] = pair();
      table.Set(left, right, {rank, static_cast<int32_t>(rank) + 7});
      expected[{left, right}] = rank;
    }
    for (const auto& [key, rank] : expected) {
      EXPECT_EQ(table.Find(key.first, key.second).rank, rank);
      EXPECT_EQ(table.Find(key.first, key.second).id, static_cast<int32_t>(rank) + 7);
    }
    for (int i = 0; i < 50'000; ++i) {
      const auto key = pair();
      EXPECT_EQ(table.Find(key.first, key.second).rank != Merge::kNoRank, expected.contains(key));
    }
  }
}

}  // namespace
}  // namespace structattn
