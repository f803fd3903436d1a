#pragma once

#include <string>

#include "CLI/CLI.hpp"

#include "tools/client/connection.h"

namespace asymserve::client {

struct AdminOptions {
  Connection connection;  // to admin.address
  std::string level;      // of log-level
};

/// `admin` with its sub-commands, one for each method of asymserve.v1.Admin. `options` outlives the
/// parsing.
CLI::App& AddAdminCommand(CLI::App& app, AdminOptions& options);

/// Runs the sub-command that was parsed and prints the response as JSON. The exit status is
/// kExitFailed, too, when a reload failed in part.
int Admin(const CLI::App& command, const AdminOptions& options);

}  // namespace asymserve::client
