// The two merge loops: a scan for short words, a heap over a linked list for long ones.
// Called by Bpe for each word that is not a token itself; never allocates once scratch has grown.
#include "server/model/tokenizer/bpe_merge.h"

#include <algorithm>
#include <functional>

namespace structattn {
namespace {

// Where the heap wins over the scan, measured on words of random letters.
constexpr size_t kLongestScan = 48;

void MergeByScan(const MergeTable& table, BpeScratch* scratch) {
  std::vector<BpeSymbol>& symbols = scratch->symbols;
  std::vector<Merge>& merges = scratch->merges;
  merges.resize(symbols.size());
  size_t size = symbols.size();
  const auto find = [&](size_t i) { merges[i] = table.Find(symbols[i].id, symbols[i + 1].id); };
  for (size_t i = 0; i + 1 < size; ++i) find(i);
  while (size > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < size; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == Merge::kNoRank) break;
    symbols[best].id = merges[best].id;
    symbols[best].end = symbols[best + 1].end;
    std::copy(symbols.begin() + static_cast<ptrdiff_t>(best + 2),
              symbols.begin() + static_cast<ptrdiff_t>(size),
              symbols.begin() + static_cast<ptrdiff_t>(best + 1));
    std::copy(merges.begin() + static_cast<ptrdiff_t>(best + 2),
              merges.begin() + static_cast<ptrdiff_t>(size),
              merges.begin() + static_cast<ptrdiff_t>(best + 1));
    --size;
    if (best > 0) find(best - 1);
    if (best + 1 < size) find(best);
  }
  symbols.resize(size);
}

// An entry of the heap: rank, then position, so that the leftmost of equal ranks comes first.
uint64_t HeapEntry(uint32_t rank, size_t position) { return uint64_t{rank} << 32 | position; }

class HeapMerger {
 public:
  HeapMerger(const MergeTable& table, BpeScratch* scratch) : table_(table), s_(*scratch) {}

  void Run() {
    const size_t size = s_.symbols.size();
    s_.next.resize(size);
    s_.previous.resize(size);
    s_.merges.assign(size, Merge{});
    s_.heap.clear();
    for (size_t i = 0; i < size; ++i) {
      s_.next[i] = i + 1 < size ? static_cast<int32_t>(i + 1) : -1;
      s_.previous[i] = static_cast<int32_t>(i) - 1;
      if (i + 1 < size) FindMerge(i, /*push=*/false);
    }
    std::make_heap(s_.heap.begin(), s_.heap.end(), std::greater<>());
    while (!s_.heap.empty()) {
      std::pop_heap(s_.heap.begin(), s_.heap.end(), std::greater<>());
      const uint64_t top = s_.heap.back();
      s_.heap.pop_back();
      const size_t position = static_cast<uint32_t>(top);
      // Entries outlive the pairs that they were made for.
      if (s_.merges[position].rank == static_cast<uint32_t>(top >> 32)) MergeAt(position);
    }
    size_t kept = 0;
    for (int32_t i = 0; i != -1; i = s_.next[static_cast<size_t>(i)]) {
      s_.symbols[kept++] = s_.symbols[static_cast<size_t>(i)];
    }
    s_.symbols.resize(kept);
  }

 private:
  // Looks up the pair that begins at `i` and queues it.
  void FindMerge(size_t i, bool push) {
    const auto right = static_cast<size_t>(s_.next[i]);
    s_.merges[i] = table_.Find(s_.symbols[i].id, s_.symbols[right].id);
    if (s_.merges[i].rank == Merge::kNoRank) return;
    s_.heap.push_back(HeapEntry(s_.merges[i].rank, i));
    if (push) std::push_heap(s_.heap.begin(), s_.heap.end(), std::greater<>());
  }

  void MergeAt(size_t i) {
    const auto right = static_cast<size_t>(s_.next[i]);
    s_.symbols[i].id = s_.merges[i].id;
    s_.symbols[i].end = s_.symbols[right].end;
    s_.next[i] = s_.next[right];
    s_.merges[i] = s_.merges[right] = Merge{};
    if (s_.next[i] != -1) {
      s_.previous[static_cast<size_t>(s_.next[i])] = static_cast<int32_t>(i);
      FindMerge(i, /*push=*/true);
    }
    if (s_.previous[i] != -1) FindMerge(static_cast<size_t>(s_.previous[i]), /*push=*/true);
  }

  const MergeTable& table_;
  BpeScratch& s_;
};

}  // namespace

void MergeSymbols(const MergeTable& table, BpeScratch* scratch) {
  if (scratch->symbols.size() < 2) return;
  if (scratch->symbols.size() <= kLongestScan) return MergeByScan(table, scratch);
  HeapMerger(table, scratch).Run();
}

}  // namespace structattn
