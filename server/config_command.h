#pragma once

#include <ostream>

#include "absl/status/status.h"

#include "config/config.h"
#include "config/config_source.h"

namespace CLI {
class App;
}

namespace asymserve {

/// The command line of `asymserve config check`, as written.
struct ConfigCheckArguments {
  bool no_files = false;  // the files that it names are elsewhere
};

/// `arguments` outlives the parsing.
void AddConfigCheckOptions(CLI::App& command, ConfigCheckArguments& arguments);

/// `asymserve config check`, of a configuration that was read from `source` and is valid: reads the
/// profile that it names, checks kv.scheme against it, reads the files of TLS and API keys, and
/// writes "FILE: ok" and what was not checked to `out`. Errors begin with the file and line that
/// name what is wrong.
absl::Status RunConfigCheck(const ConfigCheckArguments& arguments, const ConfigSource& source,
                            const Config& config, std::ostream& out);

/// `asymserve config show`: every option with its value, as YAML.
absl::Status RunConfigShow(const Config& config, std::ostream& out);

/// `asymserve config schema`.
absl::Status RunConfigSchema(std::ostream& out);

}  // namespace asymserve
