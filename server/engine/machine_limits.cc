// See machine_limits.h. Sources: the kernel's cgroup-v2.rst, cgroup-v1/memory.rst, sched-bwc.rst.
#include "server/engine/machine_limits.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace structattn::engine {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  std::stringstream contents;
  contents << file.rdbuf();
  return contents.str();
}

// The number in a file of one; nothing for "max", -1 and where there is no such file.
std::optional<int64_t> Number(const std::string& path) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(Contents(path), &value) || value < 0) return std::nullopt;
  return value;
}

// The number behind `key` in a file of lines "KEY NUMBER ..."; 0 where it is not there.
int64_t Entry(const std::string& path, std::string_view key) {
  std::istringstream lines(Contents(path));
  std::string name;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    int64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return 0;
}

// The folders of the process's cgroup and of those above it, for a controller of version 1, or,
// with an empty name, of version 2. Inside a container the cgroup's own path may not be mounted;
// then the mount is the container's cgroup itself.
std::vector<std::string> CgroupFolders(const std::string& root, std::string_view controller) {
  std::istringstream lines(Contents(root + "/proc/self/cgroup"));
  const std::string mount = controller.empty()
                                ? root + "/sys/fs/cgroup"
                                : absl::StrCat(root, "/sys/fs/cgroup/", std::string(controller));
  std::vector<std::string> folders;
  for (std::string line; std::getline(lines, line);) {
    // HIERARCHY:CONTROLLERS:PATH, without controllers for version 2.
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    if (std::find(controllers.begin(), controllers.end(), controller) == controllers.end()) {
      continue;
    }
    for (std::string path = fields[2]; path.size() > 1; path.resize(path.rfind('/'))) {
      folders.push_back(mount + path);
    }
  }
  folders.push_back(mount);
  return folders;
}

// CPUs that a quota lets run at a time, rounded up.
int64_t QuotaCpus(const std::string& root) {
  int64_t cpus = kUnlimited;
  const auto limit = [&cpus](int64_t quota, int64_t period) {
    if (quota > 0 && period > 0) cpus = std::min(cpus, (quota + period - 1) / period);
  };
  for (const std::string& folder : CgroupFolders(root, "")) {
    std::istringstream words(Contents(folder + "/cpu.max"));  // "QUOTA PERIOD" or "max PERIOD".
    int64_t quota = 0;
    int64_t period = 0;
    if (words >> quota >> period) limit(quota, period);
  }
  for (const std::string& folder : CgroupFolders(root, "cpu")) {
    limit(Number(folder + "/cpu.cfs_quota_us").value_or(0),
          Number(folder + "/cpu.cfs_period_us").value_or(0));
  }
  return cpus;
}

int64_t AffinityCpus() {
  constexpr size_t kMostCpus = 16384;
  std::vector<cpu_set_t> set(kMostCpus / CPU_SETSIZE);
  const size_t bytes = set.size() * sizeof(cpu_set_t);
  if (sched_getaffinity(0, bytes, set.data()) != 0) return std::thread::hardware_concurrency();
  return CPU_COUNT_S(bytes, set.data());
}

// What a cgroup's limit leaves, when the file pages that it could give back are counted as free.
int64_t LeftOf(std::optional<int64_t> limit, std::optional<int64_t> usage, int64_t file_pages) {
  if (!limit || !usage) return kUnlimited;
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, *usage - file_pages));
}

int64_t CgroupMemoryBytes(const std::string& root) {
  int64_t left = kUnlimited;
  for (const std::string& folder : CgroupFolders(root, "")) {
    const std::string stat = folder + "/memory.stat";
    left = std::min(left, LeftOf(Number(folder + "/memory.max"), Number(folder + "/memory.current"),
                                 Entry(stat, "inactive_file") + Entry(stat, "active_file")));
  }
  for (const std::string& folder : CgroupFolders(root, "memory")) {
    const std::string stat = folder + "/memory.stat";
    left = std::min(
        left,
        LeftOf(Number(folder + "/memory.limit_in_bytes"), Number(folder + "/memory.usage_in_bytes"),
               Entry(stat, "total_inactive_file") + Entry(stat, "total_active_file")));
  }
  return left;
}

}  // namespace

int AllowedCpus(const std::string& root) {
  return static_cast<int>(std::max<int64_t>(1, std::min(AffinityCpus(), QuotaCpus(root))));
}

int64_t AvailableMemoryBytes(const std::string& root) {
  const int64_t kib = Entry(root + "/proc/meminfo", "MemAvailable:");
  const int64_t machine = kib > 0 ? kib << 10 : kUnlimited;
  return std::min(machine, CgroupMemoryBytes(root));
}

}  // namespace structattn::engine
