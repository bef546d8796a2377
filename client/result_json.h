// The server's answers as the JSON objects that the command line prints, one function for each
// kind. Scripts depend on the names of the fields. It only converts: it asks no server.
#ifndef STRUCTATTN_CLIENT_RESULT_JSON_H_
#define STRUCTATTN_CLIENT_RESULT_JSON_H_

#include <string>

#include "client/client.h"
#include "client/prompt_json.h"

namespace structattn::client {

Json GenerationJson(const PromptInput& input, const Generation& generation);
// {"id", "scores": [..]}, and what the answer cost and what made it.
Json ScoresJson(const PromptInput& input, const v1::ScoreResponse& response);
Json InspectionJson(const PromptInput& input, const v1::InspectResponse& response);
Json ModelJson(const v1::Model& model);

// {"id", "error": {"code", "message", "field"}}.
struct ErrorText {
  std::string code;
  std::string message;
  std::string field;
};
Json ErrorJson(const Json& id, const ErrorText& error);
ErrorText DescribeError(const grpc::Status& status);
ErrorText DescribeError(const PromptError& error);

// One line of JSON; bytes that are not UTF-8 become U+FFFD.
std::string Line(const Json& json);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_RESULT_JSON_H_
