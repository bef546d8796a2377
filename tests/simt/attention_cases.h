// Which cases attention is run with on the emulator, and how far a right kernel may be from the
// double-precision reference. Used by the tests of attention on the emulator.
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
  uint64_t seed;  // Of everything else.
};

std::string Describe(const AttentionCase& attention_case);

// Cases such that each pair of values of two axes is in one of them.
std::vector<AttentionCase> PairwiseCases(uint64_t seed);

// Number of pairs of values that no case has.
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

// Elements of `output` that are NaN or further from the reference than the derived tolerance, among
// all rows of the parts or, of many, a random choice that includes first and last.
int CountWrong(const AttentionShape& shape, std::span<const EmulatedPart> parts,
               std::span<const float> output);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SIMT_ATTENTION_CASES_H_
