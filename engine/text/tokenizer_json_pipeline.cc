#include "engine/text/tokenizer_json_pipeline.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/json_fields.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/utf8.h"

namespace asymserve {
namespace {

using nlohmann::json;

constexpr std::string_view kSpacePiece = "\xE2\x96\x81";  // U+2581

absl::Status Unsupported(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(what), " is not supported"));
}

absl::StatusOr<std::string_view> TypeOf(const json& step) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view type, StringField(step, "type", ""));
  if (type.empty()) return absl::InvalidArgumentError("a step has no 'type'");
  return type;
}

/// The steps of a field: none, one, or those of a Sequence (its list is field `list`).
absl::StatusOr<std::vector<const json*>> Steps(const json& root, const char* key,
                                               const char* list) {
  std::vector<const json*> steps;
  const json* const field = FindField(root, key);
  if (field == nullptr) return steps;
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(*field));
  if (type != "Sequence") {
    steps.push_back(field);
    return steps;
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const json* const array, ArrayField(*field, list));
  for (const json& step : *array) steps.push_back(&step);
  return steps;
}

/// Non-ASCII characters as \x{HEX} and line ends as \r and \n, as PreTokenizerOfStages wants it.
std::string CanonicalRegex(std::string_view regex) {
  std::string canonical;
  while (!regex.empty()) {
    const uint8_t length = ReadUtf8(regex).length;
    if (regex[0] == '\r' || regex[0] == '\n') {
      canonical += regex[0] == '\r' ? "\\r" : "\\n";
    } else if (length == 1) {
      canonical += regex[0];
    } else {
      uint32_t code_point = static_cast<uint8_t>(regex[0]) & (0x7Fu >> length);
      for (uint8_t i = 1; i < length; ++i) {
        code_point = (code_point << 6) | (static_cast<uint8_t>(regex[i]) & 0x3Fu);
      }
      std::string digits = absl::StrCat(absl::Hex(code_point));
      for (char& digit : digits)
        digit = digit >= 'a' ? static_cast<char>(digit - 'a' + 'A') : digit;
      absl::StrAppend(&canonical, "\\x{", digits, "}");
    }
    regex.remove_prefix(length);
  }
  return canonical;
}

absl::StatusOr<std::string> SplitStage(const json& step) {
  const json* const pattern = FindField(step, "pattern");
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view regex,
                             StringField(pattern == nullptr ? step : *pattern, "Regex", ""));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view behavior, StringField(step, "behavior", ""));
  ASYMSERVE_ASSIGN_OR_RETURN(const bool invert, BoolField(step, "invert", false));
  if (regex.empty()) return Unsupported("a Split without a 'Regex'");
  // To remove what does not match is to isolate, for regular expressions that match everything.
  if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert)) {
    return Unsupported(absl::StrCat("Split with behavior '", std::string(behavior), "', invert ",
                                    invert ? "true" : "false"));
  }
  return CanonicalRegex(regex);
}

/// A pre-tokenizer's step as PreTokenizerOfStages takes it.
absl::StatusOr<std::string> Stage(const json& step) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(step));
  if (type == "Split") return SplitStage(step);
  if (type == "Digits") {
    ASYMSERVE_ASSIGN_OR_RETURN(const bool single, BoolField(step, "individual_digits", false));
    return std::string(single ? "<Digits>" : "<Digits runs>");
  }
  if (type == "Punctuation") {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view behavior,
                               StringField(step, "behavior", "Isolated"));
    if (behavior == "Contiguous") return std::string("<Punctuation runs>");
    return Unsupported(absl::StrCat("Punctuation with behavior '", std::string(behavior), "'"));
  }
  if (type == "ByteLevel") {
    ASYMSERVE_ASSIGN_OR_RETURN(const bool prefix, BoolField(step, "add_prefix_space", true));
    ASYMSERVE_ASSIGN_OR_RETURN(const bool words, BoolField(step, "use_regex", true));
    if (prefix) return Unsupported("ByteLevel with add_prefix_space");
    return std::string(words ? "<ByteLevel words>" : "<ByteLevel>");
  }
  return Unsupported(absl::StrCat("step '", std::string(type), "'"));
}

