// Input: the template's source, then role and content of each message, separated by NUL bytes.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/base/check.h"
#include "engine/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using asymserve::ChatMessage;
  using asymserve::ChatTemplate;
  std::vector<std::string_view> fields;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  for (;;) {
    const size_t end = rest.find('\0');
    fields.push_back(rest.substr(0, end));
    if (end == rest.npos) break;
    rest.remove_prefix(end + 1);
  }
  const auto parsed = ChatTemplate::Parse(fields[0]);
  if (!parsed.ok()) {
    ASYMSERVE_CHECK(parsed.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  std::vector<ChatMessage> messages;
  for (size_t i = 1; i + 1 < fields.size(); i += 2) {
    messages.push_back({std::string(fields[i]), std::string(fields[i + 1])});
  }
  asymserve::ChatTemplateOptions options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.local_time.emplace();
  const auto first = parsed->Render(messages, options);
  const auto second = parsed->Render(messages, options);
  ASYMSERVE_CHECK(first.ok() == second.ok());
  if (first.ok()) {
    ASYMSERVE_CHECK(*first == *second);
  } else {
    ASYMSERVE_CHECK(first.status().code() == absl::StatusCode::kInvalidArgument);
  }
  return 0;
}
