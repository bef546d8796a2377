// Limits of CPUs and memory, read from trees of files as the kernel shows them.
#include "server/engine/machine_limits.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "tests/server/model/model_files.h"

namespace structattn::engine {
namespace {

constexpr int64_t kGib = int64_t{1} << 30;

class MachineLimitsTest : public testing::Test {
 protected:
  void Write(const std::string& path, std::string_view contents) {
    std::filesystem::create_directories(std::filesystem::path(root_.path() + path).parent_path());
    root_.Write(path.substr(1), contents);
  }
  const std::string& root() const { return root_.path(); }

 private:
  const TempDirectory root_;
};

int Affinity() {
  cpu_set_t set;
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  return CPU_COUNT(&set);
}

TEST_F(MachineLimitsTest, WithoutLimitsTheAffinityCounts) {
  EXPECT_EQ(AllowedCpus(root()), Affinity());
  EXPECT_EQ(AvailableMemoryBytes(root()), std::numeric_limits<int64_t>::max());
  int pinned = 0;
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof(one), &one) == 0) pinned = AllowedCpus(root());
  }).join();
  EXPECT_EQ(pinned, 1);
}

TEST_F(MachineLimitsTest, AQuotaOfCgroupVersion2CountsOnEveryLevel) {
  Write("/proc/self/cgroup", "0::/pod/container\n");
  Write("/sys/fs/cgroup/pod/container/cpu.max", "max 100000\n");
  EXPECT_EQ(AllowedCpus(root()), Affinity());
  Write("/sys/fs/cgroup/pod/cpu.max", "50000 100000\n");
  EXPECT_EQ(AllowedCpus(root()), 1);
  Write("/sys/fs/cgroup/pod/cpu.max", "99900000 100000\n");
  EXPECT_EQ(AllowedCpus(root()), Affinity());
}

TEST_F(MachineLimitsTest, AQuotaOfCgroupVersion1Counts) {
  // The path of the cgroup outside the container, whose mount is the cgroup itself.
  Write("/proc/self/cgroup", "3:cpu,cpuacct:/docker/4f\n2:memory:/docker/4f\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(AllowedCpus(root()), Affinity());
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "20000\n");
  EXPECT_EQ(AllowedCpus(root()), 1);
}

TEST_F(MachineLimitsTest, MemoryIsWhatMachineAndCgroupsLeave) {
  Write("/proc/meminfo", "MemTotal: 33554432 kB\nMemAvailable:   16777216 kB\n");
  EXPECT_EQ(AvailableMemoryBytes(root()), 16 * kGib);
  Write("/proc/self/cgroup", "0::/pod\n");
  const std::string pod = "/sys/fs/cgroup/pod/";
  Write(pod + "memory.max", "max\n");
  Write(pod + "memory.current", std::to_string(3 * kGib));
  EXPECT_EQ(AvailableMemoryBytes(root()), 16 * kGib);
  Write(pod + "memory.max", std::to_string(4 * kGib));
  EXPECT_EQ(AvailableMemoryBytes(root()), 1 * kGib);
  Write(pod + "memory.stat", "anon 5\ninactive_file " + std::to_string(kGib) + "\nactive_file " +
                                 std::to_string(kGib) + "\n");
  EXPECT_EQ(AvailableMemoryBytes(root()), 3 * kGib) << "cached pages of files can be given back";
}

TEST_F(MachineLimitsTest, MemoryOfCgroupVersion1Counts) {
  Write("/proc/self/cgroup", "2:memory:/docker/4f\n");
  const std::string mount = "/sys/fs/cgroup/memory/";
  Write(mount + "memory.limit_in_bytes", std::to_string(2 * kGib));
  Write(mount + "memory.usage_in_bytes", std::to_string(kGib));
  EXPECT_EQ(AvailableMemoryBytes(root()), kGib);
  Write(mount + "memory.usage_in_bytes", std::to_string(3 * kGib));
  EXPECT_EQ(AvailableMemoryBytes(root()), 0);
}

}  // namespace
}  // namespace structattn::engine
