// Rule presets, positions, runs and pair counts of one sequence. Nothing here looks at text, and no
// matrix is ever built.
#include "kernels/attention/structure.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace structattn {
namespace {

constexpr uint64_t kAllGroups = ~uint64_t{0};

constexpr uint64_t Bit(int group) { return uint64_t{1} << group; }

// The row of group 1 or of a group g >= 2. Group 0 sees all groups under each preset.
uint64_t PresetRow(RulePreset preset, int group) {
  switch (preset) {
    case RulePreset::kAnchored:
      return Bit(1) | Bit(group);
    case RulePreset::kShared:
      return Bit(0) | Bit(group);
    case RulePreset::kIsolated:
      return Bit(group);
    case RulePreset::kCausal:
      return kAllGroups;
  }
  return 0;
}

}  // namespace

RuleTable RuleTable::Preset(RulePreset preset) {
  RuleTable table;
  table.rows = kMaxGroups;
  table.visible[0] = kAllGroups;
  for (int group = 1; group < kMaxGroups; ++group) table.visible[group] = PresetRow(preset, group);
  return table;
}

void Structure::Append(int group) {
  STRUCTATTN_CHECK(group >= 0 && group < kMaxGroups);
  const int32_t index = size();
  positions_.push_back(NextPosition(group));
  groups_.push_back(static_cast<uint8_t>(group));
  used_groups_ |= Bit(group);
  if (runs_.empty() || runs_.back().group != group || run_ended_) {
    runs_.push_back({.begin = index, .end = index, .group = group});
  }
  runs_.back().end = index + 1;
  run_ended_ = false;
}

int32_t Structure::NextPosition(int group) {
  int32_t position = largest_position_ + 1;
  if (policy_ == PositionPolicy::kAligned && group > 0) {
    if (base_ < 0) base_ = position;
    position = base_ + group_tokens_[group]++;
  }
  largest_position_ = std::max(largest_position_, position);
  return position;
}

int64_t CountVisiblePairs(const Structure& structure) {
  std::array<int64_t, kMaxGroups> keys = {};  // Each group's tokens before the current run.
  int64_t pairs = 0;
  for (const Run& run : structure.runs()) {
    const int64_t length = run.end - run.begin;
    uint64_t seen = structure.rule().visible[run.group] & structure.used_groups();
    for (; seen != 0; seen &= seen - 1) pairs += length * keys[std::countr_zero(seen)];
    if (structure.rule().Sees(run.group, run.group)) pairs += length * (length + 1) / 2;
    keys[run.group] += length;
  }
  return pairs;
}

}  // namespace structattn
