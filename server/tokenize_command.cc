#include "server/tokenize_command.h"

#include <iterator>

#include "CLI/CLI.hpp"

#include "engine/base/status.h"
#include "engine/runtime/model_loader.h"
#include "engine/text/utf8.h"

namespace asymserve {
namespace {

/// The piece on one line: control characters, backslashes and bytes outside UTF-8 as \xNN.
std::string Printable(std::string_view piece) {
  const bool whole = ValidUtf8Prefix(piece) == piece.size();
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string text;
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || byte == '\\' || (byte >= 0x80 && !whole)) {
      text += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15u]};
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

void AddTokenizeOptions(CLI::App& command, TokenizeArguments& arguments) {
  command.add_option("text", arguments.text, "the text; default: stdin");
  command.add_flag("--no-special", arguments.no_special, "do not add the begin-of-text token");
  command.add_flag("--parse-special", arguments.parse_special, "read control tokens in the text");
  command.add_flag("--pieces", arguments.pieces, "one id and its piece a line");
}

absl::StatusOr<TokenizeOptions> ReadTokenizeOptions(const TokenizeArguments& arguments,
                                                    const Config& config, std::istream& in) {
  TokenizeOptions options;
  options.model_path = config.model.path;
  options.add_special = !arguments.no_special;
  options.parse_special = arguments.parse_special;
  options.pieces = arguments.pieces;
  options.text = arguments.text.has_value() ? *arguments.text
                                            : std::string(std::istreambuf_iterator<char>(in), {});
  return options;
}

absl::Status RunTokenize(const TokenizeOptions& options, std::ostream& out) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<WeightFile> file,
                             OpenWeightFile(options.model_path));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                             Tokenizer::Create(file->tokenizer_spec()));
  EncodeOptions encode;
  encode.add_special = options.add_special;
  encode.parse_special = options.parse_special;
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                             tokenizer->Encode(options.text, encode));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (options.pieces) {
      out << ids[i] << '\t' << Printable(tokenizer->TokenBytes(ids[i])) << '\n';
    } else {
      out << (i == 0 ? "" : " ") << ids[i];
    }
  }
  if (!options.pieces) out << '\n';
  return absl::OkStatus();
}

}  // namespace asymserve
