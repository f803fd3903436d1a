// asymserve: the server and its offline commands. Exit statuses are listed in server/serve.h.

#include <cstdio>
#include <exception>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

#include "config/config.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/base/log.h"
#include "engine/base/status.h"
#include "engine/runtime/host_memory.h"
#include "server/calibrate_command.h"
#include "server/quality_command.h"
#include "server/serve.h"
#include "server/tokenize_command.h"
#include "server/version.h"

namespace asymserve {
namespace {

struct CommonOptions {
  std::string config_path;
  std::vector<std::string> overrides;
  std::string model_path;
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

absl::StatusOr<Config> ReadConfig(const CommonOptions& options) {
  ASYMSERVE_ASSIGN_OR_RETURN(Config config, LoadConfig(options.config_path));
  for (const std::string& assignment : options.overrides) {
    ASYMSERVE_RETURN_IF_ERROR(ApplyOverride(config, assignment));
  }
  if (!options.model_path.empty()) config.model.path = options.model_path;
  ASYMSERVE_RETURN_IF_ERROR(ValidateConfig(config));
  if (config.model.path.empty()) {
    return absl::InvalidArgumentError("model.path: is required (--model FILE)");
  }
  return config;
}

ExitStatus UsageError(const absl::Status& status) {
  std::cerr << "asymserve: " << std::string(status.message()) << '\n';
  return kExitUsage;
}

LogLevel ToLogLevel(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warn") return LogLevel::kWarn;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  return LogLevel::kInfo;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const EngineSection& options) {
  CpuOptions cpu;
  cpu.threads = options.threads > 0 ? options.threads : AvailableCores();
  if (options.isa == "portable") cpu.isa = Isa::kPortable;
  if (options.isa == "avx2") cpu.isa = Isa::kAvx2;
  if (options.isa == "avx512") cpu.isa = Isa::kAvx512;
  return MakeCpuBackend(cpu);
}

ExitStatus RunServe(const CommonOptions& options) {
  const absl::StatusOr<Config> config = ReadConfig(options);
  if (!config.ok()) return UsageError(config.status());
  InitLog(ToLogLevel(config->log.level),
          config->log.format == "json" ? LogFormat::kJson : LogFormat::kText);
  return Serve(*config, MakeBackend);
}

ExitStatus RunTokenizeCommand(const CommonOptions& common, TokenizeOptions options,
                              bool text_given) {
  const absl::StatusOr<Config> config = ReadConfig(common);
  if (!config.ok()) return UsageError(config.status());
  options.model_path = config->model.path;
  if (!text_given) {
    options.text.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  }
  const absl::Status status = RunTokenize(options, std::cout);
  if (status.ok()) return kExitOk;
  std::cerr << "asymserve: " << std::string(status.message()) << '\n';
  return kExitFailure;
}

ExitStatus RunQualityCommand(CommonOptions common, const QualityArguments& arguments) {
  if (arguments.threads != 0) {
    common.overrides.push_back("engine.threads=" + std::to_string(arguments.threads));
  }
  const absl::StatusOr<Config> config = ReadConfig(common);
  if (!config.ok()) return UsageError(config.status());
  const absl::StatusOr<QualityOptions> options = ReadQualityOptions(arguments, *config);
  if (!options.ok()) return UsageError(options.status());
  const absl::Status status =
      RunQuality(*options, arguments.json_path, config->engine, MakeBackend, std::cout);
  if (status.ok()) return kExitOk;
  std::cerr << "asymserve: " << std::string(status.message()) << '\n';
  return kExitFailure;
}

void AddQualityOptions(CLI::App& command, QualityArguments& arguments) {
  command.add_option("--schemes", arguments.schemes, "KV schemes, as exact,kivi-2,fit-2/2")
      ->type_name("NAME,...")
      ->delimiter(',')
      ->required();
  command.add_option("--text", arguments.texts, "UTF-8 text from a character on, or .jsonl")
      ->type_name("FILE[@OFFSET]")
      ->take_all()
      ->required();
  command.add_option("--profile", arguments.profile, "whose tiers --schemes may name, too")
      ->type_name("FILE");
  command.add_option("--tokens", arguments.tokens, "tokens of each text")->capture_default_str();
  command.add_option("--from", arguments.from, "first position that counts")->capture_default_str();
  command.add_flag("--copy", arguments.copy, "also read the first half of each text twice");
  command.add_option("--threads", arguments.threads, "short for --set engine.threads=N");
  command.add_option("--json", arguments.json_path, "write the table as JSON")->type_name("FILE");
}

ExitStatus RunCalibrateCommand(CommonOptions common, const CalibrateArguments& arguments) {
  if (arguments.threads != 0) {
    common.overrides.push_back("engine.threads=" + std::to_string(arguments.threads));
  }
  const absl::StatusOr<Config> config = ReadConfig(common);
  if (!config.ok()) return UsageError(config.status());
  absl::StatusOr<CalibrationOptions> options = ReadCalibrationOptions(arguments, *config);
  if (!options.ok()) return UsageError(options.status());
  options->threads = config->engine.threads > 0 ? config->engine.threads : AvailableCores();
  const absl::Status status =
      RunCalibrate(*options, arguments.out_path, config->engine, MakeBackend, std::cout);
  if (status.ok()) return kExitOk;
  std::cerr << "asymserve: " << std::string(status.message()) << '\n';
  return kExitFailure;
}

void AddCalibrateOptions(CLI::App& command, CalibrateArguments& arguments) {
  command
      .add_option("--text", arguments.texts,
                  "UTF-8 text from a character on, or .jsonl; several, of many kinds")
      ->type_name("FILE[@OFFSET]")
      ->take_all()
      ->required();
  command.add_option("--out", arguments.out_path, "the profile to write")
      ->type_name("FILE")
      ->required();
  command.add_option("--budget", arguments.budget,
                     "bits per element of old pages, for one tier named custom; default: the tiers "
                     "light, balanced and dense");
  command
      .add_option("--search-texts", arguments.search_texts,
                  "how many of the texts, the first ones, the search measures")
      ->capture_default_str();
  command.add_option("--rounds", arguments.rounds, "times that every item is measured")
      ->capture_default_str();
  command.add_option("--seed", arguments.seed, "of everything random")->capture_default_str();
  command.add_flag("--quick", arguments.quick, "shorter texts: faster, a worse code");
  command.add_option("--threads", arguments.threads, "short for --set engine.threads=N");
}

int Main(int argc, char** argv) {
  CLI::App app("AsymServe: a gRPC inference server for large language models");
  app.require_subcommand(1);
  CommonOptions common;
  CLI::App* serve = app.add_subcommand("serve", "serve a model until SIGTERM or SIGINT");
  AddCommonOptions(*serve, common);

  CLI::App* tokenize = app.add_subcommand("tokenize", "print the token ids of a text");
  AddCommonOptions(*tokenize, common);
  TokenizeOptions options;
  bool no_special = false;
  CLI::Option* text = tokenize->add_option("text", options.text, "the text; default: stdin");
  tokenize->add_flag("--no-special", no_special, "do not add the begin-of-text token");
  tokenize->add_flag("--parse-special", options.parse_special, "read control tokens in the text");
  tokenize->add_flag("--pieces", options.pieces, "one id and its piece a line");

  CLI::App* quality =
      app.add_subcommand("quality", "what KV schemes cost: KL against exact on packed pages");
  AddCommonOptions(*quality, common);
  QualityArguments quality_arguments;
  AddQualityOptions(*quality, quality_arguments);

  CLI::App* calibrate =
      app.add_subcommand("calibrate", "learn a model's KV code and write its profile");
  AddCommonOptions(*calibrate, common);
  CalibrateArguments calibrate_arguments;
  AddCalibrateOptions(*calibrate, calibrate_arguments);

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
  if (tokenize->parsed()) {
    options.add_special = !no_special;
    return RunTokenizeCommand(common, options, text->count() > 0);
  }
  if (quality->parsed()) return RunQualityCommand(common, quality_arguments);
  if (calibrate->parsed()) return RunCalibrateCommand(common, calibrate_arguments);
  return RunServe(common);
}

}  // namespace
}  // namespace asymserve

int main(int argc, char** argv) {
  try {
    return asymserve::Main(argc, argv);
  } catch (const std::exception& error) {  // CLI11 and the standard streams throw
    std::fprintf(stderr, "asymserve: %s\n", error.what());
    return asymserve::kExitFailure;
  }
}
