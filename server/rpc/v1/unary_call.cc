// Implements unary_call.h.
#include "server/rpc/v1/unary_call.h"

#include "server/rpc/v1/field_paths.h"
#include "server/rpc/v1/response_codec.h"

namespace structattn::rpc {

void UnaryCall::Start(serving::FrontDoor* door, std::shared_ptr<serving::Call> call,
                      const absl::Status& decoded) {
  self_ = shared_from_this();
  call_ = std::move(call);
  door->Admit(call_, decoded);
}

void UnaryCall::OnCancel() {
  client_gone_ = true;
  call_->Cancel();
}

void UnaryCall::OnDone() {
  call_->Close(client_gone_);
  const std::shared_ptr<UnaryCall> last = std::move(self_);
}

void ScoreReactor::OnAnswer(serving::ScoreAnswer answer) {
  fill_(answer);
  Finish(grpc::Status::OK);
}

void ScoreReactor::OnError(const absl::Status& status) { Finish(ToV1Status(status)); }

void InspectReactor::OnInspected(const engine::EncodedPrompt& prompt, const Tokenizer& tokenizer) {
  *response_ = EncodeInspect(prompt, tokenizer);
  Finish(grpc::Status::OK);
}

void InspectReactor::OnError(const absl::Status& status) { Finish(ToV1Status(status)); }

}  // namespace structattn::rpc
