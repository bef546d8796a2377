// Memory for the packed weights of a model: many matrices side by side in huge pages. It is there
// for loading, never used while serving. A matrix alone would leave its last pages small, and a
// small matrix all of them: the translation misses cost a decode step 7 to 27 % where they were
// measured.
#ifndef STRUCTATTN_KERNELS_WEIGHT_ARENA_H_
#define STRUCTATTN_KERNELS_WEIGHT_ARENA_H_

#include <cstdint>
#include <memory>

namespace structattn {

class WeightArena {
 public:
  // Uninitialised, at a multiple of 64 bytes, until the last copy of the pointer is gone; the arena
  // itself may go earlier. Throws std::bad_alloc: a model file may ask for more than there is, and
  // that is the loader's to report. Only one thread may call it at a time.
  std::shared_ptr<void> Allocate(int64_t bytes);

 private:
  std::shared_ptr<char> chunk_;  // Lives as long as anything in it.
  int64_t chunk_bytes_ = 0;
  int64_t used_bytes_ = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_WEIGHT_ARENA_H_
