// Client::GenerateBatch: one thread writes the requests, the caller's reads the answers, so that
// neither waits for the other's flow control.
#include <thread>
#include <utility>

#include "client/client.h"

namespace structattn::client {
namespace {

using Stream = grpc::ClientReaderWriter<v1::GenerateBatchRequest, v1::GenerateBatchResponse>;

// Ends early when the stream has broken; Finish tells why.
void WriteRequests(Stream& stream, const v1::BatchOptions& options, const BatchHandler& handler) {
  v1::GenerateBatchRequest message;
  *message.mutable_options() = options;
  while (stream.Write(message)) {
    std::optional<v1::GenerateBatchRequest> next = handler.next();
    if (!next.has_value()) {
      stream.WritesDone();
      return;
    }
    message = *std::move(next);
  }
}

grpc::Status StatusOf(const google::rpc::Status& error) {
  return {static_cast<grpc::StatusCode>(error.code()), error.message(), error.SerializeAsString()};
}

void ReadAnswers(Stream& stream, const BatchHandler& handler) {
  v1::GenerateBatchResponse response;
  BatchAnswer answer;  // Its parts follow each other.
  while (stream.Read(&response)) {
    const size_t n = static_cast<size_t>(response.message_index() - 1);  // Behind the options.
    if (response.has_error()) {
      handler.on_answer(n, StatusOf(response.error()), {});
      continue;
    }
    if (response.has_scored()) {
      answer.scores = std::move(*response.mutable_scored());
    } else {
      v1::GenerateResult& part = *response.mutable_generated();
      if (part.has_started()) answer.generation.started = std::move(*part.mutable_started());
      answer.generation.Append(part.chunk());
      if (!part.has_finished()) continue;
      answer.generation.finished = std::move(*part.mutable_finished());
    }
    handler.on_answer(n, grpc::Status::OK, std::exchange(answer, {}));
  }
}

}  // namespace

grpc::Status Client::GenerateBatch(grpc::ClientContext& context, const v1::BatchOptions& options,
                                   const BatchHandler& handler) const {
  const std::unique_ptr<Stream> stream = inference_->GenerateBatch(&context);
  std::thread writer([&] { WriteRequests(*stream, options, handler); });
  ReadAnswers(*stream, handler);
  writer.join();
  return stream->Finish();
}

}  // namespace structattn::client
