// config.json and generation_config.json -> ModelConfig, as transformers reads them, in the style
// of version 5 and of older ones. Refuses by name whatever would change the computation and is not
// supported; ignores the rest.
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "server/model/ends_of_generation.h"
#include "server/model/hf_mixture.h"
#include "server/model/hf_rope.h"
#include "server/model/hf_windows.h"
#include "server/model/json_fields.h"
#include "server/model/model_config.h"
#include "server/model/read_quantization.h"
#include "server/model/refusal.h"
#include "server/model/refused_architectures.h"
#include "server/model/status_macros.h"
#include "server/model/strict_json.h"

namespace structattn {
namespace {

constexpr std::string_view kConfig = "config.json";
constexpr std::string_view kGenerationConfig = "generation_config.json";

// What the configuration classes of transformers assume for a field that is missing.
struct Family {
  std::string_view architecture;
  std::string_view model_type;
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t layers;
  int64_t heads;
  int64_t kv_heads;  // 0: as many as heads.
  int64_t head_dim;  // 0: hidden_size / heads.
  int64_t context_length;
  int32_t eos_token_id;  // -1: none.
  WindowRule windows;
  MixtureDefaults mixture = {};
};

using enum WindowRule;
constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", "llama", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 2, kNone},
    // LLaMA 1's spelling.
    {"LLaMAForCausalLM", "llama", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 2, kNone},
    {"MistralForCausalLM", "mistral", 32000, 4096, 14336, 32, 32, 8, 0, 131072, 2, kEveryLayer},
    {"Qwen2ForCausalLM", "qwen2", 151936, 4096, 22016, 32, 32, 32, 0, 32768, -1, kSomeLayers},
    {"Qwen3ForCausalLM", "qwen3", 151936, 4096, 22016, 32, 32, 32, 128, 32768, -1, kSomeLayers},
    {"Qwen2MoeForCausalLM",
     "qwen2_moe",
     151936,
     2048,
     5632,
     24,
     16,
     16,
     0,
     32768,
     -1,
     kRefused,
     {.experts = 60, .chosen = 4, .expert_size = 1408, .shared_expert_size = 5632}},
    {"Qwen3MoeForCausalLM",
     "qwen3_moe",
     151936,
     2048,
     6144,
     24,
     32,
     4,
     0,
     32768,
     -1,
     kRefused,
     {.experts = 128, .chosen = 8, .expert_size = 768}},
};

// "LlamaForCausalLM (llama), ..."
std::string SupportedFamilies() {
  std::string names;
  for (const Family& family : kFamilies) {
    names += Concat(names.empty() ? "" : ", ", family.architecture, " (", family.model_type, ")");
  }
  return names;
}

absl::StatusOr<const Family*> FindFamily(const Fields& fields) {
  std::string architecture;
  if (const Json* list = fields.Find("architectures"); list != nullptr) {
    if (!list->is_array() || list->size() != 1 || !list->front().is_string()) {
      return Fields::WrongKind("architectures", *list, "a list of one string");
    }
    architecture = list->front().get<std::string>();
  }
  std::string model_type;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("model_type", model_type));
  for (const Family& family : kFamilies) {
    const bool fits = architecture.empty() || architecture == family.architecture;
    const bool type_fits = model_type.empty() || model_type == family.model_type;
    if (fits && type_fits && !(architecture.empty() && model_type.empty())) return &family;
  }
  return Refuse("architecture ", Quoted(architecture), " of model_type ", Quoted(model_type),
                WhyNotServed(architecture), ": supported are ", SupportedFamilies());
}

absl::Status ReadSizes(const Fields& fields, const Family& family, ModelConfig& config) {
  config.vocab_size = family.vocab_size;
  config.hidden_size = family.hidden_size;
  config.intermediate_size = family.intermediate_size;
  config.layers = family.layers;
  config.heads = family.heads;
  config.context_length = family.context_length;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("vocab_size", config.vocab_size));
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("hidden_size", config.hidden_size));
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("intermediate_size", config.intermediate_size));
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("num_hidden_layers", config.layers));
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("num_attention_heads", config.heads));
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("max_position_embeddings", config.context_length));

  // A family's own default holds where the key is missing; an explicit null means "derived".
  if (!fields.Names("num_key_value_heads")) config.kv_heads = family.kv_heads;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("num_key_value_heads", config.kv_heads));
  if (config.kv_heads == 0 && fields.Find("num_key_value_heads") == nullptr) {
    config.kv_heads = config.heads;
  }
  if (!fields.Names("head_dim")) config.head_dim = family.head_dim;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("head_dim", config.head_dim));
  if (config.head_dim == 0 && fields.Find("head_dim") == nullptr && config.heads > 0) {
    if (config.hidden_size % config.heads != 0) {
      return Refuse("hidden_size ", config.hidden_size, ": must be a multiple of the ",
                    config.heads, " num_attention_heads where no head_dim is given");
    }
    config.head_dim = config.hidden_size / config.heads;
  }
  return absl::OkStatus();
}

absl::Status ReadSwitches(const Fields& fields, const Family& family, ModelConfig& config) {
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("tie_word_embeddings", config.tied_embeddings));
  bool attention_bias = false;
  if (family.model_type != "mistral") {
    STRUCTATTN_RETURN_IF_ERROR(fields.Read("attention_bias", attention_bias));
  }
  if (family.model_type == "llama") {
    STRUCTATTN_RETURN_IF_ERROR(fields.Read("mlp_bias", config.mlp_bias));
  }
  config.qkv_bias = config.output_bias = attention_bias;
  // Qwen2 has its q, k and v biases always and the others never, whatever the config says; its
  // mixtures have a key of their own.
  if (family.model_type == "qwen2" || family.model_type == "qwen2_moe") {
    config.qkv_bias = true;
    config.output_bias = false;
  }
  if (family.model_type == "qwen2_moe") {
    STRUCTATTN_RETURN_IF_ERROR(fields.Read("qkv_bias", config.qkv_bias));
  }
  config.qk_norm = family.model_type == "qwen3" || family.model_type == "qwen3_moe";
  return absl::OkStatus();
}

