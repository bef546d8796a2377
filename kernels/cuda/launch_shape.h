// Grid and shared memory of one launch. Each op has one plain host function that gives it, which
// launcher, host emulator and occupancy check share, so that they never differ.
#ifndef STRUCTATTN_KERNELS_CUDA_LAUNCH_SHAPE_H_
#define STRUCTATTN_KERNELS_CUDA_LAUNCH_SHAPE_H_

#include <cstdint>

namespace structattn {

struct LaunchShape {
  unsigned grid_x = 1;  // At most 2^31 - 1; y and z are at most 65,535.
  unsigned grid_y = 1;
  unsigned grid_z = 1;
  int shared_bytes = 0;

  bool empty() const { return grid_x == 0 || grid_y == 0 || grid_z == 0; }
};

// The number of thread blocks of `per_block` items that cover `items`.
constexpr unsigned BlocksFor(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace structattn

#endif  // STRUCTATTN_KERNELS_CUDA_LAUNCH_SHAPE_H_
