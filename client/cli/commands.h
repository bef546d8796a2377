// The subcommands. Each adds itself to the CLI11 app and, when it is the one that is given, leaves
// its exit code in the session. They know nothing of each other.
#ifndef STRUCTATTN_CLIENT_CLI_COMMANDS_H_
#define STRUCTATTN_CLIENT_CLI_COMMANDS_H_

#include <CLI/CLI.hpp>

#include "client/cli/exit_code.h"
#include "client/cli/interrupt.h"
#include "client/cli/options.h"

namespace structattn::client {

// What every command works with. It must outlive the app.
struct Session {
  CommonOptions options;
  Interrupt interrupt;
  ExitCode exit_code = ExitCode::kOk;
};

void AddGenerateCommand(CLI::App& app, Session& session);
void AddBatchCommand(CLI::App& app, Session& session);
void AddScoreCommand(CLI::App& app, Session& session);
void AddInspectCommand(CLI::App& app, Session& session);
void AddModelsCommand(CLI::App& app, Session& session);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_COMMANDS_H_
