// The models that this server answers for, by name. Thread-safe. Loads nothing itself: the loader
// that it is given does. No gRPC, no torch.
#ifndef STRUCTATTN_SERVER_ENGINE_MODEL_REGISTRY_H_
#define STRUCTATTN_SERVER_ENGINE_MODEL_REGISTRY_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/served_model.h"

namespace structattn::engine {

class ModelRegistry {
 public:
  using Loader = std::function<absl::StatusOr<std::unique_ptr<ServedModel>>(const ModelSource&)>;
  // Called with a model's name when it starts (true) or stops (false) answering; without any lock
  // held, and for one name never twice at a time.
  using HealthHook = std::function<void(const std::string& name, bool serving)>;

  explicit ModelRegistry(Loader loader) : loader_(std::move(loader)) {}
  // Cancels what still runs. No lease may outlive the registry.
  ~ModelRegistry();
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;

  // Hears of every model loaded so far at once, and of every change from then on. Set it before
  // calls from other threads begin.
  void SetHealthHook(HealthHook hook);

  // Loads a model outside any lock. ALREADY_EXISTS (reason MODEL_EXISTS) when the name is taken or
  // being loaded; UNAVAILABLE when draining; else the loader's error.
  absl::Status Load(const ModelSource& source);

  // Hides the model from Find at once, waits until its accepted requests are done and every lease
  // is given back, then destroys it on the calling thread. NOT_FOUND as in Find.
  absl::Status Unload(const std::string& name);

  // A lease on a model: it stays until the lease is dropped. An empty name means the only model.
  // NOT_FOUND with field "model", naming the loaded models.
  absl::StatusOr<std::shared_ptr<ServedModel>> Find(std::string_view name) const;

  // Leases on all models, by name.
  std::vector<std::shared_ptr<ServedModel>> List() const;

  // Refuses new requests and loads from now on and waits until the accepted requests of all models
  // are done or `deadline` passes; true when all are done. Reports every model as not serving.
  bool Drain(absl::Time deadline);

 private:
  // The registry owns the model; leases share `lease`, whose deleter only notes that the last
  // one is gone. So a model dies on the thread that unloads it, never on its own engine's thread.
  struct Entry {
    std::unique_ptr<ServedModel> model;
    std::shared_ptr<ServedModel> lease;
  };

  Entry MakeEntry(std::unique_ptr<ServedModel> model);
  absl::Status NotFound(std::string_view name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReportHealth(const std::string& name, bool serving) const;

  const Loader loader_;
  HealthHook health_hook_;
  mutable absl::Mutex mutex_;
  absl::CondVar lease_returned_;
  std::map<std::string, Entry, std::less<>> entries_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> busy_names_ ABSL_GUARDED_BY(mutex_);  // Being loaded or unloaded.
  // Models whose last lease is not back.
  std::set<const ServedModel*> leased_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace structattn::engine

#endif  // STRUCTATTN_SERVER_ENGINE_MODEL_REGISTRY_H_
