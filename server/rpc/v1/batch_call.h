// One request of a GenerateBatch stream as a call, whichever kind it is: the sink gathers its
// answer and hands it over whole. It knows no window and no stream, and never blocks.
#ifndef STRUCTATTN_SERVER_RPC_V1_BATCH_CALL_H_
#define STRUCTATTN_SERVER_RPC_V1_BATCH_CALL_H_

#include <deque>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "server/serving/call.h"
#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

// How a request of a stream ended.
struct BatchOutcome {
  absl::Status error = {};  // The whole answer when it is not OK.
  // Else these, without index and id; at least one.
  std::deque<v1::GenerateBatchResponse> parts = {};
};

struct BatchCall {
  std::shared_ptr<serving::Call> call;
  absl::Status decoded;  // What is wrong with the message itself.
};

// `message` is a generate or a score. `on_end` is called at the end, once, on any thread.
BatchCall NewBatchCall(const v1::GenerateBatchRequest& message, serving::Call::Options options,
                       const serving::Limits& limits, std::function<void(BatchOutcome)> on_end);

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_V1_BATCH_CALL_H_
