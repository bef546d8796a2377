// Random rule tables and group sequences for the property tests of structure, work-list and
// attention. Everything comes from the caller's generator, so a printed seed repeats a failure.
#ifndef STRUCTATTN_TESTS_KERNELS_ATTENTION_RANDOM_STRUCTURE_H_
#define STRUCTATTN_TESTS_KERNELS_ATTENTION_RANDOM_STRUCTURE_H_

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/attention/structure.h"

namespace structattn {

using Random = std::mt19937_64;

// A number that is uniform in [low, high].
inline int Uniform(Random& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

inline constexpr RulePreset kPresets[] = {RulePreset::kAnchored, RulePreset::kShared,
                                          RulePreset::kIsolated, RulePreset::kCausal};

// A table in which every group sees itself, and each other group with a probability drawn per
// table.
inline RuleTable RandomTable(Random& random) {
  RuleTable table;
  table.rows = kMaxGroups;
  const int percent = Uniform(random, 0, 100);
  for (int g = 0; g < kMaxGroups; ++g) {
    for (int h = 0; h < kMaxGroups; ++h) {
      if (g == h || Uniform(random, 1, 100) <= percent) table.visible[g] |= uint64_t{1} << h;
    }
  }
  return table;
}

// A preset or a random table, each half of the time.
inline RuleTable RandomRule(Random& random) {
  const int choice = Uniform(random, 0, 7);
  return choice < 4 ? RuleTable::Preset(kPresets[choice]) : RandomTable(random);
}

// `length` tokens in `groups` groups, in runs of 1 to a random longest length. Runs of length 1
// interleave token by token.
inline std::vector<int> RandomGroups(Random& random, int length, int groups) {
  const int longest = Uniform(random, 0, 2) == 0 ? 1 : Uniform(random, 1, std::max(1, length / 3));
  std::vector<int> result;
  while (static_cast<int>(result.size()) < length) {
    const int group = Uniform(random, 0, groups - 1);
    const int rest = length - static_cast<int>(result.size());
    result.insert(result.end(), std::min(rest, Uniform(random, 1, longest)), group);
  }
  return result;
}

inline Structure MakeStructure(const RuleTable& rule, const std::vector<int>& groups,
                               PositionPolicy policy = PositionPolicy::kSequential) {
  Structure structure(rule, policy);
  for (const int group : groups) structure.Append(group);
  return structure;
}

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_KERNELS_ATTENTION_RANDOM_STRUCTURE_H_
