// What InferenceService knows of a call whose work is in an engine: how to stop it, and when it is
// gone. Implemented by generate_stream and score_call.
#ifndef STRUCTATTN_SERVER_RPC_CALL_H_
#define STRUCTATTN_SERVER_RPC_CALL_H_

#include <functional>
#include <string>

namespace structattn {

class Call {
 public:
  // What the log names before anything else is known.
  struct Labels {
    std::string method;
    std::string request_id;
    std::string model;
  };

  // Called once, last, on a gRPC thread: the owner drops its reference.
  using DoneHook = std::function<void(const Call*)>;

  virtual ~Call() = default;

  // Asks the engine to stop; the client still hears the end. Any thread.
  virtual void CancelWork() = 0;
};

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_RPC_CALL_H_
