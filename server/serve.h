#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"

#include "config/config.h"
#include "config/config_source.h"
#include "engine/runtime/model_loader.h"

namespace asymserve {

/// Makes the device that the model runs on.
using BackendFactory =
    std::function<absl::StatusOr<std::unique_ptr<Backend>>(const EngineSection& options)>;

/// Exit statuses of the process; a second signal gives 128 + its number.
enum ExitStatus : int {
  kExitOk = 0,       // asked to stop, and drained; an offline command: done
  kExitFailure = 1,  // the model, its profile, an address or the device failed
  kExitUsage = 2,    // command line or configuration
};

/// Serves until a signal asks to stop or the engine fails. `config` is what `source` gave; SIGHUP
/// has it read again. Called once, from main, before other threads exist.
ExitStatus Serve(const Config& config, const ConfigSource& source,
                 const BackendFactory& make_backend);

}  // namespace asymserve
