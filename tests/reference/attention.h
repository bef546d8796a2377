// Attention by its definition: double precision, one row at a time, visibility by MaySee alone.
// Tests hold the kernels against it; it knows no work-list, no block and no tile.
#ifndef STRUCTATTN_TESTS_REFERENCE_ATTENTION_H_
#define STRUCTATTN_TESTS_REFERENCE_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "kernels/attention/structure.h"
#include "kernels/dtype.h"

namespace structattn {

// The whole of one sequence as it was before any cache: keys and values already rounded to the
// cache's type.
struct SequenceTensors {
  Structure structure;
  std::vector<float> query;  // [tokens, heads, head_dim]
  std::vector<float> key;    // [tokens, kv_heads, head_dim]
  std::vector<float> value;  // [tokens, kv_heads, head_dim]
  int32_t window = kNoWindow;

  bool Sees(int query_token, int key_token) const {
    return MaySee(structure, query_token, key_token, window);
  }
};

struct HeadShape {
  int heads;
  int kv_heads;
  int head_dim;
  float scale;
  // Of the cache. bfloat16: the query is rounded to it, and the weights are allowed to be.
  DType kv_dtype = DType::kFloat32;
};

struct ReferenceRow {
  std::vector<double> output;  // [head_dim]; zero if the token sees no key.
  // [head_dim] How far a kernel with float sums may be from `output` before it rounds its result.
  std::vector<double> tolerance;
  // What other kernels' tolerances are made of.
  int keys = 0;                  // Visible ones.
  double magnitude = 0.0;        // The largest sum over dims of |scale q k|.
  std::vector<double> weighted;  // [head_dim] Sum over keys of weight x |value|.
  std::vector<double> absolute;  // [head_dim] Sum over keys of |value|.
};

ReferenceRow ReferenceAttention(const SequenceTensors& sequence, const HeadShape& shape, int token,
                                int head);

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_REFERENCE_ATTENTION_H_
