// The streams of one kind that are open: keeps each alive until gRPC is done with it.
// Owned by InferenceService, one for each streaming RPC. Calls no stream with its lock held.
#ifndef STRUCTATTN_SERVER_RPC_LIVE_STREAMS_H_
#define STRUCTATTN_SERVER_RPC_LIVE_STREAMS_H_

#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace structattn {

template <typename Stream>
class LiveStreams {
 public:
  void Add(std::shared_ptr<Stream> stream) {
    std::lock_guard lock(mutex_);
    const Stream* key = stream.get();
    streams_.emplace(key, std::move(stream));
  }

  // May destroy the stream.
  void Remove(const Stream* done) {
    std::shared_ptr<Stream> last;  // Outlives the lock.
    std::lock_guard lock(mutex_);
    const auto found = streams_.find(done);
    last = std::move(found->second);
    streams_.erase(found);
  }

  std::vector<std::shared_ptr<Stream>> List() const {
    std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<Stream>> streams;
    for (const auto& [key, stream] : streams_) streams.push_back(stream);
    return streams;
  }

 private:
  mutable std::mutex mutex_;
  std::map<const Stream*, std::shared_ptr<Stream>> streams_;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_LIVE_STREAMS_H_
