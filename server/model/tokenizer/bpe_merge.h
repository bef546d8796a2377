// Merging symbols: always the pair of the lowest rank, of equal ones the leftmost, until no pair
// can be merged. n log n; made for few symbols at a time. Knows ids only, no text.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_MERGE_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_MERGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/model/tokenizer/merge_table.h"
#include "server/model/tokenizer/tournament_tree.h"

namespace structattn {

// A token and the bytes [begin, end) of its word that it stands for.
struct BpeSymbol {
  int32_t id;
  uint32_t begin;
  uint32_t end;
};

// Keeps its memory from one use to the next.
class BpeMerger {
 public:
  void MergeSymbols(const MergeTable& table, std::vector<BpeSymbol>* symbols);

  // Symbols given to MergeSymbols so far: a measure of the work.
  size_t symbols_seen() const { return symbols_seen_; }

 private:
  // A symbol in a list of those that are left.
  struct Node {
    int32_t id;
    int32_t merged_id;  // Of the pair with the next one.
    uint32_t previous;
    uint32_t next;
  };

  static void MergePair(const MergeTable& table, std::vector<BpeSymbol>* symbols);
  // The merge of node i with the next one, as a key of tree_.
  uint64_t FindMerge(const MergeTable& table, uint32_t i);
  // Merges node i with the next one and finds the merges of the new pairs; nodes end at `size`.
  void MergeAt(const MergeTable& table, uint32_t i, uint32_t size);

  std::vector<Node> nodes_;
  TournamentTree tree_;
  size_t symbols_seen_ = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_MERGE_H_
