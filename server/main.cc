// asymserve: the server and its offline commands. Exit statuses are listed in server/serve.h.

#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

#include "config/config.h"
#include "config/config_source.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/backend/cuda_library.h"
#include "engine/base/log.h"
#include "engine/base/status.h"
#include "engine/runtime/device_choice.h"
#include "engine/runtime/host_memory.h"
#include "server/api_key_command.h"
#include "server/bus_error.h"
#include "server/calibrate_command.h"
#include "server/config_command.h"
#include "server/plan_command.h"
#include "server/quality_command.h"
#include "server/quality_plot_command.h"
#include "server/serve.h"
#include "server/tokenize_command.h"
#include "server/version.h"

namespace asymserve {
namespace {

struct CommonOptions {
  std::string config_path;
  std::vector<std::string> overrides;
  std::string model_path;
  int32_t threads = 0;  // 0: the configuration's
};

void AddCommonOptions(CLI::App& command, CommonOptions& options) {
  command.add_option("--config", options.config_path, "YAML file; config/asymserve.yaml lists all")
      ->type_name("FILE");
  command.add_option("--set", options.overrides, "override one option, as engine.threads=2")
      ->type_name("KEY=VALUE")
      ->take_all();
  command.add_option("--model", options.model_path, "short for --set model.path=FILE")
      ->type_name("FILE");
}

void AddThreadsOption(CLI::App& command, CommonOptions& options) {
  command.add_option("--threads", options.threads, "short for --set engine.threads=N");
}

ConfigSource ToSource(const CommonOptions& options) {
  ConfigSource source = {options.config_path, options.overrides};
  if (!options.model_path.empty()) source.overrides.push_back("model.path=" + options.model_path);
  if (options.threads != 0) {
    source.overrides.push_back("engine.threads=" + std::to_string(options.threads));
  }
  return source;
}

/// `needs_model`: a model.path is required.
absl::StatusOr<Config> ReadConfig(const CommonOptions& options, bool needs_model = true) {
  const ConfigSource source = ToSource(options);
  ASYMSERVE_ASSIGN_OR_RETURN(Config config, ReadSource(source));
  ASYMSERVE_RETURN_IF_ERROR(CheckSource(source, config));
  if (needs_model && config.model.path.empty()) {
    return absl::InvalidArgumentError("model.path: is required (--model FILE)");
  }
  return config;
}

ExitStatus Fail(const absl::Status& status, ExitStatus exit_status) {
  std::cerr << "asymserve: " << std::string(status.message()) << '\n';
  return exit_status;
}

int32_t ThreadsOf(const EngineSection& options) {
  return options.threads > 0 ? options.threads : AvailableCores();
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCpu(const EngineSection& options) {
  CpuOptions cpu;
  cpu.threads = ThreadsOf(options);
  if (options.isa == "portable") cpu.isa = Isa::kPortable;
  if (options.isa == "avx2") cpu.isa = Isa::kAvx2;
  if (options.isa == "avx512") cpu.isa = Isa::kAvx512;
  if (options.isa == "amx") cpu.isa = Isa::kAmx;
  return MakeCpuBackend(cpu);
}

/// By engine.device.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const EngineSection& options) {
  return ChooseDevice(
      options.device, [] { return OpenCudaBackend(CudaLibraryPath()); },
      [&options] { return MakeCpu(options); },
      [](const absl::Status& why) {
        // That there is no GPU is nothing unusual.
        Log(absl::IsNotFound(why) ? LogLevel::kInfo : LogLevel::kWarn, "no_cuda",
            {{"reason", std::string(why.message())}, {"hint", "engine.device is auto: the CPU"}});
      });
}

/// The same for commands that print what was asked for, and no log.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackendQuietly(const EngineSection& options) {
  return ChooseDevice(
      options.device, [] { return OpenCudaBackend(CudaLibraryPath()); },
      [&options] { return MakeCpu(options); },
      [](const absl::Status& why) {
        if (absl::IsNotFound(why)) return;
        std::cerr << "asymserve: on the CPU: " << std::string(why.message()) << '\n';
      });
}

ExitStatus RunServe(const CommonOptions& options) {
  const absl::StatusOr<Config> config = ReadConfig(options);
  if (!config.ok()) return Fail(config.status(), kExitUsage);
  InitLog(ParseLogLevel(config->log.level).value_or(LogLevel::kInfo),
          config->log.format == "json" ? LogFormat::kJson : LogFormat::kText);
  return Serve(*config, ToSource(options), MakeBackend);
}

/// An offline command: `read` makes its options from the configuration (its errors are the user's
/// command line), `run` does the work.
template <typename Read, typename Run>
ExitStatus RunOffline(const CommonOptions& common, Read read, Run run) {
  const absl::StatusOr<Config> config = ReadConfig(common);
  if (!config.ok()) return Fail(config.status(), kExitUsage);
  const auto options = read(*config);
  if (!options.ok()) return Fail(options.status(), kExitUsage);
  const absl::Status status = run(*options, *config);
  return status.ok() ? kExitOk : Fail(status, kExitFailure);
}

ExitStatus RunTokenizeCommand(const CommonOptions& common, const TokenizeArguments& arguments) {
  return RunOffline(
      common,
      [&](const Config& config) { return ReadTokenizeOptions(arguments, config, std::cin); },
      [](const TokenizeOptions& options, const Config&) {
        return RunTokenize(options, std::cout);
      });
}

ExitStatus RunQualityCommand(const CommonOptions& common, const QualityArguments& arguments) {
  return RunOffline(
      common, [&](const Config& config) { return ReadQualityOptions(arguments, config); },
      [&](const QualityOptions& options, const Config& config) {
        return RunQuality(options, arguments.outputs, config.engine, MakeBackendQuietly, std::cout);
      });
}

ExitStatus RunQualityPlotCommand(const QualityPlotArguments& arguments) {
  const absl::Status checked = CheckQualityPlotArguments(arguments);
  if (!checked.ok()) return Fail(checked, kExitUsage);
  const absl::Status status = RunQualityPlot(arguments);
  return status.ok() ? kExitOk : Fail(status, kExitFailure);
}

ExitStatus RunCalibrateCommand(const CommonOptions& common, const CalibrateArguments& arguments) {
  return RunOffline(
      common,
      [&](const Config& config) {
        absl::StatusOr<CalibrationOptions> options = ReadCalibrationOptions(arguments, config);
        if (options.ok()) options->threads = ThreadsOf(config.engine);
        return options;
      },
      [&](const CalibrationOptions& options, const Config& config) {
        return RunCalibrate(options, arguments.out_path, config.engine, MakeCpu, std::cout);
      });
}

ExitStatus RunPlanCommand(const CommonOptions& common, const PlanArguments& arguments) {
  const absl::StatusOr<Config> config = ReadConfig(common, arguments.shapes_path.empty());
  if (!config.ok()) return Fail(config.status(), kExitUsage);
  const absl::StatusOr<PlanCommandOptions> options = ReadPlanOptions(arguments, *config);
  if (!options.ok()) return Fail(options.status(), kExitUsage);
  const absl::Status status = RunPlan(*options, config->engine, MakeBackendQuietly, std::cout);
  return status.ok() ? kExitOk : Fail(status, kExitFailure);
}

struct ConfigCommands {
  CLI::App* check = nullptr;
  CLI::App* show = nullptr;
  CLI::App* schema = nullptr;
};

ConfigCommands AddConfigCommands(CLI::App& app, CommonOptions& common,
                                 ConfigCheckArguments& arguments) {
  CLI::App* config = app.add_subcommand("config", "check or print a configuration");
  config->require_subcommand(1);
  ConfigCommands commands;
  commands.check = config->add_subcommand("check", "what a start would refuse of it, without one");
  AddCommonOptions(*commands.check, common);
  AddConfigCheckOptions(*commands.check, arguments);
  commands.show = config->add_subcommand("show", "print every option with its value, as YAML");
  AddCommonOptions(*commands.show, common);
  commands.schema = config->add_subcommand("schema", "print its JSON schema, for editors");
  return commands;
}

ExitStatus RunConfigCommand(const ConfigCommands& commands, const CommonOptions& common,
                            const ConfigCheckArguments& arguments) {
  const absl::StatusOr<Config> config = ReadConfig(common, false);
  if (!config.ok()) return Fail(config.status(), kExitUsage);
  absl::Status status;
  if (commands.check->parsed()) {
    status = RunConfigCheck(arguments, ToSource(common), *config, std::cout);
  } else if (commands.show->parsed()) {
    status = RunConfigShow(*config, std::cout);
  } else {
    status = RunConfigSchema(std::cout);
  }
  return status.ok() ? kExitOk : Fail(status, kExitFailure);
}

int Main(int argc, char** argv) {
  CLI::App app("AsymServe: a gRPC inference server for large language models");
  app.require_subcommand(1);
  CommonOptions common;
  CLI::App* serve = app.add_subcommand("serve", "serve a model until SIGTERM or SIGINT");
  AddCommonOptions(*serve, common);

  CLI::App* tokenize = app.add_subcommand("tokenize", "print the token ids of a text");
  AddCommonOptions(*tokenize, common);
  TokenizeArguments tokenize_arguments;
  AddTokenizeOptions(*tokenize, tokenize_arguments);

  CLI::App* quality =
      app.add_subcommand("quality", "what KV schemes cost: KL against exact on packed pages");
  AddCommonOptions(*quality, common);
  AddThreadsOption(*quality, common);
  QualityArguments quality_arguments;
  AddQualityOptions(*quality, quality_arguments);

  CLI::App* plot = app.add_subcommand("quality-plot", "one plot of what quality wrote as JSON");
  QualityPlotArguments plot_arguments;
  AddQualityPlotOptions(*plot, plot_arguments);

  CLI::App* calibrate =
      app.add_subcommand("calibrate", "learn a model's KV code and write its profile");
  AddCommonOptions(*calibrate, common);
  AddThreadsOption(*calibrate, common);
  CalibrateArguments calibrate_arguments;
  AddCalibrateOptions(*calibrate, calibrate_arguments);

  CLI::App* plan =
      app.add_subcommand("plan", "how many sequences fit a memory budget, scheme by scheme");
  AddCommonOptions(*plan, common);
  AddThreadsOption(*plan, common);
  PlanArguments plan_arguments;
  AddPlanOptions(*plan, plan_arguments);

  ConfigCheckArguments check_arguments;
  const ConfigCommands config_commands = AddConfigCommands(app, common, check_arguments);

  CLI::App* api_key = app.add_subcommand("api-key", "make a key for server.api_keys_file");
  ApiKeyArguments api_key_arguments;
  AddApiKeyOptions(*api_key, api_key_arguments);

  CLI::App* version = app.add_subcommand("version", "print the version");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (version->parsed()) {
    std::cout << "asymserve " << kVersion << '\n';
    return kExitOk;
  }
  if (api_key->parsed()) {
    const absl::Status status = RunApiKey(api_key_arguments, std::cout, std::cerr);
    if (status.ok()) return kExitOk;
    return Fail(status, absl::IsInvalidArgument(status) ? kExitUsage : kExitFailure);
  }
  if (tokenize->parsed()) return RunTokenizeCommand(common, tokenize_arguments);
  if (quality->parsed()) return RunQualityCommand(common, quality_arguments);
  if (plot->parsed()) return RunQualityPlotCommand(plot_arguments);
  if (calibrate->parsed()) return RunCalibrateCommand(common, calibrate_arguments);
  if (plan->parsed()) return RunPlanCommand(common, plan_arguments);
  if (serve->parsed()) return RunServe(common);
  return RunConfigCommand(config_commands, common, check_arguments);
}

}  // namespace
}  // namespace asymserve

int main(int argc, char** argv) {
  asymserve::ExplainBusErrors(asymserve::kExitFailure);
  try {
    return asymserve::Main(argc, argv);
  } catch (const std::exception& error) {  // CLI11 and the standard streams throw
    std::fprintf(stderr, "asymserve: %s\n", error.what());
    return asymserve::kExitFailure;
  }
}
