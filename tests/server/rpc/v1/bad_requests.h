// Requests that must be refused, one row each: how to spoil a good one, and what the refusal says.
// For the codec alone (request_codec_test) and over the wire (inference_service_test).
#ifndef STRUCTATTN_TESTS_SERVER_RPC_V1_BAD_REQUESTS_H_
#define STRUCTATTN_TESTS_SERVER_RPC_V1_BAD_REQUESTS_H_

#include <functional>
#include <string>
#include <vector>

#include "structattn/v1/inference_service.pb.h"

namespace structattn::rpc {

struct BadRequestCase {
  std::string name;
  std::function<void(v1::GenerateRequest*)> spoil;  // Of GoodRequest(): four segments.
  std::string field;
  std::string reason;
  std::string message_part;
};

// All are INVALID_ARGUMENT.
std::vector<BadRequestCase> BadRequestCases();

}  // namespace structattn::rpc

#endif  // STRUCTATTN_TESTS_SERVER_RPC_V1_BAD_REQUESTS_H_