absl::Status RefuseUnsupported(const Fields& fields) {
  std::string activation = "silu";
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("hidden_act", activation));
  if (activation != "silu") return Refuse("hidden_act ", Quoted(activation), ": supported is silu");
  return absl::OkStatus();
}

// compressed-tensors' older files call it compression_config; MLX writes `quantization` beside it,
// and no method.
absl::Status ReadQuantization(const Fields& fields, ModelConfig& config) {
  const Json* quantization = fields.Find("quantization_config");
  if (quantization == nullptr) quantization = fields.Find("compression_config");
  if (quantization == nullptr) quantization = fields.Find("quantization");
  if (quantization == nullptr) return absl::OkStatus();
  STRUCTATTN_ASSIGN_OR_RETURN(config.quantization, ReadFolderQuantization(*quantization));
  return absl::OkStatus();
}

absl::Status ReadDType(const Fields& fields, ModelConfig& config) {
  std::string name;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("torch_dtype", name));
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("dtype", name));
  config.dtype_named = !name.empty();
  if (name.empty()) return absl::OkStatus();
  for (const DType dtype : {DType::kFloat32, DType::kBfloat16, DType::kFloat16}) {
    if (name == Name(dtype)) {
      config.dtype = dtype;
      return absl::OkStatus();
    }
  }
  return Refuse("dtype ", Quoted(name), ": supported are float32, bfloat16, float16");
}

// An id that the model does not embed is none: no prompt needs it.
void ReadBos(const Fields& fields, ModelConfig& config) {
  const Json* id = fields.Find("bos_token_id");
  if (id == nullptr || !id->is_number_integer() || *id < 0 || *id >= config.vocab_size) return;
  config.bos_token_id = id->get<int32_t>();
}

// MLX packs its weights in a way of its own and says so under this key.
absl::Status RefuseMlx(const Fields& fields) {
  const Json* quantization = fields.Find("quantization");
  if (quantization == nullptr) return absl::OkStatus();
  return Refuse("quantization ", Quoted(quantization->dump()),
                ": weights quantised by MLX are not supported");
}

absl::StatusOr<ModelConfig> ReadModelConfig(const Fields& fields) {
  STRUCTATTN_ASSIGN_OR_RETURN(const Family* family, FindFamily(fields));
  ModelConfig config;
  config.architecture = family->model_type;
  STRUCTATTN_RETURN_IF_ERROR(RefuseMlx(fields));
  STRUCTATTN_RETURN_IF_ERROR(RefuseUnsupported(fields));
  STRUCTATTN_RETURN_IF_ERROR(ReadQuantization(fields, config));
  STRUCTATTN_RETURN_IF_ERROR(ReadSizes(fields, *family, config));
  STRUCTATTN_RETURN_IF_ERROR(ReadSwitches(fields, *family, config));
  if (family->mixture.experts > 0) {
    STRUCTATTN_RETURN_IF_ERROR(ReadHfMixture(fields, family->mixture, config));
  }
  config.rms_norm_epsilon = 1e-6;
  STRUCTATTN_RETURN_IF_ERROR(fields.Read("rms_norm_eps", config.rms_norm_epsilon));
  STRUCTATTN_RETURN_IF_ERROR(ReadHfRope(fields, config));
  STRUCTATTN_RETURN_IF_ERROR(ReadDType(fields, config));
  ReadBos(fields, config);
  STRUCTATTN_RETURN_IF_ERROR(ValidateModelConfig(config));
  STRUCTATTN_RETURN_IF_ERROR(ReadHfWindows(fields, family->windows, config));
  return config;
}

// The ids of both files; the family's own one where neither has the key.
absl::Status ReadEnds(const Fields& main, const Fields& generation, ModelConfig& config) {
  const Json* ids[] = {generation.Find("eos_token_id"), main.Find("eos_token_id")};
  if (ids[0] != nullptr) {
    STRUCTATTN_RETURN_IF_ERROR(AddEnds(kGenerationConfig, *ids[0], config));
  }
  if (ids[1] != nullptr) STRUCTATTN_RETURN_IF_ERROR(AddEnds(kConfig, *ids[1], config));
  if (ids[0] != nullptr || main.Names("eos_token_id")) return absl::OkStatus();
  STRUCTATTN_ASSIGN_OR_RETURN(const Family* family, FindFamily(main));
  const int32_t id = family->eos_token_id;
  if (id >= 0 && id < config.vocab_size) config.eos_token_ids = {id};
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseFile(std::string_view name, std::string_view text) {
  absl::StatusOr<Json> object = ParseJsonObject(text);
  if (!object.ok()) return WithPrefix(name, object.status());
  return object;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json) {
  STRUCTATTN_ASSIGN_OR_RETURN(const Json main, ParseFile(kConfig, config_json));
  Json generation = Json::object();
  absl::StatusOr<ModelConfig> config = ReadModelConfig(Fields(main));
  if (!config.ok()) return WithPrefix(kConfig, config.status());
  if (!generation_config_json.empty()) {
    STRUCTATTN_ASSIGN_OR_RETURN(generation, ParseFile(kGenerationConfig, generation_config_json));
  }
  STRUCTATTN_RETURN_IF_ERROR(ReadEnds(Fields(main), Fields(generation), *config));
  return config;
}

}  // namespace structattn
