// Flags: defaults, every refusal, and one line per refusal.
#include "server/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace structattn {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

ParsedOptions Parse(std::vector<std::string> arguments) {
  std::vector<const char*> argv = {"structattn-server"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return ParseOptions(static_cast<int>(argv.size()), argv.data());
}

struct UsageCase {
  std::vector<std::string> arguments;
  std::string message_part;
};

TEST(ParseOptions, Defaults) {
  const ParsedOptions parsed = Parse({"--model", "m=/models/m.gguf"});
  ASSERT_TRUE(parsed.options.has_value()) << parsed.message;
  const ServerOptions& options = *parsed.options;
  ASSERT_EQ(options.models.size(), 1u);
  EXPECT_EQ(options.models[0].name, "m");
  EXPECT_EQ(options.models[0].path, "/models/m.gguf");
  EXPECT_EQ(options.rpc.host, "127.0.0.1");
  EXPECT_EQ(options.rpc.port, 50051);
  EXPECT_EQ(options.rpc.model_root, "");
  EXPECT_EQ(options.rpc.limits.max_prompt_bytes, 1 << 20);
  EXPECT_FALSE(options.load.dtype.has_value());
  EXPECT_EQ(options.load.quantization, Quantization::kStored);
  EXPECT_EQ(options.load.device, std::nullopt);
  EXPECT_FALSE(options.load.cuda_graphs);
  EXPECT_GE(options.load.threads, 1);
  EXPECT_EQ(options.engine.kv_memory_bytes, engine::EngineOptions().kv_memory_bytes);
  EXPECT_EQ(options.drain_delay, absl::ZeroDuration());
  EXPECT_EQ(options.drain_timeout, absl::Seconds(30));
  EXPECT_EQ(options.log_level, spdlog::level::info);
}

TEST(ParseOptions, EveryFlagArrives) {
  const ParsedOptions parsed = Parse({"--model",
                                      "a=x",
                                      "--model=b=y=z",
                                      "--listen",
                                      "[::1]:0",
                                      "--quantization",
                                      "int8",
                                      "--dtype",
                                      "float16",
                                      "--device",
                                      "cpu",
                                      "--cuda-graphs",
                                      "--threads",
                                      "3",
                                      "--model-root",
                                      "/",
                                      "--kv-memory-mb",
                                      "64",
                                      "--max-queued",
                                      "5",
                                      "--max-step-tokens",
                                      "77",
                                      "--max-running",
                                      "6",
                                      "--max-prompt-bytes",
                                      "7",
                                      "--drain-delay-seconds",
                                      "8",
                                      "--drain-timeout-seconds",
                                      "9",
                                      "--log-level",
                                      "error"});
  ASSERT_TRUE(parsed.options.has_value()) << parsed.message;
  const ServerOptions& options = *parsed.options;
  ASSERT_EQ(options.models.size(), 2u);
  EXPECT_EQ(options.models[1].name, "b");
  EXPECT_EQ(options.models[1].path, "y=z");
  EXPECT_EQ(options.rpc.host, "[::1]");
  EXPECT_EQ(options.rpc.port, 0);
  EXPECT_EQ(options.rpc.model_root, "/");
  EXPECT_EQ(options.rpc.limits.max_prompt_bytes, 7);
  EXPECT_EQ(options.load.dtype, DType::kFloat16);
  EXPECT_EQ(options.load.quantization, Quantization::kInt8);
  EXPECT_EQ(options.load.device, Device{.kind = DeviceKind::kCpu});
  EXPECT_TRUE(options.load.cuda_graphs);
  EXPECT_EQ(options.load.threads, 3);
  EXPECT_EQ(options.engine.kv_memory_bytes, 64 << 20);
  EXPECT_EQ(options.engine.max_queued_requests, 5);
  EXPECT_EQ(options.engine.max_running_sequences, 6);
  EXPECT_EQ(options.engine.max_step_tokens, 77);
  EXPECT_EQ(options.drain_delay, absl::Seconds(8));
  EXPECT_EQ(options.drain_timeout, absl::Seconds(9));
  EXPECT_EQ(options.log_level, spdlog::level::err);
}

TEST(ParseOptions, QuantizationHasThreeValues) {
  const std::map<std::string, Quantization> forms = {{"stored", Quantization::kStored},
                                                     {"none", Quantization::kNone},
                                                     {"int8", Quantization::kInt8}};
  for (const auto& [value, form] : forms) {
    const ParsedOptions parsed = Parse({"--model", "m=x", "--quantization", value});
    ASSERT_TRUE(parsed.options.has_value()) << parsed.message;
    EXPECT_EQ(parsed.options->load.quantization, form);
  }
}

TEST(ParseOptions, TheOldNameOfQuantizationIsRefusedWithTheNewOne) {
  const std::vector<UsageCase> cases = {
      {{"--weights", "stored"}, "use --quantization stored"},
      {{"--weights", "expanded"}, "use --quantization none"},
      {{"--weights", "int8"}, "use --quantization int8"},
      {{"--weights", "int4"}, "use --quantization stored|none|int8"},
      {{"--weights"}, "use --quantization stored|none|int8"}};
  for (const auto& [arguments, hint] : cases) {
    const ParsedOptions parsed = Parse(arguments);
    EXPECT_FALSE(parsed.options.has_value());
    EXPECT_EQ(parsed.exit_code, kExitUsage);
    EXPECT_THAT(parsed.message, EndsWith(hint));
  }
}

TEST(ParseOptions, AModelRootAloneIsEnough) {
  EXPECT_TRUE(Parse({"--model-root", "/"}).options.has_value());
}

TEST(ParseOptions, HelpAndVersionAreNotErrors) {
  for (const char* flag : {"--help", "--version"}) {
    const ParsedOptions parsed = Parse({flag});
    EXPECT_FALSE(parsed.options.has_value());
    EXPECT_EQ(parsed.exit_code, kExitDrained);
  }
  EXPECT_THAT(Parse({"--help"}).message, HasSubstr("--kv-memory-mb"));
  EXPECT_THAT(Parse({"--help"}).message, Not(HasSubstr("emulated")));
  EXPECT_THAT(Parse({"--help"}).message, Not(HasSubstr("--weights")));
  EXPECT_THAT(Parse({"--version"}).message, HasSubstr(STRUCTATTN_VERSION));
}

TEST(ParseOptions, EveryUsageErrorIsOneLineAndCode2) {
  const std::string long_name(65, 'a');
  const std::vector<UsageCase> cases = {
      {{}, "--model NAME=PATH is needed"},
      {{"--model", "m"}, "NAME=PATH"},
      {{"--model", "m="}, "NAME=PATH"},
      {{"--model", "=x"}, "1..64"},
      {{"--model", "a/b=x"}, "1..64"},
      {{"--model", "a\nb=x"}, "1..64"},
      {{"--model", long_name + "=x"}, "1..64"},
      {{"--model", "m=x", "--model", "m=y"}, "given twice"},
      {{"--model", "m=x", "--listen", "127.0.0.1"}, "HOST:PORT"},
      {{"--model", "m=x", "--listen", ":1"}, "HOST:PORT"},
      {{"--model", "m=x", "--listen", "::1:1"}, "HOST:PORT"},
      {{"--model", "m=x", "--listen", "h:65536"}, "HOST:PORT"},
      {{"--model", "m=x", "--listen", "h:-1"}, "HOST:PORT"},
      {{"--model", "m=x", "--listen", "h:1x"}, "HOST:PORT"},
      {{"--model", "m=x", "--listen", "unix:/tmp/x:1"}, "HOST:PORT"},
      {{"--model", "m=x", "--dtype", "int8"}, "--dtype"},
      {{"--model", "m=x", "--quantization", "int4"}, "--quantization"},
      {{"--model", "m=x", "--quantization", "expanded"}, "none"},
      {{"--model", "m=x", "--device", "tpu"},
       "device 'tpu': allowed are auto, cpu, cuda and cuda:N"},
      {{"--model", "m=x", "--device", "cuda:64"}, "--device"},
      {{"--model", "m=x", "--device", "emulated"}, "--device"},  // In the tests' program only.
      {{"--model", "m=x", "--threads", "-1"}, "--threads"},
      {{"--model", "m=x", "--threads", "1e9"}, "--threads"},
      {{"--model", "m=x", "--kv-memory-mb", "0"}, "--kv-memory-mb"},
      {{"--model", "m=x", "--kv-memory-mb", "99999999999999999999"}, "--kv-memory-mb"},
      {{"--model", "m=x", "--max-queued", "0"}, "--max-queued"},
      {{"--model", "m=x", "--drain-delay-seconds", "-1"}, "--drain-delay-seconds"},
      {{"--model", "m=x", "--log-level", "loud"}, "--log-level"},
      {{"--model-root", "/no/such/folder"}, "not a directory"},
      {{"--model", "m=x", "--no-such-flag"}, "--no-such-flag"},
      {{"--model", "m=x", "stray"}, "stray"},
  };
  for (const UsageCase& usage : cases) {
    const ParsedOptions parsed = Parse(usage.arguments);
    SCOPED_TRACE(parsed.message);
    EXPECT_FALSE(parsed.options.has_value());
    EXPECT_EQ(parsed.exit_code, kExitUsage);
    EXPECT_THAT(parsed.message, HasSubstr(usage.message_part));
    EXPECT_THAT(parsed.message, Not(HasSubstr("\n")));
  }
}

}  // namespace
}  // namespace structattn
