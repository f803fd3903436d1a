#include "engine/text/chat_template.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace asymserve {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const std::filesystem::path kGolden = std::filesystem::path(ASYMSERVE_SOURCE_DIR) / "tests/golden";

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

std::vector<ChatMessage> Messages(const json& list) {
  std::vector<ChatMessage> messages;
  for (const json& item : list) {
    messages.push_back({item["role"].get<std::string>(), item["content"].get<std::string>()});
  }
  return messages;
}

// The moment at which the goldens were rendered: Saturday, 7 March 2026, 09:05:03.
std::tm GoldenTime() {
  std::tm time{};
  time.tm_year = 126;
  time.tm_mon = 2;
  time.tm_mday = 7;
  time.tm_hour = 9;
  time.tm_min = 5;
  time.tm_sec = 3;
  time.tm_wday = 6;
  time.tm_yday = 65;
  return time;
}

absl::StatusOr<std::string> Render(std::string_view source,
                                   const std::vector<ChatMessage>& messages = {},
                                   const ChatTemplateOptions& options = {}) {
  absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(messages, options);
}

// The message of the error that the source ends in.
std::string ErrorOf(std::string_view source) {
  const auto text = Render(source);
  if (text.ok()) return "no error: " + *text;
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(text.status().message());
}

// What jinja2 did: printed a text, raised the template's own exception, or failed.
void ExpectAsJinja(const absl::StatusOr<std::string>& got, const json& expected) {
  if (expected.contains("text")) {
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(*got, expected["text"].get<std::string>());
    return;
  }
  ASSERT_FALSE(got.ok()) << "jinja2 fails, this gives: " << *got;
  EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument);
  if (expected.contains("raised")) {
    EXPECT_EQ(std::string(got.status().message()),
              "chat template: " + expected["raised"].get<std::string>());
  }
}

