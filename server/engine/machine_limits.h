// What this process may use of its machine: CPUs and memory, by affinity, cgroups (version 1 and 2)
// and the kernel's own figures. Reads /proc and /sys; changes nothing.
#ifndef STRUCTATTN_SERVER_ENGINE_MACHINE_LIMITS_H_
#define STRUCTATTN_SERVER_ENGINE_MACHINE_LIMITS_H_

#include <cstdint>
#include <string>

namespace structattn::engine {

// `root` stands before /proc and /sys: empty but in tests.

// The CPUs that the process may run on, or as many as the cgroup's quota lets run at a time,
// rounded up, where that is less. At least 1.
int AllowedCpus(const std::string& root = "");

// Bytes that can be allocated now: what the machine has available, or what the cgroup's limit
// leaves, where that is less. Cached file pages count as free. The largest number
// without limits.
int64_t AvailableMemoryBytes(const std::string& root = "");

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_MACHINE_LIMITS_H_
