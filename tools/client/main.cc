// asymserve-client: calls a server from the terminal. Exit statuses: exit_status.h.

#include <cstdio>
#include <exception>
#include <iostream>
#include <iterator>

#include "tools/client/admin_command.h"
#include "tools/client/commands.h"
#include "tools/client/exit_status.h"

namespace asymserve::client {
namespace {

int Main(int argc, char** argv) {
  CLI::App app("Calls an AsymServe server");
  app.require_subcommand(1);
  Connection connection;

  CLI::App* complete = app.add_subcommand("complete", "continue a text");
  CompleteOptions complete_options;
  CLI::Option* prompt =
      complete->add_option("prompt", complete_options.prompt, "the text; default: stdin");
  complete->add_flag("--parse-special", complete_options.parse_special,
                     "read control tokens written in the text");
  AddGenerationOptions(*complete, complete_options.generation);

  CLI::App* chat = app.add_subcommand("chat", "talk; without a message one line of stdin a turn");
  ChatOptions chat_options;
  chat->add_option("message", chat_options.message, "one message instead of a conversation");
  chat->add_option("--system", chat_options.system, "the system message");
  AddGenerationOptions(*chat, chat_options.generation);

  CLI::App* health = app.add_subcommand("health", "print whether the server serves");
  std::string service = "asymserve.v1.Inference";
  health->add_option("service", service, "\"\" asks for the process only")->capture_default_str();

  CLI::App* info = app.add_subcommand("info", "print what is loaded, as JSON");
  for (CLI::App* command : {complete, chat, health, info}) {
    AddConnectionOptions(*command, connection);
    command->add_option("--timeout", connection.timeout_seconds, "deadline of a call in seconds")
        ->check(CLI::Range(0.0, 1e6));
  }
  AdminOptions admin_options;
  const CLI::App& admin = AddAdminCommand(app, admin_options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (admin.parsed()) return Admin(admin, admin_options);
  Interrupt interrupt;
  if (health->parsed()) return Health(connection, service);
  if (info->parsed()) return Info(connection);
  if (chat->parsed()) return Chat(connection, chat_options, interrupt);
  if (prompt->count() == 0) {
    complete_options.prompt.assign(std::istreambuf_iterator<char>(std::cin),
                                   std::istreambuf_iterator<char>());
  }
  return Complete(connection, complete_options, interrupt);
}

}  // namespace
}  // namespace asymserve::client

int main(int argc, char** argv) {
  try {
    return asymserve::client::Main(argc, argv);
  } catch (const std::exception& error) {  // CLI11 and the standard streams throw
    std::fprintf(stderr, "asymserve-client: %s\n", error.what());
    return asymserve::client::kExitFailed;
  }
}
