#include "server/calibrate_command.h"

#include <algorithm>
#include <filesystem>
#include <ostream>
#include <system_error>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/kv/layout.h"
#include "server/calibration_mixture.h"
#include "server/output_path.h"
#include "server/progress_line.h"
#include "server/version.h"

namespace asymserve {
namespace {

constexpr int32_t kQuickPassageTokens = 576;

std::string Describe(const CalibrationOptions& options) {
  std::string text = absl::StrCat(
      "asymserve ", std::string(kVersion), " calibrate, seed ", options.search.seed, ", rounds ",
      options.search.rounds, ", copy weight ", options.search.copy_weight, ", passages of ",
      options.passage_tokens, " tokens, of each text ", options.train_passages, " to train, ",
      options.search_passages, " to search, ", options.verify_passages, " to verify; texts:");
  for (const TextSource& source : options.texts) {
    const std::string name = std::filesystem::path(source.path).filename().string();
    absl::StrAppend(&text, " ", name, "@", source.offset);
  }
  return text;
}

void WriteSummary(const KvProfile& profile, std::ostream& out) {
  for (const KvProfileTier& tier : profile.tiers) {
    const auto scheme = TierScheme(profile, tier.name);
    if (!scheme.ok()) continue;
    const KvLayout layout(profile.shape, *scheme);
    const auto wide = std::count_if(tier.items.begin(), tier.items.end(), [](const KvItem& item) {
      return item.codec == KvCodec::kInt8;
    });
    out << tier.name << ": " << layout.sealed_bits() << " bits sealed, "
        << layout.EffectiveBits(4096) << " at 4,096 tokens, " << wide << " heads in 8 bits";
    for (const KvLoss& loss : tier.losses) {
      out << "; " << loss.text << ": KL " << loss.mean_kl << ", copy " << loss.copy_loss;
    }
    out << '\n';
  }
}

}  // namespace

void AddCalibrateOptions(CLI::App& command, CalibrateArguments& arguments) {
  command
      .add_option("--text", arguments.texts,
                  "UTF-8 text from a character on, or .jsonl; several, of many kinds; default: the "
                  "mixture that comes with the project")
      ->type_name("FILE[@OFFSET]")
      ->take_all();
  command.add_option("--mixture", arguments.mixture, "a folder like config/calibration")
      ->type_name("FOLDER");
  command.add_option("--out", arguments.out_path, "the profile to write")
      ->type_name("FILE")
      ->required();
  command.add_option("--budget", arguments.budget,
                     "bits per element of old pages, for one tier named custom; default: the tiers "
                     "light, balanced and dense");
  command.add_option("--max-kl", arguments.max_kl,
                     "the cheapest tier whose KL on text kept apart is at most this, named custom");
  command
      .add_option("--copy-weight", arguments.copy_weight,
                  "of the loss on a passage read again against that on new text")
      ->capture_default_str();
  command.add_option("--rounds", arguments.rounds, "times that a tier is measured and improved")
      ->capture_default_str();
  command.add_option("--seed", arguments.seed, "of everything random")->capture_default_str();
  command.add_flag("--quick", arguments.quick, "shorter texts: faster, a worse code");
}

absl::StatusOr<CalibrationOptions> ReadCalibrationOptions(const CalibrateArguments& arguments,
                                                          const Config& config) {
  CalibrationOptions options;
  options.model_path = config.model.path;
  for (const std::string& text : arguments.texts) {
    ASYMSERVE_ASSIGN_OR_RETURN(TextSource source, ParseTextSource(text));
    options.texts.push_back(std::move(source));
  }
  if (!arguments.mixture.empty()) {
    if (!options.texts.empty()) {
      return absl::InvalidArgumentError("mixture: excludes --text");
    }
    ASYMSERVE_ASSIGN_OR_RETURN(options.texts, ReadMixture(arguments.mixture));
  } else if (options.texts.empty()) {
    ASYMSERVE_ASSIGN_OR_RETURN(options.texts, FindMixture(MixtureFolders()));
  }
  options.search.rounds = arguments.rounds;
  options.search.seed = arguments.seed;
  options.search.copy_weight = arguments.copy_weight;
  if (arguments.quick) {
    options.passage_tokens = kQuickPassageTokens;
    options.train_passages = 1;
  }
  options.max_kl = arguments.max_kl;
  if (!arguments.out_path.empty()) options.journal_path = arguments.out_path + ".unfinished";
  if (arguments.budget != 0 && arguments.max_kl != 0) {
    return absl::InvalidArgumentError("budget: excludes --max-kl");
  }
  if (arguments.budget != 0) options.tiers = {{.name = "custom", .bits = arguments.budget}};
  if (arguments.max_kl != 0) options.tiers = {{.name = "custom"}};
  ASYMSERVE_RETURN_IF_ERROR(CheckCalibrationOptions(options));
  if (arguments.out_path.empty()) return absl::InvalidArgumentError("out: no file given");
  ASYMSERVE_RETURN_IF_ERROR(CheckOutputPath("out", arguments.out_path));
  return options;
}

absl::Status RunCalibrate(const CalibrationOptions& options, const std::string& out_path,
                          const EngineSection& engine, const BackendFactory& make_backend,
                          std::ostream& out) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, make_backend(engine));
  absl::StatusOr<KvProfile> profile;
  {
    ProgressLine line;
    profile = Calibrate(*backend, options, [&line](const std::string& what, double fraction) {
      line.Show(what, fraction);
    });
  }
  if (!profile.ok()) return profile.status();
  profile->description = Describe(options);
  ASYMSERVE_RETURN_IF_ERROR(WriteProfile(*profile, out_path));
  std::error_code ignored;
  std::filesystem::remove(options.journal_path, ignored);
  WriteSummary(*profile, out);
  return absl::OkStatus();
}

}  // namespace asymserve
