// Merging the symbols of one word. Used by Bpe; two ways with one result.
#ifndef STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_MERGE_H_
#define STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_MERGE_H_

#include "server/model/tokenizer/bpe.h"

namespace structattn {

// Merges scratch->symbols in place: always the pair of the lowest rank, of equal ones the leftmost,
// until no pair can be merged. Quadratic and quick for short words, n log n for long ones.
void MergeSymbols(const MergeTable& table, BpeScratch* scratch);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_TOKENIZER_BPE_MERGE_H_
