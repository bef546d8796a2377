// Every check of a request to generate that needs no tokenizer: what spec and limits allow, for any
// protocol. It changes nothing of a request.
#ifndef STRUCTATTN_SERVER_SERVING_GENERATE_CHECKS_H_
#define STRUCTATTN_SERVER_SERVING_GENERATE_CHECKS_H_

#include "absl/status/status.h"
#include "server/model/model.h"
#include "server/serving/limits.h"
#include "server/serving/requests.h"

namespace structattn::serving {

// Cheap; for any thread.
absl::Status CheckGenerate(const GenerateRequest& request, const Model& model,
                           const Limits& limits);

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_GENERATE_CHECKS_H_
