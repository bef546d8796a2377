// `structattn models`: what the server has loaded.
#include <cinttypes>
#include <cstdio>

#include "client/cli/commands.h"
#include "client/cli/files.h"

namespace structattn::client {
namespace {

void PrintTable(const v1::ListModelsResponse& response) {
  std::printf("%-20s %-8s %-9s %-8s %10s %12s %8s\n", "NAME", "ARCH", "DTYPE", "DEVICE", "CONTEXT",
              "PARAMETERS", "LAYERS");
  for (const v1::Model& model : response.models()) {
    std::printf("%-20s %-8s %-9s %-8s %10d %12" PRId64 " %8d\n", model.name().c_str(),
                model.architecture().c_str(), model.dtype().c_str(), model.device().c_str(),
                model.context_length(), model.parameters(), model.layers());
  }
}

ExitCode RunModels(Session& session) {
  const Client client(session.options.server);
  grpc::ClientContext context;
  const Interrupt::Guard guard(session.interrupt, context);
  v1::ListModelsResponse response;
  const grpc::Status status = client.ListModels(context, &response);
  if (session.interrupt.raised()) return ExitCode::kInterrupted;
  if (!status.ok()) {
    const ErrorText error = DescribeError(status);
    ReportError(error, {});
    if (session.options.json) std::puts(Line(ErrorJson(nullptr, error)).c_str());
    return ExitCodeFor(status);
  }
  if (!session.options.json) {
    PrintTable(response);
    return ExitCode::kOk;
  }
  Json models = Json::array();
  for (const v1::Model& model : response.models()) models.push_back(ModelJson(model));
  std::puts(Line({{"models", models}}).c_str());
  return ExitCode::kOk;
}

}  // namespace

void AddModelsCommand(CLI::App& app, Session& session) {
  CLI::App* command = app.add_subcommand("models", "List the models that the server has loaded");
  command->callback([&session] { session.exit_code = RunModels(session); });
}

}  // namespace structattn::client
