// Lanes that are at one place for the same time are one instruction.
#include "tests/simt/access_log.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace structattn::simt {
namespace {

constexpr int kBanks = 32;
constexpr int kWordBytes = 4;
constexpr int kSectorBytes = 32;

// The number of different values among `values`, which it sorts.
int CountDistinct(std::span<uint64_t> values) {
  if (!std::is_sorted(values.begin(), values.end())) std::sort(values.begin(), values.end());
  return static_cast<int>(std::unique(values.begin(), values.end()) - values.begin());
}

// The bytes that shared memory serves in one phase.
int PhaseWavefronts(std::span<const uint64_t> offsets, int size) {
  std::array<uint64_t, kBanks> words;
  size_t count = 0;
  for (const uint64_t offset : offsets) {
    for (uint64_t word = offset / kWordBytes; word <= (offset + size - 1) / kWordBytes; ++word) {
      words[count++] = word;
    }
  }
  const int distinct = CountDistinct({words.data(), count});
  std::array<int, kBanks> busy = {};
  for (int i = 0; i < distinct; ++i) ++busy[words[i] % kBanks];
  return *std::max_element(busy.begin(), busy.end());
}

int64_t CountSectors(std::span<const uint64_t> addresses) {
  std::array<uint64_t, kLanes> sectors;
  std::transform(addresses.begin(), addresses.end(), sectors.begin(),
                 [](uint64_t address) { return address / kSectorBytes; });
  return CountDistinct({sectors.data(), addresses.size()});
}

void Add(Wavefronts more, Wavefronts& sum) {
  sum.actual += more.actual;
  sum.ideal += more.ideal;
}

void CountInstruction(AccessKind kind, int size, std::span<const uint64_t> addresses,
                      LaunchCounts& counts) {
  switch (kind) {
    case AccessKind::kSharedLoad:
      return Add(CountWavefronts(addresses, size), counts.shared_load_wavefronts);
    case AccessKind::kSharedStore:
      return Add(CountWavefronts(addresses, size), counts.shared_store_wavefronts);
    case AccessKind::kCopy:
      return Add(CountWavefronts(addresses, size), counts.copy_wavefronts);
    case AccessKind::kGlobalLoad:
      counts.global_loaded_sectors += CountSectors(addresses);
      return;
    case AccessKind::kGlobalStore:
      counts.global_stored_sectors += CountSectors(addresses);
      return;
  }
}

}  // namespace

Wavefronts CountWavefronts(std::span<const uint64_t> offsets, int size) {
  const size_t phase_lanes = std::min(kLanes, kBanks * kWordBytes / size);
  Wavefronts wavefronts;
  for (size_t first = 0; first < offsets.size(); first += phase_lanes) {
    const auto phase = offsets.subspan(first, std::min(phase_lanes, offsets.size() - first));
    wavefronts.actual += PhaseWavefronts(phase, size);
    wavefronts.ideal += 1;
  }
  return wavefronts;
}

bool AccessLog::Uniform() const {
  const auto same = [](const LoggedAccess& a, const LoggedAccess& b) {
    return a.kind == b.kind && a.size == b.size && a.place.line() == b.place.line() &&
           a.place.column() == b.place.column() && a.place.file_name() == b.place.file_name();
  };
  return std::all_of(lanes_.begin() + 1, lanes_.end(), [&](const auto& lane) {
    return std::equal(lane.begin(), lane.end(), lanes_[0].begin(), lanes_[0].end(), same);
  });
}

void AccessLog::FlushUniform(LaunchCounts& counts) {
  std::array<uint64_t, kLanes> addresses;
  for (size_t i = 0; i < lanes_[0].size(); ++i) {
    for (int lane = 0; lane < kLanes; ++lane) addresses[lane] = lanes_[lane][i].address;
    CountInstruction(lanes_[0][i].kind, lanes_[0][i].size, addresses, counts);
  }
}

void AccessLog::FlushDivergent(LaunchCounts& counts) {
  // File, line, column, kind, size, and how often the lane was there before.
  using Where = std::tuple<const char*, uint32_t, uint32_t, AccessKind, int>;
  std::map<std::pair<Where, int>, std::vector<uint64_t>> instructions;
  for (const std::vector<LoggedAccess>& lane : lanes_) {
    std::map<Where, int> visits;
    for (const LoggedAccess& access : lane) {
      const Where where = {access.place.file_name(), access.place.line(), access.place.column(),
                           access.kind, access.size};
      instructions[{where, visits[where]++}].push_back(access.address);
    }
  }
  for (const auto& [key, addresses] : instructions) {
    CountInstruction(std::get<3>(key.first), std::get<4>(key.first), addresses, counts);
  }
}

void AccessLog::Flush(LaunchCounts& counts) {
  if (Uniform()) {
    FlushUniform(counts);
  } else {
    FlushDivergent(counts);
  }
  for (std::vector<LoggedAccess>& lane : lanes_) lane.clear();
}

}  // namespace structattn::simt
