// Implements server.h.
#include "server/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace structattn::rpc {
namespace {

constexpr int kMaxReceiveBytes = 16 << 20;
constexpr int kMaxConcurrentStreams = 1024;  // Per connection.
constexpr size_t kMaxBufferBytes = size_t{1} << 30;
constexpr int kKeepaliveTimeMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
constexpr int kMinPingIntervalMs = 10'000;
// How long cancelled streams have to reach their clients.
constexpr absl::Duration kCancelGrace = absl::Seconds(2);

constexpr char kInferenceName[] = "structattn.v1.InferenceService";

// Why the address could not be bound: gRPC only says that it could not.
absl::Status DiagnoseBind(const RpcServerOptions& options) {
  const std::string given =
      absl::StrCat("cannot listen on ", options.host, ":", options.port, ": ");
  const std::string host(absl::StripSuffix(absl::StripPrefix(options.host, "["), "]"));
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* addresses = nullptr;
  const int lookup =
      getaddrinfo(host.c_str(), std::to_string(options.port).c_str(), &hints, &addresses);
  if (lookup != 0) return absl::UnavailableError(absl::StrCat(given, gai_strerror(lookup)));
  int error = 0;
  for (const addrinfo* address = addresses; address != nullptr; address = address->ai_next) {
    const int fd = socket(address->ai_family, SOCK_STREAM, 0);
    if (fd < 0) continue;
    if (bind(fd, address->ai_addr, address->ai_addrlen) != 0) error = errno;
    close(fd);
    if (error != 0) break;
  }
  freeaddrinfo(addresses);
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(absl::StrCat(given, "the port is taken"));
  }
  return absl::UnavailableError(absl::StrCat(
      given, error == 0 ? "refused by the system" : std::generic_category().message(error)));
}

void ConfigureBuilder(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder->SetResourceQuota(grpc::ResourceQuota("structattn").Resize(kMaxBufferBytes));
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentStreams);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
}

void InstallReflectionOnce() {
  static const bool installed = [] {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  static_cast<void>(installed);
}

}  // namespace

RpcServer::RpcServer(const RpcServerOptions& options, engine::ModelRegistry* registry)
    : registry_(registry),
      door_(registry, options.limits),
      inference_(&door_),
      models_(registry, options.model_root) {
  health_.Set(kInferenceName, false);
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            engine::ModelRegistry* registry) {
  InstallReflectionOnce();
  std::unique_ptr<RpcServer> server(new RpcServer(options, registry));
  grpc::ServerBuilder builder;
  ConfigureBuilder(&builder);
  int port = 0;
  builder.AddListeningPort(absl::StrCat(options.host, ":", options.port),
                           grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&server->health_);
  builder.RegisterService(&server->inference_);
  builder.RegisterService(&server->models_);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) return DiagnoseBind(options);
  server->address_ = absl::StrCat(options.host, ":", port);
  registry->SetHealthHook([server = server.get()](const std::string& name, bool serving) {
    server->SetModelHealth(name, serving);
  });
  return server;
}

RpcServer::~RpcServer() {
  if (server_ == nullptr) return;
  health_.EndWatches();
  door_.CancelCalls();
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  models_.Stop();
  registry_->SetHealthHook(nullptr);
}

void RpcServer::Open() {
  door_.Open();
  absl::MutexLock lock(&health_mutex_);
  open_ = true;
  UpdateHealth();
}

void RpcServer::AnnounceDrain() {
  absl::MutexLock lock(&health_mutex_);
  open_ = false;
  UpdateHealth();
}

bool RpcServer::Drain(absl::Time deadline) {
  AnnounceDrain();
  door_.Close();
  inference_.EndBatches(door_.CheckOpen());
  const bool done = registry_->Drain(deadline);
  if (!done) {
    door_.CancelCalls();
    registry_->Drain(absl::Now() + kCancelGrace);
  }
  health_.EndWatches();
  server_->Shutdown(absl::ToChronoTime(std::max(deadline, absl::Now() + kCancelGrace)));
  return done;
}

void RpcServer::SetModelHealth(const std::string& name, bool serving) {
  absl::MutexLock lock(&health_mutex_);
  if (serving) {
    serving_models_.insert(name);
  } else {
    serving_models_.erase(name);
    health_.Set(absl::StrCat("model/", name), false);
  }
  UpdateHealth();
}

void RpcServer::UpdateHealth() {
  const bool serving = open_ && !serving_models_.empty();
  for (const std::string& name : serving_models_) health_.Set(absl::StrCat("model/", name), open_);
  health_.Set(kInferenceName, serving);
  health_.Set("", serving);
}

}  // namespace structattn::rpc
