// One model in one engine, without server and network, timed on command: prompts, decoding, and
// the memory and multiplier limits of the machine beside them. Driven by steps_vs_peers.py, which
// runs its peers between the commands; never a test.
//   step_bench MODEL_PATH DTYPE THREADS [stored|none|int8]
// Says one line of JSON when loaded, then answers each line of stdin with one:
//   greedy COUNT ID ...            the ids that follow the given ones
//   prefill TOKENS SEED            seconds from submission to the first token
//   decode STREAMS TOKENS SEED     seconds of TOKENS - 1 steps of that many streams
//   bandwidth                      bytes per second over a buffer as large as the weights
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "server/engine/served_model.h"
#include "tests/bench/memory_read.h"

namespace structattn {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void Stop(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

// Keeps the ids of one request and the times of the first and the last.
class TimingSink : public engine::EventSink {
 public:
  void OnToken(engine::TokenEvent event) override {
    const Clock::time_point now = Clock::now();
    if (ids_.empty()) first_ = now;
    last_ = now;
    ids_.insert(ids_.end(), event.token_ids.begin(), event.token_ids.end());
  }
  void OnFinish(const engine::FinishEvent&) override { End(absl::OkStatus()); }
  void OnError(const absl::Status& status) override { End(status); }

  void Wait() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return done_; });
    if (!status_.ok()) Stop(status_);
  }

  // After Wait.
  const std::vector<int32_t>& ids() const { return ids_; }
  Clock::time_point first() const { return first_; }
  Clock::time_point last() const { return last_; }

 private:
  void End(absl::Status status) {
    std::lock_guard lock(mutex_);
    status_ = std::move(status);
    done_ = true;
    ended_.notify_one();
  }

  std::vector<int32_t> ids_;
  Clock::time_point first_;
  Clock::time_point last_;
  std::mutex mutex_;
  std::condition_variable ended_;
  absl::Status status_;
  bool done_ = false;
};

