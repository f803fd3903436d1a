#include "config/yaml_text.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "config/config.h"
#include "config/option.h"
#include "config/yaml_entries.h"

namespace asymserve {
namespace {

/// Values of the option, of which one at least is not its default.
template <typename T>
std::vector<T> Values(const Option& option) {
  if constexpr (std::is_same_v<T, bool>) {
    return {true, false};
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!option.choices.empty()) return {option.choices.begin(), option.choices.end()};
    switch (option.format) {
      case Option::Format::kFree:
        return {"", "a", "~", "null", "true", "off", "1e3", " a ", "- a", "a: b", "#a", "'\"\\"};
      case Option::Format::kAddress:
        return {"0.0.0.0:0", "[::1]:80", "host:65535"};
      case Option::Format::kOptionalAddress:
        return {"", "[::]:1"};
      case Option::Format::kTenants:
        return {"", "a=1", "a:b\"'=2,#=3"};
    }
    return {};
  } else {
    const auto min = static_cast<T>(option.min), max = static_cast<T>(option.max);
    std::vector<T> values = {min, static_cast<T>(min + 1), max, static_cast<T>(max - 1)};
    if constexpr (std::is_same_v<T, double>) {
      for (const double value : {max / 3, 0.1 + 0.2, 1e-300, 5e-324}) values.push_back(value);
    }
    return values;
  }
}

TEST(WriteYamlTest, EveryOptionIsReadBackAsItWas) {
  for (const Option& option : Options()) {
    bool changed = false;
    const auto check = [&](const Config& config) {
      ASSERT_TRUE(CheckValue(config, option).ok()) << option.key;
      const std::string text = WriteYaml(config);
      const auto read = ParseConfig(text, "f.yaml");
      ASSERT_TRUE(read.ok()) << read.status() << "\n" << text;
      EXPECT_EQ(*read, config) << option.key << "\n" << text;
      changed = changed || config != Config();
    };
    std::visit(
        [&](auto member) {
          Config config;
          auto& target = member(config);
          for (const auto& value : Values<std::remove_reference_t<decltype(target)>>(option)) {
            target = value;
            check(config);
          }
        },
        option.member);
    EXPECT_TRUE(changed) << option.key;
  }
}

TEST(WriteYamlTest, TextIsReadBackByteForByte) {
  std::vector<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string one(1, static_cast<char>(byte));
    texts.insert(texts.end(), {one, "a" + one + "z", one + one, " " + one + "\n"});
  }
  for (const char* text : {"\xEF\xBB\xBF", "\xC2\x85", "\xE2\x80\xA8", "\xF0\x9F\x90\x99",
                           "\xE2\x80", "\xFE\xFF", "\xFF\xFE"}) {
    texts.insert(texts.end(), {text, std::string("a") + text + "z"});
  }
  for (const std::string& text : texts) {
    Config config;
    config.model.name = text;
    const std::string yaml = WriteYaml(config);
    for (const char c : yaml) {  // which YAML does not allow
      const auto byte = static_cast<unsigned char>(c);
      ASSERT_FALSE((byte < 0x20 && c != '\n') || byte == 0x7F) << Quoted(text);
    }
    const auto read = ParseConfig(yaml, "f.yaml");
    ASSERT_TRUE(read.ok()) << read.status() << " " << Quoted(text);
    EXPECT_EQ(read->model.name, text) << Quoted(text) << " became " << Quoted(read->model.name);
  }
}

TEST(WriteYamlTest, HasEveryOptionOnce) {
  const auto entries = ReadYamlEntries(WriteYaml(Config()), "f.yaml");
  ASSERT_TRUE(entries.ok()) << entries.status();
  std::multiset<std::string> written, known;
  for (const YamlEntry& entry : *entries) {
    if (entry.kind != YamlEntry::Kind::kMap) written.insert(entry.key);
  }
  for (const Option& option : Options()) known.emplace(option.key);
  EXPECT_EQ(written, known);
}

}  // namespace
}  // namespace asymserve
