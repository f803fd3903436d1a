#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace asymserve {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", or what the template knows
  std::string content;
};

struct ChatTemplateOptions {
  bool add_generation_prompt = true;  // end with the opening of the assistant's turn
  std::string bos_token, eos_token;   // values of the template's variables of these names
  /// What the template's strftime_now() formats, as localtime() gives it. Without it that function
  /// is undefined, and templates that ask first use a date of their own.
  std::optional<std::tm> local_time;
};

/// A model's chat template in a subset of Jinja 2 (text/chat_template.cc lists it). Immutable; any
/// thread.
class ChatTemplate {
 public:
  /// InvalidArgument names the construct and its line when the source uses one outside the subset.
  static absl::StatusOr<ChatTemplate> Parse(std::string_view source);
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// InvalidArgument carries the text of the template's own raise_exception behind
  /// "chat template: ", or what failed and where. Bounded in steps and output, so that no template
  /// runs for ever.
  absl::StatusOr<std::string> Render(std::span<const ChatMessage> messages,
                                     const ChatTemplateOptions& options) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace asymserve