double Seconds(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

class StepBench {
 public:
  StepBench(const std::string& path, DType dtype, int threads, Quantization quantization)
      : pool_(threads) {
    LoadOptions load;
    load.dtype = dtype;
    load.quantization = quantization;
    load.device = Device{};
    load.threads = threads;
    absl::StatusOr<std::unique_ptr<engine::ServedModel>> served =
        engine::LoadServedModel({.name = "m", .path = path}, load, engine::EngineOptions());
    if (!served.ok()) Stop(served.status());
    served_ = *std::move(served);
  }

  // What one step with logits reads: all matrices but the embedding's table, of which it reads a
  // row.
  int64_t WeightBytes() const { return served_->model->linear_bytes; }

  void Describe() const {
    std::printf(
        "{\"weight_bytes\": %lld, \"weights\": \"%s\", \"kernel\": \"%s\", "
        "\"threads\": %d}\n",
        static_cast<long long>(WeightBytes()), served_->model->weight_format.c_str(),
        served_->model->kernel.c_str(), pool_.threads());
  }

  void Greedy(std::istream& arguments) {
    int count = 0;
    arguments >> count;
    std::vector<int32_t> ids;
    for (int32_t id = 0; arguments >> id;) ids.push_back(id);
    const auto sink = Submit(std::move(ids), count);
    sink->Wait();
    std::printf("{\"token_ids\": [");
    for (size_t i = 0; i < sink->ids().size(); ++i) {
      std::printf("%s%d", i == 0 ? "" : ", ", sink->ids()[i]);
    }
    std::printf("]}\n");
  }

  void Prefill(std::istream& arguments) {
    int tokens = 0;
    uint32_t seed = 0;
    arguments >> tokens >> seed;
    std::vector<int32_t> ids = RandomIds(tokens, seed);
    const Clock::time_point begin = Clock::now();
    const auto sink = Submit(std::move(ids), 1);
    sink->Wait();
    PrintSeconds(Seconds(begin, sink->first()));
  }

  // From the last stream's first token to the first stream's last: steps of all streams together.
  void Decode(std::istream& arguments) {
    int streams = 0;
    int tokens = 0;
    uint32_t seed = 0;
    arguments >> streams >> tokens >> seed;
    std::vector<std::shared_ptr<TimingSink>> sinks;
    for (int i = 0; i < streams; ++i) sinks.push_back(Submit(RandomIds(8, seed + i), tokens));
    for (const auto& sink : sinks) sink->Wait();
    const auto by_first = [](const auto& a, const auto& b) { return a->first() < b->first(); };
    const auto by_last = [](const auto& a, const auto& b) { return a->last() < b->last(); };
    const Clock::time_point begin = (*std::ranges::max_element(sinks, by_first))->first();
    const Clock::time_point end = (*std::ranges::min_element(sinks, by_last))->last();
    PrintSeconds(Seconds(begin, end));
  }

  void Bandwidth() {
    std::printf("{\"bytes_per_second\": %.0f}\n",
                MemoryRead(pool_, WeightBytes()).BytesPerSecond(8));
  }

 private:
  static void PrintSeconds(double seconds) { std::printf("{\"seconds\": %.9f}\n", seconds); }

  std::vector<int32_t> RandomIds(int count, uint32_t seed) const {
    std::mt19937 random(seed);
    std::vector<int32_t> ids(count);
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(random() % served_->model->config.vocab_size);
    }
    return ids;
  }

  // A causal prompt of these ids, and as many greedy tokens.
  std::shared_ptr<TimingSink> Submit(std::vector<int32_t> ids, int count) {
    const ModelConfig& config = served_->model->config;
    engine::Prompt prompt = {
        .segments = {{.type = engine::SegmentType::kInstruction, .content = std::move(ids)}},
        .rule = RulePreset::kCausal};
    absl::StatusOr<engine::EncodedPrompt> encoded =
        engine::EncodePrompt(prompt, 0, *served_->model->tokenizer,
                             {.vocabulary_size = config.vocab_size,
                              .context_length = config.context_length,
                              .max_prompt_bytes = 1,
                              .max_segments = 1});
    if (!encoded.ok()) Stop(encoded.status());
    auto sink = std::make_shared<TimingSink>();
    engine::GenerateRequest request = {
        .request_id = "", .prompt = *std::move(encoded), .sampling = {}, .stopping = {}};
    request.stopping.max_tokens = count;
    request.stopping.ignore_eos = true;
    const absl::StatusOr<engine::Engine::Ticket> ticket =
        served_->engine->Submit(std::move(request), sink);
    if (!ticket.ok()) Stop(ticket.status());
    return sink;
  }

  ThreadPool pool_;  // For the bandwidth; the model has its own.
  std::unique_ptr<engine::ServedModel> served_;
};

void AnswerCommands(StepBench& bench) {
  bench.Describe();
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    if (command == "greedy") {
      bench.Greedy(words);
    } else if (command == "prefill") {
      bench.Prefill(words);
    } else if (command == "decode") {
      bench.Decode(words);
    } else if (command == "bandwidth") {
      bench.Bandwidth();
    } else {
      Stop(absl::InvalidArgumentError(line));
    }
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace structattn

int main(int argc, char** argv) {
  using structattn::Quantization;
  if (argc < 4 || argc > 5) {
    std::fprintf(stderr, "step_bench MODEL_PATH bfloat16|float32 THREADS [stored|none|int8]\n");
    return 2;
  }
  const structattn::DType dtype = std::string(argv[2]) == "float32" ? structattn::DType::kFloat32
                                                                    : structattn::DType::kBfloat16;
  const std::string form = argc > 4 ? argv[4] : "stored";
  const Quantization quantization = form == "int8"   ? Quantization::kInt8
                                    : form == "none" ? Quantization::kNone
                                                     : Quantization::kStored;
  structattn::StepBench bench(argv[1], dtype, std::atoi(argv[3]), quantization);
  structattn::AnswerCommands(bench);
}
