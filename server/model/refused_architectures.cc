// See refused_architectures.h. Sources: the modeling files of transformers 5.23.
#include "server/model/refused_architectures.h"

#include "server/model/refusal.h"

namespace structattn {
namespace {

struct Reason {
  std::string_view part;  // Of the architecture's name.
  std::string_view text;
};

// The first that fits holds.
constexpr Reason kReasons[] = {
    {"ForSequenceClassification", "a classifier, which has no output layer over tokens"},
    {"ForTokenClassification", "a classifier, which has no output layer over tokens"},
    {"ForQuestionAnswering", "a classifier, which has no output layer over tokens"},
    {"RewardModel", "a reward model, which has no output layer over tokens"},
    {"SmolLM3", "some of its layers have no rotary embedding"},
    {"Granite", "its embeddings, attention, residuals and logits have multipliers"},
    {"Phi3", "its q, k, v and its gate, up are one tensor each"},
    {"InternLM2", "its q, k, v are one tensor, and its code comes with the folder"},
    {"Llama4", "its layers have chunked attention, temperatures and experts of another kind"},
    {"Mllama", "its layers attend to images"},
    {"VL", "it reads images"},
    {"Llava", "it reads images"},
    {"Model", "a model without an output layer, as embeddings use it"},
};

}  // namespace

std::string WhyNotServed(std::string_view architecture) {
  for (const Reason& reason : kReasons) {
    if (reason.part == "Model" ? architecture.ends_with(reason.part)
                               : architecture.find(reason.part) != architecture.npos) {
      return Concat(" (", reason.text, ")");
    }
  }
  return "";
}

}  // namespace structattn
