// One step of a decoder-only transformer over a ragged batch: the seam between engine and model. It
// never shows which model or device is behind it, so tests put models there that cost nothing.
#ifndef STRUCTATTN_SERVER_MODEL_DECODER_H_
#define STRUCTATTN_SERVER_MODEL_DECODER_H_

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/work_list.h"

namespace structattn {

// The tokens of one step: chunks of prompts and single decoded tokens of many sequences, one after
// the other.
struct StepBatch {
  std::vector<int32_t> token_ids;  // [tokens]
  std::vector<int32_t> positions;  // [tokens], for rotary embedding.
  // [tokens], the positions that each token's prompt has, where some has more than
  // Decoder::dynamic_rope_length; else empty.
  std::vector<int32_t> rope_lengths;
  std::vector<int64_t> slots;         // [tokens]: block id * block_size + offset.
  std::vector<int32_t> block_tables;  // [sequences, block_table_stride]
  int32_t block_table_stride = 0;
  WorkList work;  // Its rows and sequences are those of the arrays above.
  // The same for the layers with a sliding window; empty where the model has none.
  WorkList windowed_work;
  std::vector<int32_t> logit_rows;  // Rows whose logits are wanted, ascending.

  int64_t tokens() const { return static_cast<int64_t>(token_ids.size()); }
};

// The memory for keys and values, in blocks of block_size tokens.
struct KvShape {
  int32_t blocks = 0;
  int32_t block_size = 0;

  int64_t capacity_tokens() const { return int64_t{blocks} * block_size; }
};

class Decoder {
 public:
  virtual ~Decoder() = default;

  // Allocates the memory for keys and values, once, before the first Forward: as many blocks of
  // `block_size` tokens as `bytes` hold. FAILED_PRECONDITION when that is not even one block,
  // RESOURCE_EXHAUSTED when the memory cannot be had.
  virtual absl::StatusOr<KvShape> AllocateKv(int64_t bytes, int32_t block_size) = 0;

  // Runs the batch, writes its keys and values into the blocks that it names and the logits of
  // batch.logit_rows into `logits` [logit_rows, vocabulary_size], in host memory.
  // A row's result depends only on its own sequence, never on the rest of the batch.
  virtual void Forward(const StepBatch& batch, std::span<float> logits) = 0;

  // Gives the logits of further rows of the batch of the last Forward, [rows, vocabulary_size],
  // with the bits that Forward would have given, so that many rows never need their logits all at
  // once.
  virtual void Logits(std::span<const int32_t> rows, std::span<float> logits) = 0;

  virtual int64_t vocabulary_size() const = 0;

  // How the decoder wants the queries of a batch's work-list to be cut.
  virtual Tiling tiling() const { return {}; }

  // Prompts of more positions than this have a rotary embedding of their own, which depends on how
  // many they have.
  virtual int32_t dynamic_rope_length() const { return std::numeric_limits<int32_t>::max(); }

  // Whether a later Forward can succeed after one that threw.
  virtual bool usable() const { return true; }
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_DECODER_H_
