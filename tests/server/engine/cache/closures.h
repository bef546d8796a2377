// The closure of a token, straight from MaySee: its id, its position and the closures of all that
// it sees, in order, and where index gaps matter how far away these are. That is what its keys and
// values depend on, so numbers stand for them here.
#ifndef STRUCTATTN_TESTS_SERVER_ENGINE_CACHE_CLOSURES_H_
#define STRUCTATTN_TESTS_SERVER_ENGINE_CACHE_CLOSURES_H_

#include <climits>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "server/engine/cache/block_keys.h"

namespace structattn::engine::closures {

struct Tokens {
  Structure structure;
  std::vector<int32_t> ids = {};
  int32_t generated_begin = INT_MAX;
  bool index_gaps_matter = false;

  void Append(int group, int32_t id) {
    structure.Append(group);
    ids.push_back(id);
  }
  void AppendText(int group, std::string_view text) {
    for (const char letter : text) Append(group, letter);
  }
  SequenceTokens view() const {
    return {.structure = &structure,
            .token_ids = ids,
            .generated_begin = generated_begin,
            .index_gaps_matter = index_gaps_matter};
  }
};

// Gives equal numbers to equal closures.
class Closures {
 public:
  // Of token `index`, when key_of(j) is the closure of token j that it finds in memory.
  template <typename KeyOf>
  int Number(const Tokens& tokens, int index, KeyOf key_of) {
    std::vector<int> closure = {tokens.ids[index], tokens.structure.positions()[index],
                                MaySee(tokens.structure, index, index)};
    for (int j = 0; j < index; ++j) {
      if (!MaySee(tokens.structure, index, j)) continue;
      closure.push_back(key_of(j));
      if (tokens.index_gaps_matter) closure.push_back(index - j);
    }
    return numbers_.try_emplace(std::move(closure), static_cast<int>(numbers_.size()))
        .first->second;
  }

  std::vector<int> NumberAll(const Tokens& tokens) {
    std::vector<int> numbers;
    for (int i = 0; i < tokens.structure.size(); ++i) {
      numbers.push_back(Number(tokens, i, [&](int j) { return numbers[j]; }));
    }
    return numbers;
  }

 private:
  std::map<std::vector<int>, int> numbers_;
};

}  // namespace structattn::engine::closures

#endif  // STRUCTATTN_TESTS_SERVER_ENGINE_CACHE_CLOSURES_H_