std::vector<std::string> Families() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden / "chat_templates")) {
    if (entry.path().extension() == ".jinja") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class ChatTemplateFamilyTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ChatTemplateFamilyTest, RendersEveryConversationAsJinja2Does) {
  const auto path = kGolden / "chat_templates" / GetParam();
  const auto parsed = ChatTemplate::Parse(ReadFile(path.string() + ".jinja"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const json golden = json::parse(ReadFile(path.string() + ".json"));
  ASSERT_GE(golden["cases"].size(), 32u);
  for (const json& item : golden["cases"]) {
    SCOPED_TRACE(item["name"].get<std::string>());
    ChatTemplateOptions options;
    options.bos_token = golden["bos_token"].get<std::string>();
    options.eos_token = golden["eos_token"].get<std::string>();
    options.add_generation_prompt = item["add_generation_prompt"].get<bool>();
    if (item["clock"].get<bool>()) options.local_time = GoldenTime();
    ExpectAsJinja(parsed->Render(Messages(item["messages"]), options), item);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, ChatTemplateFamilyTest, ::testing::ValuesIn(Families()),
                         [](const auto& family) { return family.param; });

TEST(ChatTemplateTest, EveryConstructOfTheSubsetGivesWhatJinja2Gives) {
  const json golden = json::parse(ReadFile(kGolden / "chat_snippets.json"));
  ASSERT_GE(golden["cases"].size(), 200u);
  ChatTemplateOptions options;
  options.bos_token = golden["bos_token"].get<std::string>();
  options.eos_token = golden["eos_token"].get<std::string>();
  options.local_time = GoldenTime();
  for (const json& item : golden["cases"]) {
    const std::string source = item["source"].get<std::string>();
    SCOPED_TRACE(source);
    ExpectAsJinja(Render(source, Messages(golden["messages"]), options), item);
  }
}

TEST(ChatTemplateTest, RefusesWhatTheSubsetLacksWithItsNameAndLine) {
  const struct {
    std::string source, message;
  } kCases[] = {
      {"a\nb {{ 1 ** 2 }}", "line 2: the operator ** is not supported"},
      {"\n\n{{ x | xmlattr }}", "line 3: the filter 'xmlattr' is not supported"},
      {"{{ x is callable }}", "line 1: the test 'callable' is not supported"},
      {"{{ x.format(1) }}", "line 1: the method 'format' is not supported"},
      {"{{ cycler(1, 2) }}", "line 1: the function 'cycler' is not supported"},
      {"{{ messages[0]['f']() }}", "line 1: calling anything but a named function"},
      {"{% include 'x' %}", "line 1: the statement 'include' is not supported"},
      {"{% raw %}{{ x }}{% endraw %}", "line 1: the statement 'raw' is not supported"},
      {"{% for x in y recursive %}{% endfor %}", "line 1: a recursive for is not supported"},
      {"{% if x %}\n{% macro m() %}{% endmacro %}{% endif %}", "line 2: a macro inside another"},
      {"{% set x | trim %}a{% endset %}", "line 1: a set block with filters is not supported"},
      {"{{ namespace(*x) }}", "line 1: unpacking arguments with * is not supported"},
      {"{{ 0x10 }}", "line 1: numbers other than decimal ones are not supported"},
      {"{{ 9223372036854775808 }}", "line 1: the number 9223372036854775808 does not fit"},
      {"{{ '\\N{BULLET}' }}", "line 1: the string escape \\N is not supported"},
      {"{{ '\\ud800' }}", "line 1: a string has an escape that is no character"},
      {"{{ x.__class__ }}", "line 1: the attribute '__class__' is not supported"},
      {"{{ x[1, 2] }}", "line 1: a subscript of several parts is not supported"},
      {"\n{{ '%s' % 1 }}", "line 2: formatting a string with % is not supported"},
      {"{{ 'é'.upper() }}", "line 1: changing the case of non-ASCII text is not supported"},
      {"{{ ['é'] }}", "line 1: printing a list or dict with non-ASCII strings"},
      {"{{ range(3) }}", "line 1: printing a value of type view is not supported"},
      {"{{ 'a'.strip }}", "line 1: using the method 'strip' of a str without calling it"},
      {"{{ 9223372036854775807 + 1 }}", "line 1: a number does not fit in 64 bits"},
      {"{{ {1: 2} }}", "line 1: a dict key of type int is not supported"},
      {"{% set i = [1]|reverse %}{{ i|list }}\n{{ i|list }}", "line 2: using an iterator twice"},
      {"{{ 1|tojson(sort_keys=true) }}", "line 1: tojson with ensure_ascii, separators or"},
      {"{{ 1|int(base=2) }}", "line 1: the argument 'base' of int() is not supported"},
      {"{{ strftime_now('%d') }}", "line 1: 'strftime_now' is undefined"},
  };
  for (const auto& [source, message] : kCases) {
    EXPECT_THAT(ErrorOf(source), HasSubstr("chat template: " + message)) << source;
  }
}

TEST(ChatTemplateTest, NamesTheClockConversionItLacks) {
  ChatTemplateOptions options;
  options.local_time = GoldenTime();
  const auto text = Render("{{ strftime_now('%Q') }}", {}, options);
  ASSERT_FALSE(text.ok());
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("strftime_now('%Q')"));
}

TEST(ChatTemplateTest, NamesTheLineOfAnErrorInsideALoopOfSeveralLines) {
  EXPECT_EQ(ErrorOf("{% for i in [1, 0] %}\n  {{ 1 / i }}\n{% endfor %}"),
            "chat template: line 2: division by zero");
}

TEST(ChatTemplateTest, RefusesMessagesThatAreNotUtf8) {
  const auto text = Render("{{ messages[0].content }}", {{"user", "ab\xFF"}});
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(std::string(text.status().message()),
            "messages[0].content is not valid UTF-8 at byte 2");
  EXPECT_FALSE(ChatTemplate::Parse("\xC3(").ok());
}

TEST(ChatTemplateTest, RefusesATemplateOfMoreThan256KiB) {
  EXPECT_TRUE(ChatTemplate::Parse(std::string(256 * 1024, 'x')).ok());
  EXPECT_FALSE(ChatTemplate::Parse(std::string(256 * 1024 + 1, 'x')).ok());
}

TEST(ChatTemplateTest, DoesNotReadTagsInMessages) {
  const auto text = Render("{{ messages[0].content }}", {{"user", "{{ 1 / 0 }}{% if %}"}});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "{{ 1 / 0 }}{% if %}");
}

TEST(ChatTemplateTest, BoundsEveryTemplateThatWouldRunOrGrowForEver) {
  std::string nested;
  for (int i = 0; i < 20; ++i) nested += "{% for i in range(100000) %}";
  for (int i = 0; i < 20; ++i) nested += "{% endfor %}";
  // Lists of the loops around them: how deep those are must not be counted again and again.
  std::string loops = "{% for a in [1] %}";
  for (int i = 0; i < 25; ++i) loops += "{% for a in [loop, loop, loop, loop] %}";
  for (int i = 0; i < 26; ++i) loops += "{% endfor %}";
  std::string variables = "{% set z = 1 %}";
  for (int i = 0; i < 5'000; ++i) absl::StrAppend(&variables, "{% set v", i, " = z %}");
  variables += "{% for i in range(90000) %}{{ z }}{{ v4999 }}{% endfor %}";
  const std::pair<std::string, std::string> kCases[] = {
      {nested, "more than"},
      {loops, "steps"},
      {variables, "steps"},
      {"{{ 'x' * 9223372036854775807 }}", "bytes"},
      {"{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
       "{% endfor %}",
       "bytes"},
      {"{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
       "{% set ns.x = ns.x.replace('', ns.x) %}{% endfor %}",
       "bytes"},
      {"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
       "{% endfor %}",
       "bytes"},
      {"{% set ns = namespace(x=1) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}"
       "{% endfor %}",
       "nest deeper"},
      {"{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
       "{% endfor %}{{ ns.x|tojson|length }}",
       "steps"},
      {"{% set ns = namespace(x=1, y=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
       "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
       "steps"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nests more than 400 evaluations"},
      {"{% set a = 'a' * 1000000 %}{% for i in range(100000) %}{{ (a + 'b') in a }}{% endfor %}",
       "more than"},
      {"{% set a = 'ab' * 500000 %}{{ a.strip('ba' * 500000) }}", "steps"},
      {"{% set a = 'a' * 1000000 %}{{ a.rsplit('b' + a[:500000]) }}", "steps"},
  };
  for (const auto& [source, limit] : kCases) {
    EXPECT_THAT(ErrorOf(source), HasSubstr(limit)) << source.substr(0, 100);
  }
}

TEST(ChatTemplateTest, BoundsTheDepthOfWhatItParses) {
  const auto repeat = [](const std::string& text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
  };
  const std::string kSources[] = {
      "{{ " + repeat("(", 20000) + "1" + repeat(")", 20000) + " }}",
      "{{ " + repeat("[", 20000) + repeat("]", 20000) + " }}",
      "{{ " + repeat("not ", 20000) + "1 }}",
      "{{ " + repeat("-", 20000) + "1 }}",
      "{{ 1" + repeat("+1", 20000) + " }}",
      "{{ x" + repeat(".a", 20000) + " }}",
      "{{ x" + repeat("|trim", 20000) + " }}",
      "{{ " + repeat("1 if 1 else ", 9000) + "1 }}",
      repeat("{% if 1 %}", 9000) + repeat("{% endif %}", 9000),
      repeat("{% for i in x %}", 9000) + repeat("{% endfor %}", 9000),
  };
  for (const std::string& source : kSources) {
    EXPECT_THAT(ErrorOf(source), ::testing::AnyOf(HasSubstr("nest"), HasSubstr("too many")))
        << source.substr(0, 40);
  }
}

TEST(ChatTemplateTest, FreesANamespaceThatHoldsItself) {
  // The leak checker of the sanitizer build sees it when it is not.
  const auto text = Render(
      "{% set ns = namespace() %}{% set ns.self = [ns] %}{% for i in [1] %}"
      "{% set ns.loop = loop %}{% endfor %}{{ ns.loop.index }}{{ ns.self[0] == ns }}");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "1True");
}

TEST(ChatTemplateTest, CanBeMovedAndRenderedAgain) {
  auto first = ChatTemplate::Parse("{{ messages[0].role }}");
  ASSERT_TRUE(first.ok());
  const ChatTemplate second = *std::move(first);
  for (const std::string role : {"user", "tool"}) {
    const auto text = second.Render(std::vector<ChatMessage>{{role, ""}}, {});
    ASSERT_TRUE(text.ok());
    EXPECT_EQ(*text, role);
  }
}

}  // namespace
}  // namespace asymserve