absl::Status ReadStages(const std::vector<const json*>& steps, TokenizerSpec& spec) {
  std::vector<std::string> stages;
  for (const json* const step : steps) {
    ASYMSERVE_ASSIGN_OR_RETURN(std::string stage, Stage(*step));
    stages.push_back(std::move(stage));
  }
  const auto name = PreTokenizerOfStages(stages);
  if (!name) {
    std::string all;
    for (const std::string& stage : stages) {
      absl::StrAppend(&all, all.empty() ? "" : ", ", stage.substr(0, 200));
    }
    return Unsupported(absl::StrCat("the combination [", all, "]"));
  }
  spec.pre_tokenizer = std::string(*name);
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const json& step, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(step));
  if (type != "Metaspace") return Unsupported(absl::StrCat("step '", std::string(type), "'"));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view replacement,
                             StringField(step, "replacement", kSpacePiece));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view scheme,
                             StringField(step, "prepend_scheme", "always"));
  ASYMSERVE_ASSIGN_OR_RETURN(const bool split, BoolField(step, "split", true));
  if (split) return Unsupported("Metaspace with split");
  if (replacement != kSpacePiece) return Unsupported("Metaspace with another replacement");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return Unsupported(absl::StrCat("prepend_scheme '", std::string(scheme), "'"));
  }
  spec.add_space_prefix = scheme != "never";
  spec.prefix_first_only = scheme == "first";
  spec.prefix_unless_space = true;
  return absl::OkStatus();
}

/// One normalizer's step; sets `replaces_space` at the one that turns spaces into U+2581.
absl::Status ReadNormalizerStep(const json& step, TokenizerSpec& spec, bool& replaces_space) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(step));
  const bool is_pieces = spec.kind == TokenizerSpec::Kind::kSentencePiece;
  if (type == "NFC") {
    spec.normalize_nfc = true;
    return absl::OkStatus();
  }
  if (type == "Prepend" && is_pieces) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view text, StringField(step, "prepend", ""));
    if (text != kSpacePiece) return Unsupported("Prepend of anything but U+2581");
    spec.add_space_prefix = true;
    return absl::OkStatus();
  }
  if (type == "Replace" && is_pieces) {
    const json* const pattern = FindField(step, "pattern");
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view from,
                               StringField(pattern == nullptr ? step : *pattern, "String", ""));
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view to, StringField(step, "content", ""));
    if (from != " " || to != kSpacePiece) return Unsupported("Replace other than ' ' to U+2581");
    replaces_space = true;
    return absl::OkStatus();
  }
  return Unsupported(absl::StrCat("step '", std::string(type), "'"));
}

absl::StatusOr<int32_t> IdOfToken(const TokenizerSpec& spec, std::string_view token) {
  const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), token);
  if (found == spec.tokens.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("token '", std::string(token), "' is not in the vocabulary"));
  }
  return static_cast<int32_t>(found - spec.tokens.begin());
}

/// "single" of a TemplateProcessing: at most one special token on either side of the text.
absl::Status ReadTemplate(const json& step, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const json* const parts, ArrayField(step, "single"));
  bool behind_text = false;
  for (const json& part : *parts) {
    if (FindField(part, "Sequence") != nullptr && !behind_text) {
      behind_text = true;
      continue;
    }
    const json* const special = FindField(part, "SpecialToken");
    bool& adds = behind_text ? spec.add_eos : spec.add_bos;
    if (special == nullptr || adds) return Unsupported("this 'single' of TemplateProcessing");
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view token, StringField(*special, "id", ""));
    ASYMSERVE_ASSIGN_OR_RETURN(behind_text ? spec.eos : spec.bos, IdOfToken(spec, token));
    adds = true;
  }
  if (!behind_text) return Unsupported("a TemplateProcessing without the text");
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTextSteps(const json& root, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto normalizers, Steps(root, "normalizer", "normalizers"));
  spec.normalize_nfc = false;
  bool replaces_space = false;
  for (const json* const step : normalizers) {
    ASYMSERVE_RETURN_IF_ERROR(
        Annotate(ReadNormalizerStep(*step, spec, replaces_space), "normalizer"));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const auto steps, Steps(root, "pre_tokenizer", "pretokenizers"));
  if (spec.kind == TokenizerSpec::Kind::kByteLevelBpe) {
    return Annotate(ReadStages(steps, spec), "pre_tokenizer");
  }
  if (steps.empty() && replaces_space) return absl::OkStatus();
  if (steps.size() != 1 || replaces_space) {
    return Unsupported("pre_tokenizer: what happens to spaces");
  }
  return Annotate(ReadMetaspace(*steps[0], spec), "pre_tokenizer");
}

absl::Status ReadPostProcessor(const json& root, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto steps, Steps(root, "post_processor", "processors"));
  for (const json* const step : steps) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view type, TypeOf(*step));
    if (type == "ByteLevel") continue;  // only trims offsets
    if (type != "TemplateProcessing") {
      return Unsupported(absl::StrCat("post_processor: step '", std::string(type), "'"));
    }
    ASYMSERVE_RETURN_IF_ERROR(Annotate(ReadTemplate(*step, spec), "post_processor"));
  }
  return absl::OkStatus();
}

}  // namespace asymserve
