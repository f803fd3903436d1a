#include "tools/client/admin_command.h"

#include <algorithm>

#include "asymserve/v1/admin.grpc.pb.h"

#include "tools/client/call_options.h"
#include "tools/client/exit_status.h"
#include "tools/client/print_message.h"

namespace asymserve::client {
namespace {

using Stub = v1::Admin::Stub;

template <typename Request, typename Response>
bool Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
          const Connection& connection, const Request& request, Response& response) {
  const auto stub = v1::Admin::NewStub(connection.Connect());
  grpc::ClientContext context;
  connection.Prepare(context);
  const grpc::Status status = ((*stub).*method)(&context, request, &response);
  if (status.ok()) {
    PrintMessage(response);
  } else {
    PrintError(status);
  }
  return status.ok();
}

bool Reload(const Connection& connection) {
  v1::ReloadResponse response;
  if (!Call(&Stub::Reload, connection, v1::ReloadRequest(), response)) return false;
  return std::all_of(response.parts().begin(), response.parts().end(),
                     [](const v1::ReloadResponse::Part& part) { return part.error().empty(); });
}

bool Run(const std::string& name, const AdminOptions& options) {
  const Connection& connection = options.connection;
  if (name == "reload") return Reload(connection);
  if (name == "drain") {
    v1::DrainResponse response;
    return Call(&Stub::Drain, connection, v1::DrainRequest(), response);
  }
  if (name == "log-level") {
    v1::SetLogLevelRequest request;
    request.set_level(options.level);
    v1::SetLogLevelResponse response;
    return Call(&Stub::SetLogLevel, connection, request, response);
  }
  if (name == "drop-prefix-cache") {
    v1::DropPrefixCacheResponse response;
    return Call(&Stub::DropPrefixCache, connection, v1::DropPrefixCacheRequest(), response);
  }
  v1::GetStatusResponse response;
  return Call(&Stub::GetStatus, connection, v1::GetStatusRequest(), response);
}

}  // namespace

CLI::App& AddAdminCommand(CLI::App& app, AdminOptions& options) {
  CLI::App* const admin = app.add_subcommand("admin", "for who runs the server: its admin.address");
  admin->require_subcommand(1);
  admin->add_subcommand("status", "what the server is doing");
  admin->add_subcommand("drain", "finish what runs and exit, as SIGTERM");
  admin->add_subcommand("reload", "read files and the configuration again, as SIGHUP");
  CLI::App* const level = admin->add_subcommand("log-level", "until the next reload");
  level->add_option("level", options.level, "debug, info, warn, error or off")->required();
  admin->add_subcommand("drop-prefix-cache", "forget the prompts that no sequence holds");
  options.connection.address = "127.0.0.1:50052";
  for (CLI::App* const command : admin->get_subcommands({})) {
    AddConnectionOptions(*command, options.connection);
    command
        ->add_option("--timeout", options.connection.timeout_seconds,
                     "deadline of the call in seconds")
        ->check(CLI::Range(0.0, 1e6));
  }
  return *admin;
}

int Admin(const CLI::App& command, const AdminOptions& options) {
  return Run(command.get_subcommands().front()->get_name(), options) ? kExitOk : kExitFailed;
}

}  // namespace asymserve::client
