// The calls of one kind that are open: keeps each alive until gRPC is done with it.
// Owned by InferenceService. Calls none of them with its lock held.
#ifndef STRUCTATTN_SERVER_RPC_LIVE_CALLS_H_
#define STRUCTATTN_SERVER_RPC_LIVE_CALLS_H_

#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace structattn {

template <typename Call>
class LiveCalls {
 public:
  void Add(std::shared_ptr<Call> call) {
    std::lock_guard lock(mutex_);
    const Call* key = call.get();
    calls_.emplace(key, std::move(call));
  }

  // May destroy the call.
  void Remove(const Call* done) {
    std::shared_ptr<Call> last;  // Outlives the lock.
    std::lock_guard lock(mutex_);
    const auto found = calls_.find(done);
    last = std::move(found->second);
    calls_.erase(found);
  }

  std::vector<std::shared_ptr<Call>> List() const {
    std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<Call>> calls;
    for (const auto& [key, call] : calls_) calls.push_back(call);
    return calls;
  }

 private:
  mutable std::mutex mutex_;
  std::map<const Call*, std::shared_ptr<Call>> calls_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_LIVE_CALLS_H_
