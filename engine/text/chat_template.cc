#include "engine/text/chat_template.h"

#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_parser.h"
#include "engine/text/utf8.h"

// The subset of Jinja 2, rendered as Hugging Face's apply_chat_template does: trim_blocks and
// lstrip_blocks on, undefined prints as nothing.
//
//   tags        {{ }} {% %} {# #} with - and +; if/elif/else, for (with if, else, unpacking, break,
//               continue), set (names, unpacking, attributes of a namespace, blocks), macro at the
//               top level, generation
//   literals    strings with Python's escapes, 64-bit integers, floats, lists, tuples, dicts with
//               string keys, true/false/none in both spellings
//   operators   + - * / // % ~ == != < <= > >= in, not in, and, or, not, x if c else y, slices
//   loop        index index0 revindex revindex0 first last length previtem nextitem
//   tests       boolean defined divisibleby eq equalto even false float in integer iterable mapping
//               ne none number odd sequence string true undefined
//   filters     capitalize count d default first int items join last length list lower map reject
//               rejectattr replace reverse select selectattr string title tojson trim upper
//   methods     of str: capitalize count endswith find join lower lstrip removeprefix removesuffix
//               replace rsplit rstrip split startswith strip title upper;
//               of dict: get items keys values
//   functions   raise_exception range namespace strftime_now
//   variables   messages add_generation_prompt bos_token eos_token; tools and documents are none
//
// Where a template could tell the difference, what is left out is refused by name: case mapping of
// non-ASCII text, integers beyond 64 bits, printing of views and iterators, using an iterator
// twice. One difference is not detected: the filter of a for runs before the loop's first round.

namespace asymserve {
namespace {

constexpr size_t kMaxSourceBytes = 256 * 1024;

absl::Status CheckUtf8(std::string_view what, std::string_view text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(what), " is not valid UTF-8 at byte ", valid));
}

absl::StatusOr<jinja::Value> MessagesValue(std::span<const ChatMessage> messages) {
  std::vector<jinja::Value> items;
  items.reserve(messages.size());
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string where = absl::StrCat("messages[", i, "]");
    ASYMSERVE_RETURN_IF_ERROR(CheckUtf8(where + ".role", messages[i].role));
    ASYMSERVE_RETURN_IF_ERROR(CheckUtf8(where + ".content", messages[i].content));
    jinja::Dict dict;
    dict.Set("role", jinja::Value::MakeString(messages[i].role));
    dict.Set("content", jinja::Value::MakeString(messages[i].content));
    ASYMSERVE_ASSIGN_OR_RETURN(jinja::Value message, jinja::Value::MakeDict(std::move(dict)));
    items.push_back(std::move(message));
  }
  return jinja::Value::MakeSequence(jinja::SequenceKind::kList, std::move(items));
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view source) {
  constexpr std::string_view kWhat = "chat template";
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("chat template: ", source.size(), " bytes, more than ", kMaxSourceBytes));
  }
  ASYMSERVE_RETURN_IF_ERROR(CheckUtf8(kWhat, source));
  absl::StatusOr<jinja::Block> block = jinja::Parse(source);
  if (!block.ok()) return Annotate(block.status(), kWhat);
  return ChatTemplate(std::make_unique<const Program>(Program{*std::move(block)}));
}

absl::StatusOr<std::string> ChatTemplate::Render(std::span<const ChatMessage> messages,
                                                 const ChatTemplateOptions& options) const {
  ASYMSERVE_RETURN_IF_ERROR(CheckUtf8("bos_token", options.bos_token));
  ASYMSERVE_RETURN_IF_ERROR(CheckUtf8("eos_token", options.eos_token));
  ASYMSERVE_ASSIGN_OR_RETURN(jinja::Value list, MessagesValue(messages));
  jinja::Interpreter interpreter(jinja::Limits(), options.local_time);
  interpreter.Define("messages", std::move(list));
  interpreter.Define("add_generation_prompt",
                     jinja::Value::MakeBool(options.add_generation_prompt));
  interpreter.Define("bos_token", jinja::Value::MakeString(options.bos_token));
  interpreter.Define("eos_token", jinja::Value::MakeString(options.eos_token));
  interpreter.Define("tools", jinja::Value::MakeNone());
  interpreter.Define("documents", jinja::Value::MakeNone());
  absl::StatusOr<std::string> text = interpreter.Render(program_->block);
  if (!text.ok()) return Annotate(text.status(), "chat template");
  return text;
}

}  // namespace asymserve
