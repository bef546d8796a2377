// What one request may ask for, whichever protocol brings it: every limit of the API in one place.
// --max-prompt-bytes sets the first; the constants are part of the API. The limits of queues stand
// beside them (engine.h, tokenize_pool.h). It decides nothing: checks and codecs read it.
#ifndef STRUCTATTN_SERVER_SERVING_LIMITS_H_
#define STRUCTATTN_SERVER_SERVING_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace structattn::serving {

struct Limits {
  int64_t max_prompt_bytes = int64_t{1} << 20;  // Text over all segments of a prompt.
  int32_t max_segments = 4096;                  // Segments of a prompt.
  // Requests of one GenerateBatch stream, which remembers their ids.
  size_t max_requests_per_stream = size_t{1} << 20;

  // Names.
  static constexpr size_t kMaxRequestIdBytes = 256;
  static constexpr size_t kMaxModelNameBytes = 64;
  static constexpr size_t kMaxCacheSaltBytes = 256;

  // Sampling and stopping.
  static constexpr float kMaxTemperature = 100.0f;
  static constexpr float kMaxPenalty = 100.0f;
  static constexpr float kMaxLogitBias = 1000.0f;
  static constexpr int64_t kMaxLogitBiasEntries = 1024;
  static constexpr int64_t kMaxStopStrings = 64;
  static constexpr size_t kMaxStopStringBytes = 1024;
  static constexpr int64_t kMaxStopTokenIds = 1024;
  static constexpr int32_t kMaxTopLogprobs = 20;

  // Continuations of one prompt.
  static constexpr int64_t kMaxBranches = 64;
  static constexpr size_t kMaxBranchCueBytes = 16384;
  static constexpr int32_t kMaxSamples = 64;  // Samples of one branch, or of one fusion member.
  static constexpr int64_t kMaxContinuations = 256;  // Samples of all branches or members.
  static constexpr int64_t kMaxFusionMembers = 63;

  // Scores.
  static constexpr int64_t kMaxScoredContinuations = 256;
  static constexpr int64_t kMaxCandidates = 1024;
  static constexpr int64_t kMaxReadLogprobs = int64_t{1} << 20;  // 4 MiB of an answer.
  static constexpr int32_t kMinWindowTokens = 16;

  // Requests of a GenerateBatch stream that are not answered to the end.
  static constexpr int32_t kMaxInFlight = 1024;
};

}  // namespace structattn::serving

#endif  // STRUCTATTN_SERVER_SERVING_LIMITS_H_
