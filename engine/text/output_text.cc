#include "engine/text/output_text.h"

#include "engine/text/utf8.h"

namespace asymserve {

OutputText::OutputText(const Tokenizer& tokenizer, const OutputTextOptions& options)
    : tokenizer_(tokenizer),
      include_stop_(options.include_stop),
      skip_special_(options.skip_special),
      min_tokens_(options.min_tokens),
      stops_(options.stop_strings),
      drop_space_(tokenizer.spec().kind == TokenizerSpec::Kind::kSentencePiece &&
                  tokenizer.spec().add_space_prefix && !options.continues_text) {}

std::optional<int> OutputText::Append(int32_t token, std::string& out) {
  ++tokens_;
  if (skip_special_ && tokenizer_.IsControl(token)) return std::nullopt;
  std::string_view bytes = tokenizer_.TokenBytes(token);
  if (bytes.empty()) return std::nullopt;
  if (drop_space_ && bytes.front() == ' ') bytes.remove_prefix(1);
  drop_space_ = false;

  if (stops_.empty() || tokens_ < min_tokens_) {
    AppendUtf8(bytes, pending_bytes_, out);
    return std::nullopt;
  }
  const size_t seen = held_.size();
  AppendUtf8(bytes, pending_bytes_, held_);
  if (const auto match = stops_.Feed(std::string_view(held_).substr(seen))) {
    const size_t end = seen + match->end;
    out.append(held_, 0, include_stop_ ? end : end - match->length);
    held_.clear();
    pending_bytes_.clear();
    return match->index;
  }
  const size_t certain = held_.size() - stops_.held_bytes();
  out.append(held_, 0, certain);
  held_.erase(0, certain);
  return std::nullopt;
}

void OutputText::Finish(std::string& out) {
  out.append(held_);
  held_.clear();
  if (!pending_bytes_.empty()) out.append(kReplacementCharacter);
  pending_bytes_.clear();
}

std::string Decode(const Tokenizer& tokenizer, std::span<const int32_t> ids, bool skip_special) {
  OutputTextOptions options;
  options.skip_special = skip_special;
  OutputText text(tokenizer, options);
  std::string out;
  for (const int32_t id : ids) text.Append(id, out);
  text.Finish(out);
  return out;
}

}  // namespace asymserve
