// Implements model_registry.h.
#include "server/engine/model_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/engine/field_error.h"

namespace structattn::engine {
namespace {

// Names longer than any model's are cut in messages: messages are logged.
constexpr size_t kMaxQuotedBytes = 64;

}  // namespace

ModelRegistry::~ModelRegistry() { entries_.clear(); }  // Returning leases uses the other members.

void ModelRegistry::ReportHealth(const std::string& name, bool serving) const {
  if (health_hook_) health_hook_(name, serving);
}

void ModelRegistry::SetHealthHook(HealthHook hook) {
  health_hook_ = std::move(hook);
  for (const std::shared_ptr<ServedModel>& model : List()) ReportHealth(model->name, true);
}

ModelRegistry::Entry ModelRegistry::MakeEntry(std::unique_ptr<ServedModel> model) {
  std::shared_ptr<ServedModel> lease(model.get(), [this](ServedModel* returned) {
    // Signalled under the lock: Unload may destroy nothing of ours before the lock is free.
    const absl::MutexLock lock(&mutex_);
    leased_.erase(returned);
    lease_returned_.SignalAll();
  });
  return {std::move(model), std::move(lease)};
}

absl::Status ModelRegistry::Load(const ModelSource& source) {
  {
    const absl::MutexLock lock(&mutex_);
    if (draining_) return absl::UnavailableError("the server is being drained: no new models");
    if (entries_.contains(source.name) || !busy_names_.insert(source.name).second) {
      return FieldError(absl::StatusCode::kAlreadyExists, {"name", "MODEL_EXISTS"},
                        absl::StrCat("model \"", source.name, "\" is there already"));
    }
  }
  absl::StatusOr<std::unique_ptr<ServedModel>> model = loader_(source);
  if (model.ok()) ReportHealth(source.name, true);
  const absl::MutexLock lock(&mutex_);
  busy_names_.erase(source.name);
  if (!model.ok()) return model.status();
  leased_.insert(model->get());
  entries_.emplace(source.name, MakeEntry(*std::move(model)));
  return absl::OkStatus();
}

absl::Status ModelRegistry::Unload(const std::string& name) {
  Entry entry;
  {
    const absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(name);
    if (found == entries_.end()) return NotFound(name);
    entry = std::move(found->second);
    entries_.erase(found);
    busy_names_.insert(name);
  }
  ReportHealth(name, false);
  entry.model->engine->Drain(absl::InfiniteFuture());
  entry.lease.reset();
  {
    const absl::MutexLock lock(&mutex_);
    while (leased_.contains(entry.model.get())) lease_returned_.Wait(&mutex_);
  }
  entry.model.reset();
  const absl::MutexLock lock(&mutex_);
  busy_names_.erase(name);
  return absl::OkStatus();
}

absl::Status ModelRegistry::NotFound(std::string_view name) const {
  std::vector<std::string> names;
  for (const auto& [loaded, entry] : entries_) names.push_back(absl::StrCat("\"", loaded, "\""));
  return FieldError(
      absl::StatusCode::kNotFound, {"model", "MODEL_NOT_FOUND"},
      absl::StrCat("model \"", std::string(name.substr(0, kMaxQuotedBytes)), "\": ",
                   names.empty() ? "no model is loaded"
                                 : absl::StrCat("loaded are ", absl::StrJoin(names, ", "))));
}

absl::StatusOr<std::shared_ptr<ServedModel>> ModelRegistry::Find(std::string_view name) const {
  const absl::MutexLock lock(&mutex_);
  if (name.empty() && entries_.size() == 1) return entries_.begin()->second.lease;
  const auto found = entries_.find(name);
  if (found == entries_.end()) return NotFound(name);
  return found->second.lease;
}

std::vector<std::shared_ptr<ServedModel>> ModelRegistry::List() const {
  const absl::MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<ServedModel>> models;
  for (const auto& [name, entry] : entries_) models.push_back(entry.lease);
  return models;
}

bool ModelRegistry::Drain(absl::Time deadline) {
  {
    const absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  const std::vector<std::shared_ptr<ServedModel>> models = List();
  for (const std::shared_ptr<ServedModel>& model : models) {
    ReportHealth(model->name, false);
    model->engine->Drain(absl::InfinitePast());  // Every engine refuses before one is waited for.
  }
  bool done = true;
  for (const std::shared_ptr<ServedModel>& model : models) {
    done = model->engine->Drain(deadline) && done;
  }
  return done;
}

}  // namespace structattn::engine
