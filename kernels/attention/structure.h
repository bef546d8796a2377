// Groups, rule table and positions of one sequence, which say what each token may see. It depends
// on the standard library alone, and never builds an S x S matrix.
#ifndef STRUCTATTN_KERNELS_ATTENTION_STRUCTURE_H_
#define STRUCTATTN_KERNELS_ATTENTION_STRUCTURE_H_

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace structattn {

inline constexpr int kMaxGroups = 64;

enum class RulePreset { kAnchored, kShared, kIsolated, kCausal };
enum class PositionPolicy { kSequential, kAligned };

// visible[g] has bit h set iff group g sees group h. Rows from `rows` on are unused and zero.
struct RuleTable {
  std::array<uint64_t, kMaxGroups> visible = {};
  int rows = 0;

  // The table of a preset, with all 64 rows.
  static RuleTable Preset(RulePreset preset);

  bool Sees(int query_group, int key_group) const {
    return (visible[query_group] >> key_group) & 1;
  }
};

// Tokens [begin, end) of one group. A run is as long as possible, unless EndRun has cut it.
struct Run {
  int32_t begin;
  int32_t end;
  int32_t group;
};

// The structure of one sequence, which grows token by token. Group and position of a token never
// change once it is appended.
class Structure {
 public:
  Structure(const RuleTable& rule, PositionPolicy policy) : rule_(rule), policy_(policy) {}

  // Appends one token of `group`, 0 <= group < kMaxGroups, and gives it its position.
  void Append(int group);

  // Makes the next token begin a run even if its group is the same. What comes after then lies in
  // blocks of its own (placement.h), so that several continuations can share all that comes before.
  // This changes neither visibility nor positions, hence no bit of any result.
  void EndRun() { run_ended_ = true; }
  // Whether EndRun was called since the last Append.
  bool run_ended() const { return run_ended_; }

  int size() const { return static_cast<int>(groups_.size()); }
  const RuleTable& rule() const { return rule_; }
  std::span<const uint8_t> groups() const { return groups_; }
  std::span<const int32_t> positions() const { return positions_; }
  std::span<const Run> runs() const { return runs_; }
  uint64_t used_groups() const { return used_groups_; }  // Bit g: some token has group g.

 private:
  int32_t NextPosition(int group);

  RuleTable rule_;
  PositionPolicy policy_;
  std::vector<uint8_t> groups_;
  std::vector<int32_t> positions_;
  std::vector<Run> runs_;
  uint64_t used_groups_ = 0;
  bool run_ended_ = false;
  int32_t largest_position_ = -1;
  // kAligned: the position at which groups > 0 start, -1 until the first such token, and the number
  // of tokens so far in each group.
  int32_t base_ = -1;
  std::array<int32_t, kMaxGroups> group_tokens_ = {};
};

// A sliding window that hides nothing.
inline constexpr int32_t kNoWindow = std::numeric_limits<int32_t>::max();

// THE definition of visibility: the query token at index i sees the key token at index j iff j <= i
// and the rule lets its group see j's; on a layer with a sliding window, only if also i - j <
// window. Work-list, kernels and pair counts must agree with it.
inline bool MaySee(const Structure& structure, int i, int j, int32_t window = kNoWindow) {
  return j <= i && i - j < window &&
         structure.rule().Sees(structure.groups()[i], structure.groups()[j]);
}

// The number of pairs (i, j) with MaySee where no window is, in O(runs x groups used) time.
int64_t CountVisiblePairs(const Structure& structure);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_STRUCTURE_H_
