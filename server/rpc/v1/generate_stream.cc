// Implements generate_stream.h. gRPC runs no reaction inside a Start* or Finish call, so these are
// made with mutex_ held; the call is never called with it held.
#include "server/rpc/v1/generate_stream.h"

#include <utility>

#include "server/rpc/v1/field_paths.h"
#include "server/rpc/v1/request_codec.h"
#include "server/rpc/v1/response_codec.h"

namespace structattn::rpc {

GenerateStream* GenerateStream::Start(serving::FrontDoor* door, serving::Call::Options options,
                                      const v1::GenerateRequest& request) {
  const auto stream = std::make_shared<GenerateStream>();
  stream->self_ = stream;
  serving::GenerateRequest decoded;
  const absl::Status status = DecodeGenerateRequest(request, door->limits(), &decoded);
  stream->call_ =
      std::make_shared<serving::GenerateCall>(std::move(options), std::move(decoded), stream);
  door->Admit(stream->call_, status);
  return stream.get();
}

void GenerateStream::OnStarted(serving::Started started) {
  absl::MutexLock lock(&mutex_);
  *waiting_.emplace_back().mutable_started() = EncodeStarted(started);
}

void GenerateStream::OnAccepted() {
  absl::MutexLock lock(&mutex_);
  accepted_ = true;
  Pump();
}

void GenerateStream::OnToken(engine::TokenEvent event) {
  absl::MutexLock lock(&mutex_);
  if (client_gone_) return;
  AppendToken(event, ChunkFor(event.index));
  Pump();
}

// The last chunk that waits of this continuation, while it has room; else a new one.
v1::Chunk* GenerateStream::ChunkFor(int32_t index) {
  for (auto waiting = waiting_.rbegin(); waiting != waiting_.rend(); ++waiting) {
    if (!waiting->has_chunk() || waiting->chunk().index() != index) continue;
    if (waiting->chunk().token_ids_size() >= kMaxTokensPerChunk) break;
    return waiting->mutable_chunk();
  }
  return waiting_.emplace_back().mutable_chunk();
}

void GenerateStream::OnFinish(const engine::FinishEvent& event) {
  absl::MutexLock lock(&mutex_);
  *waiting_.emplace_back().mutable_finished() = EncodeFinished(event);
  EndWith(absl::OkStatus());
}

void GenerateStream::OnError(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (!accepted_) waiting_.clear();  // A refused call has not started.
  EndWith(status);
}

void GenerateStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    client_gone_ |= !ok;
    Pump();
  }
  if (!ok) call_->Cancel();
}

void GenerateStream::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    client_gone_ = true;
  }
  call_->Cancel();
}

void GenerateStream::OnDone() {
  bool client_gone = false;
  {
    absl::MutexLock lock(&mutex_);
    client_gone = client_gone_;
  }
  call_->Close(client_gone);
  const std::shared_ptr<GenerateStream> last = std::move(self_);
}

void GenerateStream::EndWith(const absl::Status& status) {
  outcome_ = status;
  accepted_ = true;
  Pump();
}

void GenerateStream::Pump() {
  if (!accepted_ || writing_ || finished_) return;
  if (client_gone_) waiting_.clear();
  if (!waiting_.empty()) {
    in_flight_ = std::move(waiting_.front());
    waiting_.pop_front();
    if (waiting_.empty() && outcome_.has_value()) {
      finished_ = true;
      StartWriteAndFinish(&in_flight_, grpc::WriteOptions(), ToV1Status(*outcome_));
    } else {
      writing_ = true;
      StartWrite(&in_flight_);
    }
  } else if (outcome_.has_value()) {
    finished_ = true;
    Finish(ToV1Status(*outcome_));
  }
}

}  // namespace structattn::rpc
