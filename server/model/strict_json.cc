// Strict JSON over nlohmann::json: see strict_json.h. The parser's exceptions end here.
#include "server/model/strict_json.h"

#include <set>
#include <vector>

#include "server/model/refusal.h"

namespace structattn {
namespace {

constexpr int kDeepest = 32;

// Watches the parser: nlohmann::json itself would let the last of two equal keys win.
class Watcher {
 public:
  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kDeepest) deep_ = true;
    if (deep_) return false;
    if (event == Event::object_start) {
      keys_.emplace_back();
    } else if (event == Event::object_end && !keys_.empty()) {
      keys_.pop_back();
    } else if (event == Event::key && !keys_.empty()) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second && duplicate_.empty()) duplicate_ = Quoted(key);
    }
    return true;
  }

  absl::Status status() const {
    if (deep_) return Refuse("JSON nested deeper than ", kDeepest);
    if (!duplicate_.empty()) return Refuse("key ", duplicate_, " appears twice");
    return absl::OkStatus();
  }

 private:
  std::vector<std::set<std::string>> keys_;  // Of the open objects, outermost first.
  std::string duplicate_;
  bool deep_ = false;
};

// The text with the numbers that Python's json writes and JSON does not have as strings.
std::string QuoteNonNumbers(std::string_view text) {
  std::string quoted;
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    size_t count = 1;
    bool is_number = false;
    if (in_string && text[i] == '\\') {
      count = 2;
    } else if (text[i] == '"') {
      in_string = !in_string;
    } else if (!in_string) {
      for (const std::string_view number : {"NaN", "Infinity", "-Infinity"}) {
        if (!text.substr(i).starts_with(number)) continue;
        count = number.size();
        is_number = true;
      }
    }
    const std::string_view part = text.substr(i, count);
    quoted += is_number ? Concat("\"", part, "\"") : std::string(part);
    i += part.size();
  }
  return quoted;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text) {
  std::string quoted;
  if (text.find("NaN") != text.npos || text.find("Infinity") != text.npos) {
    quoted = QuoteNonNumbers(text);
    text = quoted;
  }
  Watcher watcher;
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(text.begin(), text.end(), std::ref(watcher));
  } catch (const nlohmann::json::exception& error) {
    return Refuse(JsonErrorMessage(error));
  }
  if (absl::Status status = watcher.status(); !status.ok()) return status;
  if (!value.is_object()) return Refuse("JSON ", value.type_name(), " given, an object is needed");
  return value;
}

std::string JsonErrorMessage(const nlohmann::json::exception& error) {
  constexpr size_t kLongest = 300;
  const std::string_view message = error.what();
  // The bracketed prefix names the library's exception, which helps no reader.
  const size_t begin = message.find("] ") == std::string_view::npos ? 0 : message.find("] ") + 2;
  return Concat("not valid JSON: ", Escaped(message.substr(begin, kLongest)));
}

}  // namespace structattn
