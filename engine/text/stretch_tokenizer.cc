#include "engine/text/stretch_tokenizer.h"

#include <utility>

#include "engine/base/status.h"
#include "engine/text/nfc.h"
#include "engine/text/utf8.h"
#include "engine/text/white_space.h"

namespace asymserve {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 28;  // places in a text are 32 bits wide

std::vector<bool> Flags(const std::vector<int32_t>& ids, size_t vocabulary) {
  std::vector<bool> flags;
  if (!ids.empty()) flags.resize(vocabulary);
  for (const int32_t id : ids) flags[id] = true;
  return flags;
}

}  // namespace

void StretchTokenizer::AddTokenBytes(std::string_view bytes) {
  token_bytes_ += bytes;
  token_ends_.push_back(static_cast<uint32_t>(token_bytes_.size()));
}

void StretchTokenizer::FindSpecialTokens() {
  for (int32_t id = 0; id < vocabulary(); ++id) {
    const bool is_control = IsControl(id);
    if (!is_control && TypeOf(id) != TokenType::kUserDefined) continue;
    if (const std::string_view written = TokenBytes(id); !written.empty()) {
      special_tokens_.Add(written, id, is_control);
    }
  }
  strips_left_ = Flags(spec_.strip_left, spec_.tokens.size());
  strips_right_ = Flags(spec_.strip_right, spec_.tokens.size());
}

std::string_view StretchTokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocabulary()) return {};
  const uint32_t begin = id == 0 ? 0 : token_ends_[id - 1];
  return std::string_view(token_bytes_).substr(begin, token_ends_[id] - begin);
}

absl::StatusOr<std::vector<int32_t>> StretchTokenizer::Encode(std::string_view text,
                                                              const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text has ", text.size(), " bytes, at most ", kMaxTextBytes, " are allowed"));
  }
  if (const size_t valid = ValidUtf8Prefix(text); valid < text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("text is not valid UTF-8 at byte ", valid));
  }
  std::string normalized;
  if (normalizes_nfc_ && !IsSurelyNfc(text)) {
    ASYMSERVE_ASSIGN_OR_RETURN(normalized, NormalizeNfc(text));
    text = normalized;
  }

  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 2);
  if (options.add_special && spec_.add_bos) ids.push_back(spec_.bos);
  for (size_t at = 0; at < text.size();) {
    const auto special = special_tokens_.Find(text, at, options.parse_special);
    std::string_view stretch =
        text.substr(at, special ? special->begin - at : std::string_view::npos);
    const size_t offset = at;
    at += stretch.size();
    if (special) {
      at += special->length;
      if (!strips_left_.empty() && strips_left_[special->id]) {
        stretch = StripTrailingWhiteSpace(stretch);
      }
      if (!strips_right_.empty() && strips_right_[special->id]) {
        at = text.size() - StripLeadingWhiteSpace(text.substr(at)).size();
      }
    }
    if (!stretch.empty()) ASYMSERVE_RETURN_IF_ERROR(EncodeStretch(stretch, offset, ids));
    if (special) ids.push_back(special->id);
  }
  if (options.add_special && spec_.add_eos) ids.push_back(spec_.eos);
  return ids;
}

}  // namespace asymserve
