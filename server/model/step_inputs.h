// The arrays of a step where the kernels can read them: the batch's own on CPU, else one buffer on
// the device, which one copy from one (pinned) host buffer fills. Nothing here launches a kernel or
// knows of layers or weights.
#ifndef STRUCTATTN_SERVER_MODEL_STEP_INPUTS_H_
#define STRUCTATTN_SERVER_MODEL_STEP_INPUTS_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <cstdint>
#include <optional>

#include "kernels/context.h"
#include "server/model/decoder.h"
#include "server/model/rotary_angles.h"

namespace structattn {

// The sizes of a WorkList's arrays.
struct WorkShape {
  int32_t tiles = 0;
  int32_t intervals = 0;
  int32_t generated = 0;
  int32_t splits = 0;
  int32_t partials = 0;

  auto operator<=>(const WorkShape&) const = default;
};

// The sizes of a step's arrays. Two steps of equal shapes have their arrays at equal addresses,
// as long as StepUploader::Reserve moves nothing.
struct StepShape {
  int32_t rows = 0;
  int32_t sequences = 0;
  int32_t block_table_stride = 0;
  WorkShape work = {};
  WorkShape windowed_work = {};
  int32_t logit_rows = 0;

  auto operator<=>(const StepShape&) const = default;
};

// The sizes of exactly what the batch holds.
StepShape ShapeOf(const StepBatch& batch);

// Whether every row is a generated token whose logits are wanted: the shape of pure decoding.
bool IsDecodeShape(const StepShape& shape);

// A shape that holds `shape`, which is a decode shape, and many others. Rows and splits, which cost
// work, are at most a quarter more (from 9 on), other sizes at most twice as many.
StepShape PaddedShape(const StepShape& shape);

// The arrays of a WorkList.
struct WorkInputs {
  WorkShape shape;
  const QueryTile* tiles = nullptr;
  const KeyInterval* intervals = nullptr;
  const QueryTile* generated = nullptr;
  const KeySplit* splits = nullptr;
};

// The arrays of StepBatch, and the rotary angles of RopeKvWriteParams. Entries beyond
// the batch's own have no effect: their rows read token 0, write no key (slot -1), see no key and
// get logits that are never read; their splits have no tiles.
struct StepInputs {
  StepShape shape;
  const int32_t* token_ids = nullptr;
  const int64_t* slots = nullptr;
  const int32_t* block_tables = nullptr;
  WorkInputs work;
  WorkInputs windowed_work;
  const int32_t* logit_rows = nullptr;
  const float* cosine = nullptr;
  const float* sine = nullptr;
};

class StepUploader {
 public:
  StepUploader(const Device& device, RotaryAngles angles);

  // Makes room for steps of this shape, and returns whether the device's buffer moved.
  bool Reserve(const StepShape& shape);

  // Puts the batch into the arrays of `shape`, which holds it and has been reserved. The arrays
  // stay until the next call. On CPU they stay as long as the batch, and the shape must be the
  // batch's own.
  StepInputs Upload(const StepBatch& batch, const StepShape& shape);

 private:
  StepInputs Alias(const StepBatch& batch) const;
  void WaitUntilCopied();

  const Device device_;
  RotaryAngles angles_;
  at::Tensor staging_;                // The host's bytes, pinned for CUDA.
  at::Tensor buffer_;                 // The device's bytes.
  std::optional<c10::Event> copied_;  // CUDA: it marks that staging_ has been read.
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_STEP_INPUTS_H_
