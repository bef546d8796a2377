// Groups, rule table and positions of one sequence: who may see whom.
// Built by server/engine from a validated prompt; read by work_list and by Inspect. Depends on
// nothing but the standard library; builds no S x S matrix.
#ifndef STRUCTATTN_KERNELS_ATTENTION_STRUCTURE_H_
#define STRUCTATTN_KERNELS_ATTENTION_STRUCTURE_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace structattn {

inline constexpr int kMaxGroups = 64;

enum class RulePreset { kAnchored, kShared, kIsolated, kCausal };
enum class PositionPolicy { kSequential, kAligned };

// visible[g] has bit h set iff group g sees group h. Rows from `rows` on are unused (zero).
struct RuleTable {
  std::array<uint64_t, kMaxGroups> visible = {};
  int rows = 0;

  // All 64 rows of a preset.
  static RuleTable Preset(RulePreset preset);

  bool Sees(int query_group, int key_group) const {
    return (visible[query_group] >> key_group) & 1;
  }
};

// A range of tokens [begin, end) of one group: as long as possible, unless EndRun cut it.
struct Run {
  int32_t begin;
  int32_t end;
  int32_t group;
};

// The structure of one sequence, growing token by token. Group and position of a token never
// change once appended.
class Structure {
 public:
  Structure(const RuleTable& rule, PositionPolicy policy) : rule_(rule), policy_(policy) {}

  // Appends one token of `group`, 0 <= group < kMaxGroups, and gives it its position.
  void Append(int group);

  // The next token begins a run even if its group goes on: what comes after lies in blocks of its
  // own (placement.h), so that several continuations can share all that comes before. Changes
  // neither visibility nor positions, hence no bit of any result.
  void EndRun() { run_ended_ = true; }
  bool run_ended() const { return run_ended_; }  // Since the last Append.

  int size() const { return static_cast<int>(groups_.size()); }
  const RuleTable& rule() const { return rule_; }
  PositionPolicy policy() const { return policy_; }
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
  int32_t base_ = -1;  // ALIGNED: where groups > 0 start; -1 until the first such token.
  std::array<int32_t, kMaxGroups> rank_ = {};  // ALIGNED: tokens so far per group.
};

// THE definition of visibility: the query token at index i sees the key token at index j iff j <= i
// and the rule lets its group. Everything else (work-list, kernels, pair counts) must agree.
inline bool MaySee(const Structure& structure, int i, int j) {
  return j <= i && structure.rule().Sees(structure.groups()[i], structure.groups()[j]);
}

// Number of (i, j) with MaySee, in O(runs x groups used) time.
int64_t CountVisiblePairs(const Structure& structure);

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_ATTENTION_STRUCTURE_H_
