// `structattn`, the command line. Parses flags, runs one subcommand, returns its exit code.
#include <CLI/CLI.hpp>

#include "client/cli/commands.h"

namespace structattn::client {
namespace {

int Main(int argc, char** argv) {
  Session session;
  CLI::App app("structattn: structured attention from the command line");
  app.set_version_flag("--version", STRUCTATTN_VERSION);
  app.require_subcommand(1);
  app.fallthrough();  // Common flags may also stand behind the subcommand.
  app.add_option("--server", session.options.server, "Address of the server, HOST:PORT")
      ->envname("STRUCTATTN_SERVER")
      ->capture_default_str();
  app.add_option("--model", session.options.model,
                 "Name of the model; needed only when several are loaded");
  app.add_flag("--json", session.options.json, "Print JSON lines");
  AddGenerateCommand(app, session);
  AddBatchCommand(app, session);
  AddScoreCommand(app, session);
  AddInspectCommand(app, session);
  AddModelsCommand(app, session);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const bool asked = error.get_exit_code() == 0;  // --help, --version.
    app.exit(error);
    return static_cast<int>(asked ? ExitCode::kOk : ExitCode::kUsage);
  }
  return static_cast<int>(session.exit_code);
}

}  // namespace
}  // namespace structattn::client

int main(int argc, char** argv) { return structattn::client::Main(argc, argv); }
