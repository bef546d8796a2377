// See placement.h. The placement keeps one start per run, so it grows in O(new runs).
#include "kernels/attention/placement.h"

#include <algorithm>
#include <span>

#include "kernels/check.h"

namespace structattn {

Placement::Placement(int32_t alignment) : alignment_(alignment) { STRUCTATTN_CHECK(alignment > 0); }

void Placement::Extend(const Structure& structure) {
  const std::span<const Run> runs = structure.runs();
  for (size_t run = runs_.size(); run < runs.size(); ++run) {
    int32_t slot = 0;
    if (run > 0) {
      const RunStart& last = runs_.back();
      const int32_t end = last.slot + (runs[run].begin - last.token);
      slot = (end + alignment_ - 1) / alignment_ * alignment_;
    }
    runs_.push_back({.token = runs[run].begin, .slot = slot});
  }
}

int32_t Placement::SlotOf(int32_t token) const {
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), token,
                       [](int32_t index, const RunStart& start) { return index < start.token; });
  STRUCTATTN_CHECK(after != runs_.begin());
  const RunStart& start = *(after - 1);
  return start.slot + (token - start.token);
}

}  // namespace structattn
