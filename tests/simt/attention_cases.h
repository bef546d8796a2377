// Which cases attention is run with on the emulator, and how far a right kernel may be from the
// double-precision reference. Runs nothing itself.
#ifndef STRUCTATTN_TESTS_SIMT_ATTENTION_CASES_H_
#define STRUCTATTN_TESTS_SIMT_ATTENTION_CASES_H_

#include <array>
#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <vector>

#include "tests/simt/attention_batch.h"

namespace structattn {

// ---- The axes. A case takes one value of each.
enum class Rule { kAnchored, kShared, kIsolated, kCausal, kRandom, kInterleaved };
enum class Roles { kPrompt, kChunks, kGenerated, kMixed, kBranches };

struct AttentionCase {
  Rule rule;
  int length;
  int block_size;
  int ratio;
  int head_dim;
  DType dtype;
  Roles roles;
  uint64_t seed;  // It decides everything else.
};

std::string Describe(const AttentionCase& attention_case);

// Cases such that each pair of values of two axes is in at least one.
std::vector<AttentionCase> PairwiseCases(uint64_t seed);

// The number of pairs of values that no case has.
int CountMissingPairs(std::span<const AttentionCase> cases);

AttentionCase RandomCase(uint64_t seed);

// ---- A case made concrete.
struct AttentionBatch {
  AttentionShape shape;
  std::list<SequenceTensors> sequences;
  std::vector<EmulatedPart> parts;
};

AttentionBatch MakeBatch(const AttentionCase& attention_case);

// A rule's structure of `length` tokens.
Structure MakeStructure(Random& random, Rule rule, int length);

// ---- The reference.

// The number of elements of `output` that are NaN or further from the reference than the derived
// tolerance. All rows of the parts are looked at, or, of many, a random choice with first and last.
int CountWrong(const AttentionShape& shape, std::span<const EmulatedPart> parts,
               std::span<const float> output);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SIMT_ATTENTION_CASES_H_
